"""Which images train and which validate."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from xcli.core.errors import SourceError, UsageError
from xcli.sources.labelled import read_labelled
from xcli.training.split import Split, split_images

if TYPE_CHECKING:
    from pathlib import Path


def fill(root: Path, **classes: int) -> Path:
    """Class folders of files with different bytes; nothing here opens them as images."""
    for label, count in classes.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / label / f"{number}.jpg").write_bytes(f"{label} {number}".encode())
    return root


def split(root: Path, share: float = 0.2, seed: int = 0) -> Split:
    return split_images(read_labelled(str(root)), share, seed)


def held(found: Split) -> set[str]:
    return {"/".join(one.sample.ref.path.split("/")[-2:]) for one in found.part("validation")}


def test_every_class_gives_its_share(tmp_path: Path) -> None:
    found = split(fill(tmp_path, a=20, b=10, c=3, d=2))
    assert Counter(one.sample.label for one in found.part("validation")) == {"a": 4, "b": 2, "c": 1, "d": 1}
    assert len(found.part("train")) + len(found.part("validation")) == len(found.examples) == 35
    assert found.labels == ("a", "b", "c", "d")


def test_the_choice_follows_from_the_seed_and_the_bytes_alone(tmp_path: Path) -> None:
    root = fill(tmp_path / "one", a=20, b=20)
    chosen = held(split(root))
    assert chosen == held(split(root))
    assert chosen != held(split(root, seed=1))
    renamed = tmp_path / "two"
    fill(renamed, a=20, b=20)
    for path in (renamed / "a").iterdir():
        path.rename(path.with_name(f"x{20 - int(path.stem)}.jpg"))
    contents = {one.digest for one in split(renamed).part("validation")}
    assert contents == {one.digest for one in split(root).part("validation")}


def test_the_same_bytes_never_stand_on_both_sides(tmp_path: Path) -> None:
    root = fill(tmp_path, a=6, b=6)
    for number in range(6):
        for copy in range(3):
            (root / "a" / f"copy{copy}-{number}.jpg").write_bytes(f"a {number}".encode())
    for seed in range(10):
        found = split(root, 0.3, seed)
        sides: dict[str | None, set[str]] = {}
        for one in found.examples:
            sides.setdefault(one.digest, set()).add(one.split)
        assert all(len(one) == 1 for one in sides.values())


def test_a_validation_part_that_is_there_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "train", a=3, b=3)
    fill(tmp_path / "val", a=1, b=1)
    fill(tmp_path / "test", a=1)
    (tmp_path / "val" / "a" / "new.jpg").write_bytes(b"new")
    with caplog.at_level(logging.WARNING, "xcli"):
        found = split(tmp_path, 0.5)
    assert [len(found.part(part)) for part in ("train", "validation", "test")] == [6, 3, 1]
    assert "3 of the validation and test images are byte-identical to training images" in caplog.text


def test_a_test_part_is_not_split_off_from(tmp_path: Path) -> None:
    fill(tmp_path / "train", a=4, b=4)
    fill(tmp_path / "test", a=4, b=4)
    found = split(tmp_path, 0.5)
    assert [len(found.part(part)) for part in ("train", "validation", "test")] == [4, 4, 8]


def test_zero_holds_nothing_out(tmp_path: Path) -> None:
    found = split(fill(tmp_path, a=2, b=2), 0)
    assert len(found.part("train")) == 4


def test_what_cannot_be_read_trains_and_says_why(tmp_path: Path) -> None:
    root = fill(tmp_path, a=3, b=3)
    (root / "a" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "a" / "none.jpg").write_bytes(b"")
    found = split(root)
    bad = {one.sample.ref.path.rsplit("/", 1)[1]: one for one in found.examples if one.error is not None}
    assert {one.error.reason for one in bad.values() if one.error} <= {"missing", "empty"}
    assert "none.jpg" in bad
    assert all(one.split == "train" and one.digest is None for one in bad.values())


def test_one_image_a_class_cannot_be_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "all", a=1, b=1)
    with pytest.raises(SourceError, match=r"no class has two different images.*--val-split 0"):
        split(tmp_path / "all")
    fill(tmp_path / "some", a=1, b=4)
    with caplog.at_level(logging.WARNING, "xcli"):
        found = split(tmp_path / "some")
    assert {one.sample.label for one in found.part("validation")} == {"b"}
    assert "only one image, so none for validation: 'a'" in caplog.text


def test_two_labels_for_the_same_bytes_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = fill(tmp_path, a=3, b=3)
    (root / "b" / "same.jpg").write_bytes(b"a 0")
    with caplog.at_level(logging.WARNING, "xcli"):
        split(root)
    assert "1 images have more than one label" in caplog.text


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_refuses_a_share_out_of_range(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="from 0 to below 1"):
        split(fill(tmp_path, a=2, b=2), share)


def test_refuses_one_class_and_empty_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the one class 'a'"):
        split(fill(tmp_path / "one", a=3))
    root = fill(tmp_path / "empty", a=3, b=3)
    (root / "c").mkdir()
    with pytest.raises(SourceError, match="no images of the class 'c'"):
        split(root)


def test_refuses_a_class_that_validation_lacks(tmp_path: Path) -> None:
    fill(tmp_path / "train", a=2, b=2)
    fill(tmp_path / "validation", a=2)
    with pytest.raises(SourceError, match="the validation part has no images of 'b'"):
        split(tmp_path)


def test_images_of_which_none_can_be_read_are_refused_with_the_first_reason(tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,label\nno/a.jpg,x\nno/b.jpg,y\n")
    with pytest.raises(SourceError, match=r"none of the images can be read; the first, 'no/a\.jpg': missing"):
        split_images(read_labelled(str(manifest)), 0.1, 0)
