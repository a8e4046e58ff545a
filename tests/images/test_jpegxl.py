"""JPEG XL: the header is read before anything is decoded, and each way of storing pixels becomes RGB."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.imagefiles import HAVE_JPEGXL, gradient, jpegxl
from tests.images.pixels import PICTURE, difference, pixels, reason
from xcli.core.errors import ImageError
from xcli.images import decoders
from xcli.images.decoders import open_image
from xcli.images.formats import has_image_extension, sniff
from xcli.images.jpegxl import CONTAINER_SIGNATURE, read_header
from xcli.images.preprocessing import Preprocessing, decode_image

needs_jpegxl = pytest.mark.skipif(not HAVE_JPEGXL, reason="imagecodecs is not installed")

FRAMES = np.stack([np.asarray(PICTURE), np.asarray(PICTURE.rotate(180))])
ORDINARY = "11"  # all else has its default, and a bit beyond


def codestream(*fields: tuple[int, int] | str) -> bytes:
    """A code stream that begins with these fields: a value and its number of bits, or bits in their order."""
    bits = "".join(one if isinstance(one, str) else format(one[0], f"0{one[1]}b")[::-1] for one in fields)
    return b"\xff\x0a" + int(bits[::-1], 2).to_bytes(len(bits) // 8 + 1, "little")


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def container(*boxes: bytes) -> bytes:
    return CONTAINER_SIGNATURE + box(b"ftyp", b"jxl \0\0\0\0jxl ") + b"".join(boxes)


SMALL = codestream("1", (31, 5), "000", (0, 5), ORDINARY)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (SMALL, (8, 256, 8)),
        (codestream("1", (1, 5), "100", ORDINARY), (16, 16, 8)),
        (codestream("0", (0, 2), (499, 9), (3, 3), ORDINARY), (666, 500, 8)),
        (codestream("0", (1, 2), (8191, 13), (5, 3), ORDINARY), (14563, 8192, 8)),
        (codestream("0", (2, 2), (99_999, 18), (0, 3), (3, 2), (2**30 - 1, 30), ORDINARY), (2**30, 100_000, 8)),
        (codestream("1", (0, 5), (7, 3), "0", "0", "0", (2, 2)), (16, 8, 12)),
        (codestream("1", (0, 5), (7, 3), "0", "0", "0", (3, 2), (15, 6)), (16, 8, 16)),
        # Turned, with a size for display and a preview, animated.
        (
            codestream(
                *("1", (0, 5), "100", "01", (5, 3), "1", "1", (0, 5), "100", "1", "1", (2, 2), (3, 5), "100"),
                *("1", (0, 2), (3, 2), (9, 10), (1, 2), (7, 3), "1", "0", (1, 2)),
            ),
            (8, 8, 10),
        ),
    ],
)
def test_header(data: bytes, expected: tuple[int, int, int]) -> None:
    assert read_header(data) == expected
    assert read_header(container(box(b"Exif", bytes(9)), box(b"jxlc", data))) == expected
    pieces = (box(b"jxlp", bytes(4) + data[:3]), box(b"brob", b"Exif"), box(b"jxlp", b"\x80\0\0\1" + data[3:]))
    assert read_header(container(*pieces)) == expected
    long = (1).to_bytes(4) + b"jxlc" + (16 + len(data)).to_bytes(8) + data
    assert read_header(container(long)) == expected
    assert read_header(container(bytes(4) + b"jxlc" + data)) == expected, "a box that reaches to the end"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\x0a", "truncated"),
        (b"\xff\x0a\x02", "truncated"),
        (container(), "truncated"),
        (container(box(b"jxlp", b"")), "truncated"),
        (container(box(b"jxlc", b"\xff\x0b" + bytes(60))), "corrupt"),
        (container((3).to_bytes(4) + b"free" + bytes(60)), "corrupt"),
        (container(*[box(b"free", b"")] * 2000, box(b"jxlc", SMALL)), "truncated"),
        (codestream("1", (0, 5), "100", "0", "0", "1", "00000000"), "unsupported"),
    ],
)
def test_header_that_cannot_be_read(data: bytes, why: str) -> None:
    assert sniff(data[:64]) == "JPEGXL"
    with pytest.raises(ImageError) as caught:
        read_header(data)
    assert caught.value.reason == why


@needs_jpegxl
def test_sizes_are_those_of_the_encoder() -> None:
    chosen = random.Random(0)
    sizes = [(chosen.randint(1, 700), chosen.randint(1, 700)) for _ in range(12)]
    for width, height in [*sizes, (256, 256), (320, 240), (400, 200), (1, 1), (8, 16), (9000, 2), (3, 2)]:
        header = read_header(jpegxl(np.zeros((height, width), np.uint8)))
        assert header == (width, height, 8)


@needs_jpegxl
@pytest.mark.parametrize("options", [{"usecontainer": True}, {}])
def test_pixels(options: dict[str, Any]) -> None:
    see_through = np.dstack([np.asarray(PICTURE), np.asarray(PICTURE.convert("L"))])
    assert difference(pixels(jpegxl(PICTURE, **options)), PICTURE) == 0
    white = Image.new("RGBA", PICTURE.size, "white")
    flat = Image.alpha_composite(white, Image.fromarray(see_through)).convert("RGB")
    assert difference(pixels(jpegxl(see_through, **options)), flat) <= 1
    grey = PICTURE.convert("L")
    assert difference(pixels(jpegxl(grey, **options)), grey.convert("RGB")) == 0
    grey.putalpha(PICTURE.convert("L"))
    flat = Image.alpha_composite(white, grey.convert("RGBA")).convert("RGB")
    assert difference(pixels(jpegxl(grey, **options)), flat) <= 1


@needs_jpegxl
@pytest.mark.parametrize("bits", [4, 10, 12, 16])
def test_of_other_depths_the_most_significant_bits_are_kept(bits: int) -> None:
    shape = (*PICTURE.size[::-1], 3)
    wide = (np.arange(np.prod(shape)).reshape(shape) % (1 << bits)).astype(np.uint16 if bits > 8 else np.uint8)
    expected = wide >> bits - 8 if bits > 8 else wide * 17
    assert difference(pixels(jpegxl(wide, bitspersample=bits)), expected) == 0


@needs_jpegxl
def test_lossy_and_first_frame_and_floats() -> None:
    assert difference(pixels(jpegxl(PICTURE, lossless=False, distance=0.5)), PICTURE) <= 20
    assert difference(pixels(jpegxl(FRAMES)), PICTURE) == 0
    assert reason(jpegxl(np.asarray(PICTURE, np.float32) / 255)) == "unsupported"


@needs_jpegxl
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_once(orientation: int) -> None:
    data = jpegxl(FRAMES)  # an animation, since its header has the orientation
    header = int.from_bytes(data, "little")
    at = 16 + 1 + 5 + 3 + 2  # behind the signature, the size in eighths, a ratio, and two flags
    assert read_header(data)[:2] == PICTURE.size
    turned = header & ~(7 << at) | orientation - 1 << at
    upright = PICTURE
    if orientation > 1:
        operation = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]
        upright = PICTURE.transpose(Image.Transpose(operation))
    assert difference(pixels(turned.to_bytes(len(data), "little"), upright.size), upright) == 0


@needs_jpegxl
def test_what_is_damaged_or_too_large() -> None:
    data = jpegxl(gradient(300, 200))
    for cut in (2, 3, 5, 12, len(data) // 2, len(data) - 1):
        assert reason(data[:cut]) == "truncated"
    assert reason(data[:40] + bytes(200)) in ("corrupt", "truncated")
    with pytest.raises(ImageError, match="300x200 is more than --max-pixels"):
        open_image(data, 300 * 200 - 1)
    assert reason(codestream("0", (3, 2), (2**30 - 1, 30), "100", ORDINARY)) == "too-large", "nothing was decoded"


@needs_jpegxl
def test_opening_does_not_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    monkeypatch.setattr(imagecodecs, "jpegxl_decode", None)
    with open_image(jpegxl(PICTURE)) as image:
        assert (image.format, image.size) == ("JPEGXL", PICTURE.size)


def test_without_imagecodecs_the_row_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    decoders.load_decoders.cache_clear()
    try:
        assert "JPEGXL" not in decoders.supported_formats()
        with pytest.raises(ImageError, match="JPEGXL files need pip install imagecodecs") as caught:
            decode_image(SMALL, Preprocessing())
        assert caught.value.reason == "unsupported"
    finally:
        decoders.load_decoders.cache_clear()


def test_it_is_found_in_directories() -> None:
    assert has_image_extension(b"a.JXL")
