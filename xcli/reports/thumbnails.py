"""Makes thumbnails of the images of a table, in the processes that decode."""

from __future__ import annotations

import base64
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, XcliError
from xcli.core.text import unescape_path
from xcli.images.preprocessing import Preprocessing
from xcli.inference.pipeline import PixelPipeline
from xcli.sources.archives.listing import SEPARATOR, Archives
from xcli.sources.locations import file_ref, unlisted_object_ref
from xcli.sources.patterns import PathFilter
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import ImageRef

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
    refs = _references(paths, images)
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


def _references(paths: Sequence[str], images: str | None) -> Iterator[ImageRef]:
    archives = Archives(PathFilter(system=True), Counter())
    for text in paths:
        yield _reference(text, images, archives)


def _reference(text: str, images: str | None, archives: Archives) -> ImageRef:
    """Returns the reference to the image of a row; whatever is wrong with its path is the reference's error."""
    try:
        path = unescape_path(text)
        if is_url(path) and images is None:
            return archives.member(os.fsencode(path)) or unlisted_object_ref(path)
        if images is not None:
            path = _moved(path, images)
        encoded = os.fsencode(path)
        is_member = SEPARATOR in path and not os.path.lexists(path)
        return (archives.member(encoded) if is_member else None) or file_ref(encoded)
    except (XcliError, ValueError) as error:  # a damaged path, or packages that are missing
        return file_ref(b"?", error=ImageError("unreadable", str(error)))


def _moved(path: str, folder: str) -> str:
    """Returns where an image is in the folder: at the longest end of its path that exists there.

    No part of a path leads out of the folder: `.` and `..` are left out.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        candidate = os.path.join(folder, *parts[start:])
        archive = candidate.partition(SEPARATOR)[0]
        if os.path.lexists(candidate) or (archive != candidate and os.path.lexists(archive)):
            return candidate
    return os.path.join(folder, *parts)
