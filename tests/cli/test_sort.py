"""`xception sort`, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.test_sort import content, make_files
from tests.cli.conftest import Invoke, code_and_imports


def test_what_would_be_done_and_what_is_done(invoke: Invoke, tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 4), tmp_path / "out"
    result = invoke("sort", table, out, "--dry-run")
    assert result.code == 0, result
    lines = result.text.splitlines()
    assert lines[:2] == ["mode,path,to", f"copy,{tmp_path}/in/d0/0000.jpg,cat/0000.jpg"]
    assert not out.exists()
    result = invoke("sort", table, out)
    assert (result.code, "4 files in their places" in result.err) == (0, True), result
    log = next(out.glob("_sort-*.jsonl"))
    assert f"--undo {log}" in result.err
    assert sorted([*content(out)]) == sorted([log.name, *(line.rpartition(",")[2] for line in lines[1:])])
    result = invoke("sort", "--undo", log)
    assert (result.code, "4 files taken back" in result.err, out.exists()) == (0, True, False), result


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["out", "--by", "colour"], "no such column"),
        (["out", "--rename", "{colour}"], "not known"),
        (["out", "--by", "error", "--min-score", "x"], "not a valid float"),
        ([], "give TABLE and DEST"),
        (["s3://bucket/x"], "directory of this machine"),
        (["out", "--undo", "log"], "alone"),
    ],
)
def test_usage(invoke: Invoke, tmp_path: Path, more: list[str], message: str) -> None:
    result = invoke("sort", make_files(tmp_path, 2), *(str(tmp_path / "out") if one == "out" else one for one in more))
    assert (result.code, message in result.err) == (2, True), result
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_gone_is_an_error(invoke: Invoke, tmp_path: Path) -> None:
    table = make_files(tmp_path, 4)
    (tmp_path / "in" / "d0" / "0000.jpg").unlink()
    result = invoke("sort", table, tmp_path / "out", "--mode", "move")
    assert (result.code, "3 files in their places, 1 not (1 missing)" in result.err) == (4, True), result


def test_no_tensorflow(tmp_path: Path) -> None:
    args = ["sort", str(make_files(tmp_path, 2)), str(tmp_path / "out")]
    assert code_and_imports(args) == "IMPORTED 0 []"
