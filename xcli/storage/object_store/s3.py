"""Amazon S3 and compatible stores, with one request where fsspec's general calls make two."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError
from xcli.core.levels import DETAIL
from xcli.core.text import one_line
from xcli.storage.object_store.base import ObjectStore
from xcli.storage.object_store.errors import ATTEMPTS, retry
from xcli.storage.object_store.state import ByteRange, Content, ListedObject, object_state, too_large, total_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xcli.core.records import FileState
    from xcli.storage.urls import StoreUrl

log = logging.getLogger("xcli")

PAGE = 1000  # keys that one request lists or removes: the most that S3 allows


class S3Store(ObjectStore):
    """An object or prefix of S3."""

    def __init__(self, location: StoreUrl) -> None:
        super().__init__(location)
        # s3fs would strip slashes at the end of a key and text that looks like a version.
        path = self.url.partition("://")[2]
        if path.startswith("arn:"):
            self.bucket, self.key, _ = self.fs.split_path(path)
        else:
            self.bucket, _, self.key = path.partition("/")

    # Reading

    def pages(self, prefix: str = "", attempts: int = ATTEMPTS) -> Iterator[list[ListedObject]]:
        for page in self._pages(self.key + prefix, attempts):
            yield [
                ListedObject(
                    item["Key"][len(self.key) :],
                    object_state(item.get("Size"), item.get("LastModified"), item.get("ETag")),
                )
                for item in page.get("Contents", ())
            ]

    def _pages(self, prefix: str, attempts: int = ATTEMPTS, **options: Any) -> Iterator[dict[str, Any]]:
        """Requests the pages of a listing; `attempts` is for the first one."""
        while True:
            page = retry(partial(self._page, prefix, **options), self.url, attempts=attempts)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]
            attempts = ATTEMPTS

    def _page(self, prefix: str, **options: Any) -> dict[str, Any]:
        page: dict[str, Any] = self.fs.call_s3(
            "list_objects_v2", Bucket=self.bucket, Prefix=prefix, **{"MaxKeys": PAGE, **options}
        )
        return page

    def _state(self) -> FileState | None:
        answer = self.fs.call_s3("head_object", Bucket=self.bucket, Key=self.key)
        return object_state(answer.get("ContentLength"), answer.get("LastModified"), answer.get("ETag"))

    def _get(self, limit: int, part: ByteRange | None) -> Content:
        options = {"Range": part.header} if part else {}

        async def read() -> Content:
            answer = await self.fs._call_s3("get_object", Bucket=self.bucket, Key=self.key, **options)
            body = answer["Body"]
            try:
                size = answer["ContentLength"]
                if size > limit:
                    raise too_large(size, limit)
                data = await body.read()
            finally:
                body.close()
            total = total_size(answer.get("ContentRange"), size)
            state = object_state(total, answer.get("LastModified"), answer.get("ETag"))
            return Content(data, state, part is not None and "ContentRange" not in answer)

        return self._run(read)

    # Writing

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self.key.rstrip("/"), name)))

    @property
    def _prefix(self) -> str:
        key = self._key("")
        return f"{key}/" if key else ""

    def names(self) -> list[str]:
        keys: list[str] = []
        with self._output_errors("list"):
            for page in self._pages(self._prefix, Delimiter="/"):
                keys += [item["Key"] for item in page.get("Contents", ())]
                keys += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
        return sorted(filter(None, (key.removeprefix(self._prefix).rstrip("/") for key in keys)))

    def has_below(self) -> bool:
        page = self._call("list", "", lambda: self._page(self._prefix, MaxKeys=1))
        return bool(page.get("Contents"))

    def exists(self) -> bool:
        # Unlike HEAD, a listing tells a missing bucket from a missing key.
        page = self._call("look at", "", lambda: self._page(self._key(""), MaxKeys=1))
        return [item["Key"] for item in page.get("Contents", ())] == [self._key("")]

    def unlink(self, *names: str) -> None:
        if len(names) == 1:
            super().unlink(*names)
            return
        for start in range(0, len(names), PAGE):
            self._call("remove", names[start], partial(self._delete, names[start : start + PAGE]))

    def _delete(self, names: Sequence[str]) -> None:
        keys = [{"Key": self._key(name)} for name in names]
        answer = self.fs.call_s3("delete_objects", Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
        for error in answer.get("Errors", ()):
            kind = PermissionError if error.get("Code") == "AccessDenied" else OSError
            raise kind(f"{error.get('Code')}: {error.get('Message')}")

    def abort_uploads(self, name: str | None = None) -> None:
        prefix = self._prefix if name is None else self._key(name)

        def call() -> None:
            answer = self.fs.call_s3("list_multipart_uploads", Bucket=self.bucket, Prefix=prefix)
            for one in answer.get("Uploads", ()):
                if name is None or one["Key"] == prefix:
                    log.log(DETAIL, "%s: dropping an upload that was not finished", one_line(one["Key"]))
                    self.fs.call_s3(
                        "abort_multipart_upload", Bucket=self.bucket, Key=one["Key"], UploadId=one["UploadId"]
                    )

        try:
            self._call("clear", name or "", call)
        except OutputError as error:
            log.log(DETAIL, "%s", error)
