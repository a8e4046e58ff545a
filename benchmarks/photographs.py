"""The photographs that every part reads: given or generated, tiled to the number asked for, and joined to mosaics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Of files that every contestant can read."""

SIZE = (500, 375)
QUALITY = 90
DISTINCT = 200
"""Most generated photographs: enough not to fit in a processor's caches, few enough to make in seconds."""

MOSAIC = (4000, 3000)
TILE = (500, 375)


def find(folder: str | Path) -> list[Path]:
    """Image files below a directory, by name.

    Raises:
        click.UsageError: there are none.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise click.UsageError(f"{folder} has no files that end in {', '.join(SUFFIXES)}")
    return files


def texture(width: int, height: int, seed: int) -> NDArray[np.float32]:
    """Noise of many octaves with the spectrum of photographs: the finer the detail, the fainter.

    Returns:
        float32[height, width, 3] around 0.
    """
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    cells, strength = 3, 26.0
    while cells < width:
        rows = max(2, cells * height // width)
        # Brightness varies more than colour does.
        noise = random.standard_normal((rows, cells, 1)) + 0.35 * random.standard_normal((rows, cells, 3))
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel].astype(np.float32))
            total[..., channel] += strength * np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
        cells, strength = cells * 2, strength * 0.82
    return total


def photograph(seed: int, size: tuple[int, int] = SIZE) -> Image:
    """A picture with detail at every scale and with edges, as photographs have them.

    Args:
        seed: the same seed gives the same picture.
        size: width and height in pixels.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    random = np.random.default_rng([seed, 1])
    width, height = size
    scene = Image.new("RGB", size, tuple(int(value) for value in random.integers(60, 200, 3)))
    draw = ImageDraw.Draw(scene)
    for _ in range(14):
        colour = tuple(int(value) for value in random.integers(20, 235, 3))
        corners = random.uniform(-0.2, 1.2, (4, 2)) * (width, height)
        if random.random() < 0.5:
            (left, right), (top, bottom) = sorted(corners[:2, 0]), sorted(corners[:2, 1])
            draw.ellipse((left, top, right, bottom), fill=colour)
        else:
            draw.polygon([(float(x), float(y)) for x, y in corners], fill=colour)
    samples = np.asarray(scene, np.float32) + texture(width, height, seed)
    return Image.fromarray(samples.round().clip(0, 255).astype(np.uint8))


def generate(folder: str | Path, count: int, seed: int = 0) -> list[Path]:
    """Writes that many different photographs, JPEGs of quality 90, into a new directory.

    Args:
        folder: made here.
        count: how many.
        seed: the same seed gives the same files.
    """
    Path(folder).mkdir()
    files = []
    for number in range(count):
        files.append(Path(folder, f"photograph-{number:04}.jpg"))
        photograph(seed * 1_000_000 + number).save(files[-1], quality=QUALITY)
    return files


def tile(files: Sequence[Path], folder: str | Path, count: int) -> int:
    """Fills a new directory with that many links to the files.

    Of too many files it takes some from everywhere in the list; too few come again and again.

    Returns:
        How many different files are among them: the first ones.
    """
    Path(folder).mkdir()
    for number in range(count):
        source = files[number % len(files) if count > len(files) else number * len(files) // count]
        os.symlink(source.resolve(), Path(folder, f"{number:07}{source.suffix.lower()}"))
    return min(count, len(files))


def warm(folder: str | Path) -> None:
    """Reads every file once, so that no contestant is the one that waits for the disk."""
    for file in Path(folder).iterdir():
        file.read_bytes()


def _cut(image: Image, size: tuple[int, int]) -> Image:
    """A tile from the middle of a photograph: its own pixels, enlarged only where it is smaller than the tile."""
    from PIL import Image as module
    from PIL import ImageOps

    if image.height > image.width:
        image = image.transpose(module.Transpose.ROTATE_90)
    if image.width < size[0] or image.height < size[1]:
        return ImageOps.fit(image, size, module.Resampling.BICUBIC)
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image.crop((left, top, left + size[0], top + size[1]))


def mosaics(
    files: Sequence[Path],
    folder: str | Path,
    count: int,
    size: tuple[int, int] = MOSAIC,
    tile_size: tuple[int, int] = TILE,
) -> list[Path]:
    """Writes large photographs, each made of small ones side by side: JPEGs of quality 90.

    Args:
        files: the small ones, taken in turn.
        folder: made here.
        count: how many.
        size: width and height of each, in pixels.
        tile_size: width and height that each small one takes.
    """
    from PIL import Image

    Path(folder).mkdir()
    written, taken = [], 0
    for number in range(count):
        canvas = Image.new("RGB", size)
        for top in range(0, size[1], tile_size[1]):
            for left in range(0, size[0], tile_size[0]):
                with Image.open(files[taken % len(files)]) as image:
                    canvas.paste(_cut(image.convert("RGB"), tile_size), (left, top))
                taken += 1
        written.append(Path(folder, f"mosaic-{number:02}.jpg"))
        canvas.save(written[-1], quality=QUALITY)
    return written
