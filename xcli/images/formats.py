"""Image formats by name and by content: extensions, signatures, and the length that a file's own headers announce."""

from __future__ import annotations

import re
from typing import Literal

from xcli.images.jpegxl import CODESTREAM_SIGNATURE, CONTAINER_SIGNATURE

MAX_FILE_BYTES = 1 << 30
"""Image files and members of archives with more bytes are refused, unread."""

IMAGE_EXTENSIONS = frozenset(
    b".jpg .jpeg .jpe .jfif .png .gif .bmp .dib .webp .tif .tiff .heic .heif .avif "
    b".jp2 .j2k .j2c .jpc .jpx .jpf .jxl .ppm .pgm .pbm .pnm .tga .ico".split()
)
"""Extensions, in lower case, by which a file found in a directory counts as an image."""

HEAD_BYTES = 64
"""Number of bytes from the beginning of a file that `sniff` needs."""

_HEIF_BRANDS = frozenset(b"heic heix hevc hevx heim heis mif1 msf1".split())

_NETPBM = re.compile(rb"P[1-6]\s+[#0-9]")
_TARGA_BYTES = 18

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
    if head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")):
        return "JPEG2000"
    if head.startswith((CODESTREAM_SIGNATURE, CONTAINER_SIGNATURE)):
        return "JPEGXL"
    if _NETPBM.match(head):
        return "PPM"
    if head.startswith(b"\0\0\1\0") and head[4:6] != b"\0\0" and head[9:10] == b"\0":
        return "ICO"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return "TGA" if _is_targa(head) else None


def _is_targa(head: bytes) -> bool:
    """Says whether a file may begin with the header of a Targa image, which has no signature."""
    if len(head) < _TARGA_BYTES or 0 in (int.from_bytes(head[12:14], "little"), int.from_bytes(head[14:16], "little")):
        return False
    has_map, kind, map_depth, depth, flags = head[1], head[2], head[7], head[16], head[17]
    # The two highest bits are reserved; the lowest four count the bits of alpha.
    if flags & 0xC0 or flags & 0x0F > 8:
        return False
    if has_map:
        return has_map == 1 and kind in (1, 9) and map_depth in (15, 16, 24, 32) and depth == 8
    return head[3:8] == bytes(5) and depth in {2: (16, 24, 32), 3: (8, 16)}.get(kind & ~8, ())


_OTHER_KINDS = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it first"),
    (b"PK\3\4", "a zip archive, or a document made as one; if it holds images, give it the extension .zip"),
    (b"\x1f\x8b", "data packed with gzip; unpack it first, or call it .tar.gz if it is one"),
    (b"BZh", "data packed with bzip2; unpack it first, or call it .tar.bz2 if it is one"),
    (b"\xfd7zXZ", "data packed with xz; unpack it first, or call it .tar.xz if it is one"),
    (b"\x28\xb5\x2f\xfd", "data packed with Zstandard; unpack it first, or call it .tar.zst if it is one"),
    (b"PAR1", "a Parquet table; if it lists paths, give it with --manifest"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF-", "a PDF document; extract its images first"),
    (b"8BPS", "a Photoshop document; export it as PNG or JPEG"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch that (git lfs pull)"),
    (b"<!doctype html", "a web page, perhaps what a server sent in place of the image"),
    (b"<html", "a web page, perhaps what a server sent in place of the image"),
    (b"<svg", "an SVG drawing; export it as PNG"),
)
_TAR_MAGIC = slice(257, 262)


def describe_other(data: bytes) -> str | None:
    """Says what the content of a file is that is no image, and what to do with it; None if it cannot be told."""
    if data[_TAR_MAGIC] == b"ustar":
        return "a tar archive; give it the extension .tar"
    if data[4:8] == b"ftyp":
        return "a video; extract its frames first"
    head = data[:HEAD_BYTES].lstrip().lower()
    for magic, description in _OTHER_KINDS:
        if data.startswith(magic) or (magic.startswith(b"<") and head.startswith(magic)):
            return description
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
