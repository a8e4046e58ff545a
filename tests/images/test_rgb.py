"""Colour modes, sample depths and transparency become RGB."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.imagefiles import (
    encode,
    exif,
    gif_on_canvas,
    gradient,
    heic,
    interlaced_png,
    png,
    png_chunk,
    tiff,
    turned,
    ycck_jpeg,
)
from tests.images.pixels import PICTURE, SOUND, WHITE, difference, needs_heif, pixels, reason
from xcli.core.errors import ImageError, UsageError
from xcli.images.decoders import open_image
from xcli.images.preprocessing import Preprocessing, decode_image
from xcli.images.warnings import FEW_BITS, listen

if TYPE_CHECKING:
    pass


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


TWELVE = np.random.default_rng(0).integers(0, 4096, (5, 6, 4), np.uint16)
TWELVE[0, 0] = 4095


def png_of(samples: np.ndarray) -> bytes:
    colour = {1: 0, 3: 2, 4: 6}[samples.shape[2]]
    return png(6, 5, 16, colour, [row.astype(">u2").tobytes() for row in samples])


def tiff_of(samples: np.ndarray, **tags: Any) -> bytes:
    bands = samples.shape[2]
    photometric = {1: 1, 3: 2, 4: 5}[bands]
    data = samples.astype("<u2").tobytes()
    strip = zlib.compress(data) if tags.get("t259") == 8 else data
    return tiff(6, 5, strip, t258=(16,) * bands, t262=photometric, t277=bands, **tags)


@pytest.mark.parametrize(
    "data",
    [
        png_of(TWELVE[..., :1]),
        png_of(TWELVE[..., :3]),
        tiff_of(TWELVE[..., :1]),
        tiff_of(TWELVE[..., :3]),
        tiff_of(TWELVE[..., :3], t259=8),
        encode(Image.fromarray(TWELVE[..., 0].astype(">u2")), "TIFF"),
    ],
)
def test_twelve_bits_in_sixteen(data: bytes) -> None:
    warned: list[str] = []
    listen(warned.append)
    decode_image(data, Preprocessing())
    assert warned == [FEW_BITS]
    bands = open_image(data).getbands()
    expected = (TWELVE[..., : len(bands)] >> 4).astype(int)
    p = Preprocessing(size=6, resize="pad", interpolation="nearest", bit_depth=12)
    assert (decode_image(data, p)[:5] == expected).all()
    assert warned == [FEW_BITS]
    ten = Preprocessing(size=6, resize="pad", interpolation="nearest", bit_depth=10)
    brighter = np.minimum(TWELVE[..., : len(bands)] >> 2, 255)
    assert (decode_image(data, ten)[:5] == brighter).all(), "what does not fit is white"
    listen(lambda _: None)


def test_twelve_bits_in_sixteen_with_alpha_and_cmyk() -> None:
    p = Preprocessing(size=6, resize="pad", interpolation="nearest", bit_depth=12)
    opaque = TWELVE.copy()
    opaque[..., 3] = 4095
    assert (decode_image(png_of(opaque), p)[:5] == opaque[..., :3] >> 4).all()
    eight = Image.frombytes("CMYK", (6, 5), (TWELVE >> 4).astype(np.uint8).tobytes())
    assert difference(decode_image(tiff_of(TWELVE), p)[:5], eight.convert("RGB")) == 0
    grey_alpha = png(6, 5, 16, 4, [row.astype(">u2").tobytes() for row in TWELVE[..., :2]])
    assert reason(grey_alpha, p) == "unsupported"
    assert decode_image(grey_alpha, Preprocessing(size=6)).shape == (6, 6, 3)


def test_sixteen_bits_that_are_used_are_not_warned_of() -> None:
    warned: list[str] = []
    listen(warned.append)
    for name in ("grey16.png", "grey16.tif"):
        decode_image(SOUND[name], Preprocessing())
    decode_image(tiff_of(TWELVE[..., :3] * 16), Preprocessing())
    decode_image(tiff(4, 1, bytes(6), t258=12), Preprocessing())
    decode_image(png_of(np.zeros((5, 6, 1), np.uint16)), Preprocessing())
    assert warned == []
    listen(lambda _: None)


@pytest.mark.parametrize("bits", [7, 17])
def test_bit_depth_has_limits(bits: int) -> None:
    with pytest.raises(UsageError, match="bit_depth must be from 8 to 16"):
        Preprocessing(bit_depth=bits)


def test_later_settings_stay_out_of_the_provenance_at_their_defaults() -> None:
    assert set(Preprocessing(resampler="pillow").as_dict()) == {
        "size",
        "resize",
        "interpolation",
        "crop_pct",
        "jpeg_shrink",
        "max_pixels",
    }
    assert Preprocessing(bit_depth=12, strict=True).as_dict().items() >= {"bit_depth": 12, "strict": True}.items()


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
