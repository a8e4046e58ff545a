"""From an image to another number of pixels: with Pillow, or about five times as fast with processor-wide instructions.

Both compute the same convolution, with antialiasing, in two passes of whole numbers. They differ by a grey level where
they round differently, and by a few in single pixels where a pass cuts off what lies beyond 0 or 255: `simd` always
resamples the columns first, Pillow whichever way is less work (before its release 13: the rows). Neither is nearer
to the exact convolution.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

PILLOW, SIMD = RESAMPLERS = ("pillow", "simd")
PACKAGE = "cykooz-resizer"
"""Of `simd`, as it is called where packages are installed from."""

_FILTERS = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}
"""Its names of Pillow's filters. `box` would differ where a pixel lies half in it."""

_MOST_PIXELS = 1 << 24
"""Larger images are left to Pillow, which needs no copy of them."""

Box = tuple[float, float, float, float]


def best_resampler(interpolation: str) -> str:
    """Returns `simd` if it is installed and has the filter, else `pillow`."""
    return SIMD if has_simd() and interpolation in _FILTERS else PILLOW


@cache
def has_simd() -> bool:
    """Returns whether `simd` is installed, without importing it."""
    return find_spec("cykooz_resizer") is not None


def load_resampler() -> None:
    """Imports what resamples, so that processes that are forked have it already."""
    if has_simd():
        _algorithm("bicubic")


def check_resampler(resampler: str | None, interpolation: str) -> None:
    """Checks that a resampler is there and has a filter.

    Raises:
        UsageError: it is not, or has not.
    """
    if resampler not in RESAMPLERS:
        raise UsageError(f"resampler must be one of {', '.join(RESAMPLERS)}; received {resampler!r}")
    if resampler == SIMD and interpolation not in _FILTERS:
        raise UsageError(f"the resampler {SIMD} has no filter {interpolation}; use the resampler {PILLOW}")
    if resampler == SIMD and not has_simd():
        raise UsageError(f"the resampler {SIMD} is not installed here: pip install {PACKAGE}, or use {PILLOW}")


def resample(
    image: Image.Image, size: tuple[int, int], box: Box, interpolation: str, resampler: str | None
) -> NDArray[Any]:
    """Resamples a region of an image.

    Args:
        image: of mode RGB.
        size: width and height of the result, in pixels.
        box: the region: left, top, right and bottom, in pixels of the image, within it.
        interpolation: the filter; scaled with the image where that becomes smaller, so that nothing is aliased.
        resampler: one of `RESAMPLERS`; `simd` leaves to Pillow what would become larger in a direction, because it
            was seen to read memory that is not the image's there.

    Returns:
        uint8[height, width, 3]
    """
    import numpy as np

    left, top, right, bottom = box
    shrinks = right - left >= size[0] and bottom - top >= size[1]
    if resampler == SIMD and shrinks and image.width * image.height <= _MOST_PIXELS:
        return _with_simd(image, size, box, interpolation)
    from PIL import Image

    return np.asarray(image.resize(size, Image.Resampling[interpolation.upper()], box))


def _with_simd(image: Image.Image, size: tuple[int, int], box: Box, interpolation: str) -> NDArray[np.uint8]:
    import numpy as np
    from cykooz_resizer import ImageData, PixelType, ResizeOptions, Resizer
    from cykooz_resizer.structs import CropBox

    left, top, right, bottom = box
    # Bytes, not Pillow's image: of that, the package reads the structure in memory, which changes with its releases.
    source = ImageData(image.width, image.height, PixelType.U8x3, image.tobytes())
    target = ImageData(*size, PixelType.U8x3)
    region = CropBox(left, top, right - left, bottom - top)
    options = ResizeOptions(_algorithm(interpolation), crop_box=region, use_alpha=False)
    Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(size[1], size[0], 3)


@cache
def _algorithm(interpolation: str) -> Any:
    from cykooz_resizer import FilterType, ResizeAlg

    return ResizeAlg.convolution(FilterType[_FILTERS[interpolation]])
