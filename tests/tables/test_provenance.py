"""What made a table: FILE.meta.json, written and compared."""

from __future__ import annotations

import errno
import json
import os

import pytest

from xcli.core.errors import OutputError
from xcli.tables.provenance import write_meta


def test_meta(tmp_path) -> None:
    target = str(tmp_path / "out.csv")
    assert write_meta(target, {"b": "é🦊", "a": {"d": 1, "c": [None]}}) == target + ".meta.json"
    text = (tmp_path / "out.csv.meta.json").read_text("utf-8")
    assert text.startswith('{\n  "a": {\n    "c": [')
    assert "é🦊" in text
    write_meta(target, {"argv": ["\udcff"]})
    assert json.loads((tmp_path / "out.csv.meta.json").read_text("utf-8")) == {"argv": ["\udcff"]}
    assert os.listdir(tmp_path) == ["out.csv.meta.json"]


@pytest.mark.parametrize("target", [None, "-", "/dev/stdout", "/dev/null"])
def test_no_meta_beside_what_is_not_a_file(target: str | None, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_meta(target, {}) is None
    assert os.listdir(tmp_path) == []
    assert not os.path.exists("/dev/null.meta.json")


def test_meta_that_cannot_be_written(tmp_path, monkeypatch) -> None:
    (tmp_path / "out.meta.json").mkdir()
    with pytest.raises(OutputError, match=r"out\.meta\.json: it is a directory"):
        write_meta(str(tmp_path / "out"), {})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"x\.meta\.json: No space left"):
        write_meta(str(tmp_path / "x"), {})
    assert os.listdir(tmp_path) == ["out.meta.json"]
