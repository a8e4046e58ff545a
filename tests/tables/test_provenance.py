"""What made a table: FILE.meta.json, which appears with it."""

from __future__ import annotations

import json
import os

import pyarrow as pa
import pytest

from xcli.core.errors import OutputError
from xcli.tables.formats import create_table
from xcli.tables.provenance import is_unchanged, meta_text


def write(target: str, meta: dict[str, object], overwrite: bool = False) -> None:
    rows = pa.RecordBatch.from_pydict({"path": ["a"]})
    with create_table("csv", target, rows.schema, {}, overwrite) as output:
        output.write(rows)
        output.record(meta)


def test_its_text() -> None:
    text = meta_text({"b": "é🦊", "a": {"d": 1, "c": [None]}}).decode()
    assert text.startswith('{\n  "a": {\n    "c": [')
    assert "é🦊" in text
    meta = json.loads(meta_text({"argv": ["\udcff"]}))
    assert is_unchanged(meta)
    assert meta == {"argv": ["\udcff"], "sha256": meta["sha256"]}


def test_it_appears_with_the_table_and_is_replaced_with_it(tmp_path) -> None:
    target = str(tmp_path / "out.csv")
    write(target, {"run": 1})
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.csv.meta.json"]
    write(target, {"run": 2}, overwrite=True)
    assert json.loads((tmp_path / "out.csv.meta.json").read_text()) == json.loads(meta_text({"run": 2}))
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.csv.meta.json"]


def test_none_beside_what_is_not_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("/dev/null", {})
    assert os.listdir(tmp_path) == []
    assert not os.path.exists("/dev/null.meta.json")


def test_without_it_there_is_no_table(tmp_path) -> None:
    (tmp_path / "out.meta.json").mkdir()
    with pytest.raises(OutputError, match=r"out\.meta\.json: it is a directory"):
        write(str(tmp_path / "out"), {})
    assert os.listdir(tmp_path) == ["out.meta.json"]
