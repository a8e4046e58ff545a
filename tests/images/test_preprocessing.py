"""From the bytes of a file to the square that the network sees: formats, colours, orientation, damage, geometry."""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import socket
import stat
import struct
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from tests.imagefiles import (
    HAVE_AVIF,
    HAVE_HEIF,
    bomb,
    encode,
    exif,
    gif_on_canvas,
    gradient,
    heic,
    huge_gif,
    interlaced_png,
    make_hostile_directory,
    png,
    png_chunk,
    small_files,
    texture,
    tiff,
    turned,
    ycck_jpeg,
)
from xcli.core.errors import ImageError, UsageError
from xcli.images import decoders
from xcli.images import preprocessing as images
from xcli.images.decoders import open_image
from xcli.images.formats import MAX_FILE_BYTES, sniff
from xcli.images.preprocessing import Preprocessing, crop_box, decode_image, load_image
from xcli.storage import local
from xcli.storage.local import LocalFile, file_kind, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

needs_avif = pytest.mark.skipif(not HAVE_AVIF, reason="this Pillow has no AVIF")
needs_heif = pytest.mark.skipif(not HAVE_HEIF, reason="pillow_heif is not installed")

PICTURE = gradient()
SOUND = small_files()
WHITE = (255, 255, 255)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `load_decoders` sets in the process as it is at the start of a program; pytest resets a part of it."""
    decoders.load_decoders.cache_clear()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)


def pixels(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """All pixels of a file, as int[height, width, 3], through the whole pixel stage: padded to the longer side."""
    width, height = size or PICTURE.size
    side = max(width, height)
    p = Preprocessing(size=side, resize="pad", interpolation="nearest", jpeg_shrink=False)
    left, top = (side - width) // 2, (side - height) // 2
    return decode_image(data, p)[top : top + height, left : left + width].astype(int)


def reason(data: bytes, p: Preprocessing | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, p or Preprocessing())
    return caught.value.reason


def difference(a: Any, b: Any) -> int:
    """The largest difference of any sample."""
    a, b = np.asarray(a, int), np.asarray(b, int)
    assert a.shape == b.shape
    return int(abs(a - b).max())


# ---- formats ----


@pytest.mark.parametrize(
    ("form", "loss"),
    [
        ("JPEG", 12),
        ("PNG", 0),
        ("GIF", 40),  # 216 colours
        ("BMP", 0),
        ("TIFF", 0),
        pytest.param("WEBP", 12, marks=pytest.mark.skipif(not features.check("webp"), reason="no WebP")),
        pytest.param("AVIF", 12, marks=needs_avif),
        pytest.param("HEIF", 12, marks=needs_heif),
    ],
)
def test_format_is_told_from_the_content(tmp_path: Path, form: str, loss: int) -> None:
    data = encode(PICTURE, form)
    assert sniff(data[:64]) == form
    assert form in decoders.supported_formats()
    assert difference(pixels(data), PICTURE) <= loss
    for name in ("picture.jpg", "picture.png", "picture.txt", "picture"):
        (tmp_path / name).write_bytes(data)
        square = load_image(LocalFile(str(tmp_path / name)), Preprocessing(size=20))
        assert square.shape == (20, 20, 3)
        assert square.dtype == np.uint8
        assert (square == decode_image(data, Preprocessing(size=20))).all()


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"mif1", 0, b"mif1", b"avif"), "AVIF"),
        (struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"mif1", 0, b"mif1", b"heic"), "HEIF"),
        (struct.pack(">I4s4sI4s4s4s4s", 32, b"ftyp", b"mif1", 0, b"miaf", b"MiPr", b"1pic", b"avif"), "AVIF"),
        # Only what is within the box counts, and the version is no brand.
        (struct.pack(">I4s4sI4s", 16, b"ftyp", b"mif1", 0, b"avif"), "HEIF"),
        (struct.pack(">I4s4s4s4s", 20, b"ftyp", b"isom", b"avif", b"mp42"), None),
        (struct.pack(">I4s4sI", 16, b"ftyp", b"qt  ", 0), None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"BM" + bytes(12) + struct.pack("<I", 40), "BMP"),
        (b"BM" + bytes(12) + struct.pack("<I", 124), "BMP"),
        (b"BMW builds cars and motorcycles", None),
        (b"BM", None),
        (b"%PDF-1.7", None),
        (b"<svg xmlns=", None),
        (b"", None),
    ],
)
def test_sniff(head: bytes, form: str | None) -> None:
    assert sniff(head) == form


def test_text_is_no_image() -> None:
    with pytest.raises(ImageError, match=r"begins b'Once upo'") as caught:
        decode_image(b"Once upon a time", Preprocessing())
    assert caught.value.reason == "not-an-image"


def test_no_other_decoder_of_pillow_is_ever_tried() -> None:
    # All of these are known to Pillow.
    for form in ("PPM", "TGA", "PCX", "ICO", "DDS", "SGI"):
        assert reason(encode(PICTURE, form)) == "not-an-image"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "not-an-image"


@needs_heif
def test_without_pillow_heif_the_row_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(PICTURE)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "HEIF" not in decoders.supported_formats()
    with pytest.raises(ImageError, match="pip install pillow-heif") as caught:
        decode_image(data, Preprocessing())
    assert caught.value.reason == "unsupported"
    decoders.load_decoders.cache_clear()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_first_frame(form: str) -> None:
    first = PICTURE.quantize(200).convert("RGB") if form == "GIF" else PICTURE
    second = PICTURE.rotate(180)
    options = {"WEBP": {"lossless": True}, "MPO": {"quality": 95}}.get(form, {})
    data = encode(first, form, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    loss = 6 if form == "MPO" else 0
    assert difference(pixels(data), first) <= loss
    assert open_image(data).format == {"MPO": "JPEG"}.get(form, form)


def test_first_frame_of_a_png_whose_still_is_not_of_the_animation() -> None:
    frames = [PICTURE.rotate(90, expand=False), PICTURE.rotate(180)]
    data = encode(PICTURE, "PNG", save_all=True, default_image=True, append_images=frames)
    assert difference(pixels(data), PICTURE) == 0


@needs_heif
def test_primary_picture_of_a_heic() -> None:
    data = heic(PICTURE, save_all=True, append_images=[PICTURE.rotate(180)], primary_index=1, quality=95)
    assert difference(pixels(data), PICTURE.rotate(180)) <= 12


# ---- orientation ----


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


# ---- colour ----

GREY = PICTURE.convert("L")


def over_white(rgb: Any, alpha: Any) -> np.ndarray:
    share = np.asarray(alpha, float)[..., None] / 255
    return np.asarray(rgb, float) * share + 255 * (1 - share)


def alpha_ramp() -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(0, 255, PICTURE.width).astype(np.uint8), (PICTURE.height, 1)))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "BMP", "GIF"])
def test_grey(form: str) -> None:
    assert difference(pixels(encode(GREY, form)), GREY.convert("RGB")) <= (4 if form == "JPEG" else 0)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF"])
def test_bilevel(form: str) -> None:
    bilevel = GREY.convert("1")
    assert difference(pixels(encode(bilevel, form)), bilevel.convert("RGB")) == 0


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("colours", [2, 16, 256])
def test_palette(form: str, colours: int) -> None:
    palette = PICTURE.quantize(colours)
    assert difference(pixels(encode(palette, form)), palette.convert("RGB")) == 0


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_alpha_lies_over_white(form: str) -> None:
    image = PICTURE.copy()
    image.putalpha(alpha_ramp())
    data = encode(image, form, **({"lossless": True} if form == "WEBP" else {}))
    found = pixels(data)
    assert abs(found - over_white(PICTURE, alpha_ramp())).max() <= 1
    assert (found[:, 0] == 255).all()
    assert (found[:, -1] == np.asarray(PICTURE)[:, -1]).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_with_alpha(form: str) -> None:
    image = Image.merge("LA", (GREY, alpha_ramp()))
    assert abs(pixels(encode(image, form)) - over_white(GREY.convert("RGB"), alpha_ramp())).max() <= 1


@needs_heif
def test_alpha_of_heic() -> None:
    image = PICTURE.copy()
    image.putalpha(alpha_ramp())
    assert abs(pixels(heic(image, quality=95)) - over_white(PICTURE, alpha_ramp())).max() <= 12


def test_palette_with_one_transparent_entry() -> None:
    palette = PICTURE.quantize(16)
    clear = np.asarray(palette) == 5
    assert 0 < clear.mean() < 1
    for form in ("PNG", "GIF"):
        found = pixels(encode(palette, form, transparency=5))
        assert (found[clear] == 255).all()
        assert (found[~clear] == np.asarray(palette.convert("RGB"))[~clear]).all()


def test_palette_with_an_alpha_for_each_entry() -> None:
    palette = PICTURE.quantize(16)
    entries = bytes(range(0, 256, 17))
    alpha = np.frombuffer(entries, np.uint8)[np.asarray(palette)]
    found = pixels(encode(palette, "PNG", transparency=entries))
    assert abs(found - over_white(palette.convert("RGB"), alpha)).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("key", [0, 1])
def test_transparent_grey_of_a_png(depth: int, key: int) -> None:
    # Eight columns, the grey of each is its number, modulo what the depth can hold.
    levels = [level % 2**depth for level in range(8)]
    if depth == 16:
        # Alike in their most significant byte.
        levels = [0x1200 + level for level in levels]
        key += 0x1200
    text = "".join(f"{level:0{depth}b}" for level in levels)
    row = int(text, 2).to_bytes(len(text) // 8)
    found = pixels(png(8, 2, depth, 0, [row, row], tRNS=struct.pack(">H", key)), (8, 2))
    for column, level in enumerate(levels):
        grey = level >> 8 if depth == 16 else level * 255 // (2**depth - 1)
        assert (found[:, column] == (255 if level == key else grey)).all(), (column, level)


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_colour_of_a_png(depth: int) -> None:
    code = ">3B" if depth == 8 else ">3H"
    unit = 1 if depth == 8 else 256
    key = (10 * unit, 20 * unit, 30 * unit)
    others = [(10 * unit, 20 * unit, 31 * unit), (0, 0, 0), (10 * unit, 20 * unit, 30 * unit + 1)]
    row = b"".join(struct.pack(code, *colour) for colour in (key, *others))
    found = pixels(png(4, 1, depth, 2, [row], tRNS=struct.pack(">3H", *key)), (4, 1))[0]
    # The last one differs from the key in its least significant byte, in 16 bits.
    last = (10, 20, 31) if depth == 8 else (10, 20, 30)
    assert found.tolist() == [[*WHITE], [10, 20, 31], [0, 0, 0], [*last]]


def test_transparent_grey_of_a_gif() -> None:
    found = pixels(encode(GREY, "GIF", transparency=200))
    clear = np.asarray(GREY) == 200
    assert clear.any()
    assert (found[clear] == 255).all()
    assert (found[~clear] == np.asarray(GREY.convert("RGB"))[~clear]).all()


@pytest.mark.parametrize("transparent", [False, True])
def test_open_canvas_of_a_gif_is_white(transparent: bool) -> None:
    frame = gradient(20, 10).quantize(16)
    data = gif_on_canvas(frame, (40, 30), (15, 5))
    if transparent:
        at = data.index(b",")
        data = data[:at] + b"!\xf9\x04\x01\0\0\x03\0" + data[at:]
    found = pixels(data, (40, 30))
    inside = found[5:15, 15:35].copy()
    colours = np.array(frame.convert("RGB"))
    if transparent:
        colours[np.asarray(frame) == 3] = 255
    assert difference(inside, colours) == 0
    found[5:15, 15:35] = 255
    assert (found == 255).all()


def test_a_gif_frame_may_reach_beyond_the_canvas() -> None:
    frame = gradient(20, 10).quantize(16)
    assert difference(pixels(gif_on_canvas(frame, (5, 5), (0, 0)), (20, 10)), frame.convert("RGB")) == 0


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form: str) -> None:
    cmyk = PICTURE.convert("CMYK")
    data = encode(cmyk, form, **({"quality": 95} if form == "JPEG" else {}))
    if form == "JPEG":
        assert b"Adobe" in data, "and so its samples are inverted"
    assert difference(pixels(data), cmyk.convert("RGB")) <= (8 if form == "JPEG" else 0)


def test_cmyk_with_black() -> None:
    cyan, magenta, yellow, _ = PICTURE.convert("CMYK").split()
    cmyk = Image.merge("CMYK", (cyan, magenta, yellow, alpha_ramp()))
    data = encode(cmyk, "JPEG", quality=95)
    assert difference(pixels(data), cmyk.convert("RGB")) <= 8
    assert difference(pixels(ycck_jpeg(cmyk)), cmyk.convert("RGB")) <= 10


@pytest.mark.parametrize("orientation", [1, 6])
def test_cmyk_shrinks_too(orientation: int) -> None:
    cmyk = turned(gradient(1200, 900), orientation).convert("CMYK")
    data = encode(cmyk, "JPEG", quality=95, exif=exif(orientation))
    shrunk = decode_image(data, Preprocessing(size=75))
    assert difference(shrunk, decode_image(data, Preprocessing(size=75, jpeg_shrink=False))) <= 3


def test_ycbcr_tiff() -> None:
    assert difference(pixels(encode(PICTURE.convert("YCbCr"), "TIFF", compression="jpeg")), PICTURE) <= 12


def test_lab_tiff_becomes_rgb() -> None:
    cms = pytest.importorskip("PIL.ImageCms")
    profiles = cms.createProfile("sRGB"), cms.createProfile("LAB")
    lab = cms.applyTransform(PICTURE, cms.buildTransform(*profiles, "RGB", "LAB"))
    data = encode(lab, "TIFF")
    assert open_image(data).mode == "LAB"
    assert difference(pixels(data), PICTURE) <= 20


SIXTEEN = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21


@pytest.mark.parametrize(
    ("form", "order", "options"),
    [
        ("PNG", "<", {}),
        ("TIFF", "<", {}),
        ("TIFF", ">", {}),
        ("TIFF", "<", {"compression": "tiff_lzw"}),
        ("TIFF", ">", {"compression": "tiff_deflate"}),
    ],
)
def test_sixteen_bit_grey_keeps_its_most_significant_byte(form: str, order: str, options: dict[str, str]) -> None:
    data = encode(Image.fromarray(SIXTEEN.astype(f"{order}u2")), form, **options)
    assert (pixels(data) == (SIXTEEN >> 8)[..., None]).all()


def test_sixteen_bit_grey_in_a_tiff_with_white_as_zero() -> None:
    data = tiff(64, 48, SIXTEEN.astype("<u2").tobytes(), t258=16, t262=0)
    assert (pixels(data) == 255 - (SIXTEEN >> 8)[..., None].astype(int)).all()


def test_twelve_bit_grey() -> None:
    levels = [0x000, 0x123, 0xABC, 0xFFF]
    strip = bytes.fromhex("".join(f"{level:03x}" for level in levels))
    found = pixels(tiff(4, 1, strip, t258=12), (4, 1))
    assert found[0, :, 0].tolist() == [level >> 4 for level in levels]


@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bit_rgb_png(alpha: bool) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (5, 6, 4 if alpha else 3), np.uint16)
    rows = [row.astype(">u2").tobytes() for row in samples]
    found = pixels(png(6, 5, 16, 6 if alpha else 2, rows), (6, 5))
    high = samples >> 8
    expected = over_white(high[..., :3], high[..., 3]) if alpha else high
    assert abs(found - expected).max() <= (1 if alpha else 0)


def test_interlaced_png() -> None:
    image = gradient(13, 11)
    assert difference(pixels(interlaced_png(image), (13, 11)), image) == 0


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_an_agreed_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"mode {mode}") as caught:
        decode_image(encode(PICTURE.convert(mode), "TIFF"), Preprocessing())
    assert caught.value.reason == "unsupported"


def test_signed_samples_are_refused() -> None:
    assert reason(tiff(8, 8, bytes(128), t258=16, t339=2)) == "unsupported"


@pytest.mark.parametrize(
    "tags",
    [
        {"t258": (8,) * 5, "t277": 5},  # five bands
        {"t259": 65_000},  # a compression of one's own
        {"t258": 64, "t339": 3},  # double precision
    ],
)
def test_unusual_tiffs_are_refused_as_such(tags: dict[str, Any]) -> None:
    assert reason(tiff(8, 8, bytes(512), **tags)) == "unsupported"


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg"])
def test_compressed_tiffs(compression: str) -> None:
    data = encode(PICTURE, "TIFF", compression=compression)
    assert difference(pixels(data), PICTURE) <= (6 if compression == "jpeg" else 0)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_tiffs(compression: str) -> None:
    bilevel = GREY.convert("1")
    assert difference(pixels(encode(bilevel, "TIFF", compression=compression)), bilevel.convert("RGB")) == 0


def test_large_metadata_does_not_matter() -> None:
    plain = encode(PICTURE, "PNG")
    profile = b"profile\0\0" + zlib.compress(bytes(3 << 20))
    text = b"history\0\0" + zlib.compress(b"x" * (3 << 20))
    data = plain[:33] + png_chunk(b"iCCP", profile) + png_chunk(b"zTXt", text) + plain[33:]
    assert difference(pixels(data), PICTURE) == 0


# ---- damage and limits ----


def test_empty() -> None:
    assert reason(b"") == "empty"


@pytest.mark.parametrize(
    ("name", "share"),
    [
        (name, share)
        for name in SOUND
        for share in (0.25, 0.5, 0.9)
        # Where the first of several frames is whole, the file is as good as that.
        if not (name.startswith(("pages", "two")) or (name.startswith("animated") and share > 0.5))
    ],
)
def test_cut_files_are_never_ok(name: str, share: float) -> None:
    data = SOUND[name]
    for p in (Preprocessing(), Preprocessing(size=5), Preprocessing(resize="squash", interpolation="nearest")):
        # What the directory of this one points to lies behind it, and is missed before the end is.
        known = ("truncated", "corrupt") if name == "jpeg.tif" else ("truncated",)
        assert reason(data[: int(len(data) * share)], p) in known


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_jpegs_are_not_ok_when_shrunk_either(progressive: bool, share: float) -> None:
    data = encode(texture(640, 480), "JPEG", progressive=progressive)
    p = Preprocessing(size=32)
    with open_image(data) as image:
        assert images._draft(image, p) == 4
    assert reason(data[: int(len(data) * share)], p) == "truncated"


@pytest.mark.parametrize(
    ("name", "length"),
    [
        *[("baseline.jpg", length) for length in (3, 4, 20, 100)],
        *[("rgb.png", length) for length in (8, 12, 20, 30, 33)],
        *[("animated.gif", length) for length in (6, 10, 12, 14)],
        *[("rgb.bmp", length) for length in (18, 30, 54)],
        *[("rgb.tif", length) for length in (4, 8, 12, 60)],
        *[("lossy.webp", length) for length in (12, 20, 40)],
    ],
)
def test_cut_headers(name: str, length: int) -> None:
    assert reason(SOUND[name][:length]) in ("truncated", "corrupt")


def test_cut_strip_behind_a_whole_directory() -> None:
    strip = zlib.compress(texture(40, 40).tobytes())
    data = tiff(40, 40, strip, t258=(8, 8, 8), t259=8, t262=2, t277=3)
    assert difference(pixels(data, (40, 40)), texture(40, 40)) == 0
    assert reason(data[: len(data) // 2]) in ("truncated", "corrupt")


def test_damage_in_the_middle() -> None:
    data = bytearray(encode(texture(40, 40), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == "corrupt"


def test_max_pixels_is_exact() -> None:
    for data in SOUND.values():
        width, height = open_image(data).size
        for p in (Preprocessing(size=8, max_pixels=width * height), Preprocessing(size=8, max_pixels=10**12)):
            assert decode_image(data, p).shape == (8, 8, 3)
        with pytest.raises(ImageError, match=f"{width}x{height} is more than --max-pixels") as caught:
            decode_image(data, Preprocessing(size=8, max_pixels=width * height - 1))
        assert caught.value.reason == "too-large"


@contextmanager
def frugality() -> Iterator[None]:
    """Fails if the block takes more than a second of work, 20 MB by Python's count, or 100 MB by that of the system."""
    before = resident()
    tracemalloc.start()
    begin = time.process_time()
    try:
        yield
        seconds = time.process_time() - begin
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 20 << 20
    assert resident() - before < 100 << 20


def resident() -> int:
    """The memory of this process at its peak, in bytes; 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    return 0


HUGE_BMP = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6)


@pytest.mark.parametrize("max_pixels", [1_000_000, decoders.DEFAULT_MAX_PIXELS])
@pytest.mark.parametrize(
    "make",
    [
        lambda: png(100_000, 100_000, 8, 6, [b""]),
        lambda: png(2**31 - 1, 2**31 - 1, 16, 6, [b""]),
        lambda: tiff(100_000, 100_000, bytes(100)),
        lambda: HUGE_BMP,
        lambda: SOUND["animated.gif"][:6] + b"\xff\xff\xff\xff" + SOUND["animated.gif"][10:],
        bomb,
        # Pillow makes what the frame is to be replaced with as soon as it sees the frame.
        huge_gif,
    ],
    ids=["png", "huge-png", "tiff", "bmp", "gif", "bomb", "frame"],
)
def test_declared_size_is_checked_before_decoding(make: Callable[[], bytes], max_pixels: int) -> None:
    data = make()
    assert len(data) < 200_000
    decoders.load_decoders()
    with frugality():
        assert reason(data, Preprocessing(max_pixels=max_pixels)) == "too-large"


def test_pillows_own_limit_is_raised_only_where_it_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = encode(gradient(60, 50), "TIFF")
    assert reason(data, Preprocessing(max_pixels=2000)) == "too-large"
    assert Image.MAX_IMAGE_PIXELS == 1000
    assert decode_image(data, Preprocessing(max_pixels=3000)).shape == (299, 299, 3)
    assert Image.MAX_IMAGE_PIXELS == 1500
    decode_image(encode(gradient(10, 10), "TIFF"), Preprocessing(max_pixels=100))
    assert Image.MAX_IMAGE_PIXELS == 1500


def test_want_of_memory_is_an_error_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(images, "to_rgb", greedy)
    assert reason(SOUND["rgb.png"]) == "too-large"


def test_messages_do_not_depend_on_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("cannot decode <object at 0x7f12ab34cd56>\nat all")

    monkeypatch.setattr(images, "to_rgb", fail)
    with pytest.raises(ImageError) as caught:
        decode_image(SOUND["rgb.png"], Preprocessing())
    assert str(caught.value) == "corrupt: cannot decode <object> at all"


def test_hostile_directory(tmp_path: Path) -> None:
    expected = make_hostile_directory(tmp_path)
    # Listed by bytes, as the names are.
    assert {os.fsdecode(name) for name in os.listdir(os.fsencode(tmp_path))} == set(expected)
    found = {}
    for name in expected:
        try:
            load_image(LocalFile(os.path.join(tmp_path, name)), Preprocessing(size=32))
        except ImageError as error:
            found[name] = error.reason
        else:
            found[name] = "ok"
    assert found == expected


# ---- never anything but an ImageError ----

_PREPROCESSINGS = (
    Preprocessing(size=24, max_pixels=4_000_000),
    Preprocessing(size=24, resize="squash", interpolation="nearest", max_pixels=4_000_000),
    Preprocessing(size=5, resize="pad", interpolation="lanczos", max_pixels=4_000_000),
)


@settings(max_examples=800, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(sorted(SOUND)), seed=st.integers(0, 2**32))
def _mutate(name: str, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(SOUND[name])
    for _ in range(chance.randint(1, 5)):
        if not data:
            break
        # Headers are where it hurts.
        at = chance.randrange(min(len(data), chance.choice([64, 300, len(data)])))
        match chance.choice(["flip", "flip", "flip", "cut out", "insert", "splice", "truncate"]):
            case "flip":
                data[at] = chance.choice([0, 255, chance.randrange(256)])
            case "cut out":
                del data[at : at + chance.randint(1, 50)]
            case "insert":
                data[at:at] = chance.randbytes(chance.randint(1, 50))
            case "splice":
                other = SOUND[chance.choice(sorted(SOUND))]
                begin = chance.randrange(len(other))
                data[at : at + 40] = other[begin : begin + 40]
            case "truncate":
                del data[at:]
    p = chance.choice(_PREPROCESSINGS)
    outcome: Any
    try:
        outcome = decode_image(bytes(data), p)
    except ImageError as error:
        outcome = error
    if isinstance(outcome, ImageError):
        assert outcome.reason in ImageError.REASONS
        assert outcome.message
        assert len(str(outcome).splitlines()) == 1
        assert " at 0x" not in outcome.message
    else:
        assert outcome.dtype == np.uint8
        assert outcome.shape == (p.size, p.size, 3)


def test_mutations_give_pixels_or_an_image_error(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoders.load_decoders()
        _mutate()
    # What libtiff writes to file descriptor 2 is for `discard_native_stderr`; this is about Python.
    assert capsys.readouterr() == ("", "")


def test_warnings_of_pillow_are_not_shown() -> None:
    palette = PICTURE.quantize(16)
    data = encode(palette, "PNG", transparency=bytes(range(16)))
    animated = bytearray(encode(PICTURE, "PNG", save_all=True, append_images=[PICTURE.rotate(90)]))
    chunk = animated.index(b"acTL")
    animated[chunk - 4 : chunk + 16] = png_chunk(b"acTL", bytes(8))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Image.open(io.BytesIO(bytes(animated))) as image:
            image.load()
        assert seen, "Pillow warns of this file"
        seen.clear()
        decoders.load_decoders()
        decode_image(data, Preprocessing())
        assert difference(pixels(bytes(animated)), PICTURE) == 0
        assert not seen


def test_pillow_logs_nothing_where_logging_is_not_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    decoders.load_decoders()
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []  # pytest's
    try:
        assert reason(tiff(8, 8, bytes(64), t277=5000)) == "corrupt"
    finally:
        root.handlers = handlers
    assert capsys.readouterr() == ("", "")


# ---- geometry ----


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
    found = decode_image(encode(image, "PNG"), Preprocessing())
    assert difference(found, reference(image, 299, 0.897, Image.Resampling.BICUBIC)) <= 1


@pytest.mark.parametrize("interpolation", images.INTERPOLATIONS)
def test_interpolations(interpolation: str) -> None:
    image = texture(210, 150)
    method = Image.Resampling[interpolation.upper()]
    data = encode(image, "PNG")
    for size in (64, 200):
        squashed = decode_image(data, Preprocessing(size=size, resize="squash", interpolation=interpolation))
        assert difference(squashed, image.resize((size, size), method)) == 0
        cropped = decode_image(data, Preprocessing(size=size, interpolation=interpolation, crop_pct=0.8))
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


# ---- shrinking while decoding ----


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


# ---- reading ----


def read_reason(path: str) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        read_file(path, MAX_FILE_BYTES)
    return caught.value.reason, caught.value.message


def test_reads_the_whole_file(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3 << 20)
    (tmp_path / "file").write_bytes(data)
    assert read_file(str(tmp_path / "file"), MAX_FILE_BYTES) == data


@pytest.mark.parametrize(
    "name", [b"with space", b"quote'\"", b"new\nline", "🐈".encode(), b"latin-\xe9", b"-rf", b"%41", b"*?[", b"\\"]
)
def test_any_name(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    with open(path, "wb") as file:
        file.write(SOUND["rgb.png"])
    assert load_image(LocalFile(path), Preprocessing(size=8)).shape == (8, 8, 3)


def test_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("absent.jpg", "file/inside.jpg", "dangling", "nul\0byte", "\ud800"):
        what, message = read_reason(os.path.join(tmp_path, name))
        assert what == "missing", name
        assert len(message.splitlines()) == 1


def test_a_file_that_has_vanished(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(SOUND["rgb.png"])
    load_image(LocalFile(str(path)), Preprocessing())
    path.unlink()
    with pytest.raises(ImageError) as caught:
        load_image(LocalFile(str(path)), Preprocessing())
    assert caught.value.reason == "missing"


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.geteuid() == 0:

        def refuse(*_: Any, **__: Any) -> int:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(os, "open", refuse)
    assert read_reason(str(path)) == ("unreadable", "Permission denied")


def test_input_and_output_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"x")

    def fail(_: int) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fail)
        assert read_reason(str(path)) == ("unreadable", "Input/output error")
    (tmp_path / "loop").symlink_to("loop")
    assert read_reason(str(tmp_path / "loop"))[0] == "unreadable"
    assert read_reason(str(tmp_path / ("x" * 300)))[0] == "unreadable"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    expected = make_hostile_directory(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for name in [*expected, ".", "absent"]:
        with suppress(ImageError):
            read_file(os.path.join(tmp_path, name), MAX_FILE_BYTES)
    assert len(os.listdir("/proc/self/fd")) == before


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that must not hang."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it hangs"
    return results[0]


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    for path, kind in (
        (str(tmp_path), "a directory"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
        ("/dev/zero", "a character device"),
        ("/dev/tty", None),
    ):
        if kind is None and not os.path.exists(path):
            continue
        what, message = within(5, lambda path=path: read_reason(path))
        assert what == "not-a-file"
        assert kind is None or message == f"it is {kind}, not a regular file"


def test_kinds_of_files() -> None:
    assert file_kind(stat.S_IFBLK) == "a block device"
    assert file_kind(0) == "a special file"


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    with open(path, "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with frugality():
        assert read_reason(str(path))[0] == "too-large"


def test_a_small_file_needs_little_memory(tmp_path: Path) -> None:
    # Not the limit of one gigabyte, allocated in advance.
    (tmp_path / "small").write_bytes(b"small")
    with frugality():
        assert read_file(str(tmp_path / "small"), MAX_FILE_BYTES) == b"small"


def test_want_of_memory_for_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def greedy(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(local, "open", greedy, raising=False)
    assert read_reason(str(tmp_path / "file"))[0] == "too-large"


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert read_reason(str(tmp_path / "empty.jpg"))[0] == "empty"
