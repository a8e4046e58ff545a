"""A directory of everything that can go wrong, through the whole program."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Invoke, invoke, run_process, save_photos  # noqa: F401 - a fixture
from tests.imagefiles import make_hostile_directory
from xcli.core.text import escape_path, unescape_path

FAST = ("--weights", "none", "--image-size", "71", "--batch-size", "8")


def test_every_file_is_one_row(
    invoke: Invoke,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    expected = {os.path.join("in", name): outcome for name, outcome in make_hostile_directory(root).items()}
    save_photos(root / "directory.jpg", ["inside.jpg"])
    expected["in/directory.jpg/inside.jpg"] = "ok"
    (root / "loop").symlink_to(root)
    (root / "notes.txt").write_text("skipped")
    (root / ".hidden.jpg").write_text("skipped")

    result = run_process("features", "in", *FAST, "-o", "out.parquet", cwd=tmp_path, timeout=120)
    assert result.code == 4, result
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 2, result
    rows = pq.read_table(tmp_path / "out.parquet").select(["path", "status", "error"]).to_pylist()
    found = {
        unescape_path(row["path"]): "ok" if row["status"] == "ok" else row["error"].partition(":")[0] for row in rows
    }
    assert len(rows) == len(found) == len(expected), "exactly one row each"
    assert found == expected
    order = [os.fsencode(unescape_path(row["path"])) for row in rows]
    assert order == sorted(order, key=lambda path: path.split(b"/"))
    counts = json.loads((tmp_path / "out.parquet.meta.json").read_text())["images"]
    assert counts["listed"] == len(rows)
    assert counts["skipped"] == {"hidden": 1, "not an image": 1, "symlink loop": 1}

    monkeypatch.chdir(tmp_path)
    again = invoke("features", "in", *FAST)
    assert again.code == 4
    read = list(csv.reader(io.StringIO(again.text, newline="")))[1:]
    assert [row[:3] for row in read] == [[row["path"], row["status"], row["error"] or ""] for row in rows]
    assert all("\n" not in row["error"] for row in rows if row["error"])


def test_preflight_names_what_cannot_be_read(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    expected = make_hostile_directory(tmp_path)
    result = invoke("info", tmp_path, "--json")
    assert result.code == 4, result
    sources = json.loads(result.text)["sources"]
    assert sources["listed"] == len(expected)
    # Headers alone do not show every damage, but what they show is as the run will say.
    headers = {"empty", "not-an-image", "missing", "not-a-file", "too-large"}
    for reason in headers:
        assert sources["errors"].get(reason) == sum(outcome == reason for outcome in expected.values())
    named = {path for path, _ in sources["unreadable"]}
    assert named <= {escape_path(os.path.join(tmp_path, name)) for name, what in expected.items() if what != "ok"}
