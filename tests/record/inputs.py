"""Makes the files that the commands read: the same bytes and times on each call."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WHEN = 1_700_000_000
"""Modification time of everything, in seconds."""


def picture(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """An RGB picture of coloured blocks with soft edges."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_inputs(root: Path) -> None:
    """Fills an empty directory."""
    _write(root / "photos", _photos())
    _write(root / "kinds", _kinds())
    _hostile(root / "hostile")
    (root / "nothing").mkdir()
    _write(root / "nothing", {"notes.txt": b"no image"})
    (root / "archives").mkdir()
    _archives(root / "archives")
    (root / "tables").mkdir()
    _tables(root / "tables")
    _labelled(root)
    _write(
        root,
        {
            "five.txt": b"red\ngreen\nblue\nr\xc3\xb6t, gelb\n[bold]\n",
            "two.json": b'["red", "blue"]',
            "garbage.keras": b"PK\x03\x04 but no archive",
            "garbage.h5": b"no HDF5",
            "plain.txt": b"something else\n",
        },
    )
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (WHEN, WHEN), follow_symlinks=False)


def _photos() -> dict[str, bytes]:
    return {
        "a.jpg": encode(picture(1)),
        "b.JPG": encode(picture(2)),
        "c.png": encode(picture(3), "PNG"),
        "sub/d.jpg": encode(picture(4, 60, 130)),
        "sub/e.bmp": encode(picture(5), "BMP"),
        "sub/deep/f.webp": encode(picture(6), "WEBP"),
        "tall/g.jpg": encode(picture(7, 40, 200)),
        "z.tif": encode(picture(8), "TIFF"),
        "notes.txt": b"no image",
        ".hidden.jpg": encode(picture(9)),
        ".hidden/h.jpg": encode(picture(9)),
    }


def _kinds() -> dict[str, bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    grey16 = Image.fromarray(np.arange(60 * 50, dtype=np.uint16).reshape(50, 60) * 20)
    rgba = picture(12).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    frames = [picture(21), picture(22)]
    return {
        "large.jpg": encode(picture(10, 1600, 1200)),
        "turned.jpg": encode(picture(11, 90, 40), exif=turned),
        "progressive.jpg": encode(picture(11), progressive=True),
        "cmyk.jpg": encode(picture(11).convert("CMYK")),
        "grey.jpg": encode(picture(11).convert("L")),
        "grey16.png": encode(grey16, "PNG"),
        "alpha.png": encode(rgba, "PNG"),
        "palette.png": encode(picture(13).quantize(32), "PNG", transparency=3),
        "animated.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "bits.png": encode(picture(14).convert("1"), "PNG"),
        "strip.png": encode(picture(15, 3000, 2), "PNG"),
    }


def _hostile(root: Path) -> None:
    whole = encode(picture(30))
    files = {
        "truncated.jpg": whole[: len(whole) // 2],
        "header.jpg": whole[:20],
        "empty.png": b"",
        "text.jpg": b"This is not an image.\n",
        "page.png": b"<!DOCTYPE html><title>404</title>",
        "large.bmp": encode(Image.new("L", (300, 300), 9), "BMP"),
        "new\nline.jpg": whole,
        "back\\slash.jpg": whole,
        "-dash.jpg": whole,
        "[bold]markup[/bold].jpg": whole,
        "escape\x1b[31m.jpg": whole,
        "=1+1,\"'.jpg": whole,
        "émoji-🐈.jpg": whole,
        os.fsdecode(b"latin-\xe9.jpg"): whole,
        "jpeg-named.png": whole,
        ".hidden.jpg": whole,
    }
    _write(root, files)
    (root / "folder.jpg").mkdir()
    (root / "loop").symlink_to(".")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "link.jpg").symlink_to("jpeg-named.png")
    os.mkfifo(root / "fifo.jpg")
    if os.geteuid():  # the administrator may read everything
        _write(root, {"forbidden.jpg": whole})
        (root / "forbidden.jpg").chmod(0)


def _members() -> list[tuple[str, bytes]]:
    return [
        ("one.jpg", encode(picture(40))),
        ("folder/two.png", encode(picture(41), "PNG")),
        ("folder/read me.txt", b"no image"),
        ("../outside.jpg", encode(picture(42))),
        ("folder/broken.jpg", encode(picture(43))[:300]),
        ("one.jpg", encode(picture(44))),
    ]


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in _members():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), WHEN
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "one.jpg", WHEN
        archive.addfile(link)
    return buffer.getvalue()


def _archives(root: Path) -> None:
    plain = _tar()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, data in _members()[:-1]:
            packed = zipfile.ZIP_DEFLATED if name.startswith("folder") else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name, (2023, 11, 14, 22, 13, 20)), data, packed)
    squeezed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(squeezed, "zstd") as stream:
        stream.write(plain)
    _write(
        root,
        {
            "plain.tar": plain,
            "packed.tar.gz": gzip.compress(plain, mtime=0),
            "packed.tar.zst": squeezed.getvalue().to_pybytes(),
            "pictures.zip": zipped.getvalue(),
            "broken/cut.tar": plain[: len(plain) // 3],
            "broken/cut.zip": zipped.getvalue()[:900],
            "broken/text.tar": b"no archive",
            "loose.jpg": encode(picture(45)),
        },
    )


def _tables(root: Path) -> None:
    names = ["in/photos/a.jpg", "in/photos/none.jpg", "in/photos/c.png", "in/photos/a.jpg", "in/photos/sub/d.jpg"]
    rows = zip(names, ("1", "2", "", "-4", "5"), ('"with, comma"', "=SUM(A1)", "é", "", '"two\nlines"'), strict=True)
    lines = [f"{name},{number},{text}\n" for name, number, text in rows]
    columns = {
        "file": names,
        "number": pa.array([1, None, 3, 4, 5], pa.int16()),
        "share": pa.array([0.5, float("nan"), None, -1e300, 5], pa.float64()),
        "day": pa.array([0, 1, None, 20_000, 3], pa.date32()),
        "several": pa.array([[1, 2], [], None, [3], [4]], pa.list_(pa.int32())),
        "inside": pa.array([{"a": 1}, {"a": None}, None, {"a": 3}, {"a": 4}], pa.struct([("a", pa.int64())])),
    }
    _write(
        root,
        {
            "paths.csv": ("path,number,text\n" + "".join(lines)).encode(),
            "escaped.csv": b"path\nin/hostile/back\\\\slash.jpg\nin/hostile/latin-\\xe9.jpg\n",
            "without.csv": b"file,number\nx.jpg,1\n",
            "clash.csv": b"path,status\nx.jpg,1\n",
            "labels.csv": _labels(),
        },
    )
    pq.write_table(pa.table(columns), root / "paths.parquet")


def _labels() -> bytes:
    parts = ["validation", "train", "train", "train", "train"]
    names = [(kind, n, part) for kind in ("red", "blue") for n, part in enumerate(parts)]
    lines = [f"in/labelled/{kind}/{n}.png,{kind},{part}\n" for kind, n, part in names]
    return "".join(["path,label,split\n", *lines]).encode()


def _labelled(root: Path) -> None:
    for number, (kind, colour) in enumerate({"blue": (40, 60, 200), "red": (200, 50, 40)}.items()):
        for n in range(8):
            noise = np.random.default_rng([n, number]).normal(colour, 30, (8, 9, 3))
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((90, 80), Image.Resampling.BICUBIC)
            data = encode(image, "PNG")
            part = "train" if n < 5 else "validation" if n < 7 else "test"
            _write(root, {f"labelled/{kind}/{n}.png": data, f"split/{part}/{kind}/{n}.png": data})
    _write(root, {"split/train/red/broken.jpg": b"no image at all"})
