"""`xception sort`, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.analysis.test_sort import content, make_files
from tests.cli.conftest import Invoke, code_and_imports


def test_what_would_be_done_and_what_is_done(invoke: Invoke, tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 4), tmp_path / "out"
    result = invoke("sort", table, out, "--dry-run")
    assert result.code == 0, result
    lines = result.text.splitlines()
    assert "4 files to be put into their places" in result.err
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
        (["--undo", "log", "--by", "path"], "alone"),
    ],
)
def test_usage(invoke: Invoke, tmp_path: Path, more: list[str], message: str) -> None:
    result = invoke("sort", make_files(tmp_path, 2), *(str(tmp_path / "out") if one == "out" else one for one in more))
    assert (result.code, message in result.err) == (2, True), result
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_gone_is_an_error(invoke: Invoke, tmp_path: Path) -> None:
    table = make_files(tmp_path, 4)
    (tmp_path / "in" / "d0" / "0000.jpg").unlink()
    result = invoke("sort", table, tmp_path / "out", "--mode", "move", "--dry-run")
    assert (result.code, "3 files to be put into their places, 1 not (1 missing)" in result.err) == (4, True), result
    result = invoke("sort", table, tmp_path / "out", "--mode", "move")
    assert (result.code, "3 files in their places, 1 not (1 missing)" in result.err) == (4, True), result


def test_no_tensorflow(tmp_path: Path) -> None:
    args = ["sort", str(make_files(tmp_path, 2)), str(tmp_path / "out")]
    assert code_and_imports(args) == "IMPORTED 0 []"


def test_progress(invoke: Invoke, tmp_path: Path) -> None:
    table = make_files(tmp_path, 4)
    (tmp_path / "in" / "d0" / "0000.jpg").unlink()
    result = invoke("sort", table, tmp_path / "out", "--progress", "json")
    found = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    assert [(one["event"], one["done"], one["total"]) for one in found] == [
        ("start", 0, None),
        ("end", 4, None),
        ("start", 0, 4),
        ("end", 4, 4),
    ]
    assert (found[1]["rows_per_second"] >= 0, found[3]["files_per_second"] >= 0, found[3]["errors"]) == (True, True, 1)
    log = next((tmp_path / "out").glob("_sort-*.jsonl"))
    lines = invoke("sort", "--undo", log, "--progress", "lines").err.splitlines()
    assert "started; progress is reported every 60 s" in lines[0]
    assert "started" not in invoke("sort", table, tmp_path / "out", "-q").err


def test_what_is_done_is_not_to_be_done(invoke: Invoke, tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 4), tmp_path / "out of it"
    for mode in ("copy", "move"):
        result = invoke("sort", table, out, "--mode", mode)
        assert f"xception sort --undo '{out}/_sort-" in result.err
        result = invoke("sort", table, out, "--mode", mode, "--dry-run")
        assert (result.code, result.text) == (0, "mode,path,to\n"), result
        assert "0 files to be put into their places; in their places before: 4" in result.err
        assert invoke("sort", "--undo", next(out.glob("_sort-*.jsonl"))).code == 0


def test_a_table_for_spreadsheets(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = "path,status,error,label_1,index_1,score_1\n"
    Path("t.csv").write_text(head + "'=a.jpg,ok,,'-cat,0,0.5\n'@b.jpg,ok,,'-cat,0,0.5\nc.jpg,ok,,it's,0,0.5\n")
    Path("t.csv.meta.json").write_text('{"csv_safe": true}')
    for name in ("=a.jpg", "@b.jpg", "'@b.jpg", "c.jpg"):
        Path(name).write_text(name)
    result = invoke("sort", "t.csv", "out", "--mode", "move")
    assert (result.code, "may be that of '@b.jpg" in result.err) == (4, True), result
    found = content(tmp_path / "out")
    assert [(name, data) for name, data in found.items() if "/" in name] == [
        ("-cat/=a.jpg", b"=a.jpg"),
        ("it's/c.jpg", b"c.jpg"),
    ]
    assert invoke("sort", "t.csv", "out", "--mode", "move").code == 4
    assert content(tmp_path / "out") == found
