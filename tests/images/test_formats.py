"""Which format the first bytes of a file announce."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import ImageError
from xcli.images.formats import sniff
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
