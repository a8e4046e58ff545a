"""Directories, two tables at once, and guarded CSV, from the command line."""

from __future__ import annotations

import csv
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from tests.cli.conftest import save_photos

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.conftest import Invoke

FAST = ("--weights", "none", "--image-size", "71")


def test_a_directory_of_parts(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = f"{tmp_path}/out/"
    command = ("features", photos, *FAST, "-o", target, "--batch-size", "1", "--part-rows", "2")
    result = invoke(*command)
    assert result.code == 0, result
    names = sorted(os.listdir(target))
    parts = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert names == ["_SUCCESS", "_meta.json", "_states", *parts]
    assert [pq.read_metadata(f"{target}{name}").num_rows for name in parts] == [2, 2, 1]
    result = invoke(*command)
    assert (result.code, "finished and up to date" in result.err) == (0, True), result
    assert invoke("verify", target, photos).code == 0
    single = tmp_path / "single.parquet"
    assert invoke("features", photos, *FAST, "-o", single, "--batch-size", "1").code == 0
    assert invoke("merge", target, "--source", photos, "-o", tmp_path / "merged.parquet").code == 0
    assert (tmp_path / "merged.parquet").read_bytes() == single.read_bytes()
    result = invoke("merge", single, "-o", target)
    assert (result.code, "merge writes one file" in result.err) == (2, True), result


def test_a_directory_takes_parquet_only(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    result = invoke("features", photos, *FAST, "-o", f"{tmp_path}/out/", "--format", "csv")
    assert (result.code, "directories are written in Parquet" in result.err) == (2, True), result
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("sir")
    result = invoke("features", photos, *FAST, "-o", tmp_path / "letters", "--overwrite")
    assert (result.code, "letters contains dear.txt" in result.err) == (5, True), result


def test_both_tables_of_one_pass(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    labels, features = tmp_path / "labels.csv", tmp_path / "features.npy"
    command = ("classify", photos, "--weights", "none", "--classes", "5", "-o", labels, "--features-out", features)
    result = invoke(*command)
    assert result.code == 0, result
    rows = list(csv.reader(labels.read_text().splitlines()))
    companion = list(csv.reader((tmp_path / "features.npy.csv").read_text().splitlines()))
    assert [row[:3] for row in rows] == companion
    assert np.load(features).shape == (5, 2048)
    for name in (labels, features):
        assert json.loads((tmp_path / f"{name.name}.meta.json").read_text())["options"]["features"] == "avg"
        assert invoke("verify", name, photos).code == 0
    assert "finished and up to date" in invoke(*command).err
    os.unlink(features)
    result = invoke(*command)
    assert result.code == 0, result
    assert features.exists()
    result = invoke("classify", photos, "--weights", "none", "--features-out", features)
    assert (result.code, "--features-out needs -o FILE" in result.err) == (2, True), result


def test_csv_for_a_spreadsheet(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_photos(tmp_path, ["=1+1.jpg"])
    (tmp_path / "list.csv").write_text('path,@note\n=1+1.jpg,"-2+3"\n')
    command = ("features", "--manifest", "list.csv", *FAST, "--csv-safe")
    result = invoke(*command, "-o", "out.csv")
    assert result.code == 0, result
    header, row = csv.reader((tmp_path / "out.csv").read_text().splitlines())
    assert (header[0], header[-1]) == ("path", "'@note")
    assert (row[0], row[-1]) == ("'=1+1.jpg", "'-2+3")
    for check in (("verify", "out.csv"), ("merge", "out.csv", "-o", "merged.csv")):
        result = invoke(*check)
        assert (result.code, "--csv-safe" in result.err) == (6, True), result
    assert invoke(*command, "-o", "out.parquet").code == 2
    assert invoke(*command, "--format", "csv").text.startswith("path,status,error,f0,")
