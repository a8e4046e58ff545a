"""From the bytes of an image file to the pixels that the network sees.

The written policy, for every format (each rule has a test):

- The format is told from the content, never from the name: JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF; HEIC with the
  `heif` extra.
- Of animations and multi-page files the first frame is taken.
- The EXIF orientation is applied.
- Grey, palette, bilevel and CMYK become RGB; 16-bit samples keep their most significant byte; alpha, transparent
  palette entries and transparent colours are laid over white; colour profiles are not applied (as in Keras).
  32-bit integer and floating-point samples have no agreed range and are refused.
- Large JPEGs may be shrunk while they are decoded (`jpeg_shrink`), to no less than twice the resolution needed.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from xcli.errors import ImageError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

RESIZE_MODES = ("crop", "squash", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
DEFAULT_CROP_PCT = 0.897
DEFAULT_MAX_PIXELS = 178_000_000
MAX_FILE_BYTES = 1 << 30
PAD_COLOUR = (128, 128, 128)
"""Mid-grey: next to zero after scaling to [-1, 1]."""

_OVERSAMPLE = 2
"""A JPEG shrunk while decoding keeps this many times the resolution needed; once is visibly (2.6 grey levels) off."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the square that the network sees.

    Attributes:
        size: side of the square, in pixels.
        resize: `crop` (shorter side to floor(size / crop_pct), then the centre), `squash` (both sides to size) or
            `pad` (longer side to size, the rest mid-grey).
        interpolation: resampling filter, with antialiasing (except `nearest`).
        crop_pct: share of the resized shorter side that the crop keeps.
        jpeg_shrink: let large JPEGs be shrunk while decoding; never done for `squash` with `nearest`, which promises
            the pixels of `keras.utils.load_img`.
        max_pixels: images with more pixels are refused, unread.
    """

    size: int = 299
    resize: str = "crop"
    interpolation: str = "bicubic"
    crop_pct: float = DEFAULT_CROP_PCT
    jpeg_shrink: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"the image size must be positive; received {self.size}")
        if self.resize not in RESIZE_MODES:
            raise UsageError(f"resize must be one of {', '.join(RESIZE_MODES)}; received {self.resize!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}; received {self.interpolation!r}"
            )
        if not 0 < self.crop_pct <= 1:
            raise UsageError(f"crop_pct must be above 0 and at most 1; received {self.crop_pct}")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels must be positive; received {self.max_pixels}")

    @property
    def shrinks(self) -> bool:
        """Whether JPEGs may be shrunk while decoding."""
        return self.jpeg_shrink and not (self.resize == "squash" and self.interpolation == "nearest")

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, for provenance."""
        return asdict(self)


def sniff(head: bytes) -> str | None:
    """Name of the image format that a file's first 32 bytes announce, or None."""
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
        brands = {head[start : start + 4] for start in range(8, len(head) - 3, 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
            return "HEIF"
    if head.startswith(b"BM"):
        return "BMP"
    return None


@cache
def _pillow() -> tuple[Any, frozenset[str]]:
    """Pillow's Image module and the formats that it can open here."""
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        MpoImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
        features,
    )

    # The plugins register themselves; only these are imported, so that no other decoder ever sees a file.
    del BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin
    del WebPImagePlugin
    formats = {"JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF"}
    if features.check("webp"):
        formats.add("WEBP")
    if features.check("avif"):
        from PIL import AvifImagePlugin

        del AvifImagePlugin
        formats.add("AVIF")
    try:
        import pillow_heif
    except ImportError:
        pass  # an extra; a HEIC file then becomes a row that says what to install
    else:
        pillow_heif.register_heif_opener(thumbnails=False)
        formats.add("HEIF")
    # The limit on pixels is ours (`Preprocessing.max_pixels`), checked before anything is decoded.
    Image.MAX_IMAGE_PIXELS = None
    return Image, frozenset(formats)


def prepare() -> None:
    """Imports the decoders, so that threads that come later need not race for it."""
    _pillow()


def supported_formats() -> tuple[str, ...]:
    """Names of the formats that can be decoded here."""
    return tuple(sorted(_pillow()[1] - {"MPO"}))


def read_file(location: str) -> bytes:
    """Reads an image file whole; never blocks on a FIFO and never reads a device.

    Raises:
        ImageError: `missing`, `unreadable`, `not-a-file`, `empty` or `too-large`.
    """
    try:
        # O_NONBLOCK: opening a FIFO without a writer would otherwise wait for ever.
        descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise ImageError("missing", "no such file") from error
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from error
    with open(descriptor, "rb", buffering=0) as file:
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("not-a-file", f"it is {file_kind(status.st_mode)}, not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise ImageError("too-large", f"a file of {status.st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
            data = file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
    if not data:
        raise ImageError("empty", "the file has zero bytes")
    return data


def file_kind(mode: int) -> str:
    """What a file that is not regular is, in words, from its `st_mode`."""
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISBLK, "a block device"),
    )
    return next((name for test, name in kinds if test(mode)), "a special file")


def load_image(location: str, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Reads and decodes one image file.

    Args:
        location: path of the file.
        preprocessing: what to make of it.

    Returns:
        uint8[size, size, 3], RGB.

    Raises:
        ImageError: for whatever is wrong with the file; nothing else is ever raised for an input.
    """
    return decode_image(read_file(location), preprocessing)


def decode_image(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decodes the bytes of one image; see `load_image`."""
    import numpy as np

    try:
        with open_image(data, preprocessing.max_pixels) as image:
            return np.asarray(_square(image, preprocessing))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory to decode it") from error
    except Exception as error:
        raise _damage(error) from error


def open_image(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image:
    """Opens an image without decoding its pixels.

    Raises:
        ImageError: the content is not an image, cannot be decoded here, or has more than `max_pixels` pixels.
    """
    if not data:
        raise ImageError("empty", "zero bytes")
    kind = sniff(data[:32])
    if kind is None:
        raise ImageError("not-an-image", f"the content is no image format that is known here (it begins {data[:8]!r})")
    module, formats = _pillow()
    if kind not in formats:
        how = "pip install 'xception-cli[heif]'" if kind == "HEIF" else "a Pillow built with it"
        raise ImageError("unsupported", f"{kind} files need {how}")
    try:
        # Phones write JPEGs that Pillow calls MPO, when a second picture follows the first.
        image: Image = module.open(io.BytesIO(data), formats=("JPEG", "MPO") if kind == "JPEG" else (kind,))
    except Exception as error:
        raise _damage(error, f"a {kind} header that cannot be read") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageError("too-large", f"{width}x{height} is more than --max-pixels {max_pixels:,}")
    if width < 1 or height < 1:
        image.close()
        raise ImageError("corrupt", f"a size of {width}x{height}")
    return image


_TRUNCATION = ("truncated", "unexpected end", "end of file", "eof", "not enough", "premature", "incomplete")


def _damage(error: Exception, what: str = "") -> ImageError:
    text = " ".join(str(error).split()) or type(error).__name__
    reason = "truncated" if isinstance(error, EOFError) or any(w in text.lower() for w in _TRUNCATION) else "corrupt"
    if "cannot identify image file" in text:
        text = what
    return ImageError(reason, f"{what}: {text}" if what and text != what else text)


_TRANSPOSE = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation to Pillow's `Transpose` that undoes it."""


def _square(image: Image, p: Preprocessing) -> Image:
    module, _ = _pillow()
    width, height = image.size
    if p.shrinks and image.format in ("JPEG", "MPO"):
        scale = _OVERSAMPLE * _needed_scale(width, height, p)
        # Pillow takes the strongest of 1/2, 1/4, 1/8 that leaves no less than this.
        image.draft(None, (max(1, round(width * scale)), max(1, round(height * scale))))
    # Only now: TIFF files turn themselves while they load, and a PNG may carry its orientation behind the pixels.
    image.load()
    shrink = round(width / image.width)
    orientation = _orientation(image)
    image = _to_rgb(image)
    if orientation in _TRANSPOSE:
        image = image.transpose(module.Transpose(_TRANSPOSE[orientation]))
        if orientation >= 5:
            width, height = height, width
    method = module.Resampling[p.interpolation.upper()]

    def resample(size: tuple[int, int], box: tuple[float, float, float, float]) -> Image:
        left, top, right, bottom = (edge / shrink for edge in box)
        return image.resize(size, method, (left, top, min(right, image.width), min(bottom, image.height)))

    whole = (0.0, 0.0, float(width), float(height))
    if p.resize == "squash":
        return resample((p.size, p.size), whole)
    if p.resize == "crop":
        return resample((p.size, p.size), crop_box(width, height, p))
    scale = p.size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas: Image = module.new("RGB", (p.size, p.size), PAD_COLOUR)
    canvas.paste(resample(inner, whole), ((p.size - inner[0]) // 2, (p.size - inner[1]) // 2))
    return canvas


def _needed_scale(width: int, height: int, p: Preprocessing) -> float:
    """The factor by which the image is resized; of two factors (`squash`) the larger."""
    if p.resize == "pad":
        return p.size / max(width, height)
    if p.resize == "squash":
        return p.size / min(width, height)
    return int(p.size / p.crop_pct) / min(width, height)


def crop_box(width: int, height: int, p: Preprocessing) -> tuple[float, float, float, float]:
    """The region (left, top, right, bottom), in pixels of a width x height image, that `crop` resamples.

    Resizing the shorter side to floor(size / crop_pct) and cutting out the centre reads just this region; resampling
    it alone gives the same pixels.
    """
    short = int(p.size / p.crop_pct)
    if width <= height:
        resized = (short, short * height // width)
    else:
        resized = (short * width // height, short)
    left, top = (round((side - p.size) / 2) for side in resized)
    fx, fy = width / resized[0], height / resized[1]
    return (left * fx, top * fy, (left + p.size) * fx, (top + p.size) * fy)


_ORIENTATION_TAG = 0x0112


def _orientation(image: Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - damaged metadata says nothing about the pixels, which may be whole
        return 1


def _to_rgb(image: Image) -> Image:
    module, _ = _pillow()
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value * (1 / 256), "L")
    elif image.mode in ("I", "F"):
        raise ImageError("unsupported", f"32-bit samples (mode {image.mode}); convert the image to 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return module.alpha_composite(module.new("RGBA", rgba.size, "white"), rgba).convert("RGB")  # type: ignore[no-any-return]
    if image.mode == "RGB":
        return image
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError("unsupported", f"no conversion from colour mode {image.mode} to RGB") from error
