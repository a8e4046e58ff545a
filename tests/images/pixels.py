"""Test images, and what is decoded of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.imagefiles import (
    HAVE_AVIF,
    HAVE_HEIF,
    gradient,
    small_files,
)
from xcli.core.errors import ImageError
from xcli.images.preprocessing import Preprocessing, decode_image

if TYPE_CHECKING:
    pass

needs_avif = pytest.mark.skipif(not HAVE_AVIF, reason="this Pillow has no AVIF")
needs_heif = pytest.mark.skipif(not HAVE_HEIF, reason="pillow_heif is not installed")

PICTURE = gradient()
SOUND = small_files()
WHITE = (255, 255, 255)


def pixels(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """All pixels of a file, as int[height, width, 3], through the whole pixel stage: padded to the longer side."""
    width, height = size or PICTURE.size
    side = max(width, height)
    p = Preprocessing(size=side, resize="pad", interpolation="nearest", jpeg_shrink=False)
    left, top = (side - width) // 2, (side - height) // 2
    return decode_image(data, p)[top : top + height, left : left + width].astype(int)


def reason(data: bytes, p: Preprocessing | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, p or Preprocessing())
    return caught.value.reason


def difference(a: Any, b: Any) -> int:
    """The largest difference of any sample."""
    a, b = np.asarray(a, int), np.asarray(b, int)
    assert a.shape == b.shape
    return int(abs(a - b).max())
