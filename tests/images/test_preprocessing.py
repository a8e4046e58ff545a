"""Orientation, geometry, and shrinking while decoding."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.imagefiles import (
    encode,
    exif,
    gradient,
    heic,
    png_chunk,
    texture,
    turned,
)
from tests.images.pixels import PICTURE, difference, needs_avif, needs_heif, pixels
from xcli.core.errors import UsageError
from xcli.images import preprocessing as images
from xcli.images.decoders import open_image
from xcli.images.preprocessing import Preprocessing, crop_box, decode_image, load_image
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    stored = turned(PICTURE, orientation)
    tags = exif(orientation)
    for form, options in (("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})):
        assert difference(pixels(encode(stored, form, exif=tags, **options)), PICTURE) == 0, form
    assert difference(pixels(encode(stored, "WEBP", exif=tags, lossless=True)), PICTURE) == 0
    assert difference(pixels(encode(stored, "JPEG", exif=tags, quality=95)), PICTURE) <= 6


@pytest.mark.parametrize("resize", images.RESIZE_MODES)
@pytest.mark.parametrize("size", [20, 90])
def test_orientation_is_applied_before_resizing(resize: str, size: int) -> None:
    # Mirrored afterwards, the rounding of the filters would differ.
    p = Preprocessing(size=size, resize=resize)
    upright = decode_image(encode(PICTURE, "PNG"), p)
    for orientation in range(2, 9):
        for form in ("PNG", "TIFF"):
            data = encode(turned(PICTURE, orientation), form, exif=exif(orientation))
            assert (decode_image(data, p) == upright).all(), (form, orientation)


@needs_heif
def test_heic_is_turned_once() -> None:
    data = heic(turned(PICTURE, 6), exif=exif(6).tobytes(), quality=95)
    assert difference(pixels(data), PICTURE) <= 12


@needs_avif
def test_avif_is_turned_once() -> None:
    data = encode(turned(PICTURE, 6), "AVIF", exif=exif(6), quality=95)
    assert difference(pixels(data), PICTURE) <= 12


def test_orientation_behind_the_pixels() -> None:
    data = encode(turned(PICTURE, 6), "PNG")
    end = data.index(b"IEND") - 4
    late = data[:end] + png_chunk(b"eXIf", exif(6).tobytes()) + data[end:]
    assert difference(pixels(late), PICTURE) == 0


@pytest.mark.parametrize(
    "tags",
    [
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0",  # an orientation in words
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x2a\0\0",  # the 42nd
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\xff\0",  # a fraction, elsewhere
        b"Exif\0\0" + bytes(40),
        b"Exif\0\0",
        b"Exif\0\0" + random.Random(0).randbytes(500),
    ],
)
def test_damaged_exif_is_ignored(tags: bytes) -> None:
    assert difference(pixels(encode(PICTURE, "JPEG", exif=tags, quality=95)), PICTURE) <= 6
    assert difference(pixels(encode(PICTURE, "PNG", exif=tags)), PICTURE) == 0
    assert difference(pixels(encode(PICTURE, "WEBP", exif=tags, lossless=True)), PICTURE) == 0


def test_a_damaged_second_picture_of_a_jpeg_is_ignored() -> None:
    data = bytearray(encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE], quality=95))
    index = data.index(b"MPF\0")
    for damage in (b"II*\0\xff\xff\xff\xff", bytes(8), b"II*\0\x08\0\0\0\0\0"):
        data[index + 4 : index + 4 + len(damage)] = damage
        assert difference(pixels(bytes(data)), PICTURE) <= 6


def reference(image: Image.Image, size: int, crop_pct: float, method: Image.Resampling) -> np.ndarray:
    """torchvision's Resize and CenterCrop."""
    short = int(size / crop_pct)
    width, height = image.size
    if width <= height:
        resized = image.resize((short, int(short * height / width)), method)
    else:
        resized = image.resize((int(short * width / height), short), method)
    left = int(round((resized.width - size) / 2))  # noqa: RUF046 - as torchvision has it
    top = int(round((resized.height - size) / 2))  # noqa: RUF046
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(
    "dimensions",
    [(333, 333), (640, 480), (480, 640), (500, 375), (1000, 333), (299, 299), (100, 80), (37, 53), (1201, 700)],
)
def test_crop_is_that_of_the_evaluation_protocol(dimensions: tuple[int, int]) -> None:
    image = texture(*dimensions)
    found = decode_image(encode(image, "PNG"), Preprocessing(resampler="pillow"))
    assert difference(found, reference(image, 299, 0.897, Image.Resampling.BICUBIC)) <= 1


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
def test_interpolations(interpolation: str) -> None:
    image = texture(210, 150)
    method = Image.Resampling[interpolation.upper()]
    data = encode(image, "PNG")
    p = Preprocessing(interpolation=interpolation, crop_pct=0.8, resampler="pillow")
    for size in (64, 200):
        squashed = decode_image(data, replace(p, size=size, resize="squash"))
        assert difference(squashed, image.resize((size, size), method)) == 0
        cropped = decode_image(data, replace(p, size=size))
        if interpolation == "nearest":
            # A sample that falls between two pixels may fall to either.
            assert (cropped == reference(image, size, 0.8, method)).mean() > 0.9
        else:
            assert difference(cropped, reference(image, size, 0.8, method)) <= 1
    seen = {
        decode_image(data, Preprocessing(size=64, interpolation=other)).tobytes() for other in images.INTERPOLATIONS
    }
    assert len(seen) == len(images.INTERPOLATIONS)


def test_crop_pct_one_keeps_the_whole_shorter_side() -> None:
    image = texture(80, 60)
    found = decode_image(encode(image, "PNG"), Preprocessing(size=60, crop_pct=1.0))
    assert difference(found, image.crop((10, 0, 70, 60))) == 0


def test_squash_with_nearest_is_keras_load_img(tmp_path: Path, keras: Any) -> None:
    picture = texture(517, 389)
    files = {
        "rgb.png": encode(picture, "PNG"),
        "grey.png": encode(picture.convert("L"), "PNG"),
        "rgb.jpg": encode(picture, "JPEG"),
        "large.jpg": encode(texture(1600, 1100), "JPEG"),
        "grey.jpg": encode(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "palette.gif": encode(picture.quantize(256), "GIF"),
        "rgb.bmp": encode(picture, "BMP"),
        "rgb.webp": encode(picture, "WEBP"),
    }
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        for size in (71, 299, 700):
            p = Preprocessing(size=size, resize="squash", interpolation="nearest")
            theirs = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(size, size)), dtype="uint8")
            assert (load_image(LocalFile(str(path)), p) == theirs).all(), (name, size)


@pytest.mark.parametrize(
    ("dimensions", "box"),
    [
        ((100, 50), (0, 25, 100, 75)),
        ((50, 100), (25, 0, 75, 100)),
        ((100, 100), (0, 0, 100, 100)),
        ((200, 66), (0, 33, 100, 66)),
        ((1, 1), (0, 0, 100, 100)),
        ((5000, 3), (0, 49, 100, 50)),
    ],
)
def test_pad(dimensions: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    data = encode(Image.new("RGB", dimensions, (250, 5, 5)), "PNG")
    found = decode_image(data, Preprocessing(size=100, resize="pad"))
    expected = np.full((100, 100, 3), images.PAD_COLOUR)
    left, top, right, bottom = box
    expected[top:bottom, left:right] = (250, 5, 5)
    assert difference(found, expected) == 0


@pytest.mark.parametrize("resize", images.RESIZE_MODES)
@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
def test_one_pixel(resize: str, interpolation: str) -> None:
    data = encode(Image.new("RGB", (1, 1), (9, 99, 199)), "PNG")
    for size in (1, 2, 299):
        found = decode_image(data, Preprocessing(size=size, resize=resize, interpolation=interpolation))
        assert (found == (9, 99, 199)).all()


@pytest.mark.parametrize("resize", images.RESIZE_MODES)
@pytest.mark.parametrize("dimensions", [(1, 5000), (5000, 1), (3, 2), (2, 3000)])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [1, 299])
def test_extreme_shapes(resize: str, dimensions: tuple[int, int], form: str, size: int) -> None:
    data = encode(Image.new("RGB", dimensions, (9, 99, 199)), form, **({"quality": 95} if form == "JPEG" else {}))
    found = decode_image(data, Preprocessing(size=size, resize=resize))
    middle = found[size // 2, size // 2]
    assert abs(middle.astype(int) - (9, 99, 199)).max() <= 4


@pytest.mark.parametrize("dimensions", [(20_000, 50), (50, 20_000)])
def test_a_strip_costs_no_more_than_a_square(dimensions: tuple[int, int]) -> None:
    left, top, right, bottom = crop_box(*dimensions, Preprocessing())
    assert right - left == pytest.approx(299 * 50 / 333)
    assert bottom - top == pytest.approx(299 * 50 / 333)
    strip, square = (encode(gradient(*shape), "PNG", compress_level=1) for shape in (dimensions, (1000, 1000)))

    def seconds(data: bytes) -> float:
        begin = time.process_time()
        decode_image(data, Preprocessing())
        return time.process_time() - begin

    assert min(seconds(strip) for _ in range(3)) < 2 * min(seconds(square) for _ in range(3)) + 0.05


def test_the_crop_of_a_strip_is_its_centre() -> None:
    image = texture(2000, 40)
    found = decode_image(encode(image, "PNG"), Preprocessing(size=60, crop_pct=1.0))
    assert difference(found, reference(image, 60, 1.0, Image.Resampling.BICUBIC)) <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": 0},
        {"resize": "stretch"},
        {"interpolation": "cubic"},
        {"crop_pct": 0},
        {"crop_pct": 1.1},
        {"crop_pct": float("nan")},
        {"max_pixels": 0},
    ],
)
def test_settings_that_make_no_sense(arguments: dict[str, Any]) -> None:
    (value,) = arguments.values()
    with pytest.raises(UsageError, match=str(value)):
        Preprocessing(**arguments)


def waves(width: int, height: int) -> Image.Image:
    """Steep slopes without detail: a shift by a pixel shows, a loss of resolution does not."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    bands = [128 + 110 * np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((4, 1), (1, 4), (3, 3))]
    return Image.fromarray(np.stack(bands, -1).round().astype(np.uint8))


def shrink_of(data: bytes, p: Preprocessing) -> int:
    with open_image(data) as image:
        return images._draft(image, p)


def test_a_detailed_photograph_is_shrunk_within_a_level() -> None:
    quarter = texture(2000, 1500)
    photograph = Image.new("RGB", (4000, 3000))
    for left, top, turn in ((0, 0, None), (2000, 0, 0), (0, 1500, 1), (2000, 1500, 3)):
        photograph.paste(quarter if turn is None else quarter.transpose(Image.Transpose(turn)), (left, top))
    data = encode(photograph, "JPEG", quality=90)
    assert shrink_of(data, Preprocessing()) == 4
    shrunk = decode_image(data, Preprocessing()).astype(int)
    whole = decode_image(data, Preprocessing(jpeg_shrink=False)).astype(int)
    assert whole.std() > 20
    assert 0 < abs(shrunk - whole).mean() < 1


@pytest.mark.parametrize("resize", images.RESIZE_MODES)
@pytest.mark.parametrize("dimensions", [(1600, 1200), (1203, 905), (905, 1207), (1001, 2399)])
def test_a_shrunk_image_is_not_shifted(resize: str, dimensions: tuple[int, int]) -> None:
    # Sizes that neither 8 nor the shrinking divides, and each way to hold the camera.
    p = Preprocessing(size=75, resize=resize)
    picture = waves(*dimensions)
    expected = decode_image(encode(picture, "PNG", compress_level=0), p).astype(int)
    for orientation in range(1, 9):
        data = encode(turned(picture, orientation), "JPEG", quality=95, subsampling=0, exif=exif(orientation))
        assert shrink_of(data, p) in (4, 8)
        apart = abs(decode_image(data, p) - expected)
        assert apart.mean() < 0.4, orientation
        assert apart.max() <= 6, orientation


def test_what_is_shrunk() -> None:
    large, small = encode(gradient(2000, 1500), "JPEG"), encode(gradient(500, 375), "JPEG")
    assert shrink_of(large, Preprocessing()) == 2
    assert shrink_of(small, Preprocessing()) == 1
    assert shrink_of(large, Preprocessing(size=75)) == 8
    assert shrink_of(large, Preprocessing(jpeg_shrink=False)) == 1
    assert shrink_of(large, Preprocessing(resize="squash")) == 2
    assert shrink_of(large, Preprocessing(resize="squash", interpolation="nearest")) == 1
    assert shrink_of(encode(gradient(2000, 1500), "PNG"), Preprocessing()) == 1
    # Never below twice the resolution needed, by either side.
    for width, height in ((2664, 2664), (2663, 2664), (5000, 700), (1332, 1332), (17, 17)):
        for p in (Preprocessing(), Preprocessing(size=1), Preprocessing(resize="pad"), Preprocessing(resize="squash")):
            shrink = shrink_of(encode(Image.new("L", (width, height)), "JPEG"), p)
            assert shrink in (1, 2, 4, 8)
            assert shrink == 1 or 1 / shrink >= 2 * images._needed_scale(width, height, p)


def test_a_second_picture_does_not_prevent_shrinking() -> None:
    data = encode(gradient(1200, 900), "MPO", save_all=True, append_images=[gradient(64, 48)])
    assert shrink_of(data, Preprocessing(size=75)) == 4
