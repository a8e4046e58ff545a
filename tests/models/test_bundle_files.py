"""The files of a bundle are regular files in it, and its labels are JSON: what is elsewhere is not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xcli.core.checked_json import MAX_BYTES
from xcli.core.errors import ModelError
from xcli.models.bundle import read_bundle


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
