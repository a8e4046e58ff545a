"""Damages sound image files in the ways that disks, networks and attackers do; for tests and `tests/fuzz.py`."""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, features

from tests.imagefiles import (
    HAVE_AVIF,
    HAVE_HEIF,
    HAVE_JPEGXL,
    encode,
    exif,
    gradient,
    heic,
    jpegxl,
    png,
    small_files,
    texture,
    ycck_jpeg,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def corpus() -> dict[str, bytes]:
    """A sound file of every format and of every way of storing pixels that can be written here."""
    picture, detail = gradient(48, 40), texture(220, 170)
    see_through = picture.convert("RGBA")
    see_through.putalpha(picture.convert("L"))
    frames = {"save_all": True, "append_images": [picture.rotate(180), picture.rotate(90)]}
    files = small_files() | {
        "detail.jpg": encode(detail, "JPEG", exif=exif(5), quality=60),
        "grey.jpg": encode(detail.convert("L"), "JPEG", exif=exif(2)),
        "detail-progressive.jpg": encode(detail, "JPEG", progressive=True, optimize=True),
        "restarts.jpg": encode(detail, "JPEG", restart_marker_rows=1),
        "ycck.jpg": ycck_jpeg(picture.convert("CMYK")),
        "alpha.png": encode(see_through, "PNG"),
        "grey-alpha.png": encode(see_through.convert("LA"), "PNG"),
        "bilevel.png": encode(picture.convert("1"), "PNG"),
        "two-bits.png": encode(picture.quantize(4), "PNG", bits=2),
        "key16.png": png(6, 4, 16, 2, [bytes(range(36))] * 4, tRNS=struct.pack(">3H", 1, 0x203, 0x405)),
        "rgba.tif": encode(see_through, "TIFF"),
        "cmyk.tif": encode(picture.convert("CMYK"), "TIFF"),
        "palette.tif": encode(picture.quantize(50), "TIFF", compression="packbits"),
        "turned.tif": encode(picture, "TIFF", compression="tiff_adobe_deflate", exif=exif(6)),
        "big.tif": encode(picture, "TIFF", big_tiff=True),
        "fax3.tif": encode(picture.convert("1"), "TIFF", compression="group3"),
        "alpha.gif": encode(picture.quantize(30), "GIF", transparency=4, **frames),
        "interlaced.gif": encode(picture.quantize(200), "GIF", interlace=True),
        "bilevel.bmp": encode(picture.convert("1"), "BMP"),
        "alpha.bmp": encode(see_through, "BMP"),
        "large-grey16.png": encode(Image.fromarray(np.arange(90_000, dtype=np.uint16).reshape(300, 300)), "PNG"),
    }
    files |= {
        "rgb.ppm": encode(picture, "PPM"),
        "grey.pgm": encode(picture.convert("L"), "PPM"),
        "bilevel.pbm": encode(picture.convert("1"), "PPM"),
        "wide.pgm": encode(Image.fromarray(np.arange(12_000, dtype=np.uint16).reshape(100, 120) * 5), "PPM"),
        "plain.ppm": b"P3\n# a comment\n2 2 255\n" + b"255 0 0 0 255 0\n0 0 255 9 9 9\n",
        "rgb.tga": encode(picture, "TGA"),
        "alpha.tga": encode(see_through, "TGA", compression="tga_rle"),
        "palette.tga": encode(picture.quantize(200), "TGA"),
        "png.ico": encode(see_through, "ICO", sizes=[(16, 16), (48, 40)]),
        "bitmap.ico": encode(see_through, "ICO", sizes=[(32, 32)], bitmap_format="bmp"),
    }
    if features.check("jpg_2000"):
        files["rgb.jp2"] = encode(picture, "JPEG2000")
        files["alpha.jp2"] = encode(see_through, "JPEG2000")
        files["lossy.j2k"] = encode(detail, "JPEG2000", no_jp2=True, irreversible=True, quality_layers=[30])
        files["tiles.jp2"] = encode(detail.convert("L"), "JPEG2000", tile_size=(64, 64))
    if features.check("webp"):
        files["alpha.webp"] = encode(see_through, "WEBP", quality=50)
        files["animated-alpha.webp"] = encode(see_through, "WEBP", save_all=True, append_images=[see_through.rotate(9)])
        files["detail.webp"] = encode(detail, "WEBP", lossless=True, exif=exif(7))
    if HAVE_AVIF:
        files["alpha.avif"] = encode(see_through, "AVIF", speed=10)
        files["animated.avif"] = encode(picture, "AVIF", speed=10, **frames)
        files["detail.avif"] = encode(detail, "AVIF", speed=10, subsampling="4:4:4", exif=exif(6))
    if HAVE_HEIF:
        files["alpha.heic"] = heic(see_through)
        files["detail.heic"] = heic(detail, chroma=444)
        files["two.heic"] = heic(picture, save_all=True, append_images=[detail])
    if HAVE_JPEGXL:
        files["alpha.jxl"] = jpegxl(see_through)
        files["detail.jxl"] = jpegxl(detail, lossless=False, usecontainer=True)
        files["animated.jxl"] = jpegxl([np.asarray(one) for one in (picture, picture.rotate(9))])
    return files


class Edit(NamedTuple):
    """One damage: what is done, where (any number; taken modulo the places there are), and with which number."""

    kind: str
    where: int
    value: int


KINDS = ("flip", "number", "fill", "truncate", "insert", "cut out", "double", "swap", "splice", "dimension", "mend")
LIMIT = 1 << 32
"""Of `Edit.where` and `Edit.value`."""

# Where arithmetic overflows, allocation fails, or a loop ends at once.
_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 2000, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 60_000)
_HEADER = 400


def mutate(data: bytes, edits: Sequence[Edit], others: Mapping[str, bytes]) -> bytes:
    """The file after the edits, one after the other.

    Args:
        data: a sound file.
        edits: what to do to it.
        others: files to take pieces from.
    """
    result = bytearray(data)
    names = sorted(others)
    for kind, where, value in edits:
        if not result:
            break
        # Every second damage hits a header.
        at = (where >> 1) % (min(len(result), _HEADER) if where & 1 else len(result))
        length = 1 + value % (8 if value & 0x100 else 300)
        match kind:
            case "flip":
                result[at] ^= 1 << value % 8 if value & 8 else value % 255 + 1
            case "number":
                _overwrite(result, at, value)
            case "fill":
                result[at : at + length] = bytes([(0, 0xFF, value >> 16 & 0xFF)[value % 3]]) * len(
                    result[at : at + length]
                )
            case "truncate":
                del result[at:]
            case "insert":
                result[at:at] = random.Random(value).randbytes(length)
            case "cut out":
                del result[at : at + length]
            case "double":
                result[at:at] = bytes(result[at : at + length]) * (1 + value % 5)
            case "swap":
                other = value % len(result)
                result[at], result[other] = result[other], result[at]
            case "splice":
                piece = others[names[value % len(names)]]
                begin = (value >> 8) % len(piece)
                if value & 0x80:
                    result[at:] = piece[begin:]
                else:
                    result[at : at + length] = piece[begin : begin + length]
            case "dimension":
                _change_size(result, where, value)
            case "mend":
                _mend(result)
    return bytes(result)


def _overwrite(data: bytearray, at: int, value: int) -> None:
    number = _NUMBERS[value % len(_NUMBERS)]
    width = (1, 2, 4, 4)[(value >> 8) % 4]
    order = "little" if value >> 10 & 1 else "big"
    piece = (number % (1 << 8 * width)).to_bytes(width, order)
    data[at : at + width] = piece[: len(data) - at]


def _change_size(data: bytearray, where: int, value: int) -> None:
    """Overwrites something in the header that has the look of the picture's width or height."""
    places = []
    for side in (48, 40, 220, 170, 300, 47, 39):
        for form in ("<I", ">I", "<H", ">H"):
            pattern = struct.pack(form, side)
            start = data.find(pattern, 0, _HEADER)
            while start >= 0:
                places.append((start, form))
                start = data.find(pattern, start + 1, _HEADER)
    if places:
        start, form = places[where % len(places)]
        number = _NUMBERS[value % len(_NUMBERS)] if value & 0x10 else value >> 8
        number %= 1 << 8 * struct.calcsize(form)
        struct.pack_into(form, data, start, number if value & 0x20 else number % 3000)


def _mend(data: bytearray) -> None:
    """Makes the checksums of a PNG and the length of a WebP right, so that what was changed is not refused unseen."""
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4])
            if end + 4 > len(data):
                break
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
            at = end + 4
    elif data.startswith(b"RIFF") and len(data) >= 8:
        data[4:8] = struct.pack("<I", len(data) - 8)


def random_edits(chance: random.Random) -> list[Edit]:
    """Between one and six edits; where a checksum would hide what they do, it is mended half of the time."""
    edits = [
        Edit(chance.choice(KINDS), chance.randrange(LIMIT), chance.randrange(LIMIT))
        for _ in range(chance.randint(1, 6))
    ]
    return edits + [Edit("mend", 0, 0)] * chance.randint(0, 1)
