"""A second look at pairs of images that may be copies: at their pixels.

Each image is read and decoded once, in the processes that decode, whatever the number of its pairs; a small grey
picture of it is kept in a temporary file, of 9 KiB an image. Memory is that of some hundred pictures. An image that
cannot be read, or on which there is too little to see, leaves its pairs unknown.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from xcli.analysis.pixel_alignment import SIDE, Picture, agreement
from xcli.images.preprocessing import Preprocessing
from xcli.inference.pipeline import PixelPipeline
from xcli.sources.row_images import row_images
from xcli.storage import disk
from xcli.storage.streams import read_errors, write_errors
from xcli.storage.temporary import TemporaryDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.errors import ImageError

MIN_AGREEMENT = 0.9
"""Agreement from which two images are copies: of 999 in 1,000 altered copies it is above 0.92, of look-alikes below."""

NOT_YET = -1.0
"""Agreement of pairs that have not been looked at."""

IMAGES, PAIRS = "images", "pairs"
"""What is counted while the pixels are checked."""

_BATCH = 16
_TOLD = 100  # pairs, after which the progress is told
_PICTURES = 256  # in memory, 0.3 MB each


class PixelCheck(NamedTuple):
    """What the pixels say of p pairs.

    Attributes:
        agreement: float32[p], from 0 to 1; NaN where it is unknown.
        unreadable: why images could not be read, by their places.
    """

    agreement: NDArray[np.float32]
    unreadable: dict[int, ImageError]

    @property
    def are_copies(self) -> NDArray[np.bool_]:
        """Which pairs are copies; not those of which it is unknown."""
        found: NDArray[np.bool_] = self.agreement >= MIN_AGREEMENT
        return found

    @property
    def are_unknown(self) -> NDArray[np.bool_]:
        """Of which pairs it is unknown."""
        import numpy as np

        return np.isnan(self.agreement)


def _silent(what: str, done: int, of: int) -> None:
    pass


def check_pixels(
    paths: Sequence[str],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    agreement_of: NDArray[np.float32] | None = None,
    images: str | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], object] = _silent,
) -> PixelCheck:
    """Looks at pairs of images; fastest if the pairs are sorted by the first image.

    Args:
        paths: of the images, as the column `path` of a table has them.
        first, second: int64[p], the images of the pairs, by their places in `paths`.
        agreement_of: float32[p], which is filled while the pairs are looked at; `NOT_YET` in those that follow.
        images: the directory in which local images are looked for; None is where their paths say.
        workers: number of processes that decode; None is one a processor.
        progress: is told what is counted (`IMAGES`, then `PAIRS`), how many are done, and of how many.

    Raises:
        OutputError: there is no room for the temporary file.
        MachineError: the storage of the images does not answer.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    found = np.empty(len(first), np.float32) if agreement_of is None else agreement_of
    found[:] = NOT_YET
    if not len(found):
        return PixelCheck(found, {})
    directory = TemporaryDirectory("small pictures of the images")
    path = os.path.join(directory.path, "pictures")
    try:
        unreadable = _write_pictures(path, paths, images, workers, progress)
        # On matrices this small, threads wait for each other longer than they work.
        with read_errors(path), open(path, "rb", buffering=0) as file, threadpool_limits(1):

            @lru_cache(_PICTURES)
            def picture(image: int) -> Picture | None:
                if image in unreadable:
                    return None
                # Read, not mapped: what was mapped would count as memory of this process.
                file.seek(image * SIDE**2)
                return Picture(np.frombuffer(file.read(SIDE**2), np.uint8).reshape(SIDE, SIDE))

            for number, (one, other) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
                mine, theirs = picture(one), picture(other)
                found[number] = np.nan if mine is None or theirs is None else agreement(mine, theirs)
                if (number + 1) % _TOLD == 0:
                    progress(PAIRS, number + 1, len(first))
            progress(PAIRS, len(first), len(first))
    finally:
        directory.close()
    return PixelCheck(found, unreadable)


def _write_pictures(
    path: str,
    paths: Sequence[str],
    images: str | None,
    workers: int | None,
    progress: Callable[[str, int, int], object],
) -> dict[int, ImageError]:
    """Writes a picture of each image; returns why images cannot be read, whose pictures are black."""
    import numpy as np
    from PIL import Image

    unreadable: dict[int, ImageError] = {}
    done = 0
    refs = row_images(paths, images)
    preprocessing = Preprocessing(size=SIDE, resize="pad")
    with write_errors(path), disk.create(path) as file:
        for batch in PixelPipeline(refs, preprocessing, batch_size=_BATCH, workers=workers).arrays():
            for image, (pixels, error) in enumerate(zip(batch.pixels, batch.errors, strict=True), done):
                if error is not None:
                    unreadable[image] = error
                # The padding is grey, and stays 128.
                file.write(np.asarray(Image.fromarray(pixels).convert("L")).tobytes())
            done += len(batch.refs)
            progress(IMAGES, done, len(paths))
    return unreadable
