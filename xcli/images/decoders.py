"""Pillow's decoders: which one opens a file, which files they are kept away from, and what their exceptions mean."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from functools import cache
from typing import IO, TYPE_CHECKING

from xcli.core.errors import ImageError
from xcli.images import jpegxl
from xcli.images.formats import HEAD_BYTES, announced_length, describe_other, sniff
from xcli.images.icons import PNG_SIGNATURE, largest_picture
from xcli.images.jpeg import JpegStream, check_jpeg
from xcli.images.metadata import without_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.Image import Image
    from PIL.ImageFile import ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

DEFAULT_MAX_PIXELS = 178_000_000

_ORIENTATION_TAG = 0x0112
_EXTRAS = {"HEIF": "pip install pillow-heif", "JPEGXL": "pip install imagecodecs"}
_NEW_SUBFILE_TYPE_TAG, _REDUCED_OR_MASK = 254, 0b101
_SUBFILE_TYPE_TAG, _REDUCED = 255, 2


@cache
def load_decoders() -> dict[str, Callable[[IO[bytes]], ImageFile]]:
    """Imports and configures Pillow; returns what opens a file of each format that can be decoded here.

    Call it before threads are started, so that they need not race for the import.
    """
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        IcoImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TgaImagePlugin,
        TiffImagePlugin,
        features,
    )

    # These classes are used instead of Image.open so that no other decoder ever sees a file, the cause of damage in a
    # header is not lost, and the second picture that phones append to a JPEG is never looked at.
    decoders: dict[str, Callable[[IO[bytes]], ImageFile]] = {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "PPM": PpmImagePlugin.PpmImageFile,
        "TGA": TgaImagePlugin.TgaImageFile,
        "ICO": IcoImagePlugin.IcoImageFile,
    }
    if features.check("jpg_2000"):
        from PIL import Jpeg2KImagePlugin

        decoders["JPEG2000"] = Jpeg2KImagePlugin.Jpeg2KImageFile
    if features.check("webp"):
        from PIL import WebPImagePlugin

        decoders["WEBP"] = WebPImagePlugin.WebPImageFile
    # Images are decoded in parallel already; threads within a decoder would multiply with the workers.
    if features.check("avif"):
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        decoders["AVIF"] = AvifImagePlugin.AvifImageFile
    try:
        import pillow_heif
    except ImportError:
        pass  # an extra; a HEIC file then becomes a row that says what to install
    else:
        pillow_heif.options.DECODE_THREADS = 1
        decoders["HEIF"] = pillow_heif.HeifImageFile
    if jpegxl.is_supported():
        decoders["JPEGXL"] = jpegxl.opener()
    # The default is one megabyte, which colour profiles and editing histories of undamaged files can exceed.
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
    # A file ends as pixels or as an error; warnings about its metadata are neither. The filters belong to the whole
    # process, so they are set once: catch_warnings around each decode would not be thread-safe.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Without any handler, Python would print Pillow's messages.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    return decoders


def supported_formats() -> tuple[str, ...]:
    """Returns the names of the formats that can be decoded here."""
    return tuple(sorted(load_decoders()))


def open_image(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> ImageFile:
    """Opens an image without decoding its pixels.

    Raises:
        ImageError: the content is not an image, cannot be decoded here, or has more than `max_pixels` pixels.
    """
    if not data:
        raise ImageError("empty", "zero bytes")
    kind = sniff(data[:HEAD_BYTES])
    if kind is None:
        other = describe_other(data)
        unknown = f"the content is no image format that is known here (it begins {data[:8]!r})"
        raise ImageError("not-an-image", unknown if other is None else f"it is {other}")
    decoders = load_decoders()
    if kind not in decoders:
        raise ImageError("unsupported", f"{kind} files need {_EXTRAS.get(kind, 'a Pillow built with it')}")
    if kind == "ICO":
        data = largest_picture(data, max_pixels)
        if data.startswith(PNG_SIGNATURE):
            return open_image(data, max_pixels)
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

    # Pillow's own limit, which refuses twice its value, still guards what Pillow allocates while it opens a file (such
    # as the frame of a GIF). It belongs to the whole process, so it is only ever raised, and only where it is too low.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    try:
        image = decoders[kind](JpegStream(data) if kind == "JPEG" else io.BytesIO(data))
        if isinstance(image, TiffImageFile):
            _to_full_page(image)
    except ImageError:
        raise
    except Exception as error:
        rest = without_metadata(data, kind)
        if rest is not None:
            return open_image(rest, max_pixels)
        raise explain_decode_error(error, data, kind) from error
    if isinstance(image.fp, JpegStream):
        check_jpeg(data, image.width * image.height, one_scan=image.fp.has_one_scan(image))
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageError("too-large", f"{width}x{height} is more than --max-pixels {max_pixels:,}")
    return image


def _to_full_page(image: TiffImageFile) -> None:
    """Moves to the first page of a TIFF that is neither a reduced copy nor a mask; where there is none, stays."""
    number = 0
    while _is_auxiliary(image.tag_v2):
        number += 1
        try:
            image.seek(number)
        except EOFError:
            image.seek(0)
            break
    # Of another type, it would stop Pillow from reading the orientation.
    if not isinstance(image.info.get("xmp", b""), bytes | str):
        del image.info["xmp"]


def _is_auxiliary(tags: Mapping[int, object]) -> bool:
    kind = tags.get(_NEW_SUBFILE_TYPE_TAG, 0)
    return tags.get(_SUBFILE_TYPE_TAG) == _REDUCED or (isinstance(kind, int) and bool(kind & _REDUCED_OR_MASK))


_TRUNCATED = ("truncated", "unexpected end", "end of file", "eof", "not enough", "premature", "incomplete")
_UNABLE = ("unsupported", "not supported", "not yet", "not been built", "not available", "cannot handle", "unknown")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def explain_decode_error(error: Exception, data: bytes, header: str = "") -> ImageError:
    """Translates an exception of Pillow to `truncated`, `corrupt`, `unsupported` or `too-large`.

    `header` is the format, if the exception was raised while the header was read.
    """
    from PIL.Image import DecompressionBombError

    if isinstance(error, MemoryError):
        return ImageError("too-large", "not enough memory to decode it")
    if isinstance(error, DecompressionBombError):
        return ImageError("too-large", "a frame or tile of it has more pixels than Pillow allows")
    # Memory addresses differ from run to run, and so would the output.
    text = _ADDRESS.sub("", " ".join(str(error).split())) or type(error).__name__
    words = text.lower()
    # While Pillow opens a file it wraps these in a SyntaxError: the data ended early, or KeyError for an unknown kind.
    cause = error.__cause__ if header else None
    ended = isinstance(error, EOFError) or isinstance(cause, EOFError | IndexError | struct.error)
    if header == "JPEG" and "not identified" in words:
        ended, text = True, "the data ends before the size"
    announced = announced_length(data)
    reason = "corrupt"
    if ended or any(word in words for word in _TRUNCATED):
        reason = "truncated"
    elif announced > len(data):
        reason, text = "truncated", f"{len(data):,} bytes are left of at least {announced:,} ({text})"
    elif isinstance(cause, KeyError) or any(word in words for word in _UNABLE):
        reason = "unsupported"
    return ImageError(reason, f"the {header} header cannot be read: {text}" if header else text)


def orientation_of(image: Image) -> int:
    """Returns the EXIF orientation of an image, 1 to 8; 1 (upright) if there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - the pixels may be intact even if the metadata are damaged
        return 1
