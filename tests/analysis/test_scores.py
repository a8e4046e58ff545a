"""Rows of scores from rows of features: how many, in which order, and what becomes of rows without a vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.analysis.featuretables import write_features
from tests.analysis.heads import MADE, head, table, vectors
from tests.tables.tablerows import EVIL
from xcli.analysis.scores import ScoresRun
from xcli.analysis.stored import open_stored
from xcli.core.errors import CheckError, OutputExistsError, TooManyErrors
from xcli.inference.tasks import ClassifyTask
from xcli.outputs.options import Output, SaveOptions
from xcli.outputs.save import save
from xcli.outputs.target import parse_target
from xcli.sources.options import SourceOptions
from xcli.tables.provenance import provenance_metadata

HEAD = head()


def run_of(*names: str, top: int = 3, **options: Any) -> ScoresRun:
    task = ClassifyTask(HEAD, top=top)
    return ScoresRun(open_stored(names), HEAD, task, SourceOptions(sources=names, **options))


def write(
    target: Path, *names: str, overwrite: bool = False, keep: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Scores tables into a file; returns the run."""
    run = run_of(*names, **options)
    output = Output("classify", parse_target(str(target)), target.suffix[1:], overwrite)
    save(run, output, SaveOptions(of_images=False, **(keep or {})))
    return run


def probabilities(values: np.ndarray) -> np.ndarray:
    logits = values.astype(np.float64) @ HEAD.kernel + HEAD.bias
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("form", ["parquet", "npy", "csv"])
def test_one_row_an_image_in_the_order_of_the_tables(tmp_path: Path, form: str) -> None:
    one = table(tmp_path / f"one.{form}", 1500, failed=[3, 1499])
    two = table(tmp_path / f"two.{form}", 7)
    run = write(tmp_path / "out.parquet", one, two)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names[:6] == ["path", "status", "error", "label_1", "index_1", "score_1"]
    assert found["path"].to_pylist() == [f"{number:04}.jpg" for number in [*range(1500), *range(7)]]
    bad = [row for row, status in enumerate(found["status"].to_pylist()) if status == "error"]
    assert bad == [3, 1499]
    assert found["error"].to_pylist()[3] == "empty: no bytes"
    assert found["label_1"].to_pylist()[3] is None
    expected = probabilities(np.concatenate([vectors(1500), vectors(7)]))
    good = np.setdiff1d(np.arange(1507), bad)
    index = np.array(found["index_1"].to_pylist(), object)[good].astype(int)
    assert (index == expected.argmax(1)[good]).all()
    assert found["label_1"].to_pylist()[0] == HEAD.labels.names[index[0]]
    scores = np.array(found["score_1"].to_pylist(), object)[good].astype(np.float64)
    assert np.abs(scores - expected.max(1)[good]).max() < 1e-6
    assert (run.report.ok, run.report.errors, run.listing.total) == (1505, {"empty": 2}, 1507)


def test_vectors_that_are_not_finite_become_error_rows(tmp_path: Path) -> None:
    values = vectors(6)
    values[1, 4], values[2, 7], values[3] = np.nan, -np.inf, np.nan
    name = write_features(tmp_path / "t.parquet", values, provenance=MADE, failed=[3])
    run = write(tmp_path / "out.csv", name)
    assert run.report.errors == {"not-finite": 2, "empty": 1}
    assert "not-finite: the stored features are NaN or infinite" in (tmp_path / "out.csv").read_text()


def test_rows_whose_list_is_null_are_errors_too(tmp_path: Path) -> None:
    name = table(tmp_path / "t.parquet", 4)
    whole = pq.read_table(name)
    column = whole["features"].to_pylist()
    column[2] = None
    changed = whole.set_column(3, whole.schema.field(3), pa.array(column, whole.schema.field(3).type))
    pq.write_table(changed, name)
    assert write(tmp_path / "out.csv", name).report.errors == {"not-finite": 1}


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (0, ["a.jpg", None], "has no path"),
        (1, ["ok", "fine"], "the row of 0001.jpg has the status fine"),
        (1, ["ok", None], "the row of 0001.jpg has the status None"),
        (2, [None, "tired: of it"], "the status error with the error tired: of it"),
    ],
)
def test_damaged_rows_are_refused_by_name(tmp_path: Path, column: int, values: list, message: str) -> None:
    name = table(tmp_path / "t.parquet", 2, failed=[1] if column == 2 else [])
    whole = pq.read_table(name)
    field = whole.schema.field(column)
    pq.write_table(whole.set_column(column, field, pa.array(values, field.type)), name)
    with pytest.raises(CheckError, match=rf"t\.parquet is damaged: .*{message}"):
        write(tmp_path / "out.csv", name)
    assert not (tmp_path / "out.csv").exists()


def test_columns_that_were_carried_over_are_carried_on(tmp_path: Path) -> None:
    name = table(tmp_path / "t.parquet", 5)
    whole = pq.read_table(name)
    schema = whole.schema.append(pa.field("shop", pa.int64()))
    pq.write_table(pa.table([*whole.columns, pa.array([7, 8, None, 9, 9])], schema), name)
    write(tmp_path / "out.parquet", name, top=1)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names[-1] == "shop"
    assert found["shop"].to_pylist() == [7, 8, None, 9, 9]


def test_hostile_paths_come_out_as_they_are(tmp_path: Path) -> None:
    paths = EVIL
    name = table(tmp_path / "t.parquet", len(paths), paths=paths)
    write(tmp_path / "out.parquet", name)
    assert pq.read_table(tmp_path / "out.parquet")["path"].to_pylist() == paths


class Stop(Exception):
    """Ends a run after some rows."""


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [table(tmp_path / "one.parquet", 3000, failed=[5]), table(tmp_path / "two.parquet", 100)]
    write(tmp_path / "whole.parquet", *names)
    run = run_of(*names)
    seen: list[int] = []

    def on_batch(batch: Any) -> None:
        seen.append(len(batch.refs))
        if len(seen) == 2:
            raise Stop

    target = tmp_path / "out.parquet"
    output = Output("classify", parse_target(str(target)), "parquet", overwrite=False)
    with pytest.raises(Stop):
        save(run, output, SaveOptions(of_images=False, part_rows=1024), on_batch=on_batch)
    again = write(target, *names)
    assert again.report.resumed == 2048
    assert again.report.rows == 3100
    assert pq.read_table(target).equals(pq.read_table(tmp_path / "whole.parquet"))
    finished = write(target, *names)  # which looks at paths and states only
    assert (finished.report.rows, finished.report.resumed) == (3100, 3100)


def test_a_table_that_was_changed_since_is_noticed(tmp_path: Path) -> None:
    name = table(tmp_path / "t.npy", 5)
    write(tmp_path / "out.csv", name)
    table(tmp_path / "t.npy", 6)
    with pytest.raises(
        OutputExistsError, match=r"out\.csv is finished, but since then 1 image is new, 5 have changed: --over"
    ):
        write(tmp_path / "out.csv", name)
    assert write(tmp_path / "out.csv", name, overwrite=True).report.rows == 6


def test_shards_are_together_the_whole(tmp_path: Path) -> None:
    name = table(tmp_path / "t.parquet", 50)
    write(tmp_path / "whole.parquet", name)
    whole = {row["path"]: row for row in pq.read_table(tmp_path / "whole.parquet").to_pylist()}
    rows: list[dict] = []
    for number in (1, 2, 3):
        target = tmp_path / f"{number}.parquet"
        write(target, name, shard=(number, 3))
        rows += pq.read_table(target).to_pylist()
    assert sorted(row["path"] for row in rows) == sorted(whole)
    assert all(whole[row["path"]] == row for row in rows)
    assert write(tmp_path / "few.csv", name, limit=4).report.rows == 4


def test_too_many_errors_end_the_run(tmp_path: Path) -> None:
    name = table(tmp_path / "t.parquet", 10, failed=[1, 2, 3])
    with pytest.raises(TooManyErrors):
        write(tmp_path / "out.csv", name, keep={"max_errors": 2})


def test_the_provenance_names_the_head_and_what_made_the_features(tmp_path: Path) -> None:
    name = table(tmp_path / "t.parquet", 3, dtype="float16")
    write(tmp_path / "out.parquet", name)
    made = json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"xception"])
    assert made["model"]["sha256"] == HEAD.digest
    assert made["model"]["backbone"] == HEAD.backbone
    assert made["precision"] == "float32"
    assert made["options"]["from_features"]["dtype"] == "float16"
    assert provenance_metadata(made)
