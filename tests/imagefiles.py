"""Makes image files, sound and hostile, for the tests; none are kept in the repository."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, features

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HAVE_AVIF = features.check("avif")
try:
    import pillow_heif
except ImportError:
    HAVE_HEIF = False
else:
    HAVE_HEIF = True
    pillow_heif.register_heif_opener()
try:
    import imagecodecs
except ImportError:
    HAVE_JPEGXL = False
else:
    HAVE_JPEGXL = True

# ---- pictures ----


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    """An RGB picture without two equal corners, smooth, so that lossy formats keep it within a few levels."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    samples = np.stack([40 + 180 * x, 30 + 200 * y, 200 - 90 * x - 80 * y], -1)
    return Image.fromarray(samples.round().astype(np.uint8))


def texture(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture with detail at every scale, as photographs have it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    side = 1
    while side <= max(width, height):
        shape = (-(-height // side), -(-width // side), 3)
        noise = rng.standard_normal(shape, np.float32) * side**0.5 * 3
        total += noise[np.arange(height) // side][:, np.arange(width) // side]
        side *= 2
    return Image.fromarray((total + 128).clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    # Copies: an image remembers how it was saved, and then cannot be saved in some other formats.
    if "append_images" in options:
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    image.copy().save(buffer, form, **options)
    return buffer.getvalue()


_UNDONE_BY = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera stores it that was held in a certain way: the EXIF orientation turns it upright."""
    return image.transpose(Image.Transpose(_UNDONE_BY[orientation])) if orientation > 1 else image


def exif(orientation: int) -> Image.Exif:
    """EXIF with nothing but an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# ---- files that Pillow does not write ----


def png_chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    rows: Iterable[bytes],
    *,
    interlaced: bool = False,
    **chunks: bytes,
) -> bytes:
    """A PNG from its rows as they lie in the file (each pass in turn, if interlaced).

    Args:
        width, height, depth, colour, interlaced: what the header says.
        rows: packed samples, unfiltered.
        chunks: further chunks by name, before the pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    middle = b"".join(png_chunk(name.encode(), data) for name, data in chunks.items())
    packer = zlib.compressobj(9)
    pixels = b"".join([packer.compress(b"\0" + row) for row in rows] + [packer.flush()])
    parts = png_chunk(b"IHDR", header) + middle + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def interlaced_png(image: Image.Image) -> bytes:
    """An RGB picture as a PNG in seven passes."""
    samples = np.asarray(image.convert("RGB"))
    passes = [samples[top::down, left::right] for left, top, right, down in _ADAM7]
    rows = [row.tobytes() for part in passes for row in part if row.size]
    return png(*image.size, 8, 2, rows, interlaced=True)


def bomb(side: int = 20_000) -> bytes:
    """A PNG of a few kilobytes and 400 million pixels."""
    row = bytes(-(-side // 8))
    return png(side, side, 1, 0, (row for _ in range(side)))


def tiff(width: int, height: int, strip: bytes, **tags: int | tuple[int, ...]) -> bytes:
    """A little-endian TIFF of one strip, its directory in front of the pixels, so that a cut leaves it whole.

    Args:
        width, height: of the image.
        strip: the pixels, compressed as the tags say.
        tags: further tags by number, as `t258=(8, 8, 8)`; they win.
    """
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height, 279: len(strip)}
    values = {**entries, **{int(name[1:]): value for name, value in tags.items()}}
    values = {tag: value if isinstance(value, tuple) else (value,) for tag, value in values.items()}
    begin = 8 + 2 + 12 * (len(values) + 1) + 4
    extra, offsets = b"", {}
    for tag, value in values.items():
        if len(value) > 1:
            offsets[tag] = begin + len(extra)
            extra += struct.pack(f"<{len(value)}I", *value)
    values[273] = (begin + len(extra),)
    directory = b"".join(
        struct.pack("<HHII", tag, 4, len(value), offsets.get(tag, value[0])) for tag, value in sorted(values.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + directory + bytes(4) + extra + strip


def ycck_jpeg(cmyk: Image.Image) -> bytes:
    """A JPEG with the colours of a CMYK picture, as Photoshop stores them: luminance, chrominance and black."""
    cyan, magenta, yellow, black = cmyk.split()
    luminance = Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr")
    inverted = (band.point(lambda value: 255 - value) for band in luminance.split())
    data = encode(Image.merge("CMYK", (*inverted, black)), "JPEG", quality=95)
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    return data[:transform] + b"\x02" + data[transform + 1 :]


def gif_on_canvas(frame: Image.Image, canvas: tuple[int, int], at: tuple[int, int]) -> bytes:
    """A GIF whose first frame covers only a part of the canvas."""
    data = bytearray(encode(frame, "GIF"))
    data[6:10] = struct.pack("<HH", *canvas)
    descriptor = data.index(b"," + struct.pack("<HHHH", 0, 0, *frame.size))
    data[descriptor + 1 : descriptor + 5] = struct.pack("<HH", *at)
    return bytes(data)


def heic(image: Image.Image, **options: Any) -> bytes:
    """A HEIC file; needs pillow_heif."""
    return encode(image, "HEIF", **options)


def jpegxl(samples: Any, *, lossless: bool = True, **options: Any) -> bytes:
    """A JPEG XL of an image, of uint8 or uint16[height, width, bands], or of frames; needs imagecodecs."""
    data: bytes = imagecodecs.jpegxl_encode(np.asarray(samples), lossless=lossless, effort=3, numthreads=1, **options)
    return data


def small_files() -> dict[str, bytes]:
    """A sound small file of every format and of every way in which its pixels may be stored."""
    picture = gradient(48, 40)
    frames = {"save_all": True, "append_images": [picture.rotate(180)]}
    grey16 = Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 30)
    files = {
        "baseline.jpg": encode(picture, "JPEG", exif=exif(6)),
        "progressive.jpg": encode(picture, "JPEG", progressive=True),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "two.mpo.jpg": encode(picture, "MPO", **frames),
        "rgb.png": encode(picture, "PNG", exif=exif(3)),
        "palette.png": encode(picture.quantize(64), "PNG", transparency=3),
        "grey16.png": encode(grey16, "PNG"),
        "interlaced.png": interlaced_png(picture),
        "animated.png": encode(picture, "PNG", **frames),
        "animated.gif": encode(picture, "GIF", **frames),
        "part.gif": gif_on_canvas(picture.quantize(16), (60, 50), (7, 5)),
        "rgb.bmp": encode(picture, "BMP"),
        "palette.bmp": encode(picture.quantize(200), "BMP"),
        "rgb.tif": encode(picture, "TIFF"),
        "grey16.tif": encode(grey16, "TIFF"),
        "lzw.tif": encode(picture, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encode(picture, "TIFF", compression="jpeg"),
        "pages.tif": encode(picture, "TIFF", compression="tiff_deflate", **frames),
        "fax.tif": encode(picture.convert("1"), "TIFF", compression="group4"),
    }
    if features.check("webp"):
        files["lossy.webp"] = encode(picture, "WEBP", exif=exif(8))
        files["lossless.webp"] = encode(picture.convert("RGBA"), "WEBP", lossless=True)
        files["animated.webp"] = encode(picture, "WEBP", **frames)
    if HAVE_AVIF:
        files["still.avif"] = encode(picture, "AVIF", speed=10)
    if HAVE_HEIF:
        files["still.heic"] = heic(picture)
    if HAVE_JPEGXL:
        files["rgb.jxl"] = jpegxl(picture)
    return files


# ---- a directory of everything that can go wrong ----


def make_hostile_directory(root: Path) -> dict[str, str]:
    """Fills a directory with one file for each nasty case.

    Args:
        root: an existing, empty directory.

    Returns:
        What each name (bytes that are no UTF-8 as surrogates) is to end as: `ok`, or an `ImageError.reason`.
    """
    whole = small_files()
    picture = gradient()
    jpeg, web = encode(picture, "JPEG"), features.check("webp")
    files: dict[str, tuple[bytes, str]] = {f"sound-{name}": (data, "ok") for name, data in whole.items()}
    files |= {f"half-{name}": (data[: len(data) // 2], "truncated") for name, data in whole.items()}
    # What is left of this one is a sound first page.
    del files["half-pages.tif"], files["half-two.mpo.jpg"]
    strip = zlib.compress(texture(40, 40).tobytes())
    deflated = tiff(40, 40, strip, t258=(8, 8, 8), t259=8, t262=2, t277=3)
    files |= {
        "jpeg-named.png": (jpeg, "ok"),
        "png-named.jpg": (encode(picture, "PNG"), "ok"),
        "text.jpg": (b"This is not an image.\n", "not-an-image"),
        "page.png": (b"<!DOCTYPE html><title>404 Not Found</title>", "not-an-image"),
        "BMW.bmp": (b"BMW builds cars and motorcycles in Munich.", "not-an-image"),
        "zeros.jpg": (bytes(5000), "not-an-image"),
        "empty.png": (b"", "empty"),
        "header.jpg": (jpeg[:20], "truncated"),
        "header.png": (whole["rgb.png"][:20], "truncated"),
        "header.gif": (whole["animated.gif"][:12], "truncated"),
        "damaged.png": (_damaged_png(), "corrupt"),
        "strip-cut.tif": (deflated[:-100], "corrupt"),
        "float.tif": (encode(picture.convert("F"), "TIFF"), "unsupported"),
        "int32.tif": (encode(picture.convert("I"), "TIFF"), "unsupported"),
        "five-bands.tif": (tiff(8, 8, bytes(8 * 8 * 5), t258=(8,) * 5, t277=5), "unsupported"),
        "odd-compression.tif": (tiff(8, 8, bytes(64), t259=65_000), "unsupported"),
        "huge-header.png": (png(100_000, 100_000, 8, 6, [b""]), "too-large"),
        "bomb.png": (bomb(), "too-large"),
        "bomb-frame.gif": (huge_gif(), "too-large"),
        "one-pixel.png": (encode(gradient(1, 1), "PNG"), "ok"),
        "strip.png": (encode(gradient(5000, 1), "PNG"), "ok"),
        "pole.jpg": (encode(gradient(2, 4000), "JPEG"), "ok"),
        "broken-exif.jpg": (encode(picture, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff junk"), "ok"),
        "with spaces.jpg": (jpeg, "ok"),
        "quotes'\".jpg": (jpeg, "ok"),
        "comma,semicolon;.jpg": (jpeg, "ok"),
        "new\nline.jpg": (jpeg, "ok"),
        "back\\slash.jpg": (jpeg, "ok"),
        "émoji-🐈.jpg": (jpeg, "ok"),
        os.fsdecode(b"latin-\xe9.jpg"): (jpeg, "ok"),
        "-dash.jpg": (jpeg, "ok"),
        "[glob]*?.jpg": (jpeg, "ok"),
        "UPPER.JPG": (jpeg, "ok"),
    }
    if not web:
        files["unknown.webp"] = (b"RIFF\x04\0\0\0WEBP", "unsupported")
    for name, (data, _) in files.items():
        (root / name).write_bytes(data)
    expected = {name: outcome for name, (_, outcome) in files.items()}
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "link.jpg").symlink_to("sound-rgb.png")
    os.mkfifo(root / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        # The address of a socket is short; the path of a temporary directory may not be.
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.chdir(root)
            server.bind("socket.jpg")
        finally:
            os.fchdir(here)
            os.close(here)
    expected |= {"dangling.jpg": "missing", "link.jpg": "ok", "fifo.jpg": "not-a-file", "socket.jpg": "not-a-file"}
    if os.geteuid():  # root may read everything
        (root / "forbidden.jpg").write_bytes(jpeg)
        (root / "forbidden.jpg").chmod(0)
        expected["forbidden.jpg"] = "unreadable"
    return expected


def _damaged_png() -> bytes:
    data = bytearray(encode(texture(40, 40), "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def huge_gif() -> bytes:
    """A frame of four billion pixels, which Pillow allocates as soon as it opens the file: it is to be disposed of."""
    screen = b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    control = b"!\xf9\x04\x08\0\0\0\0"
    frame = b"," + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + b"\0"
    return screen + control + frame + b"\x02\x02L\x01\0;"
