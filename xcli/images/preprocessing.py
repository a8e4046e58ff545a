"""From the bytes of an image file to the pixels that the network receives.

The rules for every format are in docs/image-decoding.md, and each has a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError, UsageError
from xcli.core.records import settings_as_dict
from xcli.images.decoders import DEFAULT_MAX_PIXELS, explain_decode_error, open_image, orientation_of
from xcli.images.formats import HEAD_BYTES, MAX_FILE_BYTES, sniff
from xcli.images.jpeg import JpegStream, PrematureEnd
from xcli.images.metadata import without_metadata
from xcli.images.resampling import PACKAGE, PILLOW, best_resampler, check_resampler, resample
from xcli.images.rgb import MAX_BIT_DEPTH, MIN_BIT_DEPTH, to_rgb
from xcli.images.warnings import DAMAGED_DATA, warn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from xcli.core.records import Readable

RESIZE_MODES = ("crop", "squash", "pad")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
DEFAULT_CROP_PCT = 0.897
PAD_COLOUR = (128, 128, 128)
"""Mid-grey: close to zero after scaling to [-1, 1]."""

_OVERSAMPLE = 2
"""A JPEG that is shrunk while decoding keeps this many times the resolution needed; 1 would be 2.6 grey levels off."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the square that the network receives.

    Attributes:
        size: side of the square, in pixels.
        resize: `crop` (shorter side to floor(size / crop_pct), then the centre), `squash` (both sides to size) or
            `pad` (longer side to size, the rest mid-grey).
        interpolation: resampling filter, with antialiasing (except `nearest`).
        crop_pct: share of the resized shorter side that the crop keeps.
        jpeg_shrink: let large JPEGs be shrunk while decoding; never done for `squash` with `nearest`, which promises
            the pixels of `keras.utils.load_img`.
        max_pixels: images with more pixels are refused, unread.
        bit_depth: number of bits used in samples of 16 bits, 8 to 16; a camera's 12 bits would else be nearly black.
        strict: refuse JPEGs whose data are damaged, instead of warning of them.
        resampler: what resizes: `pillow`, or `simd`, which is much faster, and differs by a grey level here and there;
            None becomes `simd` where that is installed and has the filter.
    """

    size: int = 299
    resize: str = "crop"
    interpolation: str = "bicubic"
    crop_pct: float = DEFAULT_CROP_PCT
    jpeg_shrink: bool = True
    max_pixels: int = DEFAULT_MAX_PIXELS
    bit_depth: int = MAX_BIT_DEPTH
    strict: bool = False
    resampler: str | None = None

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
        if not MIN_BIT_DEPTH <= self.bit_depth <= MAX_BIT_DEPTH:
            raise UsageError(f"bit_depth must be from {MIN_BIT_DEPTH} to {MAX_BIT_DEPTH}; received {self.bit_depth}")
        if self.resampler is None:
            object.__setattr__(self, "resampler", best_resampler(self.interpolation))
        check_resampler(self.resampler, self.interpolation)

    @property
    def shrinks(self) -> bool:
        return self.jpeg_shrink and not (self.resize == "squash" and self.interpolation == "nearest")

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages, besides those that every run needs, on which the pixels depend."""
        return () if self.resampler == PILLOW else (PACKAGE,)

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings by name, for provenance."""
        settings = settings_as_dict(self, ("bit_depth", "strict"))
        if self.resampler == PILLOW:
            del settings["resampler"]  # so it was before there was another
        return settings


def load_image(location: Readable, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Reads and decodes one image to uint8[size, size, 3], RGB.

    Raises:
        ImageError: anything is wrong with the file; no input raises another exception.
    """
    return decode_image(location.read(MAX_FILE_BYTES), preprocessing)


def image_decoder() -> Callable[[Readable, Preprocessing], NDArray[np.uint8]]:
    """Returns `load_image`, for the processes that decode."""
    return load_image


def decode_image(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decodes the bytes of one image; see `load_image`."""
    try:
        return _decode(data, preprocessing)
    except ImageError:
        raise
    except Exception as error:
        rest = without_metadata(data, sniff(data[:HEAD_BYTES]) or "")
        if rest is not None:
            return decode_image(rest, preprocessing)
        raise explain_decode_error(error, data) from error


def _decode(data: bytes, p: Preprocessing, *, watched: bool = True) -> NDArray[np.uint8]:
    with open_image(data, p.max_pixels) as image:
        stream = image.fp if watched and isinstance(image.fp, JpegStream) and image.fp.watch(image) else None
        pixels = None
        try:
            pixels = _square(image, p)
            if stream is None or not stream.has_extraneous_data:
                return pixels
            damage = "goes on behind the last pixel"
        except PrematureEnd:
            damage = "ends before the last pixel"
    if p.strict:
        raise ImageError("corrupt", f"the compressed data {damage} (--strict)")
    warn(DAMAGED_DATA)
    # A watched decoder has filled the missing pixels from bits that are not in the file.
    return _decode(data, p, watched=False) if pixels is None else pixels


_TRANSPOSE = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""For each EXIF orientation the member of Pillow's `Transpose` that undoes it."""


def _square(image: ImageFile, p: Preprocessing) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    width, height = image.size
    shrink = _draft(image, p)
    rgb = to_rgb(image, p.bit_depth)
    if shrink == 1:
        # Pillow turns a TIFF while it loads it, and the header of a HEIF may be wrong about the size.
        width, height = rgb.size
    # Only after loading, because a PNG may hold its orientation after the pixels.
    orientation = orientation_of(image)
    if rgb is not image:
        image.close()  # frees its pixels before turning makes another copy
    x = y = 0.0
    if orientation in _TRANSPOSE:
        # If `shrink` does not divide the size, the last column and row are only partly image. After turning they may
        # come first, so that the image begins within them.
        spare_x, spare_y = rgb.width - width / shrink, rgb.height - height / shrink
        rgb = rgb.transpose(Image.Transpose(_TRANSPOSE[orientation]))
        if orientation >= 5:
            width, height, spare_x, spare_y = height, width, spare_y, spare_x
        x = spare_x if orientation in (2, 3, 6, 7) else 0.0
        y = spare_y if orientation in (3, 4, 7, 8) else 0.0
    box = crop_box(width, height, p) if p.resize == "crop" else (0.0, 0.0, float(width), float(height))
    left, top, right, bottom = (edge / shrink for edge in box)
    box = (left + x, top + y, min(right + x, rgb.width), min(bottom + y, rgb.height))
    if p.resize != "pad":
        return resample(rgb, (p.size, p.size), box, p.interpolation, p.resampler)
    scale = p.size / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    column, row = (p.size - inner[0]) // 2, (p.size - inner[1]) // 2
    canvas = np.full((p.size, p.size, 3), PAD_COLOUR, np.uint8)
    canvas[row : row + inner[1], column : column + inner[0]] = resample(rgb, inner, box, p.interpolation, p.resampler)
    return canvas


def _draft(image: ImageFile, p: Preprocessing) -> int:
    """Requests that a large JPEG be shrunk while it is decoded; returns the divisor: 1, 2, 4 or 8."""
    if not p.shrinks or image.format != "JPEG":
        return 1
    width, height = image.size
    scale = _OVERSAMPLE * _needed_scale(width, height, p)
    # Pillow takes the smallest of 1/2, 1/4, 1/8 that leaves no less than this.
    drafted = image.draft(None, (max(1, round(width * scale)), max(1, round(height * scale))))
    return 1 if drafted is None else round(width / drafted[1][2])


def _needed_scale(width: int, height: int, p: Preprocessing) -> float:
    """Returns the factor by which the image is resized; `squash` has two, of which it is the larger."""
    target = int(p.size / p.crop_pct) if p.resize == "crop" else p.size
    return target / (max(width, height) if p.resize == "pad" else min(width, height))


def crop_box(width: int, height: int, p: Preprocessing) -> tuple[float, float, float, float]:
    """Returns the region (left, top, right, bottom), in pixels of a width x height image, that `crop` resamples.

    Resizing the shorter side to floor(size / crop_pct) and cropping the centre reads only this region; resampling it
    alone gives the same pixels.
    """
    short = int(p.size / p.crop_pct)
    resized = [short * side // min(width, height) for side in (width, height)]
    left, top = (round((side - p.size) / 2) for side in resized)
    fx, fy = width / resized[0], height / resized[1]
    return (left * fx, top * fy, (left + p.size) * fx, (top + p.size) * fy)
