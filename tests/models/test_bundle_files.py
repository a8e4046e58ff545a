"""The files of a bundle are regular files in it, and its labels are JSON: what is elsewhere is not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from xcli.core.checked_json import MAX_BYTES
from xcli.core.errors import ModelError
from xcli.models.bundle import read_bundle
from xcli.models.loader import _input_size, load_model
from xcli.models.spec import ModelSpec


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.keras").write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", ["labels.json", "run.json"])
def test_a_link_out_of_the_bundle_is_not_followed(bundle: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text('["secret"]')
    (bundle / name).symlink_to("../credentials")
    with pytest.raises(ModelError, match=f"{name} is a link to a file outside"):
        read_bundle(str(bundle), None)


def test_links_within_it_and_a_link_to_it_are_followed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "names.json").write_text('["a"]')
    (bundle / "labels.json").symlink_to("names.json")
    (tmp_path / "latest").symlink_to("bundle")
    for folder in (bundle, tmp_path / "latest"):
        assert read_bundle(str(folder), None) == ({}, str(folder / "labels.json"))


def test_its_labels_are_json(bundle: Path) -> None:
    (bundle / "labels.json").write_text("user: secret\n")
    with pytest.raises(ModelError, match=r"labels\.json is not JSON.*--labels"):
        read_bundle(str(bundle), None)
    (bundle / "labels.json").write_text('\ufeff {"labels": ["a"]}')
    assert read_bundle(str(bundle), None) == ({}, str(bundle / "labels.json"))


@pytest.mark.parametrize("name", ["labels.json", "run.json"])
def test_no_other_kind_of_file_and_none_that_is_too_large(bundle: Path, name: str) -> None:
    os.mkfifo(bundle / name)
    with pytest.raises(ModelError, match="is not a regular file"):
        read_bundle(str(bundle), None)
    os.unlink(bundle / name)
    with open(bundle / name, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match="has more than 67,108,864 bytes"):
        read_bundle(str(bundle), None)


def test_the_model_may_be_a_link_but_only_to_a_file(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cached").write_bytes(b"")
    (bundle / "model.keras").unlink()
    (bundle / "model.keras").symlink_to("../cached")
    assert read_bundle(str(bundle), None) == ({}, None)
    for place in ("/dev/zero", str(tmp_path / "pipe"), str(tmp_path)):
        (bundle / "model.keras").unlink()
        (bundle / "model.keras").symlink_to(place)
        os.path.lexists(tmp_path / "pipe") or os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ModelError, match=r"cannot read the model .*(not a regular file|Is a directory)"):
            load_model(model=str(bundle))


def test_a_model_has_a_size_limit(bundle: Path) -> None:
    os.truncate(bundle / "model.keras", (8 << 30) + 1)
    with pytest.raises(ModelError, match=r"cannot read the model .*more than 8 GiB"):
        load_model(model=str(bundle))


RECIPE = {"size": 299, "resize": "crop", "interpolation": "bicubic", "crop_pct": 0.9, "input_range": "raw"}


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": 1 << 40},
        {"size": 299.0},
        {"size": True},
        {"resize": ["crop"]},
        {"resize": "stretch"},
        {"interpolation": None},
        {"crop_pct": 1e-300},
        {"crop_pct": float("nan")},
        {"crop_pct": float("inf")},
        {"crop_pct": "0.9"},
        {"bit_depth": float("inf")},
        {"bit_depth": 99},
        {"input_range": {}},
        {"size": 1 << 70},
        {"more": [[[[[[[[[[[[[[]]]]]]]]]]]]]]},
    ],
    ids=str,
)
def test_a_recipe_that_no_run_has_written_is_refused(bundle: Path, change: dict[str, object]) -> None:
    (bundle / "run.json").write_text(json.dumps({"preprocessing": RECIPE}))
    assert read_bundle(str(bundle), None)[0] == RECIPE
    (bundle / "run.json").write_text(json.dumps({"preprocessing": {**RECIPE, **change}}))
    with pytest.raises(ModelError, match=r"run\.json is damaged"):
        read_bundle(str(bundle), None)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"preprocessing": []}', '{"preprocessing": {}}', "[" * 99_999])
def test_a_recipe_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / "run.json").write_text(text)
    with pytest.raises(ModelError, match=r"run\.json is damaged"):
        read_bundle(str(bundle), None)


def test_large_images_are_taken_only_at_the_users_word() -> None:
    recipe = {"size": 40_000}
    with pytest.raises(ModelError, match=r"run takes images of 40000 pixels.*give --image-size 40000"):
        _input_size(ModelSpec(model="run"), None, recipe, "run")
    with pytest.raises(ModelError, match="give --image-size 40000"):
        _input_size(ModelSpec(model="run"), 40_000, {}, "run")
    assert _input_size(ModelSpec(model="run", image_size=40_000), None, recipe, "run") == 40_000
    assert _input_size(ModelSpec(model="run"), 1_024, {}, "run") == 1_024
