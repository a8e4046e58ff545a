"""Image formats by name and by content: extensions, signatures, and the length that a file's own headers announce."""

from __future__ import annotations

from typing import Literal

MAX_FILE_BYTES = 1 << 30
"""Image files and members of archives with more bytes are refused, unread."""

IMAGE_EXTENSIONS = frozenset(b".jpg .jpeg .jpe .jfif .png .gif .bmp .dib .webp .tif .tiff .heic .heif .avif".split())
"""Extensions, in lower case, by which a file found in a directory counts as an image."""

HEAD_BYTES = 64
"""Number of bytes from the beginning of a file that `sniff` needs."""

_HEIF_BRANDS = frozenset(b"heic heix hevc hevx heim heis mif1 msf1".split())

_BMP_HEADER_SIZES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Valid sizes of the second header of a BMP; the letters "BM" alone also begin ordinary text."""


def has_image_extension(name: bytes) -> bool:
    """Says whether a file name or path has an image's extension."""
    return name[name.rfind(b".") :].lower() in IMAGE_EXTENSIONS


def sniff(head: bytes) -> str | None:
    """Returns the name of the image format that the first `HEAD_BYTES` bytes of a file announce, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head[4:8] == b"ftyp":
        box = head[: int.from_bytes(head[:4])]
        brands = {box[start : start + 4] for start in (8, *range(16, len(box) - 3, 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return None


def announced_length(data: bytes) -> int:
    """Returns the least number of bytes that a WebP, TIFF, AVIF or HEIF file says it has; 0 where it cannot be told.

    The decoders of these formats report that they failed, but not that the file is truncated.
    """
    kind = sniff(data[:HEAD_BYTES])
    if kind == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little")
    if kind == "TIFF":
        order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
        # The first directory: its offset, the number of its entries, the entries, the offset of the next directory.
        width, number, entry = (8, 8, 20) if 43 in data[2:4] else (4, 2, 12)
        start = int.from_bytes(data[width : 2 * width], order)
        entries = int.from_bytes(data[start : start + number], order)
        return start + number + entry * entries + width
    return _length_of_boxes(data) if kind in ("AVIF", "HEIF") else 0


def _length_of_boxes(data: bytes) -> int:
    """Adds up the sizes of the top-level boxes of an ISO base media file."""
    end = 0
    while end + 8 <= len(data):
        size = int.from_bytes(data[end : end + 4])
        if size == 1:
            size = int.from_bytes(data[end + 8 : end + 16])
        if size < 8:  # 0 means that the box reaches to the end of the file; other values are damage
            return 0
        end += size
    return end
