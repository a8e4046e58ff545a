"""Checksums of files, which notice any damage: XXH3-128, faster than a disk reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xcli.storage import disk

if TYPE_CHECKING:
    import os
    from typing import BinaryIO

_PIECE = 1 << 20


class Checksum(NamedTuple):
    """What identifies the content of a file.

    Attributes:
        size: in bytes.
        digest: XXH3-128, in hexadecimal.
    """

    size: int
    digest: str


def checksum_of(path: str | os.PathLike[str]) -> Checksum:
    """Reads a file, a piece at a time, and returns its checksum; raises OSError."""
    import xxhash

    content, size, piece = xxhash.xxh3_128(), 0, memoryview(bytearray(_PIECE))
    with disk.open_file(path) as file:
        while length := file.readinto(piece):  # type: ignore[attr-defined]
            content.update(piece[:length])
            size += length
    return Checksum(size, content.hexdigest())


class ChecksumWriter:
    """A binary file that is written from beginning to end, and the checksum of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        import xxhash

        self._file, self._content, self._size = file, xxhash.xxh3_128(), 0

    def write(self, data: bytes | memoryview, /) -> int:
        """Writes all of `data` and returns its length in bytes."""
        length = self._file.write(data)
        self._content.update(data)
        self._size += length
        return length

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    @property
    def checksum(self) -> Checksum:
        """The checksum of what was written so far."""
        return Checksum(self._size, self._content.hexdigest())
