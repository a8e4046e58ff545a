"""Object stores as places to write to: the few requests that outputs need, and objects that appear whole.

An upload shows nothing before its end, so that whoever sees an object sees all of it. Every failure is an OutputError
that names the URL and says what to do; what may pass is tried again (`xcli.storage.urls`).
"""

from __future__ import annotations

import contextlib
import filecmp
import inspect
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.storage.urls import CloudError, attempt, open_place, scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger("xcli")

Value = TypeVar("Value")

_PAGE = 1000
"""Keys that a request lists or removes: as many as S3 allows."""


class WritableStore:
    """The objects below a URL, and the one that it names.

    Methods take the name of an object below the URL; the empty name is that of the URL itself.

    Args:
        url: with or without a slash at the end.

    Raises:
        UsageError: at construction, when nothing can be written there, or the packages for it are not installed.
        OutputError: from every method, when the store refuses or cannot be reached.
    """

    def __init__(self, url: str) -> None:
        if scheme_of(url) == "http":
            raise UsageError(f"{url!r} cannot be written: web servers take no files; give s3://BUCKET/... or a file")
        place = open_place(url)
        self.url = url.rstrip("/")
        self._fs = place.fs
        self._path = place.path.rstrip("/")
        self._bucket, _, self._key = self._path.partition("/")
        self._is_s3 = scheme_of(url) == "s3"

    def _full(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    @property
    def _prefix(self) -> str:
        return f"{self._key}/" if self._key else ""

    def _ask(self, verb: str, name: str, call: Callable[[], Value]) -> Value:
        try:
            return attempt(call, self.url)
        except CloudError as error:
            shown = one_line(f"{self.url}/{name}" if name else self.url)
            raise OutputError(f"cannot {verb} {shown}: {error.message}") from error

    def _listed(self, prefix: str, delimiter: str, limit: int | None) -> list[str]:
        """Keys of S3 with a prefix, in order, each cut behind the delimiter; the first so many of them, or all."""
        options: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "Delimiter": delimiter}
        keys: list[str] = []
        while True:
            page = self._fs.call_s3("list_objects_v2", MaxKeys=limit or _PAGE, **options)
            keys += [one["Key"] for one in page.get("Contents", ())]
            keys += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
            if limit or not page.get("IsTruncated"):
                return keys
            options["ContinuationToken"] = page["NextContinuationToken"]

    def names(self) -> list[str]:
        """Names of the objects below the URL, and of the prefixes there, sorted."""

        def call() -> list[str]:
            if self._is_s3:
                found = [key.removeprefix(self._prefix).rstrip("/") for key in self._listed(self._prefix, "/", None)]
            else:
                self._fs.invalidate_cache(self._path)
                found = []
                with contextlib.suppress(FileNotFoundError):
                    paths = [path.rstrip("/") for path in self._fs.ls(self._path, detail=False)]
                    found = [path[len(self._path) + 1 :] for path in paths if path.startswith(f"{self._path}/")]
            return sorted(filter(None, found))

        return self._ask("list", "", call)

    def has_below(self) -> bool:
        """Whether there are objects below the URL."""
        if not self._is_s3:
            return bool(self.names())
        return self._ask("list", "", lambda: bool(self._listed(self._prefix, "", 1)))

    def exists(self) -> bool:
        """Whether there is an object of that URL."""

        def call() -> bool:
            if self._is_s3:
                # The first of all keys that begin so. Unlike HEAD, a listing tells a missing bucket from a missing key.
                return self._listed(self._key, "", 1) == [self._key]
            self._fs.invalidate_cache(self._path)
            with contextlib.suppress(FileNotFoundError):
                return bool(self._fs.info(self._path)["type"] == "file")
            return False

        return self._ask("look at", "", call)

    def read(self, name: str, last: int | None = None) -> bytes | None:
        """The content of an object, or its last so many bytes; None where it is not there."""

        def call() -> bytes | None:
            with contextlib.suppress(FileNotFoundError):
                return bytes(self._fs.cat_file(self._full(name), start=None if last is None else -last))
            return None

        return self._ask("read", name, call)

    def fetch(self, name: str, local: str) -> bool:
        """Copies an object to a file of this machine; False where it is not there."""

        def call() -> bool:
            try:
                self._fs.get_file(self._full(name), local)
            except FileNotFoundError:
                return False
            return True

        return self._ask("read", name, call)

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, in place of an older one."""
        self._ask("write", name, lambda: self._fs.pipe_file(self._full(name), content))

    def upload(self, local: str, name: str, *, create: bool = False) -> bool:
        """Makes a file of this machine an object, in place of an older one.

        Args:
            local: the file.
            name: of the object.
            create: refuse to replace one, where the store can; the caller has looked whether there is one.

        Returns:
            Whether it is there now; False where another one was, and stays.
        """
        guard = create and "mode" in inspect.signature(self._fs.put_file).parameters
        calls = 0

        def call() -> bool:
            nonlocal guard, calls
            calls += 1
            try:
                self._fs.put_file(local, self._full(name), **({"mode": "create"} if guard else {}))
            except FileExistsError:
                # It may be ours, of a call whose answer got lost.
                return calls > 1 and self._holds(name, local)
            except OSError as error:
                if not (guard and "NotImplemented" in f"{error!r} {error.__cause__!r}"):
                    raise
                guard = False
                return call()
            return True

        return self._ask("write", name, call)

    def _holds(self, name: str, local: str) -> bool:
        """Whether an object has the content of a file."""
        copy = local + ".theirs"
        try:
            self._fs.get_file(self._full(name), copy)
            return filecmp.cmp(copy, local, shallow=False)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(copy)

    def unlink(self, *names: str) -> None:
        """Removes objects that may be there."""

        def remove(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._full(name))

        if self._is_s3 and len(names) > 1:
            for start in range(0, len(names), _PAGE):
                self._ask("remove", names[start], partial(self._delete, names[start : start + _PAGE]))
        else:
            for name in names:
                self._ask("remove", name, partial(remove, name))

    def _delete(self, names: Sequence[str]) -> None:
        """Removes objects of S3 with one request."""
        keys = [{"Key": self._full(name).partition("/")[2]} for name in names]
        found = self._fs.call_s3("delete_objects", Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})
        for error in found.get("Errors", ()):
            kind = PermissionError if error.get("Code") == "AccessDenied" else OSError
            raise kind(f"{error.get('Code')}: {error.get('Message')}")

    def abort_uploads(self, name: str | None = None) -> None:
        """Drops what uploads in pieces have left of an object, or of everything below the URL; they never showed.

        For the caller who knows that no other process writes there. What the store refuses is left to its own rules.
        """
        if not self._is_s3:
            return
        prefix = self._prefix if name is None else self._full(name).partition("/")[2]

        def call() -> None:
            found = self._fs.call_s3("list_multipart_uploads", Bucket=self._bucket, Prefix=prefix).get("Uploads", ())
            for one in found:
                if name is None or one["Key"] == prefix:
                    log.info("%s: dropping an upload that was not finished", one_line(one["Key"]))
                    self._fs.call_s3(
                        "abort_multipart_upload", Bucket=self._bucket, Key=one["Key"], UploadId=one["UploadId"]
                    )

        try:
            self._ask("clear", name or "", call)
        except OutputError as error:
            log.info("%s", error)
