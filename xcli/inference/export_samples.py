"""Images on which an exported model is compared with this program: photographs of the user, or made ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError
from xcli.core.text import one_line
from xcli.inference.pipeline import PixelPipeline
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xcli.images.preprocessing import Preprocessing

DEFAULT_SAMPLES, MAX_SAMPLES = 32, 1_000

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Images, and what they are.

    Attributes:
        pixels: uint8[b, size, size, 3].
        description: for the card.
    """

    pixels: NDArray[Any]
    description: str


def choose_samples(sources: Sequence[str] | None, preprocessing: Preprocessing, count: int) -> Samples:
    """Reads photographs, or makes images if there are no sources; see the two functions below."""
    return photographs(sources, preprocessing, count) if sources else made_pixels(preprocessing.size, count)


def made_pixels(size: int, count: int = DEFAULT_SAMPLES) -> Samples:
    """Makes images without a photograph: slopes of colour, blocks and noise, the same ones in every run."""
    import numpy as np

    random = np.random.default_rng(0)
    slope = np.linspace(-90, 90, size)
    images = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        colours = random.uniform(0, 255, 3)
        blocks = np.repeat(random.normal(0, 60, (8, 8, 3)), -(-size // 8), axis=0).repeat(-(-size // 8), axis=1)
        image = colours + random.uniform(-1, 1) * slope[:, None, None] + random.uniform(-1, 1) * slope[None, :, None]
        image = image + blocks[:size, :size] + random.normal(0, random.uniform(0, 40), (size, size, 3))
        images[number] = np.clip(image, 0, 255)
    return Samples(images, f"{count} made ones (colours, blocks and noise)")


def photographs(sources: Sequence[str], preprocessing: Preprocessing, count: int = DEFAULT_SAMPLES) -> Samples:
    """Reads the first images of sources; those that cannot be read are passed over, and counted in a warning.

    Raises:
        SourceError: a source does not exist, or none of the images can be read.
    """
    import numpy as np

    found, problems = [], []
    with list_images(SourceOptions(tuple(sources))) as listing:
        pipeline = PixelPipeline(islice(listing, count), preprocessing, batch_size=16)
        for batch in pipeline.arrays():
            problems += [(ref, error) for ref, error in zip(batch.refs, batch.errors, strict=True) if error is not None]
            found += [pixels for pixels, error in zip(batch.pixels, batch.errors, strict=False) if error is None]
    if problems:
        ref, error = problems[0]
        what = "1 sample image" if len(problems) == 1 else f"{len(problems)} sample images"
        log.warning("%s cannot be read; the first: %s: %s", what, one_line(ref.path), error)
    if not found:
        raise SourceError(f"--images: no image can be read in {', '.join(map(one_line, sources))}")
    return Samples(np.stack(found), f"{len(found)} photographs of the user")
