"""The same image file without what does not change its pixels.

Pillow reads metadata while it opens a file, and refuses the file where they are damaged: for a wrong checksum of the
text in a PNG, a colour profile cut short in a JPEG, a wrong length of the XMP in a WebP. Such a file is tried once more
without them. What pixels depend on stays as it is, damaged or not: palettes, transparency, orientation, colour
transforms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PNG_HEAD = 8
_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"))
_PNG_ORIENTATION = (b"Raw profile type", b"XML:com.adobe.xmp")
"""Keywords of text chunks from which an orientation can be read."""

_JFIF, _EXIF, _ADOBE, _COMMENT, _SCAN = 0xE0, 0xE1, 0xEE, 0xFE, 0xDA
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
"""Shorter segments are not taken for these by libjpeg."""

_WEBP_FLAGS = 0b00101100
"""Bits of VP8X that announce a colour profile, EXIF and XMP."""


def without_metadata(data: bytes, kind: str) -> bytes | None:
    """Returns a file of the format `kind` without its metadata; None where none can be left out."""
    parts = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}.get(kind)
    rest = None if parts is None else b"".join(parts(data))
    return rest if rest and rest != data else None


def _png(data: bytes) -> Iterator[bytes]:
    yield data[:_PNG_HEAD]
    at = _PNG_HEAD
    while at < len(data):
        name, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        critical = not name[:1].islower()
        if critical or name in _PNG_PIXELS or data.startswith(_PNG_ORIENTATION, at + 8):
            yield data[at:end]
        at = end


def _jpeg(data: bytes) -> Iterator[bytes]:
    yield data[:2]
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xff" and at + 4 < len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == _SCAN:
            break
        body = data[at + 4 : end]
        sound = (
            (marker == _JFIF and body.startswith(b"JFIF\0") and len(body) >= _JFIF_BYTES)
            or (marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= _ADOBE_BYTES)
            or marker == _EXIF
        )
        if sound or not (_JFIF <= marker < _JFIF + 16 or marker == _COMMENT):
            yield data[at:end]
        at = end
    yield data[at:]


def _webp(data: bytes) -> Iterator[bytes]:
    """Yields the chunks of a still image up to its pixels, and EXIF; nothing for files that end early."""
    if 8 + int.from_bytes(data[4:8], "little") > len(data):
        return
    chunks, at = [], 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + size + size % 2]
        if len(chunk) < 8 + size:
            break
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:]
        if name in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"EXIF"):
            chunks.append(chunk)
        at += len(chunk)
    if any(chunk.startswith((b"VP8 ", b"VP8L")) for chunk in chunks):
        if chunks[0].startswith(b"VP8X") and any(chunk.startswith(b"EXIF") for chunk in chunks):
            chunks[0] = chunks[0][:8] + bytes([chunks[0][8] | 8]) + chunks[0][9:]
        body = b"WEBP" + b"".join(chunks)
        yield b"RIFF" + len(body).to_bytes(4, "little") + body
