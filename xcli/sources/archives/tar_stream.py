"""The bytes of tar archives: of plain ones by position, of compressed ones as a stream.

Members of a plain tar are read where they lie. Those of a compressed one cannot be: their bytes are read while the
archive is listed and travel with the member, until it is read once; when more than `MAX_CARRIED` bytes are under way,
or bytes are wanted a second time, the archive is unpacked again up to the member.

A plain tar in an object store is something of both. To list it is to fetch it, for its headers lie between the
members; so members travel with their bytes, and nothing is fetched twice. Those that are large, that find no room, or
that are wanted again are read where they lie.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any, Protocol

from xcli.core.errors import ImageError
from xcli.sources.archives.members import Member, too_large
from xcli.storage.readers import open_reader
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.storage.local import FileIdentity
    from xcli.storage.readers import Reader

MAX_CARRIED = 1 << 30
"""Bytes of members of compressed archives that one listing lets wait for their decoding."""

MAX_AGAIN = 1 << 33
"""How deep in a compressed archive a member may lie to be unpacked a second time."""

MAX_PASSING = 8 << 20
"""Size of the members of a plain tar in an object store up to which their bytes are taken along as they pass by."""

_CHUNK = 1 << 20


class _Carried:
    """Bytes on their way from the listing to the decoder; `returned` is told when they are taken or given up."""

    __slots__ = ("_data", "_returned")

    def __init__(self, data: bytes | None, returned: SimpleQueue[int]) -> None:
        self._data, self._returned = data, returned

    def take(self) -> bytes | None:
        """Gives the bytes, once; None after that, or if there never were any."""
        data, self._data = self._data, None
        if data is not None:
            self._returned.put(len(data))
        return data

    @property
    def empty(self) -> bool:
        """Whether there are no bytes, or none any more."""
        return self._data is None

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process the member goes without them, and reads them where they lie.
        return _nothing, ()

    def __del__(self) -> None:
        self.take()


def _nothing() -> _Carried:
    return _Carried(None, SimpleQueue())


class Luggage:
    """Keeps count of the bytes that members of compressed archives carry at the same time, in one listing."""

    def __init__(self) -> None:
        self._held = 0
        # Decoders return bytes from their threads, and the garbage collector from anywhere: a lock could be held
        # already by the thread that it interrupts. This queue allows both.
        self._returned: SimpleQueue[int] = SimpleQueue()

    def has_room(self, size: int) -> bool:
        """Says whether `size` more bytes may be carried; they always may when nothing else is."""
        while not self._returned.empty():
            self._held -= self._returned.get()
        return self._held + size <= MAX_CARRIED or not self._held

    def pack(self, data: bytes | None) -> _Carried:
        """Notes what a member carries. Bytes count until they are taken, or the member is given up."""
        self._held += len(data or b"")
        return _Carried(data, self._returned)


@dataclass(frozen=True, slots=True)
class TarMember(Member):
    """A member of a plain tar: `size` bytes at `offset`."""

    archive: str
    offset: int
    size: int
    identity: FileIdentity
    carried: _Carried | None = field(default=None, repr=False, compare=False)

    @property
    def remote(self) -> bool:
        """See `Member.remote`: not while its bytes are with it."""
        return is_url(self.archive) and (self.carried is None or self.carried.empty)

    def read(self, max_bytes: int) -> bytes:
        """Gives the bytes that were carried, or reads them where they lie; see `Member.read`."""
        if self.size > max_bytes:
            raise too_large(self.size, max_bytes)
        if self.carried is not None and (passed := self.carried.take()) is not None:
            return passed
        with open_reader(self.archive, self.identity) as file:
            data = file.read_at(self.offset, self.size)
        if len(data) < self.size:
            raise ImageError("truncated", f"the archive ends after {len(data):,} of the member's {self.size:,} bytes")
        return data


@dataclass(frozen=True, slots=True)
class PackedMember(Member):
    """A member of a compressed tar: `size` bytes at `offset` of what the archive unpacks to."""

    archive: str
    offset: int
    size: int
    identity: FileIdentity
    carried: _Carried = field(repr=False, compare=False)

    @property
    def remote(self) -> bool:
        """See `Member.remote`: unpacking it is work for a decoder, not a wait for a server."""
        return False

    def read(self, max_bytes: int) -> bytes:
        """Gives the bytes that were carried, and lets go of them; see `Member.read`."""
        if self.size > max_bytes:
            raise too_large(self.size, max_bytes)
        if (data := self.carried.take()) is not None:
            return data
        if self.offset > MAX_AGAIN:
            raise ImageError(
                "too-large", f"it lies {self.offset:,} bytes deep in a compressed archive; unpack the archive first"
            )
        with open_reader(self.archive, self.identity) as file:
            stream = _Packed(file, Luggage())
            stream.seek(self.offset)
            return stream.read_all(self.size)


class Stream(Protocol):
    """What a tar is read from, from its beginning to its end."""

    offset: int

    def read(self, count: int) -> bytes:
        """Reads `count` bytes, or fewer at the end."""

    def seek(self, offset: int) -> None:
        """Goes forward; `truncated` if the end comes before."""

    def member(self, size: int, carry: bool) -> Member:
        """Gives the member whose `size` bytes begin here; `truncated` if they are known not to be all there."""


_CUT_OFF = "the archive is cut off: it ends before the data that it announces"


class _Plain:
    """A plain tar."""

    def __init__(self, file: Reader, luggage: Luggage) -> None:
        self._file, self._luggage = file, luggage
        self._passes = is_url(file.path)
        self.offset = 0

    def read(self, count: int) -> bytes:
        data = self._file.read_at(self.offset, count)
        self.offset += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset > self._file.identity.size:
            raise ImageError("truncated", _CUT_OFF)
        self.offset = offset

    def member(self, size: int, carry: bool) -> Member:
        if self.offset + size > self._file.identity.size:
            raise ImageError("truncated", _CUT_OFF)
        carried = None
        if carry and self._passes and size <= MAX_PASSING and self._luggage.has_room(size):
            data = self._file.read_at(self.offset, size)
            if len(data) < size:
                raise ImageError("truncated", _CUT_OFF)
            carried = self._luggage.pack(data)
        return TarMember(self._file.path, self.offset, size, self._file.identity, carried)


class _Packed:
    """A compressed tar, unpacked as it is read."""

    def __init__(self, file: Reader, luggage: Luggage) -> None:
        self._file, self._luggage = file, luggage
        # Not closed: what is open is the archive's, and what else they hold goes with them.
        self._source = file.stream()
        self._unpacked = _decompressed(self._source, file.read_at(0, 4))
        self.offset = 0

    def read(self, count: int) -> bytes:
        parts: list[bytes] = []
        with _decompressing():
            while count > 0 and (data := self._unpacked.read(count)):
                parts.append(data)
                count -= len(data)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.offset += len(data)
        return data

    def read_all(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) < count:
            raise ImageError("truncated", _CUT_OFF)
        return data

    def seek(self, offset: int) -> None:
        while self.offset < offset:
            self.read_all(min(_CHUNK, offset - self.offset))

    def member(self, size: int, carry: bool) -> Member:
        start = self.offset
        data = self.read_all(size) if carry and self._luggage.has_room(size) else None
        return PackedMember(self._file.path, start, size, self._file.identity, self._luggage.pack(data))


_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHER_PACKERS = ((b"BZh", "bzip2"), (b"\xfd7zX", "xz"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress"))


def _decompressed(source: IO[bytes], magic: bytes) -> Any:
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=source)
    import pyarrow as pa  # it is needed for the tables anyway, and no Python before 3.14 has Zstandard

    if not pa.Codec.is_available("zstd"):
        raise ImageError("unsupported", "this pyarrow was built without Zstandard; unpack the archive first")
    return pa.CompressedInputStream(source, "zstd")


@contextmanager
def _decompressing() -> Iterator[None]:
    """Turns what decompressors raise into what it means."""
    try:
        yield
    except EOFError as error:
        raise ImageError("truncated", "the archive is cut off: its compressed data ends early") from error
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to unpack it") from error
    except (zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError("unreadable", str(error.strerror)) from error
        text = " ".join(str(error).split())
        if "truncated" in text.lower():
            raise ImageError("truncated", "the archive is cut off: its compressed data ends early") from error
        raise ImageError("corrupt", f"the archive is damaged: {text}") from error


def open_stream(file: Reader, luggage: Luggage) -> Stream:
    """Begins to read a tar; whether it is compressed is told from its content.

    Args:
        file: the archive.
        luggage: what members of a compressed archive may carry.

    Raises:
        ImageError: `empty`, or `unsupported` for compression that is not read here.
    """
    magic = file.read_at(0, 4)
    if not magic:
        raise ImageError("empty", "the archive has zero bytes")
    for beginning, packer in _OTHER_PACKERS:
        if magic.startswith(beginning):
            raise ImageError("unsupported", f"it is packed with {packer}; pack it with gzip or zstd, or unpack it")
    return _Packed(file, luggage) if magic.startswith((_GZIP, _ZSTD)) else _Plain(file, luggage)
