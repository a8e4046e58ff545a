"""Altered copies of images, such as those that turn up in collections: for `python -m benchmarks.duplicates`."""

from __future__ import annotations

import os
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Alteration = Callable[[Image.Image], Image.Image]

QUALITY = 92  # of JPEG, where the alteration is another


def _scaled(share: float) -> Alteration:
    return lambda image: image.resize(
        (max(1, round(image.width * share)), max(1, round(image.height * share))), Image.Resampling.LANCZOS
    )


def _cropped(share: float) -> Alteration:
    """Leaves away a share of the width and of the height, more of it at the right and at the bottom."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = round(image.width * (1 - share)), round(image.height * (1 - share))
        left, top = round(image.width * share * 0.3), round(image.height * share * 0.3)
        return image.crop((left, top, left + width, top + height))

    return crop


def _bordered(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, border=max(1, round(0.06 * max(image.size))), fill="white")


def _with_banner(image: Image.Image) -> Image.Image:
    copy = image.copy()
    height = max(1, copy.height // 12)
    draw = ImageDraw.Draw(copy)
    draw.rectangle((0, copy.height - height, copy.width, copy.height), fill="black")
    draw.text((height // 4, copy.height - height), "www.example.com", fill="white", font_size=max(4, height * 0.7))
    return copy


def _same(image: Image.Image) -> Image.Image:
    return image


ALTERATIONS: dict[str, tuple[Alteration, int]] = {
    "half the size, JPEG 92": (_scaled(0.5), QUALITY),
    "JPEG quality 30": (_same, 30),
    "10 % cropped": (_cropped(0.10), QUALITY),
    "25 % cropped": (_cropped(0.25), QUALITY),
    "white border": (_bordered, QUALITY),
    "mirrored": (ImageOps.mirror, QUALITY),
    "30 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.3), QUALITY),
    "grey": (lambda image: image.convert("L"), QUALITY),
    "a fifth of the size": (_scaled(0.2), QUALITY),
    "banner with text": (_with_banner, QUALITY),
}
"""What is done to an image, and the JPEG quality with which the copy is stored, by name."""


def write_copies(paths: list[str], folder: str) -> list[tuple[str, int, str]]:
    """Writes a copy of each image for each alteration; returns path, number of the original, and name of each."""
    made = []
    for number, path in enumerate(paths):
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        for index, (name, (alter, quality)) in enumerate(ALTERATIONS.items()):
            target = os.path.join(folder, f"{number:05}-{index}.jpg")
            alter(image).save(target, quality=quality)
            made.append((target, number, name))
    return made
