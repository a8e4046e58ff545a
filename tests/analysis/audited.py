"""A data set with faults that were made on purpose: images, their features as if a network had computed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.analysis.featuretables import write_features

CLASSES = ("cat", "dog", "owl")
COUNT = 20  # images of a class
WIDTH = 48


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Discs of many colours; two seeds have nothing in common."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[1], : size[0]]
    pixels = np.full((size[1], size[0], 3), random.integers(60, 200, 3), np.uint8)
    for _ in range(25):
        y, x, radius = random.integers(0, size[1]), random.integers(0, size[0]), random.integers(6, 30)
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = random.integers(0, 256, 3)
    return Image.fromarray(pixels)


class Folders:
    """Class folders below `top`; `save` adds images, `features` writes the table of all of them.

    Attributes:
        vectors: the features, by path below `top`.
    """

    def __init__(self, top: Path, parts: tuple[str, ...] = ("",), count: int = COUNT) -> None:
        self.top = top
        self.vectors: dict[str, np.ndarray] = {}
        self.random = np.random.default_rng(0)
        self.centres = {name: self.random.normal(4, 4, WIDTH) for name in CLASSES}
        for part in parts:
            for name in CLASSES:
                for number in range(count):
                    self.save(f"{part}/{name}/{number:02}.png".lstrip("/"), name)

    def save(self, path: str, kind: str, image: Image.Image | None = None, vector: np.ndarray | None = None) -> str:
        """Adds an image that shows a kind."""
        target = self.top / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (picture(len(self.vectors)) if image is None else image).save(target)
        self.vectors[path] = self.centres[kind] + self.random.normal(0, 1, WIDTH) if vector is None else vector
        return str(target)

    def features(self, target: Path, failed: tuple[str, ...] = ()) -> str:
        """Writes the table."""
        paths = sorted(self.vectors)
        values = np.stack([self.vectors[path] for path in paths]).astype(np.float32)
        places = [paths.index(path) for path in failed]
        return write_features(target, values, [f"{self.top}/{path}" for path in paths], places)
