"""Which format the first bytes of a file announce."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import struct
import tarfile
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import ImageError
from xcli.images.formats import describe_other, sniff
from xcli.images.preprocessing import Preprocessing, decode_image

if TYPE_CHECKING:
    pass


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


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive; unpack it"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive; unpack it"),
        (b"PK\3\4\x14\0", "give it the extension .zip"),
        (b"PAR1\x15\0", "--manifest"),
        (gzip.compress(b"x", mtime=0), "call it .tar.gz"),
        (bz2.compress(b"x"), "call it .tar.bz2"),
        (lzma.compress(b"x"), "call it .tar.xz"),
        (tarfile.TarInfo("a.jpg").tobuf(), "give it the extension .tar"),
        (b"%PDF-1.7", "PDF"),
        (b"\n <!DOCTYPE HTML><title>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (struct.pack(">I4s4sI", 16, b"ftyp", b"qt  ", 0), "a video"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, said: str) -> None:
    assert said in str(describe_other(data))
    with pytest.raises(ImageError, match=re.escape(said)) as caught:
        decode_image(data, Preprocessing())
    assert caught.value.reason == "not-an-image"
