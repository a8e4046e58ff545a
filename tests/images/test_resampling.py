"""The resampler that is faster than Pillow, beside the convolution that both compute."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.imagefiles import texture
from xcli.core.errors import UsageError
from xcli.images import resampling
from xcli.images.preprocessing import Preprocessing, crop_box
from xcli.images.resampling import resample
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

simd = pytest.mark.skipif(not resampling.has_simd(), reason="cykooz-resizer is not installed")


def bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel of Keys (1981) with a = -0.5, that of Catmull and Rom."""
    x, a = abs(x), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(0, 1 - abs(x))


def lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


KERNELS = {"bilinear": (bilinear, 1), "bicubic": (bicubic, 2), "lanczos": (lanczos, 3)}


def weights(length: int, begin: float, end: float, count: int, interpolation: str) -> NDArray[np.float64]:
    """Returns the weight of each of `length` pixels in each of `count` pixels that cover them from `begin` to `end`."""
    kernel, radius = KERNELS[interpolation]
    scale = (end - begin) / count
    centres = begin + (np.arange(count)[:, None] + 0.5) * scale
    distances = (np.arange(length) + 0.5 - centres) / max(scale, 1)
    found = np.where(abs(distances) < radius, kernel(distances), 0)
    return found / found.sum(axis=1, keepdims=True)


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.floor(values + 0.5), 0, 255)


def convolved(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float], interpolation: str
) -> NDArray[np.float64]:
    """Resamples the columns, then the rows; each pass rounds to what a byte holds."""
    left, top, right, bottom = box
    rows = rounded(
        np.einsum("oh,hwc->owc", weights(image.height, top, bottom, size[1], interpolation), np.asarray(image))
    )
    return rounded(np.einsum("ow,hwc->hoc", weights(image.width, left, right, size[0], interpolation), rows))


@simd
@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("dimensions", [(150, 110), (110, 150), (101, 80), (300, 81), (80, 80)])
def test_simd_is_the_convolution(dimensions: tuple[int, int], interpolation: str) -> None:
    image = texture(*dimensions)
    whole = (0.0, 0.0, *map(float, dimensions))
    for size, box in (((80, 80), whole), ((71, 64), crop_box(*dimensions, Preprocessing(size=71))), ((9, 50), whole)):
        found = resample(image, size, box, interpolation, "simd")
        assert (found.shape, found.dtype) == ((size[1], size[0], 3), np.uint8)
        assert abs(found - convolved(image, size, box, interpolation)).max() <= 2


@simd
@pytest.mark.parametrize("dimensions", [(640, 480), (480, 640), (500, 375), (400, 533)])
def test_simd_is_near_to_pillow(dimensions: tuple[int, int]) -> None:
    image = texture(*dimensions)
    box = crop_box(*dimensions, Preprocessing())
    fast, plain = (resample(image, (299, 299), box, "bicubic", name).astype(int) for name in ("simd", "pillow"))
    assert abs(fast - plain).mean() <= 0.5


@simd
def test_what_becomes_larger_is_left_to_pillow() -> None:
    for dimensions in ((20, 13), (44, 1), (500, 200), (200, 500), (1, 1)):
        image = texture(*dimensions)
        whole = (0.0, 0.0, *map(float, dimensions))
        found = resample(image, (299, 299), whole, "bicubic", "simd")
        assert (found == np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC, whole))).all()


@simd
def test_images_of_any_shape_do_not_crash() -> None:
    """In a process of its own: what would fail here is the process."""
    code = """
import itertools
from PIL import Image
from xcli.images.preprocessing import Preprocessing, crop_box
from xcli.images.resampling import resample
for width, height in itertools.product((1, 2, 3, 5, 8, 13, 20, 24, 39, 299, 333, 334, 500), repeat=2):
    image = Image.new("RGB", (width, height), "red")
    for size, share in ((16, 0.3), (16, 1.0), (299, 0.897)):
        box = crop_box(width, height, Preprocessing(size=size, crop_pct=share))
        box = (*box[:2], min(box[2], width), min(box[3], height))
        for interpolation in ("bilinear", "bicubic", "lanczos"):
            assert (resample(image, (size, size), box, interpolation, "simd") == (255, 0, 0)).all()
"""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_simd_is_the_default_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(ModelSpec(weights="none", pooling=None, include_top=False, image_size=71))
    monkeypatch.setattr(resampling, "has_simd", lambda: True)
    for make in (Preprocessing, lambda: preprocessing_for(model)):
        assert make().resampler == "simd"
        assert make().as_dict()["resampler"] == "simd"
        assert make().packages == ("cykooz-resizer",)
    assert Preprocessing(interpolation="hamming").resampler == "pillow"
    plain = preprocessing_for(model, resampler="pillow")
    assert "resampler" not in plain.as_dict()
    assert plain.packages == ()
    with pytest.raises(UsageError, match="the resampler simd has no filter nearest; use the resampler pillow"):
        Preprocessing(interpolation="nearest", resampler="simd")
    with pytest.raises(UsageError, match="resampler must be one of pillow, simd; received 'best'"):
        Preprocessing(resampler="best")
    monkeypatch.setattr(resampling, "has_simd", lambda: False)
    assert Preprocessing().resampler == "pillow"
    with pytest.raises(UsageError, match="the resampler simd is not installed here: pip install cykooz-resizer"):
        Preprocessing(resampler="simd")
