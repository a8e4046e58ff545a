"""Augmented views of images: flips, random crops and colour changes that follow from bytes, view number and seed.

View 0 is the image as inference decodes it. View 1 is its mirror image, unless flips are off. Each further view is a
random crop of random shape from a square that is decoded somewhat larger, mirrored half the time, with small changes of
brightness, contrast and saturation, as in Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError, UsageError
from xcli.images.formats import MAX_FILE_BYTES
from xcli.images.preprocessing import DEFAULT_CROP_PCT, Preprocessing, decode_image
from xcli.inference.decoder_server import DecoderSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import Readable
    from xcli.inference.decoder_process import Decoder

MAX_VIEWS = 100

_MAX_STRETCH = 0.85
"""Smallest ratio of a crop's width to its height, and of its height to its width."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What may change between the views of an image.

    Attributes:
        flip: mirror left and right.
        crop: smallest share of the area that a random crop keeps, above 0; 1 turns cropping off.
        colour: largest change of brightness, contrast and saturation, as a share: 0.2 is from 0.8 to 1.2; 0 is none.
    """

    flip: bool = True
    crop: float = 0.7
    colour: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"--crop must be above 0 and at most 1; received {self.crop:g}")
        if not 0 <= self.colour < 1:
            raise UsageError(f"--colour must be from 0 to below 1; received {self.colour:g}")

    def distinct(self, views: int) -> int:
        """Returns how many of `views` views differ: without crops and colour changes at most two."""
        return views if self.crop < 1 or self.colour > 0 else min(views, 2 if self.flip else 1)

    def describe(self, view: int, seed: int) -> dict[str, Any]:
        """Returns everything that a view's pixels depend on, besides the image and its preprocessing."""
        if view == 0:
            return {"view": 0}
        if view == 1 and self.flip:
            return {"view": "mirrored"}
        return {"view": view, "seed": seed, **asdict(self)}


def view_spec(augmentation: Augmentation, view: int, seed: int) -> DecoderSpec:
    """Names `view_decoder` with these arguments, for the processes that decode."""
    arguments = {"augmentation": asdict(augmentation), "view": view, "seed": seed}
    return DecoderSpec("training.augmentation", "view_decoder_of", arguments)


def view_decoder_of(augmentation: dict[str, Any], view: int, seed: int) -> Decoder:
    """Returns a `view_decoder`, for an `Augmentation` with these attributes."""
    return view_decoder(Augmentation(**augmentation), view, seed)


def view_decoder(augmentation: Augmentation, view: int, seed: int) -> Decoder:
    """Returns a decoder of a view; its random numbers follow from the seed, the view and the image's bytes."""

    def decode(location: Readable, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        import numpy as np

        data = location.read(MAX_FILE_BYTES)
        if view == 0:
            return decode_image(data, preprocessing)
        if view == 1 and augmentation.flip:
            return np.ascontiguousarray(decode_image(data, preprocessing)[:, ::-1])
        words = np.frombuffer(sha256(data).digest()[:16], np.uint32).tolist()
        return _random_view(data, preprocessing, augmentation, np.random.default_rng([seed, view, *words]))

    return decode


def _random_view(
    data: bytes, preprocessing: Preprocessing, augmentation: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image, ImageEnhance

    size = preprocessing.size
    # Random crops may include the margin that inference cuts off, so the square spans the whole shorter side.
    share = preprocessing.crop_pct if preprocessing.resize == "crop" else DEFAULT_CROP_PCT
    larger = replace(preprocessing, size=max(size, int(size / share)), crop_pct=1.0)
    try:
        image = Image.fromarray(decode_image(data, larger))
        image = image.resize((size, size), Image.Resampling.BICUBIC, crop_window(image.width, augmentation.crop, rng))
        if augmentation.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if augmentation.colour:
            for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = change(image).enhance(rng.uniform(1 - augmentation.colour, 1 + augmentation.colour))
    except MemoryError as error:
        raise ImageError("too-large", "not enough memory for an augmented view of it") from error
    return np.asarray(image)


def crop_window(side: int, least: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Returns a random window (left, top, right, bottom), in pixels, of a square with sides of `side` pixels.

    It covers at least the share `least` of the square's area; 1 gives the whole square.
    """
    import numpy as np

    area, stretch = rng.uniform(least, 1), float(np.exp(rng.uniform(np.log(_MAX_STRETCH), -np.log(_MAX_STRETCH))))
    if least == 1:
        return (0.0, 0.0, float(side), float(side))
    width, height = (min(side, side * float(np.sqrt(area * ratio))) for ratio in (stretch, 1 / stretch))
    left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
    return (left, top, left + width, top + height)
