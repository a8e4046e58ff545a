"""`xception duplicates`, from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.analysis.featuretables import with_changes, write_features
from tests.cli.conftest import Invoke, Result, code_and_imports
from xcli.analysis import checked_copies, compared_bands, duplicates_run, nearest
from xcli.analysis.whitening import load_whitening
from xcli.sources.exclusions import read_exclusions

ROWS = 300


def vectors(seed: int = 0) -> np.ndarray:
    """Rows of which 3 and 7, 10 and 20 and 290 are nearly the same, and 30 and 31 equal."""
    values = np.random.default_rng(seed).normal(size=(ROWS, 64)).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=(ROWS, 64)).astype(np.float32) * 0.01
    for row, of in ((7, 3), (20, 10), (290, 10)):
        values[row] = values[of] + noise[row]
    values[31] = values[30]
    return values


EXPECTED = [("3", "7"), ("10", "20", "290"), ("30", "31")]


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_features(tmp_path / "t.parquet", vectors(), [f"d/{row}.jpg" for row in range(ROWS)])


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (nearest, duplicates_run):
        monkeypatch.setattr(module, "BAND_ROWS", 64)
    monkeypatch.setattr(compared_bands, "SECONDS", 0.0)


def rows_of(result: Result) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(result.text)))
    assert rows[0] == ["group", "path", "similarity", "keep"]
    return rows[1:]


def groups_of(rows: list[list[str]]) -> list[tuple[str, ...]]:
    """The stems of the paths of each group."""
    return [
        tuple(Path(row[1]).stem for row in rows if row[0] == group) for group in dict.fromkeys(row[0] for row in rows)
    ]


def test_groups_of_copies_each_with_one_to_keep(invoke: Invoke, table: str) -> None:
    result = invoke("duplicates", table)
    assert result.code == 0, result
    rows = rows_of(result)
    assert groups_of(rows) == EXPECTED
    assert [row[3] for row in rows] == ["true", "false", "true", "false", "false", "true", "false"]
    assert [float(row[2]) > 0.99 for row in rows] == [True] * 7
    assert "the fit has only 300 rows" in result.err
    assert "7 images with copies cannot be read" in result.err


def test_the_largest_is_kept(invoke: Invoke, table: str, tmp_path: Path) -> None:
    folder = tmp_path / "moved" / "d"
    folder.mkdir(parents=True)
    for name, size in (("3", 20), ("7", 30), ("10", 20), ("20", 20), ("290", 40)):
        Image.new("RGB", (size, size), "red").save(folder / f"{name}.jpg")
    Image.effect_noise((20, 20), 99).save(folder / "20.jpg")  # as many pixels as 10, and more bytes
    rows = rows_of(invoke("duplicates", table, "--images", tmp_path / "moved"))
    assert groups_of(rows) == [("7", "3"), ("290", "10", "20"), ("30", "31")]
    (folder / "290.jpg").unlink()
    rows = rows_of(invoke("duplicates", table, "--images", tmp_path / "moved"))
    assert groups_of(rows)[1] == ("20", "10", "290")


def test_a_file_has_the_fit_and_what_it_rests_on_beside_it(invoke: Invoke, table: str, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    result = invoke("duplicates", table, "-o", out, "--json", "--threshold", "0.7")
    assert result.code == 0, result
    found = pq.read_table(out)
    assert [str(kind) for kind in found.schema.types] == ["int64", "string", "float", "bool"]
    assert found["group"].to_pylist() == [1, 1, 2, 2, 2, 3, 3]
    summary = json.loads(result.text)
    assert (summary["threshold"], summary["groups"], summary["copies"]) == (0.7, 3, 4)
    assert (summary["rows"], summary["compared"], summary["exact"]) == ([ROWS], [ROWS], True)
    fit = load_whitening(f"{out}.whitening.npz")
    assert fit.digest == summary["whitening"]["sha256"]
    assert json.loads(Path(f"{out}.meta.json").read_bytes())["whitening"] == summary["whitening"]
    assert sorted(one.name for one in tmp_path.glob("out*")) == [
        "out.parquet",
        "out.parquet.meta.json",
        "out.parquet.whitening.npz",
    ]
    lines = out.with_suffix(".jsonl")
    assert invoke("duplicates", table, "-o", lines, "--threshold", "0.7").code == 0
    assert [json.loads(line) for line in lines.read_text().splitlines()] == [
        {**row, "similarity": pytest.approx(row["similarity"])} for row in found.to_pylist()
    ]
    left_out = {row["path"] for row in found.to_pylist() if not row["keep"]}
    assert read_exclusions(str(lines)).paths == read_exclusions(str(out)).paths == left_out
    assert invoke("duplicates", table, "-o", out).code == 5
    assert invoke("duplicates", table, "-o", out, "--overwrite", "--threshold", "1").code == 0
    assert pq.read_table(out)["path"].to_pylist() == ["d/30.jpg", "d/31.jpg"]


@pytest.mark.parametrize("name", ["b.npy", "b.csv", "b.parquet"])
def test_several_tables_are_one(invoke: Invoke, table: str, tmp_path: Path, name: str) -> None:
    values = vectors(5)
    values[2] = vectors()[3]
    dtype = "float16" if name == "b.parquet" else "float32"
    other = write_features(tmp_path / name, values[:50], [f"e/{row}.jpg" for row in range(50)], dtype=dtype)
    rows = rows_of(invoke("duplicates", table, other))
    assert [row[1] for row in rows if row[0] == "1"] == ["d/3.jpg", "d/7.jpg", "e/2.jpg"]


def test_what_two_tables_share(invoke: Invoke, table: str, tmp_path: Path) -> None:
    values = vectors(5)
    values[2], values[4], values[6] = vectors()[290], vectors()[100], vectors()[100] * 1.01
    other = write_features(tmp_path / "o.parquet", values, [f"o/{row}.jpg" for row in range(ROWS)])
    result = invoke("duplicates", table, "--between", other)
    assert result.code == 0, result
    rows = rows_of(result)
    found = [(row[0], row[1], row[3]) for row in rows]
    assert found == [
        ("1", "d/10.jpg", "true"),
        ("1", "o/2.jpg", "false"),
        ("2", "d/20.jpg", "true"),
        ("2", "o/2.jpg", "false"),
        ("3", "d/100.jpg", "true"),
        ("3", "o/4.jpg", "false"),
        ("3", "o/6.jpg", "false"),
        ("4", "d/290.jpg", "true"),
        ("4", "o/2.jpg", "false"),
    ]


class Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("between", [False, True])
def test_an_interrupted_comparison_is_continued(
    invoke: Invoke, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bands: None, between: bool
) -> None:
    other = write_features(tmp_path / "o.parquet", vectors()[::-1].copy())
    args = [table, *(["--between", other] if between else [])]
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert invoke("duplicates", *args, "-o", whole).code == 0
    compared: list[int] = []
    original = nearest.pairs_of_band

    def counted(values: Any, number: int, *rest: Any, **more: Any) -> Any:
        if len(compared) == 2:
            compared.clear()
            raise Stop
        compared.append(number)
        return original(values, number, *rest, **more)

    for module in ("duplicates", "shared_copies"):
        monkeypatch.setattr(f"xcli.analysis.{module}.pairs_of_band", counted)
    codes = []
    bands = []
    while not out.exists() and len(codes) < 9:
        codes.append(invoke("duplicates", *args, "-o", out))
        bands += compared
    assert [one.code for one in codes] == [130, 130, 0]
    assert bands == [4]
    assert "an earlier command has compared" in codes[1].err
    for suffix in ("", ".whitening.npz"):
        assert Path(f"{out}{suffix}").read_bytes() == Path(f"{whole}{suffix}").read_bytes()
    assert not Path(f"{out}.partial").exists()


@pytest.fixture
def out(invoke: Invoke, table: str, tmp_path: Path, small_bands: None) -> Path:
    """The output of a comparison that was interrupted before its end."""
    name = tmp_path / "out.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates_run, "group_rows", lambda *_: (_ for _ in ()).throw(Stop()))
        assert invoke("duplicates", table, "-o", name).code == 130
    return name


def test_an_unfinished_comparison_of_other_rows_or_options_is_refused(
    invoke: Invoke, table: str, tmp_path: Path, out: Path
) -> None:
    result = invoke("duplicates", table, "-o", out, "--threshold", "0.9")
    assert (result.code, "--restart" in result.err) == (5, True), result
    other = write_features(tmp_path / "o.parquet", vectors(9))
    assert invoke("duplicates", other, "-o", out).code == 5
    compared = tmp_path / "out.csv.partial" / "compared"
    compared.write_bytes(compared.read_bytes()[:-1] + b"?")
    result = invoke("duplicates", table, "-o", out)
    assert (result.code, "is damaged" in result.err) == (0, True), result
    assert groups_of(list(csv.reader(out.open()))[1:]) == EXPECTED


def test_restart_discards_an_unfinished_comparison(invoke: Invoke, table: str, out: Path) -> None:
    assert invoke("duplicates", table, "-o", out, "--threshold", "0.9", "--restart").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "x/"], "is a directory"),
        (["-o", "x.npy"], "does not write npy"),
        (["--threshold", "0"], "--threshold"),
        (["--restart"], "--restart is for -o"),
        (["-o", "-", "--json"], "both write to standard output"),
        (["no.parquet"], "cannot open no.parquet"),
    ],
)
def test_wrong_arguments(invoke: Invoke, table: str, args: list[str], message: str) -> None:
    result = invoke("duplicates", table, *args)
    assert (result.code, message in result.err) == (2, True), result


def test_tables_of_different_networks_are_refused(invoke: Invoke, table: str, tmp_path: Path) -> None:
    provenance = with_changes(model={"sha256": "1" * 64})
    other = write_features(tmp_path / "other.npy", vectors(), provenance=provenance)
    for args in ([table, other], [table, "--between", other]):
        result = invoke("duplicates", *args)
        assert (result.code, "model.sha256" in result.err) == (2, True), result


def test_tables_without_copies_and_without_vectors(invoke: Invoke, tmp_path: Path) -> None:
    alone = write_features(tmp_path / "a.parquet", vectors()[100:200])
    assert rows_of(invoke("duplicates", alone)) == []
    failed = write_features(tmp_path / "f.parquet", vectors()[:3], failed=[0, 1, 2])
    result = invoke("duplicates", failed)
    assert (result.code, "all of them are error rows" in result.err) == (2, True), result


def test_no_network_is_loaded(table: str) -> None:
    assert code_and_imports(["duplicates", table]) == "IMPORTED 0 []"


def test_pixels_decide_where_they_can_be_read(invoke: Invoke, table: str, tmp_path: Path) -> None:
    folder = tmp_path / "moved" / "d"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("3", "10", "20"):
        blocks = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        blocks.resize((160, 120), Image.Resampling.NEAREST).save(folder / f"{name}.jpg")
    Image.open(folder / "3.jpg").resize((120, 90)).save(folder / "7.jpg")
    images = tmp_path / "moved"
    result = invoke("duplicates", table, "--check-pixels", "--images", images)
    assert result.code == 0, result
    # 290 cannot be read, so that it is a copy of 10 and of 20, which are no copies of each other; 20 has more bytes.
    assert groups_of(rows_of(result)) == [("3", "7"), ("20", "290"), ("30", "31")]
    assert "images cannot be read: of their pairs the features decide" in result.err
    other = write_features(tmp_path / "o.parquet", vectors()[[3, 10]], ["d/7.jpg", "d/20.jpg"])
    shared = rows_of(invoke("duplicates", table, "--between", other, "--check-pixels", "--images", images))
    assert ("3", "7") in groups_of(shared)
    assert not [row for row in shared if row[1] == "d/10.jpg" and row[2] != "1"]


def test_an_approximate_comparison_says_how_much_it_finds(invoke: Invoke, table: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = invoke("duplicates", table, "--approximate", "-o", out, "--json")
    assert result.code == 0, result
    assert "sampled rows, 8 pairs are copies: 1.0000 of them were compared" in result.err
    summary = json.loads(result.text)
    assert summary["recall"] == {"rows": 299, "pairs": 8, "found": 8, "share": 1.0}
    assert summary["exact"] is False
    assert out.read_bytes() == invoke("duplicates", table).out
    result = invoke("duplicates", table, "--approximate", "--between", table)
    assert (result.code, "--approximate does not go with" in result.err) == (2, True), result


def test_a_look_at_pixels_is_continued(
    invoke: Invoke, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bands: None
) -> None:
    args = ["duplicates", table, "--check-pixels", "--approximate"]
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert invoke(*args, "-o", whole).code == 0
    looked: list[int] = []
    original = checked_copies.check_pixels

    def stopped(paths: Any, first: Any, second: Any, *, agreement_of: Any, **more: Any) -> Any:
        looked.append(len(first))
        if len(looked) == 2:
            return original(paths, first, second, agreement_of=agreement_of, **more)
        agreement_of[:2] = np.nan
        raise Stop

    monkeypatch.setattr(checked_copies, "check_pixels", stopped)
    assert invoke(*args, "-o", out).code == 130
    assert invoke("duplicates", table, "-o", out).code == 5
    assert invoke(*args, "-o", out).code == 0
    assert looked[1] == looked[0] - 2 > 0
    assert out.read_bytes() == whole.read_bytes()
