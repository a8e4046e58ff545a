"""Faults of pictures: each made on purpose, and none found in ordinary ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from xcli.analysis.picture_faults import SIDE, faults_of


def picture(seed: int = 0) -> Image.Image:
    """Discs and stripes of many sizes and colours with sharp edges, somewhat as a photograph has."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pixels = np.empty((SIDE, SIDE, 3))
    pixels[:] = random.integers(60, 200, 3)
    for _ in range(40):
        y, x, radius = random.integers(0, SIDE, 3)
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < (radius / 5) ** 2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels.astype(np.uint8))


def issues(image: Image.Image, width: int = 800, height: int = 600) -> list[str]:
    return [one.issue for one in faults_of(np.asarray(image), width, height)]


@pytest.mark.parametrize("seed", range(5))
def test_an_ordinary_picture_has_none(seed: int) -> None:
    assert issues(picture(seed)) == []


def scaled(factor: float, offset: float = 0) -> Any:
    return lambda image: image.point(lambda level: min(255, int(level * factor + offset)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: image.filter(ImageFilter.GaussianBlur(3)), ["blurred"]),
        (lambda image: image.resize((40, 40)).resize((SIDE, SIDE), Image.Resampling.BICUBIC), ["blurred"]),
        (scaled(0.25), ["dark"]),
        (scaled(0.2, 200), ["bright"]),
        (scaled(0.02, 100), ["blank"]),
        (scaled(0), ["blank"]),
        (lambda image: Image.new("RGB", image.size, (10, 200, 30)), ["blank"]),
        (lambda image: scaled(0.25)(image.filter(ImageFilter.GaussianBlur(4))), ["dark", "blurred"]),
    ],
)
def test_a_fault_is_found(change: Any, expected: list[str]) -> None:
    assert issues(change(picture())) == expected


def test_goods_on_white_ground_are_not_too_bright() -> None:
    image = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    image.paste(picture().resize((80, 80)), (90, 90))
    assert issues(image) == []


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), []),
        ((63, 64), ["tiny"]),
        ((300, 100), []),
        ((301, 100), ["odd-shape"]),
        ((20, 2000), ["tiny", "odd-shape"]),
    ],
)
def test_sizes(size: tuple[int, int], expected: list[str]) -> None:
    assert issues(picture(), *size) == expected


def test_severity_is_from_0_to_1_and_grows() -> None:
    severities = []
    for radius in (2, 5):
        (fault,) = faults_of(np.asarray(picture().filter(ImageFilter.GaussianBlur(radius))), 500, 500)
        severities.append(fault.severity)
    assert 0 <= severities[0] < severities[1] <= 1
    (fault,) = faults_of(np.zeros((SIDE, SIDE, 3), np.uint8), 500, 500)
    assert fault.severity == 1
