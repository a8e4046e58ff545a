"""Looks at every image of a data set for what is wrong with it as a picture, in the processes that decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.analysis.picture_faults import SIDE, faults_of
from xcli.core.errors import ImageError
from xcli.images.preprocessing import Preprocessing
from xcli.inference.pipeline import PixelPipeline
from xcli.inference.preflight import read_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xcli.analysis.picture_faults import Fault
    from xcli.core.records import ImageRef

_BATCH = 16


def look_at_pictures(
    refs: Iterable[ImageRef],
    workers: int | None = None,
    progress: Callable[[int, int], object] = lambda images, failed: None,
) -> Iterator[list[Fault] | ImageError]:
    """Yields for each image, in their order, its faults, or why it cannot be read.

    Args:
        refs: the images.
        workers: number of processes that decode; None is one a processor.
        progress: is told of each batch the numbers of images, and of those that cannot be read.
    """
    preprocessing = Preprocessing(size=SIDE, resize="squash", interpolation="bicubic")
    for batch in PixelPipeline(iter(refs), preprocessing, batch_size=_BATCH, workers=workers).arrays():
        headers = (header for _, header in read_headers(batch.refs))
        for pixels, error, header in zip(batch.pixels, batch.errors, headers, strict=True):
            if error is not None:
                yield error
            elif isinstance(header, ImageError):  # the file has gone since it was decoded
                yield header
            else:
                yield faults_of(pixels, header[1], header[2])
        progress(len(batch.refs), sum(error is not None for error in batch.errors))
