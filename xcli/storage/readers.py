"""Random access to local files and to objects of a store, through one interface: for archives and manifests.

An archive is listed from its beginning to its end, and most of its bytes are members that are needed too. So
`RemoteReader` fetches it once, in large blocks, and requests the next blocks while one is in use: a request for each
header and each member would be two for every image. A single member, read later, is one request.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any, NamedTuple, Self

from xcli.core.errors import ImageError
from xcli.storage import disk
from xcli.storage.local import open_file
from xcli.storage.object_store import open_store
from xcli.storage.object_store.errors import StoreError, image_errors
from xcli.storage.urls import is_url

BLOCK = 8 << 20  # bytes of a request for an archive that is read from beginning to end
_AHEAD = 3  # blocks that are requested beyond the one in use
_CACHED_BLOCKS = _AHEAD + 3
_MAX_PREFETCH = 64 << 20
MAX_WHOLE = 256 << 20  # greatest size of an object on a server that does not support range requests
_BUFFER = 1 << 20

UNKNOWN_DEVICE = -1
"""The device of an archive that is not on a local disk, or was listed on another machine."""


class FileIdentity(NamedTuple):
    """What a listed archive is recognized by; on another machine, by size and modification time only."""

    device: int
    inode: int
    size: int
    modified: int


class Reader(ABC):
    """A file or object, by path or URL, that is open for reading at any position; a context manager."""

    path: str
    identity: FileIdentity

    @abstractmethod
    def read_at(self, offset: int, count: int) -> bytes:
        """Reads `count` bytes, or fewer at the end; raises ImageError: `missing`, `unreadable` or `too-large`."""

    def expect(self, offset: int, count: int) -> None:  # noqa: B027 - the system reads ahead in a local file by itself
        """Announces that this part will be read in smaller pieces, so that one request can fetch all of it."""

    @abstractmethod
    def stream(self) -> io.BufferedReader:
        """Returns a file object that begins at the start; its errors are OSError. Closing it does not close this."""

    @abstractmethod
    def close(self) -> None:
        """Closes the file and frees its buffers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_reader(path: str, identity: FileIdentity | None = None, trusted: int | None = None) -> Reader:
    """Opens a local file or an object for reading at any position; `trusted` is as in `LocalFile`.

    Raises:
        ImageError: it does not exist, cannot be read, is no regular file, or differs from the listed `identity`.
    """
    return RemoteReader(path, identity) if is_url(path) else LocalReader(path, identity, trusted)


def open_object(url: str) -> io.BufferedReader:
    """Opens an object as a file object that supports seeking; reading raises OSError.

    Raises:
        StoreError: it does not exist, or cannot be read.
    """
    try:
        return RemoteReader(url).stream()
    except ImageError as error:
        raise StoreError("missing" if error.reason == "missing" else "unreadable", error.message) from error


class LocalReader(Reader):
    """A local file."""

    def __init__(self, path: str, identity: FileIdentity | None = None, trusted: int | None = None) -> None:
        self.path = path
        self._descriptor, status = open_file(path, trusted)
        self.identity = FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        same = identity is None or identity[-2:] == self.identity[-2:]
        if not same or (identity is not None and identity.device != UNKNOWN_DEVICE and identity != self.identity):
            self.close()
            raise _changed()

    def read_at(self, offset: int, count: int) -> bytes:
        parts: list[bytes] = []
        try:
            while count > 0 and (data := os.pread(self._descriptor, count, offset)):
                parts.append(data)
                offset, count = offset + len(data), count - len(data)
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
        except MemoryError as error:
            raise ImageError("too-large", f"not enough memory to read its {count:,} bytes") from error
        return b"".join(parts)

    def stream(self) -> io.BufferedReader:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return io.BufferedReader(io.FileIO(self._descriptor, closefd=False), _BUFFER)

    def close(self) -> None:
        disk.close(self._descriptor)


class RemoteReader(Reader):
    """An object of a store. With an `identity` given, only the requested parts are fetched."""

    def __init__(self, url: str, identity: FileIdentity | None = None) -> None:
        self.path = url
        self._store = open_store(url)
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._last = -2  # number of the block that was used last
        self._piece = (0, b"")  # offset and content of the part that was fetched last
        self._expected = 0  # end of the part that was announced
        self._whole: bytes | None = None
        self._by_blocks = identity is None
        if identity is None:
            with image_errors():
                found = self._store.state()
            if found is None:
                raise ImageError("unreadable", "the server does not say how large it is; copy it to this machine")
            identity = FileIdentity(UNKNOWN_DEVICE, 0, found.size, found.mtime)
        self.identity = identity

    def read_at(self, offset: int, count: int) -> bytes:
        count = min(count, self.identity.size - offset)
        if count <= 0:
            return b""
        if self._whole is not None:
            return self._whole[offset : offset + count]
        if not self._by_blocks:
            return self._read_piece(offset, count)
        parts: list[bytes] = []
        while count > 0:
            number, begin = divmod(offset, BLOCK)
            part = self._block(number)[begin : begin + count]
            if not part:
                break
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)

    def expect(self, offset: int, count: int) -> None:
        self._expected = offset + count

    def _read_piece(self, offset: int, count: int) -> bytes:
        start, data = self._piece
        if not start <= offset <= offset + count <= start + len(data):
            end = min(self._expected, self.identity.size)
            start, data = offset, self._fetch(offset, max(count, min(end - offset, _MAX_PREFETCH)))
            self._piece = start, data
        return data[offset - start : offset - start + count]

    def _block(self, number: int) -> bytes:
        """Returns a block, after requesting the next ones too if blocks are read in order."""
        blocks = (self.identity.size - 1) // BLOCK + 1
        ahead = _AHEAD if number in (self._last, self._last + 1) and number > 0 else 0
        for wanted in range(number, min(number + ahead + 1, blocks)):
            if wanted not in self._blocks:
                self._request(wanted)
        self._last = number
        self._blocks.move_to_end(number)
        while len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number].result()

    def _request(self, number: int) -> None:
        future: Future[bytes] = Future()
        self._blocks[number] = future
        start = number * BLOCK

        def fetch() -> None:
            try:
                future.set_result(self._fetch(start, min(BLOCK, self.identity.size - start)))
            except BaseException as error:  # noqa: BLE001 - raised again where the block is used
                future.set_exception(error)

        try:
            threading.Thread(target=fetch, name="xception-range", daemon=True).start()
        except RuntimeError:  # no more threads can be started
            fetch()

    def _fetch(self, start: int, count: int) -> bytes:
        from xcli.storage.object_store.state import ByteRange

        with image_errors():
            content = self._store.get(max(count, MAX_WHOLE), ByteRange(start, count))
        if content.state is not None and content.state != (self.identity.size, self.identity.modified):
            raise _changed()
        if not content.whole:
            return content.data
        # A server without range requests has sent everything, which is kept rather than requested again.
        self._whole = content.data
        return content.data[start : start + count]

    def stream(self) -> io.BufferedReader:
        self._by_blocks = True
        return io.BufferedReader(_RawStream(self), BLOCK // 8)

    def close(self) -> None:
        self._blocks.clear()
        self._piece, self._whole = (0, b""), None


class _RawStream(io.RawIOBase):
    def __init__(self, reader: RemoteReader) -> None:
        self._reader = reader
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._reader.identity.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        # Not beyond the end of a block: its bytes are not lost when the next block cannot be fetched.
        count = min(len(buffer), BLOCK - self._position % BLOCK)
        try:
            data = self._reader.read_at(self._position, count)
        except ImageError as error:
            raise OSError(errno.EIO, error.message) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _changed() -> ImageError:
    return ImageError("unreadable", "the archive has changed since it was listed")
