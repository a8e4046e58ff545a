"""Netpbm, Targa, icons and JPEG 2000: how each way of storing pixels becomes RGB, and what is refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from tests.imagefiles import encode, gradient
from tests.images.pixels import PICTURE, difference, pixels, reason
from xcli.core.errors import ImageError
from xcli.images.decoders import open_image
from xcli.images.formats import has_image_extension, sniff
from xcli.images.preprocessing import Preprocessing, decode_image

needs_jpeg2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")

SEE_THROUGH = PICTURE.convert("RGBA")
SEE_THROUGH.putalpha(PICTURE.convert("L"))


def over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


@pytest.mark.parametrize("name", [b"a.PPM", b"b.pgm", b"c.pbm", b"d.pnm", b"e.tga", b"f.ico", b"g.jp2", b"h.J2K"])
def test_they_are_found_in_directories(name: bytes) -> None:
    assert has_image_extension(name)


# ---- Netpbm ----


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P1 2 1 1 0", [0, 255]),
        (b"P4\n2 1\n\x80", [0, 255]),
        (b"P2 2 1 255 7 200", [7, 200]),
        (b"P2\n# by hand\n2 1\n# most\n15\n0 15\n", [0, 255]),
        (b"P5 2 1 255\n\x07\xc8", [7, 200]),
        (b"P5 2 1 100\n\x00\x64", [0, 255]),
        (b"P5 2 1 65535\n\x00\xff\xc8\x01", [0, 0xC8]),
        (b"P5 2 1 4095\n\x00\x00\x0f\xff", [0, 255]),
        (b"P6 1 1 255\n\x01\x02\x03", [1, 2, 3]),
        (b"P6 1 1 65535\n\x01\xff\x02\x00\x03\x00", [1, 2, 3]),
    ],
)
def test_netpbm(data: bytes, expected: list[int]) -> None:
    found = pixels(data, (1, 1) if b"P6" in data else (2, 1))
    assert (found[0, 0].tolist() if b"P6" in data else found[0, :, 0].tolist()) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"P6 10 10 255\n\1\2\3", "truncated"),
        (b"P6 10 10", "truncated"),
        (b"P5 0 10 255\n", "corrupt"),
        (b"P5 10 10 70000\n" + bytes(100), "corrupt"),
        (b"P6 99999 99999 255\n\1\2\3", "too-large"),
        (b"P3 2 2 255 1 2 x", "corrupt"),
    ],
)
def test_netpbm_that_is_damaged(data: bytes, why: str) -> None:
    assert sniff(data) == "PPM"
    assert reason(data) in (why, "truncated", "corrupt") if why != "too-large" else reason(data) == why


@pytest.mark.parametrize("text", [b"P1", b"P6x", b"P2 is the name of a car", b"PNG 1", b"P7 2 2"])
def test_text_is_no_netpbm(text: bytes) -> None:
    assert sniff(text) is None


# ---- Targa ----


@pytest.mark.parametrize("compression", [None, "tga_rle"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_targa(mode: str, compression: str | None) -> None:
    image = PICTURE.quantize(200) if mode == "P" else PICTURE.convert(mode)
    assert difference(pixels(encode(image, "TGA", compression=compression)), image.convert("RGB")) == 0


def test_alpha_of_a_targa_counts_only_if_it_has_bits() -> None:
    data = bytearray(encode(SEE_THROUGH, "TGA"))
    assert data[17] & 15 == 8
    assert difference(pixels(bytes(data)), over_white(SEE_THROUGH)) == 0
    data[17] &= 0xF0
    assert difference(pixels(bytes(data)), PICTURE) == 0, "many programs write zeros there"


def test_targa_that_is_damaged() -> None:
    data = encode(PICTURE, "TGA")
    assert reason(data[:-60]) == "truncated"
    assert reason(data[:18]) == "truncated"
    large = bytearray(data)
    large[12:16] = b"\xff\xff\xff\xff"
    assert reason(bytes(large)) == "too-large"


@pytest.mark.parametrize(
    "head",
    [
        bytes(64),
        b"\0\0\1\xba" + bytes(60),  # MPEG
        b"\0\1\0\0" + bytes(60),  # TrueType
        b"\0\0\2\0" + bytes(60),  # a cursor
        struct.pack("<16i", *range(16)),
    ],
)
def test_other_binary_data_is_no_targa(head: bytes) -> None:
    assert sniff(head) is None


# ---- icons ----


@pytest.mark.parametrize("form", ["png", "bmp"])
def test_the_largest_picture_of_an_icon(form: str) -> None:
    square = SEE_THROUGH.resize((48, 48))
    data = encode(square, "ICO", sizes=[(16, 16), (32, 32), (48, 48)], bitmap_format=form)
    assert difference(pixels(data, (48, 48)), over_white(square)) <= 1


def test_an_icon_of_256_pixels() -> None:
    square = gradient(256, 256)
    data = encode(square, "ICO", sizes=[(32, 32), (256, 256)])
    assert data[6:8] in (b"\x20\x20", b"\0\0")
    assert difference(pixels(data, (256, 256)), square) == 0


def icon(width: int, height: int, picture: bytes, offset: int = 22) -> bytes:
    return b"\0\0\1\0" + struct.pack("<H4B2H2L", 1, width, height, 0, 0, 1, 32, len(picture), offset) + picture


def test_icons_that_lie() -> None:
    png = encode(Image.new("1", (20_000, 9_000)), "PNG")
    assert reason(icon(16, 16, png)) == "too-large", "its own header counts"
    bitmap = struct.pack("<Lll2H6L", 40, 30_000, 60_000, 1, 32, 0, 0, 0, 0, 0, 0)
    assert reason(icon(16, 16, bitmap + bytes(100))) == "too-large"
    assert reason(icon(16, 16, png, offset=1 << 31)) == "truncated"
    assert reason(icon(16, 16, png)[:-100] if len(png) > 100 else png) == "truncated"
    assert reason(b"\0\0\1\0\xff\xff" + bytes(100)) == "corrupt"
    assert reason(b"\0\0\1\0\2\0" + bytes(20)) == "truncated"
    assert reason(icon(16, 16, b"\xff" * 60)) in ("corrupt", "unsupported", "truncated", "too-large")


# ---- JPEG 2000 ----


@needs_jpeg2000
@pytest.mark.parametrize("options", [{}, {"no_jp2": True}, {"tile_size": (32, 32)}])
def test_jpeg_2000(options: dict) -> None:
    assert difference(pixels(encode(PICTURE, "JPEG2000", **options)), PICTURE) == 0
    assert difference(pixels(encode(SEE_THROUGH, "JPEG2000", **options)), over_white(SEE_THROUGH)) <= 1
    assert (
        difference(pixels(encode(PICTURE.convert("L"), "JPEG2000", **options)), PICTURE.convert("L").convert("RGB"))
        == 0
    )


@needs_jpeg2000
def test_jpeg_2000_of_16_bits() -> None:
    wide = (np.arange(64 * 48, dtype=np.uint16) * 20).reshape(48, 64)
    found = pixels(encode(Image.fromarray(wide), "JPEG2000"))
    assert difference(found[..., 0], wide >> 8) == 0


@needs_jpeg2000
def test_jpeg_2000_that_is_damaged() -> None:
    data = encode(gradient(300, 200), "JPEG2000", irreversible=True, quality_layers=[20])
    for cut in (30, 90, len(data) // 2, len(data) - 50):
        assert reason(data[:cut]) in ("truncated", "corrupt")
    with pytest.raises(ImageError, match="300x200 is more than --max-pixels"):
        open_image(data, 300 * 200 - 1)


def test_each_kind_becomes_a_square() -> None:
    for form in ("PPM", "TGA"):
        square = decode_image(encode(PICTURE, form), Preprocessing(size=20))
        with Image.open(io.BytesIO(encode(PICTURE, "PNG"))) as same:
            assert (square == decode_image(encode(same, "PNG"), Preprocessing(size=20))).all()
