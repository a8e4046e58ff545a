"""An object of a store read like a file, from any position: what archives and manifests are read through.

An archive is listed from its beginning to its end, and most of its bytes are members that are wanted too. So it is
fetched once, in large blocks, with the next ones under way while one is used: a request for every header and another
for every member would be two for each image. A member that is read by itself, later, is one request.
"""

from __future__ import annotations

import errno
import io
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.storage.local import ELSEWHERE, FileIdentity
from xcli.storage.urls import CloudError, image_errors

if TYPE_CHECKING:
    from types import TracebackType

    from xcli.storage.object_store import Content

BLOCK = 8 << 20
"""Bytes of a request for an archive that is read from beginning to end."""

AHEAD = 3
"""Blocks that are under way beyond the one in use."""

_KEPT = AHEAD + 3

_MOST_EXPECTED = 64 << 20

MAX_WHOLE = 256 << 20
"""How large an object may be of which its server gives no parts."""


class RemoteArchive:
    """An object, open for reading at any position; the face of `xcli.sources.archives.members.OpenArchive`.

    Args:
        url: the object.
        stamp: what it must be still, if it was listed before. Then single pieces are asked for.

    Attributes:
        path: its URL.
        stamp: its state.

    Raises:
        ImageError: it is not there, cannot be read, or has changed.
    """

    def __init__(self, url: str, stamp: FileIdentity | None = None) -> None:
        from xcli.storage.object_store import look

        self.path = url
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._last = -2  # the block that was used last
        self._piece = (0, b"")
        self._expected = 0  # where what will be read ends
        self._whole: bytes | None = None
        self._by_blocks = stamp is None
        if stamp is None:
            with image_errors():
                found = look(url)
            if found is None:
                raise ImageError("unreadable", "the server does not say how large it is; copy it to this machine")
            stamp = FileIdentity(ELSEWHERE, 0, found.size, found.mtime)
        self.stamp = stamp

    def read_at(self, offset: int, count: int) -> bytes:
        """Reads `count` bytes, or fewer where the object ends.

        Raises:
            ImageError: `missing`, `unreadable` or `too-large`.
        """
        count = min(count, self.stamp.size - offset)
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
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def expect(self, offset: int, count: int) -> None:
        """Says that so much will be read, in smaller parts: it is asked for at once."""
        self._expected = offset + count

    def _read_piece(self, offset: int, count: int) -> bytes:
        start, data = self._piece
        if not start <= offset <= offset + count <= start + len(data):
            end = min(self._expected, self.stamp.size)
            start, data = offset, self._fetch(offset, max(count, min(end - offset, _MOST_EXPECTED)))
            self._piece = start, data
        return data[offset - start : offset - start + count]

    def _block(self, number: int) -> bytes:
        """A block, and the next ones begun where the reading goes forward."""
        blocks = (self.stamp.size - 1) // BLOCK + 1
        ahead = AHEAD if number in (self._last, self._last + 1) and number > 0 else 0
        for wanted in range(number, min(number + ahead + 1, blocks)):
            if wanted not in self._blocks:
                self._begin(wanted)
        self._last = number
        self._blocks.move_to_end(number)
        while len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return self._blocks[number].result()

    def _begin(self, number: int) -> None:
        future: Future[bytes] = Future()
        self._blocks[number] = future
        start = number * BLOCK

        def fetch() -> None:
            try:
                future.set_result(self._fetch(start, min(BLOCK, self.stamp.size - start)))
            except BaseException as error:  # noqa: BLE001 - raised again where the block is wanted
                future.set_exception(error)

        threading.Thread(target=fetch, name="xception-range", daemon=True).start()

    def _fetch(self, start: int, count: int) -> bytes:
        from xcli.storage.object_store import Span, get

        with image_errors():
            content = get(self.path, max(count, MAX_WHOLE), Span(start, count))
        self._check(content)
        if not content.whole:
            return content.data
        # A server that knows no ranges has sent everything; it is asked once only.
        self._whole = content.data
        return content.data[start : start + count]

    def _check(self, content: Content) -> None:
        # Positions out of the old object would give other bytes under a member's name.
        found = content.stamp
        if found is not None and found != (self.stamp.size, self.stamp.modified):
            raise ImageError("unreadable", "the archive has changed since it was listed")

    def stream(self) -> io.BufferedReader:
        """A file over the archive, from its beginning; errors are OSError. To close it leaves the archive open."""
        self._by_blocks = True
        return io.BufferedReader(_Raw(self), BLOCK // 8)

    def close(self) -> None:
        """Lets go of the blocks."""
        self._blocks.clear()
        self._piece, self._whole = (0, b""), None

    def __enter__(self) -> RemoteArchive:
        """Returns the archive, for `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the blocks."""
        self.close()


class _Raw(io.RawIOBase):
    """A raw stream over an archive."""

    def __init__(self, archive: RemoteArchive) -> None:
        self._archive = archive
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._archive.stamp.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        # No further than the block goes: what is there is not lost when the next one cannot be had.
        count = min(len(buffer), BLOCK - self._position % BLOCK)
        try:
            data = self._archive.read_at(self._position, count)
        except ImageError as error:
            raise OSError(errno.EIO, error.message) from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_object(url: str) -> io.BufferedReader:
    """Opens an object as a file that can be read and sought in; reading raises OSError.

    Raises:
        CloudError: it is not there, or cannot be read.
        UsageError: packages are missing.
    """
    try:
        return RemoteArchive(url).stream()
    except ImageError as error:
        raise CloudError("missing" if error.reason == "missing" else "unreadable", error.message) from error
