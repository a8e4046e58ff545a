"""What kind of image a file is, which decoder opens it, and what its exceptions mean."""

from __future__ import annotations

import logging
import re
import struct
import warnings
from functools import cache
from typing import IO, TYPE_CHECKING, Any, Literal

from xcli.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Sizes that the header behind a BMP's file header can have; by its two letters alone a text on BMWs would be one."""

SNIFFED = 64
"""Bytes of a file's beginning that `sniff` wants."""


def sniff(head: bytes) -> str | None:
    """Name of the image format that a file's first 64 bytes announce, or None."""
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
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return None


_NO_HANDLER = logging.NullHandler()
"""Without any, Python would print Pillow's messages."""


@cache
def pillow() -> tuple[Any, dict[str, Callable[[IO[bytes]], ImageFile]]]:
    """Pillow's Image module, and what opens each format that can be decoded here."""
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
        features,
    )

    # The classes themselves instead of Image.open: no other decoder ever sees a file, the cause of a header's damage
    # is not lost, and the second picture that phones append to a JPEG, damaged or not, is never looked at.
    openers: dict[str, Callable[[IO[bytes]], ImageFile]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
    }
    if features.check("webp"):
        openers["WEBP"] = WebPImagePlugin.WebPImageFile
    # Images are decoded in parallel already; threads of a decoder's own would multiply with the workers.
    if features.check("avif"):
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        openers["AVIF"] = AvifImagePlugin.AvifImageFile
    try:
        import pillow_heif
    except ImportError:
        pass  # an extra; a HEIC file then becomes a row that says what to install
    else:
        pillow_heif.options.DECODE_THREADS = 1
        openers["HEIF"] = pillow_heif.HeifImageFile
    # One megabyte by default, which the colour profiles and editing histories of sound files can exceed.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    # A file ends as pixels or as an error; remarks on its metadata are neither. The filters belong to the process, so
    # this is done once: catch_warnings around a decode would not be safe among threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(_NO_HANDLER)
    return Image, openers


MAX_SCANS = 500
"""Of a JPEG; photographs have about ten. Every scan is a pass over the whole image, and takes a few bytes."""

_ZERO_TAIL = bytes(64)
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, 0xD8))


def check_jpeg(data: bytes) -> None:
    """Checks what libjpeg keeps to itself, in the markers of a JPEG.

    Raises:
        ImageError: `corrupt` for more than `MAX_SCANS` scans, with which a small file can occupy a processor for
            hours; `truncated` where the rest of the file is zeros, as a crash or a broken-off download can leave it:
            they would decode as grey.
    """
    zeros = data.endswith(_ZERO_TAIL)
    # Counted roughly at first: it is next to free, and nearly always enough.
    if not zeros and data.count(b"\xff\xda") <= MAX_SCANS:
        return
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        at, marker = found.end(), found[0][-1]
        if marker == _END:
            return
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise ImageError("corrupt", f"it has more than {MAX_SCANS} scans")
        if marker not in _WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2]))
    if zeros and scans:
        left = len(data.rstrip(b"\0"))
        raise ImageError("truncated", f"behind the first {left:,} of its {len(data):,} bytes there are only zeros")


_TRUNCATION = ("truncated", "unexpected end", "end of file", "eof", "not enough", "premature", "incomplete")
_INABILITY = ("unsupported", "not supported", "not yet", "not been built", "not available", "cannot handle", "unknown")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def damage(error: Exception, data: bytes, header: str = "") -> ImageError:
    """What an exception of Pillow says about a file; `header` is the format if that is as far as it came."""
    if isinstance(error, MemoryError):
        return ImageError("too-large", "not enough memory to decode it")
    if isinstance(error, pillow()[0].DecompressionBombError):
        return ImageError("too-large", "a frame or tile of it has more pixels than Pillow allows")
    # Addresses differ from run to run, and so would the output.
    text = _ADDRESS.sub("", " ".join(str(error).split())) or type(error).__name__
    words = text.lower()
    # While it opens a file Pillow wraps these in a SyntaxError: the data has ended; a kind it has no name for.
    cause = error.__cause__ if header else None
    ended = isinstance(error, EOFError) or isinstance(cause, EOFError | IndexError | struct.error)
    if header == "JPEG" and "not identified" in words:
        ended, text = True, "the data ends before the size"
    announced = _announced_bytes(data)
    reason = "corrupt"
    if ended or any(word in words for word in _TRUNCATION):
        reason = "truncated"
    elif announced > len(data):
        reason, text = "truncated", f"{len(data):,} bytes are left of at least {announced:,} ({text})"
    elif isinstance(cause, KeyError) or any(word in words for word in _INABILITY):
        reason = "unsupported"
    return ImageError(reason, f"the {header} header cannot be read: {text}" if header else text)


def _announced_bytes(data: bytes) -> int:
    """How many bytes a file has at the least, by its own account; 0 where the format does not tell.

    Decoders of these formats say nothing more than that they failed.
    """
    kind = sniff(data[:SNIFFED])
    if kind == "WEBP":
        return 8 + int.from_bytes(data[4:8], "little")
    if kind == "TIFF":
        order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
        # The first directory: its place, the number of its entries, the entries, the place of the next one.
        width, number, entry = (8, 8, 20) if 43 in data[2:4] else (4, 2, 12)
        start = int.from_bytes(data[width : 2 * width], order)
        entries = int.from_bytes(data[start : start + number], order)
        return start + number + entry * entries + width
    if kind not in ("AVIF", "HEIF"):
        return 0
    end = 0
    while end + 8 <= len(data):
        size = int.from_bytes(data[end : end + 4])
        if size == 1:
            size = int.from_bytes(data[end + 8 : end + 16])
        if size < 8:  # 0 stands for "to the end"; what is between is damage
            return 0
        end += size
    return end
