"""What object stores are asked: the objects below a prefix, the state of one, its bytes or some of them.

S3 and web servers are asked in ways of their own, each with one request where fsspec's general calls take two; any
other store goes through those. Functions here are called from any thread, try again what may pass, and raise
`CloudError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ImageError
from xcli.core.records import FileState
from xcli.storage.urls import ATTEMPTS, CloudError, attempt, open_place, scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 1000
"""Objects that are asked for at a time, which is as many as S3 gives."""

_CHUNK = 1 << 20


class Found(NamedTuple):
    """An object of a listing: its name relative to what is listed, and its state."""

    name: str
    stamp: FileState | None


class Content(NamedTuple):
    """Bytes of an object, and the state in which it was when they were read (None where the store does not say).

    Attributes:
        whole: whether the object was given whole, though a part of it was asked for.
    """

    data: bytes
    stamp: FileState | None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A part of an object: `count` bytes, at least 1, from `start` on."""

    start: int
    count: int

    @property
    def header(self) -> str:
        """As in a request."""
        return f"bytes={self.start}-{self.start + self.count - 1}"


def make_stamp(size: int | None, modified: datetime | str | float | None, tag: str | None) -> FileState | None:
    """The state of an object, the same whether a listing, a HEAD or a GET tells it.

    Listings give times to the millisecond, headers to the second. So the stamp's time is whole seconds, and in the
    place of their fraction there are 30 bits of the ETag, which tells two objects of one second apart.

    Args:
        size: in bytes.
        modified: when it was made: a time, seconds since 1970, or text as in HTTP or ISO 8601.
        tag: its ETag.

    Returns:
        The stamp; None where a size, or both time and tag, are unknown.
    """
    if isinstance(modified, str):
        modified = _time(modified)
    tag = (tag or "").removeprefix("W/").strip('"')
    if size is None or (modified is None and not tag):
        return None
    if isinstance(modified, datetime):
        # A time without a zone is meant as UTC by every store.
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
    seconds = int(modified or 0)
    digest = int.from_bytes(blake2b(tag.encode(), digest_size=4).digest(), "big") % 10**9 if tag else 0
    return FileState(size, seconds * 10**9 + digest)


def _time(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return parse(text)
        except (ValueError, TypeError):
            continue
    return None


def pages(url: str, head: str = "", attempts: int = ATTEMPTS) -> Iterator[list[Found]]:
    """Lists what lies below a prefix, some at a time: of S3 in bounded memory, of others a directory at a time.

    Args:
        url: the prefix, with a slash at the end.
        head: what the rest of the name must begin with (a hint: others may be among them).
        attempts: how often to try the first request.

    Yields:
        Objects: of S3 in the order of the store, that of the bytes of their keys; of others directory by directory.

    Raises:
        CloudError: the store cannot be asked.
        UsageError: packages are missing.
    """
    return _store(url).pages(head, attempts)


def look(url: str, attempts: int = ATTEMPTS) -> FileState | None:
    """The state of an object, without its bytes; None where the store does not say.

    Raises:
        CloudError: it is not there, or cannot be asked for.
        UsageError: packages are missing.
    """
    store = _store(url)
    return attempt(store.look, url, attempts=attempts)


def get(url: str, limit: int, span: Span | None = None) -> Content:
    """Reads an object, or a part of it.

    Args:
        url: the object.
        limit: a larger answer is refused, unread.
        span: the part.

    Raises:
        CloudError: it is not there, or cannot be read.
        ImageError: `too-large`.
        UsageError: packages are missing.
    """
    store = _store(url)
    return attempt(lambda: store.get(limit, span), url)


def too_large(size: int, limit: int) -> ImageError:
    """The error of an object of `size` bytes."""
    return ImageError("too-large", f"an object of {size:,} bytes; the limit is {limit:,}")


def _store(url: str) -> _Store:
    kinds = {"s3": _S3, "http": _Web}
    return kinds.get(scheme_of(url), _Other)(url)


class _Store(ABC):
    """One URL, and how it is asked about; errors are fsspec's own."""

    def __init__(self, url: str) -> None:
        place = open_place(url)
        self.url, self.fs, self.path = url, place.fs, place.path

    @abstractmethod
    def pages(self, head: str, attempts: int) -> Iterator[list[Found]]:
        """See the function; errors are explained, and requests tried again, page by page."""

    @abstractmethod
    def look(self) -> FileState | None:
        """See the function."""

    @abstractmethod
    def get(self, limit: int, span: Span | None) -> Content:
        """See the function."""

    def wait_for(self, function: Any) -> Any:
        """Runs a coroutine function in fsspec's thread for them."""
        from fsspec.asyn import sync

        return sync(self.fs.loop, function)


class _S3(_Store):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        # Keys are taken as they are: s3fs strips slashes at their ends and what looks like a version.
        path = url.partition("://")[2]
        if path.startswith("arn:"):
            self.bucket, self.key, _ = self.fs.split_path(path)
        else:
            self.bucket, _, self.key = path.partition("/")

    def pages(self, head: str, attempts: int) -> Iterator[list[Found]]:
        more: dict[str, str] = {}
        while True:
            answer = attempt(partial(self._page, head, more), self.url, attempts=attempts)
            attempts = ATTEMPTS
            yield [
                Found(
                    item["Key"][len(self.key) :],
                    make_stamp(item.get("Size"), item.get("LastModified"), item.get("ETag")),
                )
                for item in answer.get("Contents", ())
            ]
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def _page(self, head: str, more: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = self.fs.call_s3(
            "list_objects_v2", Bucket=self.bucket, Prefix=self.key + head, MaxKeys=PAGE, **more
        )
        return answer

    def look(self) -> FileState | None:
        answer = self.fs.call_s3("head_object", Bucket=self.bucket, Key=self.key)
        return make_stamp(answer.get("ContentLength"), answer.get("LastModified"), answer.get("ETag"))

    def get(self, limit: int, span: Span | None) -> Content:
        asked = {"Range": span.header} if span else {}

        async def read() -> Content:
            answer = await self.fs._call_s3("get_object", Bucket=self.bucket, Key=self.key, **asked)
            body = answer["Body"]
            try:
                size = answer["ContentLength"]
                if size > limit:
                    raise too_large(size, limit)
                data = await body.read()
            finally:
                body.close()
            total = _total(answer.get("ContentRange"), size)
            stamp = make_stamp(total, answer.get("LastModified"), answer.get("ETag"))
            return Content(data, stamp, span is not None and "ContentRange" not in answer)

        content: Content = self.wait_for(read)
        return content


class _Web(_Store):
    def pages(self, head: str, attempts: int) -> Iterator[list[Found]]:
        raise CloudError("unreadable", "web servers have no listing; name the files one by one, or in a list")

    def look(self) -> FileState | None:
        async def ask() -> FileState | None:
            session = await self.fs.set_session()
            async with session.head(self._address(), allow_redirects=True, **self._options({})) as answer:
                self._check(answer)
                return self._stamp(answer, answer.content_length)

        stamp: FileState | None = self.wait_for(ask)
        return stamp

    def get(self, limit: int, span: Span | None) -> Content:
        async def read() -> Content:
            session = await self.fs.set_session()
            options = self._options({"Range": span.header} if span else {})
            async with session.get(self._address(), **options) as answer:
                self._check(answer)
                whole = span is not None and answer.status != 206
                announced = answer.content_length
                if announced is not None and announced > limit:
                    raise too_large(announced, limit)
                parts, size = [], 0
                async for part in answer.content.iter_chunked(_CHUNK):
                    parts.append(part)
                    size += len(part)
                    if size > limit:
                        raise too_large(size, limit)
                total = _total(answer.headers.get("Content-Range"), announced)
                return Content(b"".join(parts), self._stamp(answer, total), whole)

        content: Content = self.wait_for(read)
        return content

    def _options(self, headers: dict[str, str]) -> dict[str, Any]:
        given = dict(self.fs.kwargs)
        # Packed on the way, an object's length is not what the server announces.
        return {**given, "headers": {**(given.get("headers") or {}), "Accept-Encoding": "identity", **headers}}

    def _address(self) -> Any:
        try:
            return self.fs.encode_url(self.url)
        except ValueError as error:
            raise FileNotFoundError(self.url) from error

    def _check(self, answer: Any) -> None:
        if answer.status in (404, 410):
            raise FileNotFoundError(self.url)
        answer.raise_for_status()

    def _stamp(self, answer: Any, size: int | None) -> FileState | None:
        return make_stamp(size, answer.headers.get("Last-Modified"), answer.headers.get("ETag"))


class _Other(_Store):
    def pages(self, head: str, attempts: int) -> Iterator[list[Found]]:
        top = self.path.rstrip("/")
        levels = [self._entries(top, attempts)]
        while levels:
            page: list[Found] = []
            for entry in levels[-1]:
                if entry["type"] == "directory":
                    levels.append(self._entries(entry["name"].rstrip("/"), ATTEMPTS))
                    break
                page.append(Found(entry["name"].strip("/")[len(top.strip("/")) + 1 :], _stamp_of(entry)))
            else:
                levels.pop()
            yield page

    def _entries(self, path: str, attempts: int) -> Iterator[dict[str, Any]]:
        entries = attempt(lambda: self.fs.ls(path, detail=True), self.url, attempts=attempts)
        # A store may list the placeholder of a directory in the directory itself.
        entries = [entry for entry in entries if entry["name"].strip("/") != path.strip("/")]
        return iter(sorted(entries, key=lambda entry: entry["name"].rstrip("/").encode("utf-8", "surrogateescape")))

    def look(self) -> FileState | None:
        info = self.fs.info(self.path)
        if info.get("type") == "directory":
            raise FileNotFoundError(self.url)
        return _stamp_of(info)

    def get(self, limit: int, span: Span | None) -> Content:
        info = self.fs.info(self.path)
        size = info.get("size")
        if span is not None:
            return Content(self.fs.cat_file(self.path, span.start, span.start + span.count), _stamp_of(info))
        if size is None or size > limit:
            raise too_large(size or 0, limit)
        return Content(self.fs.cat_file(self.path), _stamp_of(info))


def _stamp_of(info: dict[str, Any]) -> FileState | None:
    modified = next((info[name] for name in ("mtime", "updated", "LastModified", "created") if info.get(name)), None)
    return make_stamp(info.get("size"), modified, info.get("etag") or info.get("ETag"))


def _total(header: str | None, size: int | None) -> int | None:
    """Bytes of the whole object, from `bytes 0-99/1234`, or `size` where there is no such header."""
    total = (header or "").rpartition("/")[2]
    return int(total) if total.isdigit() else size
