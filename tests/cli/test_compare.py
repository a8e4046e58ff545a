"""`xception compare`, from the command line."""

from __future__ import annotations

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
    assert (tmp_path / "diff.csv").read_text().startswith("path,difference,status_a,status_b,label_a,score_a,")
    assert invoke("compare", *tables, "-o", tmp_path / "diff.csv").code == 5
    assert invoke("compare", *tables, "-o", tmp_path / "diff.csv", "--overwrite").code == 0
    assert invoke("compare", *tables, "-o", "-").out == (tmp_path / "diff.csv").read_bytes()
    summary = json.loads(invoke("compare", *tables, "--json").out)
    assert summary["rows"] == {"a": 50, "b": 60}


def test_assertions(invoke: Invoke, tables: tuple[str, str], tmp_path: Path) -> None:
    assert invoke("compare", tables[0], tables[0], "--assert-agreement", "1").code == 0
    result = invoke("compare", *tables, "--assert-agreement", "0.99")
    assert (result.code, "less than the 0.99" in result.err) == (6, True), result
    result = invoke("compare", *tables, "--assert-cosine", "0.9")
    assert (result.code, "for tables of features" in result.err) == (2, True), result
    features = random_table(np.random.default_rng(0), tmp_path / "f.npy", 20, 64)
    assert invoke("compare", features, features, "--assert-cosine", "0.999").code == 0
    other = random_table(np.random.default_rng(1), tmp_path / "g.csv", 20, 64)
    assert invoke("compare", features, other, "--assert-cosine", "0.999").code == 6


@pytest.mark.parametrize(
    ("more", "code"), [(["-o", "x.jsonl"], 2), (["-o", "x/"], 2), (["--json", "-o", "-"], 2), (["-o", "no/x.csv"], 5)]
)
def test_outputs_that_cannot_be(invoke: Invoke, tables: tuple[str, str], more: list[str], code: int) -> None:
    result = invoke("compare", *tables, *more)
    assert result.code == code, result


def test_no_tensorflow(tables: tuple[str, str]) -> None:
    args = ["compare", *tables]
    assert code_and_imports(args) == "IMPORTED 0 []"
