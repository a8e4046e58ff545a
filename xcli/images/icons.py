"""Windows icons: chooses the picture of an .ico file that is to be decoded."""

from __future__ import annotations

import struct

from xcli.core.errors import ImageError

SIGNATURE = b"\0\0\1\0"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEAD = struct.Struct("<4sH")
_ENTRY = struct.Struct("<4B2H2L")
_BITMAP = struct.Struct("<Lll")
_MAX_ENTRIES = 1024


def largest_picture(data: bytes, max_pixels: int) -> bytes:
    """Returns the largest picture of an icon; of several, that with the most colours.

    It is a PNG, or an icon of this picture alone: a bitmap and a mask.

    Raises:
        ImageError: `truncated` or `corrupt`, or `too-large` for a bitmap with more than `max_pixels` pixels.
    """
    count = _HEAD.unpack_from(data)[1] if len(data) >= _HEAD.size else 0
    if not 0 < count <= _MAX_ENTRIES:
        raise ImageError("corrupt", f"an icon of {count:,} pictures")
    if len(data) < _HEAD.size + count * _ENTRY.size:
        raise ImageError("truncated", "the list of the icon's pictures ends early")
    entries = [_ENTRY.unpack_from(data, _HEAD.size + number * _ENTRY.size) for number in range(count)]
    # A side of 0 stands for 256.
    width, height, colours, reserved, planes, bits, size, start = max(
        entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[5])
    )
    picture = data[start : start + size]
    if len(picture) < max(size, _BITMAP.size):
        raise ImageError("truncated", f"the icon's picture ends after {len(picture):,} of {size:,} bytes")
    if picture.startswith(PNG_SIGNATURE):
        return picture
    # Its header counts the lines of the mask too.
    _, columns, lines = _BITMAP.unpack_from(picture)
    if abs(columns) * abs(lines) // 2 > max_pixels:
        raise ImageError("too-large", f"{abs(columns)}x{abs(lines) // 2} is more than --max-pixels {max_pixels:,}")
    head = _HEAD.pack(SIGNATURE, 1)
    begin = _HEAD.size + _ENTRY.size
    return head + _ENTRY.pack(width, height, colours, reserved, planes, bits, size, begin) + picture
