"""Makes thumbnails of the images of a table, in the processes that decode."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from xcli.images.preprocessing import Preprocessing
from xcli.inference.pipeline import PixelPipeline
from xcli.sources.row_images import row_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

SIDE = 144
"""Of a thumbnail, in pixels."""

_BATCH = 16
_QUALITY = 62


@dataclass
class Thumbnails:
    """Thumbnails of some paths, each as the base64 of a WebP file.

    Attributes:
        made: by path.
        missing: why an image has none, by path: an `ImageError.reason`.
        left_out: number of paths that were not looked at, since the room was used up.
    """

    made: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    left_out: int = 0

    def of(self, path: str) -> int | str:
        """Returns the number of a path's thumbnail, in the order of `made`, or why it has none; "" is want of room."""
        return self._numbers.get(path, self.missing.get(path, ""))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {path: number for number, path in enumerate(self.made)}


def make_thumbnails(
    paths: Sequence[str],
    room: int,
    images: str | None,
    workers: int | None,
    progress: Callable[[int, int], object],
) -> Thumbnails:
    """Makes thumbnails of the images, in this order, until they take `room` bytes.

    Args:
        paths: different ones, as the column `path` has them.
        room: bytes of base64 in all.
        images: the directory in which local images are looked for; None is where their paths say.
        workers: number of processes that decode.
        progress: is told of each batch the numbers of images, and of those that cannot be shown.
    """
    found = Thumbnails()
    refs = row_images(paths, images)
    # The middle square, since a sheet of squares can be read at a glance.
    preprocessing = Preprocessing(size=SIDE, crop_pct=1.0)
    position = 0
    for batch in PixelPipeline(refs, preprocessing, batch_size=_BATCH, workers=workers).arrays():
        names = paths[position : position + len(batch.refs)]
        for path, pixels, error in zip(names, batch.pixels, batch.errors, strict=True):
            if error is not None:
                found.missing[path] = error.reason
                continue
            text = _encode(pixels)
            room -= len(text)
            if room < 0:
                found.left_out = len(paths) - len(found.made) - len(found.missing)
                return found
            found.made[path] = text
        position += len(names)
        progress(len(names), sum(error is not None for error in batch.errors))
    return found


def _encode(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY, method=2)
    return base64.b64encode(file.getvalue()).decode()
