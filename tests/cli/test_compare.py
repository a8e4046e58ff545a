"""`xception compare`, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_compare import random_table
from tests.cli.conftest import Invoke, code_and_imports


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, str]:
    random = np.random.default_rng(3)
    return random_table(random, tmp_path / "a.csv", 50), random_table(random, tmp_path / "b.parquet", 60)


def test_what_is_shown_and_written(invoke: Invoke, tables: tuple[str, str], tmp_path: Path) -> None:
    result = invoke("compare", *tables, "-o", tmp_path / "diff.csv")
    assert result.code == 0, result
    assert "50 in A, 60 in B" in result.text
    assert "best classes that changed" in result.text
    assert max(map(len, result.text.splitlines())) < 1000
    assert (tmp_path / "diff.csv").read_text().startswith("path,difference,status_a,status_b,label_a,score_a,")
    assert invoke("compare", *tables, "-o", tmp_path / "diff.csv").code == 5
    assert invoke("compare", *tables, "-o", tmp_path / "diff.csv", "--overwrite").code == 0
    assert invoke("compare", *tables, "-o", "-").out == (tmp_path / "diff.csv").read_bytes()
    assert invoke("compare", *tables, "-o", tmp_path / "diff.jsonl").code == 0
    lines = [json.loads(line) for line in (tmp_path / "diff.jsonl").read_text().splitlines()]
    names, *rows = csv.reader((tmp_path / "diff.csv").open(newline=""))
    assert [list(line) for line in lines] == [names] * len(rows)
    assert [line["path"] for line in lines] == [row[0] for row in rows]
    summary = json.loads(invoke("compare", *tables, "--json").out)
    assert summary["rows"] == {"a": 50, "b": 60}


def test_assertions(invoke: Invoke, tables: tuple[str, str], tmp_path: Path) -> None:
    assert invoke("compare", tables[0], tables[0], "--assert-agreement", "1").code == 0
    result = invoke("compare", *tables, "--assert-agreement", "0.99")
    assert (result.code, "less than the 0.99" in result.err) == (6, True), result
    share = json.loads(invoke("compare", *tables, "--json").out)["agreement"]
    result = invoke("compare", *tables, "--assert-agreement", str(share))
    assert (result.code, "missing or failed in one table" in result.err) == (6, True), result
    assert invoke("compare", *tables, "--assert-agreement", str(share), "--missing-ok").code == 0
    assert invoke("compare", *tables, "--missing-ok").code == 2
    result = invoke("compare", *tables, "--assert-cosine", "0.9")
    assert (result.code, "for tables of features" in result.err) == (2, True), result
    features = random_table(np.random.default_rng(0), tmp_path / "f.npy", 20, 64)
    assert invoke("compare", features, features, "--assert-cosine", "0.999").code == 0
    other = random_table(np.random.default_rng(1), tmp_path / "g.csv", 20, 64)
    assert invoke("compare", features, other, "--assert-cosine", "0.999").code == 6


@pytest.mark.parametrize(
    ("more", "code"), [(["-o", "x.npy"], 2), (["-o", "x/"], 2), (["--json", "-o", "-"], 2), (["-o", "no/x.csv"], 5)]
)
def test_outputs_that_cannot_be(invoke: Invoke, tables: tuple[str, str], more: list[str], code: int) -> None:
    result = invoke("compare", *tables, *more)
    assert result.code == code, result


def test_the_message_names_what_the_command_has(invoke: Invoke, tables: tuple[str, str], tmp_path: Path) -> None:
    result = invoke("compare", *tables, "-o", "differences.txt")
    assert result.err.endswith("the name does not tell the format; end it in .csv, .parquet or .jsonl\n"), result


def test_a_long_path_is_on_one_line(invoke: Invoke, tmp_path: Path) -> None:
    path = "photos/" + "x" * 300 + ".jpg"
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for table, label in zip(tables, ("cat", "dog"), strict=True):
        table.write_text(f"path,status,error,label_1,index_1,score_1\n{path},ok,,{label},0,0.5\n")
    assert path in invoke("compare", *tables).text


def test_tables_of_other_images(invoke: Invoke, tmp_path: Path) -> None:
    tables = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for table in tables:
        table.write_text(f"path,status,error,label_1,index_1,score_1\n{table.name}.jpg,ok,,cat,0,0.5\n")
    result = invoke("compare", *tables, "--assert-agreement", "0.5", "--missing-ok")
    assert (result.code, "there is no image to compare" in result.err) == (6, True), result
    assert "of 2 images, 0 have the same" in invoke("compare", *tables, "--assert-agreement", "0.5").err


def test_no_tensorflow(tables: tuple[str, str]) -> None:
    args = ["compare", *tables]
    assert code_and_imports(args) == "IMPORTED 0 []"


def test_half_of_the_rows_are_no_agreement(invoke: Invoke, tmp_path: Path) -> None:
    lines = ["path,status,error,label_1,index_1,score_1", *(f"{number}.jpg,ok,,cat,0,0.5" for number in range(100))]
    whole, half, failed = (tmp_path / f"{name}.csv" for name in ("whole", "half", "failed"))
    whole.write_text("\n".join(lines) + "\n")
    half.write_text("\n".join(lines[:51]) + "\n")
    failed.write_text("\n".join([*lines[:51], *(f"{number}.jpg,error,empty,,," for number in range(50, 100))]) + "\n")
    for first, second in ((whole, half), (half, whole), (whole, failed), (failed, whole)):
        result = invoke("compare", first, second, "--assert-agreement", "0.51")
        assert (result.code, "of 100 images, 50 have the same best class, 0 another one, 50 missing" in result.err) == (
            6,
            True,
        ), result
        assert invoke("compare", first, second, "--assert-agreement", "0.5").code == 0
        assert invoke("compare", first, second, "--assert-agreement", "1", "--missing-ok").code == 0
    assert invoke("compare", failed, failed, "--assert-agreement", "1").code == 0


def test_progress(invoke: Invoke, tables: tuple[str, str]) -> None:
    result = invoke("compare", *tables, "--progress", "json")
    start, end = (json.loads(line) for line in result.err.splitlines())
    assert (start["event"], end["event"], end["done"]) == ("start", "end", 50 * 2 + 60)
    assert "started" not in invoke("compare", *tables, "--progress", "none").err
