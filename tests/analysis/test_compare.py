"""`compare` against a plain computation with pandas, on random tables."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tables.tablerows import refs
from xcli.analysis.compare import Comparison, compare, readings, write_differences
from xcli.core.errors import ImageError, OutputError, UsageError
from xcli.tables.formats import FORMATS, open_table
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

BROKEN = ImageError("empty", "no bytes")
CLASSES = [f"class {number}" for number in range(5)]


def write(target: Path, schema: pa.Schema, batch: pa.RecordBatch) -> str:
    kind = FORMATS[target.suffix[1:]]
    with ExitStack() as stack:
        streams = [stack.enter_context(open(f"{target}{suffix}", "wb")) for suffix in kind.suffixes]
        writer = kind.writer(streams[0], schema, {}, companion=streams[1] if streams[1:] else None)
        writer.write(batch)
        writer.close()
    return str(target)


def random_table(random: np.random.Generator, target: Path, count: int, width: int = 0) -> str:
    """Writes rows in random order: paths that occur twice, errors, nulls, equal scores."""
    paths = [f"{number}.jpg" for number in random.integers(0, max(1, count), count)]
    errors = [BROKEN if one else None for one in random.random(count) < 0.2]
    if width:
        schema = features_schema((width,), "float32", [])
        values = random.integers(-3, 4, (count, width)).astype(np.float32)
        return write(target, schema, features_batch(schema, refs(paths), errors, values))
    schema = classify_schema(2, "name", [])
    scores = random.choice(np.float32([0, 0.1, 0.25, 0.5]), (count, len(CLASSES)))
    return write(target, schema, classify_batch(schema, refs(paths), errors, scores, CLASSES, min_score=0.2))


def frame(path: str) -> pd.DataFrame:
    reader = open_table(path)
    rows = pa.Table.from_batches(reader.batches(), reader.schema).to_pandas()
    rows["turn"] = rows.groupby("path").cumcount()
    rows["row"] = range(len(rows))
    return rows


def spread(values: pd.Series, *, lowest: bool) -> list[float]:
    worst = values.min() if lowest else values.loc[values.abs().idxmax()] if len(values) else np.nan
    return [values.quantile(0.5), values.quantile(0.01), values.quantile(0.99), worst]


def check_spread(found: dict[str, Any], values: pd.Series, *, lowest: bool) -> None:
    numbers = values.dropna()
    assert found["not_comparable"] == len(values) - len(numbers)
    names = ("median", "p1", "p99", "worst")
    if not len(numbers):
        assert [found[name] for name in names] == [None] * 4
        return
    expected = spread(numbers, lowest=lowest)
    assert [found[name] for name in names[:3]] == pytest.approx(expected[:3])
    assert abs(found["worst"]) == pytest.approx(abs(expected[3]))


def check_counts(found: Comparison, a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Compares what does not depend on the results; returns the rows that are ok in both."""
    both = a.merge(b, on=["path", "turn"], how="outer", suffixes=("_a", "_b"), indicator=True)
    summary = found.summary
    assert summary["rows"] == {"a": len(a), "b": len(b)}
    assert summary["only_a"] == (both["_merge"] == "left_only").sum()
    assert summary["only_b"] == (both["_merge"] == "right_only").sum()
    both = both[both["_merge"] == "both"]
    statuses = both.groupby(["status_a", "status_b"]).size().to_dict() if len(both) else {}
    assert summary["status"] == {
        "ok_to_error": statuses.get(("ok", "error"), 0),
        "error_to_ok": statuses.get(("error", "ok"), 0),
        "error_in_both": statuses.get(("error", "error"), 0),
    }
    both = both[(both["status_a"] == "ok") & (both["status_b"] == "ok")]
    assert summary["compared"] == len(both)
    apart = summary["only_a"] + summary["only_b"] + summary["status"]["ok_to_error"] + summary["status"]["error_to_ok"]
    assert summary["missing_or_failed_in_one"] == apart
    return both.sort_values("row_a")


@pytest.mark.parametrize("seed", range(20))
def test_classes(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    forms = [str(one) for one in random.choice(["csv", "parquet", "jsonl"], 2)]
    names = [
        random_table(random, tmp_path / f"{key}.{form}", [0, 1, 300][seed % 3 if key == "b" else 2])
        for key, form in zip("ab", forms, strict=True)
    ]
    readers = [open_table(name) for name in names]
    found = compare(*readers)
    both = check_counts(found, frame(names[0]), frame(names[1]))
    same = (both["label_1_a"] == both["label_1_b"]) | (both["label_1_a"].isna() & both["label_1_b"].isna())
    assert found.summary["changed"] == (~same).sum()
    assert found.summary["agreement"] == (same.sum() / len(both) if len(both) else None)
    images = len(both) + found.summary["missing_or_failed_in_one"]
    assert found.summary["agreement_of_all"] == same.sum() / images
    check_spread(found.summary["score_drift"], both[same]["score_1_b"] - both[same]["score_1_a"], lowest=False)
    pairs = both[~same].fillna({"label_1_a": "-", "label_1_b": "-"}).groupby(["label_1_a", "label_1_b"]).size()
    assert {(one["a"] or "-", one["b"] or "-"): one["count"] for one in found.summary["changed_classes"]} == dict(pairs)
    counts = [one["count"] for one in found.summary["changed_classes"]]
    assert counts == sorted(counts, reverse=True)
    sums = both["score_1_a"].fillna(0) + both["score_1_b"].fillna(0)
    change = (both["score_1_b"] - both["score_1_a"]).abs().fillna(0).where(same, sums)
    top = change[change > 0].sort_values(ascending=False, kind="stable")[:20]
    assert [one["path"] for one in found.summary["most_changed"]] == list(both.loc[top.index, "path"])
    write_differences(found, *readers, str(tmp_path / "diff.parquet"), "parquet", overwrite=False)
    written = pq.read_table(tmp_path / "diff.parquet").to_pandas()
    kinds = written["difference"].value_counts().to_dict()
    status = found.summary["status"]
    expected = {
        "only-a": found.summary["only_a"],
        "only-b": found.summary["only_b"],
        "status": status["ok_to_error"] + status["error_to_ok"],
        "class": found.summary["changed"],
        "score": int((change[same] > 0).sum()),
    }
    assert kinds == {name: count for name, count in expected.items() if count}
    with pytest.raises(OutputError, match="exists"):
        write_differences(found, *readers, str(tmp_path / "diff.parquet"), "parquet", overwrite=False)


@pytest.mark.parametrize("seed", range(12))
def test_features(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    forms = random.choice(["csv", "parquet", "npy"], 2)
    names = [
        random_table(random, tmp_path / f"{key}.{form}", [0, 200, 3000][seed % 3 if key == "b" else 1], 3)
        for key, form in zip("ab", forms, strict=True)
    ]
    readers = [open_table(name) for name in names]
    found = compare(*readers)
    both = check_counts(found, frame(names[0]), frame(names[1]))
    cosines = []
    for one, other in zip(both["features_a"], both["features_b"], strict=True):
        norms = float(np.linalg.norm(np.float64(one)) * np.linalg.norm(np.float64(other)))
        cosines.append(float(np.dot(np.float64(one), np.float64(other)) / norms) if norms else np.nan)
    check_spread(found.summary["cosine"], pd.Series(cosines, dtype=float), lowest=True)
    write_differences(found, *readers, str(tmp_path / "diff.csv"), "csv", overwrite=False)
    written = pd.read_csv(tmp_path / "diff.csv")
    assert list(written.columns) == ["path", "difference", "status_a", "status_b", "cosine"]
    assert (written["difference"] == "only-b").sum() == found.summary["only_b"]


def test_a_table_against_itself(tmp_path: Path) -> None:
    name = random_table(np.random.default_rng(0), tmp_path / "a.csv", 100)
    readers = open_table(name), open_table(name)
    found = compare(*readers)
    assert (found.summary["agreement"], found.summary["most_changed"]) == (1, [])
    write_differences(found, *readers, str(tmp_path / "diff.csv"), "csv", overwrite=False)
    assert len((tmp_path / "diff.csv").read_text().splitlines()) == 1


def test_tables_that_cannot_be_compared(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [random_table(random, tmp_path / f"{width}.parquet", 5, width) for width in (0, 3, 4)]
    for first, second in ((0, 1), (1, 2)):
        with pytest.raises(UsageError, match=r"of one command|different shapes"):
            compare(open_table(names[first]), open_table(names[second]))


def test_scores_that_are_no_numbers_are_not_compared(tmp_path: Path) -> None:
    schema = classify_schema(1, "name", [])
    paths = [f"{number}.jpg" for number in range(3)]
    tables = []
    for name, first in (("a", np.inf), ("b", 0.25)):
        scores = np.float32([[first, 0], [0.5, 0], [np.inf, 0]])
        rows = classify_batch(schema, refs(paths), [None] * 3, scores, CLASSES[:2])
        tables.append(write(tmp_path / f"{name}.parquet", schema, rows))
    found = compare(*map(open_table, tables)).summary
    json.dumps(found, allow_nan=False)
    assert (found["score_drift"]["worst"], found["score_drift"]["not_comparable"]) == (0, 2)


def test_texts_that_csv_safe_has_changed_are_matched(tmp_path: Path) -> None:
    schema = classify_schema(1, "name", [])
    paths = ["=a.jpg", "-b.jpg", "'c.jpg", "d.jpg"]
    rows = classify_batch(schema, refs(paths), [None] * 4, np.float32(np.eye(4)), ["+cat", "'dog", "@", "x"])
    plain = write(tmp_path / "a.parquet", schema, rows)
    for name in "bc":
        with open(tmp_path / f"{name}.csv", "wb") as file:
            writer = FORMATS["csv"].writer(file, schema, {}, escape_formulas=True)
            writer.write(rows)
            writer.close()
        (tmp_path / f"{name}.csv.meta.json").write_text('{"csv_safe": true}')
    safe = [str(tmp_path / f"{name}.csv") for name in "bc"]
    for first, second in ((plain, safe[0]), (safe[0], plain), safe):
        found = compare(*(open_table(one, escaped="restore") for one in (first, second)))
        assert (found.summary["compared"], found.summary["agreement_of_all"]) == (4, 1)
        assert {found.label(number) for number in found.a.labels.tolist()} == {"+cat", "'dog", "@", "x"}


@pytest.mark.parametrize("width", [0, 3])
@pytest.mark.parametrize("other", [0, 1])
def test_rows_are_read_as_often_as_was_said(width: int, other: int, tmp_path: Path) -> None:
    names = [
        random_table(np.random.default_rng(seed), tmp_path / f"{seed}.csv", 3000 + seed, width) for seed in (0, other)
    ]
    readers = [open_table(name) for name in names]
    told = [0, 0]
    for number, reader in enumerate(readers):

        def count(rows: int, number: int = number) -> None:
            told[number] += rows

        reader.on_rows = count
    found = compare(*readers)
    write_differences(found, *readers, str(tmp_path / "diff.csv"), "csv", overwrite=False)
    times = readings(found.command, written=True)
    assert told == [times[0] * 3000, times[1] * (3000 + other)]
