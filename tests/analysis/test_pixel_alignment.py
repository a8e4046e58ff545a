"""Pictures laid over altered ones, and over others of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from threadpoolctl import threadpool_limits

from xcli.analysis.pixel_alignment import PAD, SIDE, Picture, agreement
from xcli.analysis.pixel_check import MIN_AGREEMENT


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def scene(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A picture of shapes on a ground with some structure."""
    random = np.random.default_rng(seed)
    ground = random.integers(90, 170, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(30):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        width, height = random.integers(8, 90, 2)
        colour = tuple(random.integers(0, 256, 3).tolist())
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x, y, x + width, y + height), fill=colour)
    return image


def picture(image: Image.Image) -> Picture:
    """As the decoders make it."""
    fitted = ImageOps.pad(image.convert("RGB"), (SIDE, SIDE), color=(PAD,) * 3)
    return Picture(np.asarray(fitted.convert("L")))


def cropped(image: Image.Image, left: float, top: float, share: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((left + share) * width), int((top + share) * height)))


def with_banner(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle((0, copy.height * 7 // 8, copy.width, copy.height), fill="black")
    return copy


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "an eighth of the size": lambda image: image.resize((50, 38)),
    "cropped at the left": lambda image: cropped(image, 0, 0, 0.75),
    "cropped at the right": lambda image: cropped(image, 0.25, 0.2, 0.75),
    "cropped to a square": lambda image: image.crop((50, 0, 350, 300)),
    "cropped to three fifths": lambda image: cropped(image, 0.2, 0.25, 0.6),
    "white border": lambda image: ImageOps.expand(image, 30, "white"),
    "grey border": lambda image: ImageOps.expand(image, 30, (PAD,) * 3),
    "two borders": lambda image: ImageOps.expand(ImageOps.expand(image, 10, "black"), 20, "white"),
    "mirrored": ImageOps.mirror,
    "mirrored and cropped": lambda image: cropped(ImageOps.mirror(image), 0.2, 0, 0.75),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "grey": lambda image: image.convert("L"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "banner": with_banner,
    "stretched": lambda image: image.resize((400, 330)),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_copy_agrees(name: str, seed: int) -> None:
    image = scene(seed)
    one, other = picture(image), picture(ALTERATIONS[name](image))
    assert agreement(one, other) >= MIN_AGREEMENT
    assert agreement(other, one) >= MIN_AGREEMENT


def shifted_parts(seed: int) -> Image.Image:
    """The scene of a seed whose parts have moved, as if photographed again after they were moved."""
    image = scene(seed)
    halves = [image.crop(box) for box in ((0, 0, 200, 150), (200, 0, 400, 150), (0, 150, 200, 300))]
    for half, place in zip(halves, ((30, 140), (170, 20), (210, 160)), strict=True):
        image.paste(half, place)
    return image


@pytest.mark.parametrize("seed", range(4))
def test_other_pictures_do_not_agree(seed: int) -> None:
    assert agreement(picture(scene(seed)), picture(scene(seed + 100))) < 0.8
    assert agreement(picture(scene(seed)), picture(shifted_parts(seed))) < 0.8


def test_one_ground_does_not_make_other_things_agree() -> None:
    ground = scene(0)
    images = []
    for seed in (1, 2):
        image = ground.copy()
        image.paste(scene(seed, (240, 220)), (80, 40))  # 44 % of the picture
        images.append(picture(image))
    assert agreement(*images) < MIN_AGREEMENT


@pytest.mark.parametrize("level", [0, PAD, 255])
def test_of_a_plain_picture_it_is_unknown(level: int) -> None:
    random = np.random.default_rng(0)
    plain = Picture(np.full((SIDE, SIDE), level, np.uint8))
    noisy = Picture(np.clip(level + random.integers(-1, 2, (SIDE, SIDE)), 0, 255).astype(np.uint8))
    assert plain.is_plain
    assert noisy.is_plain
    for other in (plain, noisy, picture(scene(0))):
        assert np.isnan(agreement(plain, other))
        assert np.isnan(agreement(other, noisy))


def test_it_is_the_same_either_way_and_each_time() -> None:
    one, other = picture(scene(1)), picture(cropped(scene(1), 0.1, 0.1, 0.8))
    assert agreement(one, other) == agreement(one, other)
    assert agreement(one, other) == pytest.approx(agreement(other, one), abs=0.02)


def test_odd_shapes_and_dots_are_no_bug() -> None:
    random = np.random.default_rng(0)
    dot = np.full((SIDE, SIDE), 128, np.uint8)
    dot[40:43, 50:52] = 250
    line = np.full((SIDE, SIDE), 128, np.uint8)
    line[47] = random.integers(0, 256, SIDE)
    noise = random.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    pictures = [Picture(one) for one in (dot, line, noise)]
    for one in pictures:
        for other in pictures:
            value = agreement(one, other)
            assert np.isnan(value) or 0 <= value <= 1.0001
