"""Formats, damaged files and limits: an image is decoded, or an `ImageError` says why not."""

from __future__ import annotations

import io
import logging
import os
import random
import struct
import sys
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin, features

from tests.imagefiles import (
    bomb,
    encode,
    gradient,
    heic,
    huge_gif,
    make_hostile_directory,
    png,
    png_chunk,
    texture,
    tiff,
    turned,
)
from tests.images.pixels import PICTURE, SOUND, difference, needs_avif, needs_heif, pixels, reason
from tests.memory import frugality
from xcli.core.errors import ImageError
from xcli.images import decoders
from xcli.images import preprocessing as images
from xcli.images.decoders import open_image
from xcli.images.formats import sniff
from xcli.images.preprocessing import Preprocessing, decode_image, load_image
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
        ("PPM", 0),
        ("TGA", 0),
        pytest.param("JPEG2000", 0, marks=pytest.mark.skipif(not features.check("jpg_2000"), reason="no JPEG 2000")),
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


def test_no_other_decoder_of_pillow_is_ever_tried() -> None:
    # All of these are known to Pillow.
    for form in ("PCX", "DDS", "SGI"):
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


def tiff_of(*pages: tuple[Image.Image, dict[int, Any]]) -> bytes:
    """A TIFF of pages with tags of their own."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, new=True) as writer:
        for image, tags in pages:
            image.copy().save(writer, "TIFF", tiffinfo=tags)
            writer.newFrame()
    return buffer.getvalue()


THUMBNAIL = PICTURE.rotate(180).resize((16, 12))


@pytest.mark.parametrize(
    "first",
    [
        [(THUMBNAIL, {254: 1})],
        [(THUMBNAIL, {255: 2})],
        [(THUMBNAIL, {254: 1}), (PICTURE.rotate(180), {254: 1})],
        [(PICTURE.convert("1"), {254: 4})],
        [],
    ],
)
def test_full_page_of_a_tiff_behind_reduced_ones_and_masks(first: list[Any]) -> None:
    data = tiff_of(*first, (PICTURE, {}), (PICTURE.rotate(180), {}), (THUMBNAIL, {254: 1}))
    assert open_image(data).size == PICTURE.size
    assert difference(pixels(data), PICTURE) == 0
    with pytest.raises(ImageError, match="64x48 is more than --max-pixels"):
        open_image(data, PICTURE.width * PICTURE.height - 1)


def test_orientation_is_that_of_the_full_page() -> None:
    pages = [(THUMBNAIL, {254: 1}), (turned(PICTURE, 6), {254: 0, 274: 6})]
    assert difference(pixels(tiff_of(*pages)), PICTURE) == 0


def test_a_tiff_of_reduced_pages_only_gives_the_first() -> None:
    data = tiff_of((THUMBNAIL, {254: 1}), (PICTURE, {254: 1}))
    assert difference(pixels(data, THUMBNAIL.size), THUMBNAIL) == 0
    assert difference(pixels(tiff_of((PICTURE, {254: 2})), PICTURE.size), PICTURE) == 0


@needs_heif
def test_primary_picture_of_a_heic() -> None:
    data = heic(PICTURE, save_all=True, append_images=[PICTURE.rotate(180)], primary_index=1, quality=95)
    assert difference(pixels(data), PICTURE.rotate(180)) <= 12


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
