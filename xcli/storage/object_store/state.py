"""The values that object stores return: listed objects, content, and the state of an object."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import NamedTuple

from xcli.core.errors import ImageError
from xcli.core.records import FileState


class ListedObject(NamedTuple):
    """An object of a listing: its name relative to the listed prefix, and its state."""

    name: str
    state: FileState | None


class Content(NamedTuple):
    """Bytes of an object, with its state when they were read; None if the store does not report that."""

    data: bytes
    state: FileState | None
    whole: bool = False  # whether the server sent the whole object although a range was requested


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of an object: `count` bytes, at least 1, beginning at `start`."""

    start: int
    count: int

    @property
    def header(self) -> str:
        """The value of the `Range` header of a request."""
        return f"bytes={self.start}-{self.start + self.count - 1}"


def object_state(size: int | None, modified: datetime | str | float | None, etag: str | None) -> FileState | None:
    """Builds the state of an object, which is the same for a listing, a HEAD and a GET.

    Listings report times in milliseconds, headers in seconds. So `mtime` holds whole seconds, and in place of their
    fraction 30 bits of the ETag, which distinguish two objects of the same second. Returns None if the size, or both
    time and ETag, are unknown.

    Args:
        size: in bytes.
        modified: time of modification: a datetime, seconds since 1970, or text as in HTTP or ISO 8601.
        etag: the ETag.
    """
    if isinstance(modified, str):
        modified = _parse_time(modified)
    etag = (etag or "").removeprefix("W/").strip('"')
    if size is None or (modified is None and not etag):
        return None
    if isinstance(modified, datetime):
        # Every store means UTC by a time without a zone.
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
    seconds = int(modified) if modified and math.isfinite(modified) else 0
    digest = int.from_bytes(blake2b(etag.encode(), digest_size=4).digest(), "big") % 10**9 if etag else 0
    return FileState.of(size, seconds * 10**9 + digest)


def _parse_time(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, TypeError):
            return parse(text)
    return None


def total_size(content_range: str | None, size: int | None) -> int | None:
    """Returns the size of the whole object from a header like `bytes 0-99/1234`, or `size` if there is none."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdigit() else size


def too_large(size: int, limit: int) -> ImageError:
    """Returns the error for an object of `size` bytes."""
    return ImageError("too-large", f"an object of {size:,} bytes; the limit is {limit:,}")
