from __future__ import annotations

from typing import TYPE_CHECKING

import click
import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import find, generate, mosaics, photograph, tile

if TYPE_CHECKING:
    from pathlib import Path


def test_generated_photographs_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one, two = generate(tmp_path / "one", 3), generate(tmp_path / "two", 2)
    assert [file.read_bytes() for file in one[:2]] == [file.read_bytes() for file in two]
    other = generate(tmp_path / "other", 1, seed=1)
    assert len({file.read_bytes() for file in [*one, *other]}) == 4


def test_generated_photographs_are_like_photographs(tmp_path: Path) -> None:
    for file in generate(tmp_path / "new", 4):
        with Image.open(file) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (500, 375))
            samples = np.asarray(image, np.float32)
        assert 55_000 < file.stat().st_size < 130_000
        assert 25 < samples.std() < 100
        assert 1 < np.abs(np.diff(samples, axis=1)).mean() < 20


def test_photographs_of_any_size() -> None:
    assert photograph(5, (64, 48)).size == (64, 48)


def test_find_looks_below_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", "sub/c.jpeg"):
        (tmp_path / name).touch()
    assert [file.name for file in find(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]
    with pytest.raises(click.UsageError, match="no files"):
        find(tmp_path / "nothing")


def test_tiling_repeats_in_order(tmp_path: Path) -> None:
    files = []
    for name in ("x.jpg", "y.PNG"):
        files.append(tmp_path / name)
        files[-1].write_text(name)
    assert tile(files, tmp_path / "more", 5) == 2
    made = sorted((tmp_path / "more").iterdir())
    assert [file.read_text() for file in made] == ["x.jpg", "y.PNG", "x.jpg", "y.PNG", "x.jpg"]
    assert {file.suffix for file in made} == {".jpg", ".png"}


def test_of_too_many_photographs_some_are_taken_from_everywhere(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jpg" for number in range(10)]
    for file in files:
        file.write_text(file.stem)
    assert tile(files, tmp_path / "fewer", 4) == 4
    assert [file.read_text() for file in sorted((tmp_path / "fewer").iterdir())] == ["0", "2", "5", "7"]


def test_mosaics_are_the_photographs_own_pixels_side_by_side(tmp_path: Path) -> None:
    pictures = {"wide": (120, 80), "tall": (80, 120), "small": (30, 20)}
    files = []
    for number, (name, size) in enumerate(pictures.items()):
        files.append(tmp_path / f"{number}-{name}.png")
        photograph(number, size).save(files[-1])
    made = mosaics(files, tmp_path / "mosaics", 2, size=(200, 100), tile_size=(100, 50))
    assert len(made) == 2
    with Image.open(made[0]) as image:
        assert (image.format, image.size) == ("JPEG", (200, 100))
        first = np.asarray(image, np.float32)[:50, :100]
    expected = np.asarray(photograph(0, (120, 80)).crop((10, 15, 110, 65)), np.float32)
    assert np.abs(first - expected).mean() < 12
    # The second goes on where the first ended.
    with Image.open(made[0]) as one, Image.open(made[1]) as two:
        assert np.abs(np.asarray(one, np.float32) - np.asarray(two, np.float32)).mean() > 12
