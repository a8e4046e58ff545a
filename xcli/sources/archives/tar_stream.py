"""The bytes of tar archives: plain ones by position, compressed ones as a stream.

Listing a compressed tar, or one in an object store, reads all of it. So the bytes of a member are kept with it until it
is read once. When more than `MAX_CARRIED` bytes are kept, or bytes are needed again, they are read at their position; a
compressed archive is decompressed again up to there.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.archives.limits import Limits, member_limit
from xcli.sources.archives.members import Member
from xcli.storage.readers import Reader, open_reader
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CARRIED = 1 << 30
"""Bytes that all members of one listing may keep while they wait for their decoding."""

MAX_AGAIN = 1 << 33
"""Position in a compressed archive up to which a member is decompressed a second time."""

MAX_PASSING = 8 << 20
"""Size up to which a member of a plain tar in an object store keeps its bytes."""

_CHUNK = 1 << 20


class _Carried:
    """Bytes between the listing and the decoder; reports to `returned` when they are taken or discarded."""

    __slots__ = ("_data", "_returned")

    def __init__(self, data: bytes | None = None, returned: SimpleQueue[int] | None = None) -> None:
        self._data, self._returned = data, returned

    def take(self) -> bytes | None:
        """Returns the bytes, once; None after that, or if there never were any."""
        data, self._data = self._data, None
        if data is not None and self._returned is not None:
            self._returned.put(len(data))
        return data

    @property
    def empty(self) -> bool:
        return self._data is None

    def __reduce__(self) -> tuple[Any, ...]:
        # A member is sent to another process without the bytes, and reads them at their position there.
        return _Carried, ()

    def __del__(self) -> None:
        self.take()


class CarryBudget:
    """Limits the bytes that members of archives keep at the same time, in one listing."""

    def __init__(self) -> None:
        self._carried = 0
        # Decoders return bytes from their threads, and the garbage collector at any moment, when the thread that it
        # interrupts may hold a lock. This queue is safe for both.
        self._returned: SimpleQueue[int] = SimpleQueue()

    def has_room(self, size: int) -> bool:
        """Says whether `size` more bytes may be kept; they always may when no others are."""
        while not self._returned.empty():
            self._carried -= self._returned.get()
        return self._carried + size <= MAX_CARRIED or not self._carried

    def carry(self, data: bytes | None) -> _Carried:
        """Counts what a member keeps, until it is taken or the member is discarded."""
        self._carried += len(data or b"")
        return _Carried(data, self._returned)


@dataclass(frozen=True, slots=True)
class TarMember(Member):
    """A member of a plain tar: `size` bytes at `offset`."""

    carried: _Carried | None = field(default=None, repr=False, compare=False)

    @property
    def remote(self) -> bool:
        return is_url(self.archive) and (self.carried is None or self.carried.empty)

    def _read(self) -> bytes:
        if self.carried is not None and (data := self.carried.take()) is not None:
            return data
        with open_reader(self.archive, self.identity) as file:
            data = file.read_at(self.offset, self.size)
        if len(data) < self.size:
            raise ImageError("truncated", f"the archive ends after {len(data):,} of the member's {self.size:,} bytes")
        return data


@dataclass(frozen=True, slots=True)
class CompressedTarMember(Member):
    """A member of a compressed tar: `size` bytes at `offset` of the decompressed archive."""

    carried: _Carried = field(default_factory=_Carried, repr=False, compare=False)

    @property
    def remote(self) -> bool:
        return False  # decompressing takes a processor, so prefetching is not worthwhile

    def _read(self) -> bytes:
        if (data := self.carried.take()) is not None:
            return data
        if self.offset > MAX_AGAIN:
            raise ImageError(
                "too-large", f"it lies {self.offset:,} bytes deep in a compressed archive; unpack the archive first"
            )
        with open_reader(self.archive, self.identity) as file:
            stream = _CompressedTar(file, CarryBudget())
            stream.seek(self.offset)
            return stream.read_exactly(self.size)


class TarStream(ABC):
    """A tar that is read from its beginning to its end; `offset` is the position in the decompressed archive."""

    def __init__(self, file: Reader, budget: CarryBudget) -> None:
        self._file, self._budget = file, budget
        self.offset = 0
        self.limits = Limits(file.identity.size)

    @abstractmethod
    def read(self, count: int) -> bytes:
        """Reads `count` bytes, or fewer at the end."""

    @abstractmethod
    def seek(self, offset: int) -> None:
        """Goes forward; raises `truncated` if the archive ends before."""

    @abstractmethod
    def member(self, size: int, carry: bool) -> Member:
        """Makes the member whose `size` bytes begin here; raises `truncated` if it is known that some are missing."""

    @abstractmethod
    def member_at(self, start: int, size: int, carry: bool) -> Member:
        """Makes the member whose `size` bytes begin at `start`, which was passed; it keeps no bytes."""

    def max_member(self) -> int:
        """Returns how many bytes a member may have."""
        return MAX_FILE_BYTES

    def read_exactly(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) < count:
            raise _cut_off()
        return data


def _cut_off() -> ImageError:
    return ImageError("truncated", "the archive is cut off: it ends before the data that it announces")


class _PlainTar(TarStream):
    def read(self, count: int) -> bytes:
        data = self._file.read_at(self.offset, count)
        self.offset += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset > self._file.identity.size:
            raise _cut_off()
        self.offset = offset

    def member(self, size: int, carry: bool) -> Member:
        start, carried = self.offset, None
        if start + size > self._file.identity.size:
            raise _cut_off()
        if carry and is_url(self._file.path) and size <= MAX_PASSING and self._budget.has_room(size):
            carried = self._budget.carry(self.read_exactly(size))
        return TarMember(self._file.path, start, size, self._file.identity, carried)

    def member_at(self, start: int, size: int, carry: bool) -> Member:
        return TarMember(self._file.path, start, size, self._file.identity)


class _CompressedTar(TarStream):
    def __init__(self, file: Reader, budget: CarryBudget) -> None:
        super().__init__(file, budget)
        # These are not closed: the open file belongs to the reader, and they hold nothing else.
        self._source = file.stream()
        self._decompressed = _decompressed(self._source, file.read_at(0, 4))

    def read(self, count: int) -> bytes:
        parts: list[bytes] = []
        with _explained():
            while count > 0 and (data := self._decompressed.read(count)):
                parts.append(data)
                count -= len(data)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.offset += len(data)
        self.limits.spend("unpacked bytes", len(data))
        return data

    def max_member(self) -> int:
        return min(MAX_FILE_BYTES, member_limit(self._file.identity.size))

    def seek(self, offset: int) -> None:
        while self.offset < offset:
            self.read_exactly(min(_CHUNK, offset - self.offset))

    def member(self, size: int, carry: bool) -> Member:
        start = self.offset
        data = self.read_exactly(size) if carry and self._budget.has_room(size) else None
        return CompressedTarMember(self._file.path, start, size, self._file.identity, self._budget.carry(data))

    def member_at(self, start: int, size: int, carry: bool) -> Member:
        if carry:
            self.limits.spend("bytes that its hard links unpack again", start + size)
        return CompressedTarMember(self._file.path, start, size, self._file.identity, self._budget.carry(None))


_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd"
_OTHER_COMPRESSIONS = ((b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress"), (b"LZIP", "lzip"))
_MAX_XZ_MEMORY = 1 << 28  # `xz -9` needs 65 MB; a header may demand 4 GB


def _decompressed(source: IO[bytes], magic: bytes) -> Any:
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith(_BZIP2):
        return bz2.BZ2File(source)
    if magic.startswith(_XZ):
        return _XzStream(source)
    import pyarrow as pa  # a dependency already, while Python has Zstandard only from 3.14 on

    if not pa.Codec.is_available("zstd"):
        raise ImageError("unsupported", "this pyarrow was built without Zstandard; unpack the archive first")
    return pa.CompressedInputStream(source, "zstd")


class _XzStream:
    """Decompresses xz, also several streams behind one another, in bounded memory, unlike `lzma.LZMAFile`."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source  # read in small pieces, since what follows a stream is copied for the next one
        self._packed = b""
        self._decoder: lzma.LZMADecompressor | None = None

    def read(self, count: int) -> bytes:
        """Reads up to `count` bytes; none at the end."""
        while True:
            if self._decoder is not None and self._decoder.eof:
                self._packed, self._decoder = self._decoder.unused_data, None
            if self._decoder is None:
                self._packed = self._packed.lstrip(b"\0")  # streams may be padded
            if not self._packed and (self._decoder is None or self._decoder.needs_input):
                self._packed = self._source.read(_CHUNK >> 4)
                if not self._packed and self._decoder is not None:
                    raise EOFError("the compressed data ends early")
                if not self._packed:
                    return b""
                continue
            if self._decoder is None:
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_XZ_MEMORY)
            data = self._decoder.decompress(self._packed, count)
            self._packed = b""
            if data:
                return data


@contextmanager
def _explained() -> Iterator[None]:
    """Translates the exceptions of decompressors."""
    try:
        yield
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to unpack it") from error
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError("unreadable", str(error.strerror)) from error
        text = " ".join(str(error).split())
        if "Memory usage limit" in text:
            limit = _MAX_XZ_MEMORY >> 20
            raise ImageError("too-large", f"unpacking it takes more than {limit} MiB of memory; unpack it") from error
        if isinstance(error, EOFError) or "truncated" in text.lower():
            raise ImageError("truncated", "the archive is cut off: its compressed data ends early") from error
        raise ImageError("corrupt", f"the archive is damaged: {text}") from error


def open_stream(file: Reader, budget: CarryBudget) -> TarStream:
    """Begins to read a tar; its content tells whether it is compressed.

    Raises:
        ImageError: `empty`, or `unsupported` for another compression than gzip, bzip2, xz and Zstandard.
    """
    magic = file.read_at(0, 4)
    if not magic:
        raise ImageError("empty", "the archive has zero bytes")
    for beginning, name in _OTHER_COMPRESSIONS:
        if magic.startswith(beginning):
            raise ImageError("unsupported", f"it is packed with {name}; pack it with gzip or zstd, or unpack it")
    return _CompressedTar(file, budget) if magic.startswith((_GZIP, _BZIP2, _XZ, _ZSTD)) else _PlainTar(file, budget)
