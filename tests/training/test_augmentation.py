"""Augmented views: the same for the same bytes, view and seed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.cli.conftest import save_photos
from xcli.core.errors import ImageError, UsageError
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.storage.local import LocalFile
from xcli.training.augmentation import Augmentation, crop_window, view_decoder

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = Preprocessing(size=64)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    return str(save_photos(tmp_path, ["a.jpg"])[0])


def test_the_first_view_is_what_inference_sees(photo: str) -> None:
    assert np.array_equal(
        view_decoder(Augmentation(), 0, 5)(LocalFile(photo), PIXELS), load_image(LocalFile(photo), PIXELS)
    )


def test_the_second_is_that_mirrored(photo: str) -> None:
    plain = load_image(LocalFile(photo), PIXELS)
    assert np.array_equal(view_decoder(Augmentation(), 1, 5)(LocalFile(photo), PIXELS), plain[:, ::-1])
    unflipped = view_decoder(Augmentation(flip=False), 1, 5)(LocalFile(photo), PIXELS)
    assert not np.array_equal(unflipped, plain[:, ::-1])


def test_further_views_follow_from_view_seed_and_bytes(photo: str, tmp_path: Path) -> None:
    def decode(view: int, seed: int, name: str = photo) -> bytes:
        return view_decoder(Augmentation(), view, seed)(LocalFile(name), PIXELS).tobytes()

    copy = tmp_path / "copy.png"
    shutil.copy(photo, copy)
    assert decode(2, 0) == decode(2, 0) == decode(2, 0, str(copy))
    assert len({decode(2, 0), decode(3, 0), decode(2, 1), decode(0, 0)}) == 4


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_random_views_look_like_the_image(photo: str, resize: str) -> None:
    pixels = Preprocessing(size=64, resize=resize)
    plain = load_image(LocalFile(photo), pixels).astype(float)
    for view in range(2, 6):
        found = view_decoder(Augmentation(flip=False, crop=0.9, colour=0.1), view, 0)(LocalFile(photo), pixels)
        assert found.shape == (64, 64, 3)
        assert found.dtype == np.uint8
        assert np.corrcoef(found.ravel(), plain.ravel())[0, 1] > 0.6


def test_without_crop_and_colour_a_view_is_plain_or_mirrored(photo: str) -> None:
    augmentation = Augmentation(crop=1, colour=0)
    seen = {
        view_decoder(augmentation, view, 0)(LocalFile(photo), Preprocessing(size=64, resize="squash")).tobytes()
        for view in range(2, 12)
    }
    assert len(seen) == 2
    assert [augmentation.distinct(views) for views in (1, 2, 9)] == [1, 2, 2]
    assert Augmentation(flip=False, crop=1, colour=0).distinct(5) == 1
    assert Augmentation().distinct(5) == 5


def test_the_description_names_what_counts() -> None:
    assert Augmentation().describe(0, 1) == Augmentation(crop=0.5).describe(0, 2)
    assert Augmentation().describe(1, 1) == Augmentation(colour=0).describe(1, 2)
    assert Augmentation().describe(2, 1) != Augmentation().describe(2, 2)
    assert Augmentation().describe(2, 1) != Augmentation(crop=0.5).describe(2, 1)
    assert Augmentation(flip=False).describe(1, 1) != Augmentation(flip=False).describe(1, 2)


def test_a_window_lies_within_and_covers_its_share() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = crop_window(100, 0.5, rng)
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 100
        assert (right - left) * (bottom - top) > 0.5 * 100 * 100 * 0.92  # a side that would leave the square is cut
    assert crop_window(100, 1, rng) == (0, 0, 100, 100)


def test_a_bad_image_is_an_image_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing more")
    for view in (0, 1, 2):
        with pytest.raises(ImageError):
            view_decoder(Augmentation(), view, 0)(LocalFile(str(bad)), PIXELS)


@pytest.mark.parametrize("options", [{"crop": 0}, {"crop": 1.1}, {"colour": -0.1}, {"colour": 1}])
def test_refuses_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="received"):
        Augmentation(**options)  # type: ignore[arg-type]
