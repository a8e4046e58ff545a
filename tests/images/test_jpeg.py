"""Damage within the data of a JPEG, which libjpeg only warns of."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.imagefiles import encode, exif, gradient, texture, turned
from xcli.core.errors import ImageError
from xcli.images.preprocessing import Preprocessing, decode_image
from xcli.images.warnings import DAMAGED_DATA, listen

STRICT = Preprocessing(size=32, strict=True)
WAYS = (Preprocessing(size=32), Preprocessing(size=32, resize="squash", interpolation="nearest"))
PHOTO = encode(texture(320, 240), "JPEG")
SCAN = PHOTO.index(b"\xff\xda") + 14
END = len(PHOTO) - 2


@pytest.fixture
def warned() -> Any:
    kinds: list[str] = []
    listen(kinds.append)
    yield kinds
    listen(lambda _: None)


def as_keras_decodes(data: bytes, p: Preprocessing) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((p.size, p.size), Image.Resampling.NEAREST))


DAMAGED = {
    "too few": PHOTO[: END - 40] + PHOTO[END:],
    "too many": PHOTO[:END] + bytes(40) + PHOTO[END:],
    "a hole": PHOTO[: SCAN + 1000] + PHOTO[SCAN + 1600 :],
    "an early end": PHOTO[: SCAN + 3000] + b"\xff\xd9" + PHOTO[SCAN + 3002 :],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_a_warning_and_with_strict_an_error(name: str, warned: list[str]) -> None:
    for p in WAYS:
        decode_image(DAMAGED[name], p)
    assert warned == [DAMAGED_DATA] * len(WAYS)
    # The pixels are those of libjpeg, as before there was a warning.
    assert (decode_image(DAMAGED[name], WAYS[1]) == as_keras_decodes(DAMAGED[name], WAYS[1])).all()
    with pytest.raises(ImageError, match=r"compressed data (ends|goes on)") as caught:
        decode_image(DAMAGED[name], STRICT)
    assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (200, 3), (300, 200), (1200, 900)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_sound_jpeg_is_never_warned_of(size: tuple[int, int], mode: str, warned: list[str]) -> None:
    flat = Image.new("RGB", size, (255, 255, 255))
    for image in (gradient(*size), flat):
        for options in ({}, {"quality": 5}, {"subsampling": 0, "quality": 95}, {"restart_marker_rows": 1}):
            data = encode(image.convert(mode), "JPEG", **options)
            for sound in (data, data[:-2] + b"\xff\xff\xff\xd9", data + b"\xff\xd9 and more", data + data):
                assert decode_image(sound, STRICT).shape == (32, 32, 3)
    assert warned == []


def test_what_is_not_watched_is_decoded_as_ever(warned: list[str]) -> None:
    progressive = encode(texture(320, 240), "JPEG", progressive=True)
    second = encode(turned(texture(64, 48), 6), "MPO", save_all=True, append_images=[gradient()], exif=exif(6))
    for data in (progressive, second, encode(texture(64, 48), "JPEG", restart_marker_blocks=3)):
        assert decode_image(data, STRICT).shape == (32, 32, 3)
    assert decode_image(progressive[:3000] + progressive[3100:], STRICT).shape == (32, 32, 3)
    assert warned == []


def test_random_damage_is_mostly_found(warned: list[str]) -> None:
    """libjpeg itself warns of about two thirds: often the codes come into step again."""
    chance, errors = random.Random(0), 0
    for _ in range(60):
        at = chance.randrange(SCAN, END - 64)
        data = PHOTO[:at] + chance.randbytes(64) + PHOTO[at + 64 :]
        try:
            decode_image(data, WAYS[0])
        except ImageError:
            errors += 1
    assert len(warned) + errors >= 30
