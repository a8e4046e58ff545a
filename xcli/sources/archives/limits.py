"""What an archive may take: limits in proportion to the bytes of its file, so that a small file means little work.

Images hardly shrink when they are packed, and each takes some bytes of its own, so an archive of images stays far below
these limits. One that is beyond them is made to fill the memory or the disk.
"""

from __future__ import annotations

from xcli.core.errors import ImageError

MAX_NAME = 4096
"""Largest number of bytes in the name of a member, as of a path on Linux."""

# What is limited: so much for any archive, and so much more for each byte of its file.
_LIMITS = {
    "unpacked bytes": (512 << 20, 100.0),
    "bytes in its images": (512 << 20, 100.0),
    "bytes that its hard links unpack again": (512 << 20, 200.0),
    "bytes of extended headers": (8 << 20, 4.0),
    "bytes of names": (16 << 20, 4.0),
    "members": (100_000, 1 / 64),
    "images": (30_000, 1 / 64),
}


class Limits:
    """Counts what is read of one archive, whose file has `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = {what: base + int(share * size) for what, (base, share) in _LIMITS.items()}

    def spend(self, what: str, count: int = 1) -> None:
        """Counts; raises ImageError `too-large` beyond the limit."""
        self._left[what] -= count
        if self._left[what] < 0:
            base, share = _LIMITS[what]
            most = base + int(share * self._size)
            raise ImageError(
                "too-large",
                f"the archive has more than {most:,} {what}, too many for a file of {self._size:,} bytes; unpack it",
            )


def member_limit(packed: int) -> int:
    """Returns how many bytes a member may unpack to, of which there are `packed` in the archive."""
    return (128 << 20) + 100 * packed


def check_name(name: bytes) -> bytes:
    """Returns the name of a member, or of what it links to; raises ImageError `corrupt` if it is too long."""
    if len(name) > MAX_NAME:
        raise ImageError("corrupt", f"the archive is damaged: a name of {len(name):,} bytes; the limit is {MAX_NAME:,}")
    return name
