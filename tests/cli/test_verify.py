"""`xception verify`, from real runs to the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.conftest import Invoke

SMALL = ("--weights", "none", "--image-size", "71", "--batch-size", "2")


def run(invoke: Invoke, photos: Path, target: Path, *more: str | Path) -> Path:
    assert invoke("features", photos, *SMALL, "-o", target, *more).code in (0, 4)
    return target


def test_a_good_table(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    for extension in ("csv", "parquet", "npy"):
        target = run(invoke, photos, tmp_path / f"x.{extension}")
        result = invoke("verify", target, photos)
        assert result.code == 0, result
        assert "5 rows: every source has its row" in result.text
        assert "no duplicates; no NaN" in result.text
        result = invoke("verify", target)
        assert result.code == 0
        assert "not compared with sources" in result.text


def test_an_error_row_is_no_finding(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing")
    for extension in ("csv", "parquet", "npy"):
        target = run(invoke, photos, tmp_path / f"x.{extension}", bad)
        result = invoke("verify", target, photos, bad)
        assert result.code == 0, result
        assert "6: 5 ok, 1 error (" in result.text


def test_a_shard(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = run(invoke, photos, tmp_path / "x.csv", "--shard", "2/2")
    assert invoke("verify", target, photos, "--shard", "2/2").code == 0
    assert invoke("verify", target, photos, "--shard", "1/2").code == 6
    assert invoke("verify", target, photos).code == 6


def test_nan_in_the_array(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = run(invoke, photos, tmp_path / "x.npy")
    array = np.load(target, mmap_mode="r+")
    array[2, 100] = np.nan
    array.flush()
    result = invoke("verify", target, "--json")
    assert result.code == 6
    verdict = json.loads(result.text)
    assert verdict["passed"] is False
    assert verdict["rows"] == 5
    (finding,) = verdict["findings"]
    assert (finding["check"], finding["count"], finding["examples"]) == ("nan", 1, [f"{photos}/c.jpeg"])
    assert "c.jpeg" in invoke("verify", target).text


def test_a_row_removed_and_an_image_added(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = run(invoke, photos, tmp_path / "x.csv")
    lines = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(lines[:2] + lines[3:]))
    result = invoke("verify", target, photos, "--report", tmp_path / "report")
    assert result.code == 6
    assert "sources without a row: 1" in result.text
    found = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert [one["name"] for one in found if one["check"] == "missing"] == [f"{photos}/b.JPG"]
    assert any(one["check"] == "counts" for one in found)


def test_names_do_not_drive_the_terminal(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "\x1b[31m[bold]\u202e.jpg").write_bytes((photos / "a.jpg").read_bytes())
    target = run(invoke, folder, tmp_path / "x.csv")
    (tmp_path / "empty").mkdir()
    result = invoke("verify", target, tmp_path / "empty")
    assert result.code == 6
    assert "\x1b" not in result.text
    assert "\u202e" not in result.text
    assert "[bold]" in result.text
