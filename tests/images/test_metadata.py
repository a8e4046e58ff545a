"""Damaged metadata do not refuse an image; where its pixels may be wrong, it stays an error."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import features

from tests.imagefiles import encode, exif, gradient, png_chunk, tiff, turned
from tests.images.pixels import PICTURE, difference, pixels, reason

needs_webp = pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")

PNG = encode(PICTURE, "PNG")
AFTER_HEADER, BEFORE_END = 33, len(PNG) - 12
JPEG = encode(PICTURE, "JPEG")


def with_wrong_checksum(data: bytes, name: bytes) -> bytes:
    """The PNG with another checksum of its first chunk of that name."""
    start = data.index(name)
    end = start + 4 + int.from_bytes(data[start - 4 : start])
    return data[:end] + bytes([data[end] ^ 0xFF]) + data[end + 1 :]


def segment(marker: int, body: bytes) -> bytes:
    """One segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize("at", [AFTER_HEADER, BEFORE_END])
@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"tEXt", b"Comment\0text"),
        (b"iTXt", b"Comment\0\0\0\0\0text"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"text")),
        (b"iCCP", b"profile\0\0" + zlib.compress(b"text")),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"pHYs", bytes(9)),
        (b"tIME", bytes(7)),
        (b"prVt", b"of an editor"),
    ],
)
def test_a_wrong_checksum_of_a_png_s_metadata(name: bytes, body: bytes, at: int) -> None:
    data = PNG[:at] + png_chunk(name, body) + PNG[at:]
    assert difference(pixels(with_wrong_checksum(data, name)), PICTURE) == 0


@pytest.mark.parametrize("name", [b"gAMA", b"cHRM", b"iCCP", b"pHYs", b"sRGB", b"acTL"])
@pytest.mark.parametrize("body", [b"", bytes(range(200, 256))])
def test_a_chunk_of_a_png_that_cannot_be_read(name: bytes, body: bytes) -> None:
    for at in (AFTER_HEADER, BEFORE_END):
        assert difference(pixels(PNG[:at] + png_chunk(name, body) + PNG[at:]), PICTURE) == 0


def test_a_wrong_checksum_of_what_pixels_depend_on_stays_an_error() -> None:
    palette = encode(PICTURE.quantize(16), "PNG", transparency=3)
    for name in (b"IHDR", b"PLTE", b"tRNS"):
        assert reason(with_wrong_checksum(palette, name)) == "corrupt"
    assert reason(with_wrong_checksum(encode(turned(PICTURE, 6), "PNG", exif=exif(6)), b"eXIf")) == "corrupt"
    orientation = b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>"
    data = PNG[:AFTER_HEADER] + png_chunk(b"iTXt", orientation) + PNG[AFTER_HEADER:]
    assert reason(with_wrong_checksum(data, b"iTXt")) == "corrupt"


def test_what_pixels_depend_on_is_kept_beside_damaged_metadata() -> None:
    data = encode(turned(PICTURE, 6), "PNG", exif=exif(6))
    broken = png_chunk(b"pHYs", b"")
    assert difference(pixels(data[:AFTER_HEADER] + broken + data[AFTER_HEADER:]), PICTURE) == 0
    palette = encode(PICTURE.quantize(16), "PNG", transparency=3)
    damaged = palette[:AFTER_HEADER] + broken + palette[AFTER_HEADER:]
    assert difference(pixels(damaged), pixels(palette)) == 0
    data = encode(turned(PICTURE, 6), "JPEG", exif=exif(6))
    assert difference(pixels(data[:2] + segment(0xE2, b"ICC_PROFILE\0") + data[2:]), pixels(data)) == 0


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE0, b"JFIF\0\1"),
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1\2short"),
        (0xE2, b"MPF\0II*\0\xff\xff\xff\x7f"),
        (0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff"),
        (0xEE, b"Adobe"),
        (0xFE, b""),
    ],
)
def test_a_segment_of_a_jpeg_that_cannot_be_read(marker: int, body: bytes) -> None:
    assert difference(pixels(JPEG[:20] + segment(marker, body) + JPEG[20:]), pixels(JPEG)) == 0


def test_the_colour_transform_of_a_jpeg_is_kept_beside_damaged_metadata() -> None:
    cmyk = encode(PICTURE.convert("CMYK"), "JPEG")
    assert difference(pixels(cmyk[:2] + segment(0xE0, b"JFIF") + cmyk[2:]), pixels(cmyk)) == 0


@needs_webp
@pytest.mark.parametrize("name", [b"EXIF", b"XMP "])
@pytest.mark.parametrize("wrong", [-3, 1000])
def test_a_wrong_length_of_a_webp_s_metadata(name: bytes, wrong: int) -> None:
    data = encode(PICTURE, "WEBP", lossless=True, exif=exif(1), xmp=b"<x:xmpmeta/>", icc_profile=bytes(200))
    at = data.rindex(name) + 4
    length = int.from_bytes(data[at : at + 4], "little")
    damaged = data[:at] + (length + wrong).to_bytes(4, "little") + data[at + 4 :]
    assert difference(pixels(damaged), PICTURE) == 0
    assert reason(damaged[:-1]) == "truncated"


@needs_webp
def test_the_orientation_of_a_webp_is_kept_beside_damaged_metadata() -> None:
    data = encode(turned(PICTURE, 6), "WEBP", lossless=True, exif=exif(6), xmp=b"<x:xmpmeta/>")
    at = data.rindex(b"XMP ") + 4
    assert difference(pixels(data[:at] + b"\xff\xff\0\0" + data[at + 4 :]), PICTURE) == 0


@pytest.mark.parametrize("tag", ["t270", "t296", "t306", "t700", "t33723", "t34665", "t34675", "t34853"])
def test_metadata_of_a_tiff_that_cannot_be_read(tag: str) -> None:
    picture = gradient(40, 40)
    for value in ((1 << 30,), (5, 6), (1, 2, 3)):
        data = tiff(40, 40, picture.tobytes(), t258=(8, 8, 8), t262=2, t277=3, **{tag: value})
        assert difference(pixels(data, (40, 40)), picture) == 0


def test_metadata_of_chance() -> None:
    """Random bytes in every segment that does not hold pixels: the pixels are right, or an error is raised."""
    right = np.asarray(pixels(JPEG))
    for _ in range(50):
        body = os.urandom(60)
        for marker in (*range(0xE1, 0xEE), 0xEF, 0xFE):
            assert difference(pixels(JPEG[:20] + segment(marker, body) + JPEG[20:]), right) == 0
