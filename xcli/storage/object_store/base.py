"""The client for any object store, through fsspec; the stores with calls of their own are subclasses."""

from __future__ import annotations

import filecmp
import inspect
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from xcli.core.errors import OutputError
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.object_store.errors import ATTEMPTS, StoreError, retry
from xcli.storage.object_store.state import ByteRange, Content, ListedObject, object_state, too_large

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from xcli.core.records import FileState
    from xcli.storage.urls import StoreUrl

Value = TypeVar("Value")


class ObjectStore:
    """The object that a URL names and the objects below it, through the calls that all file systems of fsspec have.

    Methods may be called from any thread, and repeat requests whose errors are transient. Those for reading raise
    StoreError. Those for writing raise OutputError, which names the URL; they take the name of an object below the
    URL, and the empty name is that of the URL itself.
    """

    def __init__(self, location: StoreUrl) -> None:
        self.url, self.fs, self.path = location.url, location.fs, location.path

    # Reading

    def pages(self, prefix: str = "", attempts: int = ATTEMPTS) -> Iterator[list[ListedObject]]:
        """Lists the objects below the URL, which must end in a slash, in pages.

        S3 gives pages of bounded length in the order of the bytes of the keys; other stores, the objects of one
        directory at a time.

        Args:
            prefix: what the rest of the name begins with; a hint that a store may ignore.
            attempts: how often to try the first request.
        """
        yield from self._walk(self.path, attempts)

    def _walk(self, path: str, attempts: int = ATTEMPTS) -> Iterator[list[ListedObject]]:
        entries = retry(lambda: self.fs.ls(path, detail=True), self.url, attempts=attempts)
        page: list[ListedObject] = []
        for entry in sorted(entries, key=lambda entry: entry["name"].rstrip("/").encode("utf-8", "surrogateescape")):
            if entry["name"].strip("/") == path.strip("/"):
                continue  # a store may list the placeholder of a directory in the directory itself
            if entry["type"] == "directory":
                yield page
                page = []
                yield from self._walk(entry["name"].rstrip("/"))
            else:
                name = entry["name"].strip("/")[len(self.path.strip("/")) + 1 :]
                page.append(ListedObject(name, _state_of(entry)))
        yield page

    def state(self, attempts: int = ATTEMPTS) -> FileState | None:
        """Requests the state of the object without its bytes; None if the store does not report it."""
        return retry(self._state, self.url, attempts=attempts)

    def get(self, limit: int, part: ByteRange | None = None) -> Content:
        """Reads the object, or a part of it; more than `limit` bytes are an ImageError `too-large`."""
        return retry(lambda: self._get(limit, part), self.url)

    def _state(self) -> FileState | None:
        info = self.fs.info(self.path)
        if info.get("type") == "directory":
            raise FileNotFoundError(self.url)
        return _state_of(info)

    def _get(self, limit: int, part: ByteRange | None) -> Content:
        info = self.fs.info(self.path)
        size = info.get("size")
        if part is not None:
            return Content(self.fs.cat_file(self.path, part.start, part.start + part.count), _state_of(info))
        if size is None or size > limit:
            raise too_large(size or 0, limit)
        return Content(self.fs.cat_file(self.path), _state_of(info))

    # Writing

    def _full(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    @contextmanager
    def _output_errors(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            url = self.url.rstrip("/")
            shown = one_line(f"{url}/{name}" if name else url)
            raise OutputError(f"cannot {verb} {shown}: {error.message}") from error

    def _call(self, verb: str, name: str, call: Callable[[], Value]) -> Value:
        with self._output_errors(verb, name):
            return retry(call, self.url)

    def _find(self, verb: str, name: str, call: Callable[[], Value]) -> Value | None:
        """Does what `_call` does, but returns None if the object does not exist."""

        def find() -> Value | None:
            self.fs.invalidate_cache(self.path)
            with suppress(FileNotFoundError):
                return call()
            return None

        return self._call(verb, name, find)

    def names(self) -> list[str]:
        """Returns the names of the objects below the URL, and of the prefixes there, sorted."""
        paths = self._find("list", "", lambda: self.fs.ls(self.path, detail=False)) or []
        names = (path[len(self.path) + 1 :].rstrip("/") for path in paths if path.startswith(f"{self.path}/"))
        return sorted(filter(None, names))

    def has_below(self) -> bool:
        """Says whether there are objects below the URL."""
        return bool(self.names())

    def exists(self) -> bool:
        """Says whether the URL names an object."""
        info = self._find("look at", "", lambda: self.fs.info(self.path))
        return info is not None and bool(info["type"] == "file")

    def read(self, name: str, last: int | None = None) -> bytes | None:
        """Reads an object, or its last `last` bytes; returns None if it does not exist."""
        start = None if last is None else -last
        return self._find("read", name, lambda: bytes(self.fs.cat_file(self._full(name), start=start)))

    def fetch(self, name: str, local: str) -> bool:
        """Copies an object to a local file; returns False if it does not exist."""

        def call() -> bool:
            self.fs.get_file(self._full(name), local)
            return True

        return self._find("read", name, call) is not None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, replacing an older one."""
        self._call("write", name, lambda: self.fs.pipe_file(self._full(name), content))

    def upload(self, local: str, name: str, *, create: bool = False) -> bool:
        """Uploads a local file, replacing an older object. Nobody sees the object before it is complete.

        With `create` it does not replace an object, if the store supports that; the caller has checked that there is
        none. Returns whether the object is there now; False if another one was, which was kept.
        """
        guard = create and "mode" in inspect.signature(self.fs.put_file).parameters
        calls = 0

        def call() -> bool:
            nonlocal guard, calls
            calls += 1
            try:
                self.fs.put_file(local, self._full(name), **({"mode": "create"} if guard else {}))
            except FileExistsError:
                # It may be the object of an earlier call whose answer was lost.
                return calls > 1 and self._has_content(name, local)
            except OSError as error:
                if not (guard and "NotImplemented" in f"{error!r} {error.__cause__!r}"):
                    raise
                guard = False
                return call()
            return True

        return self._call("write", name, call)

    def _has_content(self, name: str, local: str) -> bool:
        copy = local + ".theirs"
        try:
            self.fs.get_file(self._full(name), copy)
            return filecmp.cmp(copy, local, shallow=False)
        finally:
            with suppress(OSError):
                disk.unlink(copy)

    def unlink(self, *names: str) -> None:
        """Removes objects, if they exist."""
        for name in names:
            self._find("remove", name, partial(self.fs.rm_file, self._full(name)))

    def abort_uploads(self, name: str | None = None) -> None:
        """Drops the parts that interrupted uploads of an object, or of everything below the URL, have left.

        For callers that know that no other process writes there. Where the store refuses, the parts stay. Only S3
        keeps such parts.
        """

    def _run(self, function: Callable[[], Awaitable[Value]]) -> Value:
        """Runs a coroutine function in fsspec's thread for coroutines."""
        from fsspec.asyn import sync

        result: Value = sync(self.fs.loop, function)
        return result


def _state_of(info: dict[str, Any]) -> FileState | None:
    modified = next((info[name] for name in ("mtime", "updated", "LastModified", "created") if info.get(name)), None)
    return object_state(info.get("size"), modified, info.get("etag") or info.get("ETag"))
