"""Pairs of images of a table looked at, those that cannot be read among them."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.analysis.test_pixel_alignment import cropped, scene
from xcli.analysis import pixel_check as module
from xcli.analysis.pixel_check import IMAGES, PAIRS, check_pixels


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pairs(*numbers: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.array(numbers, np.int64).T
    return first, second


def test_copies_others_and_what_cannot_be_read(tmp_path: Path, temporary: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    cropped(scene(0), 0.1, 0.1, 0.8).save(tmp_path / "b.jpg")
    scene(1).save(tmp_path / "c.png")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "plain.png")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.write(tmp_path / "b.jpg", "folder/b.jpg")
    names = ["a.png", "b.jpg", "c.png", "damaged.png", "plain.png", "gone.png", "d.zip::folder/b.jpg"]
    paths = [str(tmp_path / name) for name in names]
    told = []
    numbers = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 6), (1, 5), (1, 6), (4, 4)]
    found = check_pixels(paths, *pairs(*numbers), workers=1, progress=lambda *what: told.append(what))
    assert found.are_copies.tolist() == [True, False, False, False, True, False, True, False]
    assert found.are_unknown.tolist() == [False, False, True, True, False, True, False, True]
    assert found.agreement[6] == pytest.approx(1, abs=1e-3)
    assert {image: error.reason for image, error in found.unreadable.items()} == {3: "truncated", 5: "missing"}
    assert told == [(IMAGES, 7, 7), (PAIRS, 8, 8)]
    assert os.listdir(temporary) == []


def test_the_images_may_have_moved(tmp_path: Path) -> None:
    (tmp_path / "now" / "x").mkdir(parents=True)
    scene(0).save(tmp_path / "now" / "x" / "a.png")
    scene(0).resize((200, 150)).save(tmp_path / "now" / "x" / "b.png")
    found = check_pixels(["/then/x/a.png", "/then/x/b.png"], *pairs((0, 1)), images=str(tmp_path / "now"), workers=1)
    assert found.are_copies.tolist() == [True]


def test_few_pictures_in_memory_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        scene(seed).save(tmp_path / f"{seed}.png")
    paths = [str(tmp_path / f"{seed}.png") for seed in (0, 1, 2, 3, 4, 0)]
    numbers = pairs(*[(one, other) for one in range(6) for other in range(one + 1, 6)])
    expected = check_pixels(paths, *numbers, workers=1).agreement
    monkeypatch.setattr(module, "_PICTURES", 2)
    np.testing.assert_array_equal(check_pixels(paths, *numbers, workers=1).agreement, expected)
    assert np.flatnonzero(expected >= module.MIN_AGREEMENT).tolist() == [4]


def test_no_pairs(tmp_path: Path) -> None:
    found = check_pixels([], np.zeros(0, np.int64), np.zeros(0, np.int64), workers=1)
    assert len(found.agreement) == 0


def test_what_was_found_before_an_interruption_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene(0).save(tmp_path / "a.png")
    paths, known = [str(tmp_path / "a.png")], np.zeros(5, np.float32)
    monkeypatch.setattr(module, "_TOLD", 2)

    def stop(what: str, done: int, of: int) -> None:
        if what == PAIRS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_pixels(paths, *pairs(*[(0, 0)] * 5), agreement_of=known, workers=1, progress=stop)
    np.testing.assert_allclose(known, [1, 1, module.NOT_YET, module.NOT_YET, module.NOT_YET], atol=1e-5)
