"""Error rows of features: what files have there, and what other programs make of it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.tables.tablerows import BROKEN, classify, encode, features, read
from tests.writtentables import provenance, write
from xcli.tables.csv import CsvWriter
from xcli.tables.npy import NpyWriter
from xcli.tables.parquet import ParquetWriter
from xcli.tables.rows import fill_error_features
from xcli.tables.schema import classify_schema

DOCS = Path(__file__).parents[2] / "docs"
UNIT = np.array([[1, 0], [0, 0], [0.6, 0.8], [0, 1]], np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the tables of the recipes, the second row of each an error."""
    errors = [None, BROKEN, None, None]
    paths = ["photos/cat.jpg", "photos/bad.jpg", "photos/dog.jpg", "photos/cow.jpg"]
    _, rows = features(UNIT, errors)
    rows = rows.set_column(0, rows.schema.field(0), pa.array(paths))
    write(tmp_path / "unit.parquet", rows, provenance("features"))
    _, labels = classify(paths, UNIT, errors)
    for number in (1, 2):
        write(tmp_path / f"labels-{number}.parquet", labels, provenance("classify"))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "part-00000.parquet").hardlink_to(tmp_path / "unit.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def queries() -> list[str]:
    """The SQL of the recipes."""
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    return [*re.findall(r"```sql\n(.*?)```", text, re.DOTALL), *re.findall(r'duckdb -c "(.*?)"', text)]


def test_duckdb_runs_the_queries_of_the_recipes(folder: Path) -> None:
    import duckdb

    labels, nearest, count = (duckdb.sql(query).fetchall() for query in queries())
    assert [row[:2] for row in labels] == [("class 1", 4), ("class 0", 2)]
    assert [path for path, _ in nearest] == ["photos/cat.jpg", "photos/dog.jpg", "photos/cow.jpg"]
    assert [score for _, score in nearest] == pytest.approx([1, 0.6, 0])
    assert count == [(4,)]
    everywhere = nearest_without_status(queries()[1])
    assert np.isnan(dict(duckdb.sql(everywhere).fetchall())["photos/bad.jpg"]), "an error row spoils no query"


def nearest_without_status(query: str) -> str:
    """The query without its condition, which a reader may forget."""
    assert "WHERE status = 'ok' " in query
    return query.replace("WHERE status = 'ok' ", "")


def test_polars_runs_the_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(import polars.*?)```", text, re.DOTALL)
    assert found is not None
    exec(found[1], {})
    printed = capsys.readouterr().out
    assert re.findall(r"photos/\w+.jpg", printed) == ["photos/cat.jpg", "photos/dog.jpg", "photos/cow.jpg"]


def test_pandas_and_pyarrow_read_numbers(folder: Path) -> None:
    table = pd.read_parquet("unit.parquet")
    np.testing.assert_array_equal(np.stack(table["features"]), np.where([[0], [1], [0], [0]], np.nan, UNIT))
    column = pq.read_table("unit.parquet")["features"].combine_chunks()
    assert column.null_count == column.values.null_count == 0


def test_null_lists_for_readers_that_are_new_enough(tmp_path: Path) -> None:
    import duckdb
    import polars as pl

    _, rows = features(UNIT, [None, BROKEN, None, None])
    path = write(tmp_path / "x.parquet", rows, provenance("features", options__error_features="null"))
    assert pq.read_table(path)["features"].is_null().to_pylist() == [False, True, False, False]
    assert pl.read_parquet(path)["features"].is_null().to_list() == [False, True, False, False]
    assert pd.read_parquet(path)["features"].isna().tolist() == [False, True, False, False]
    assert duckdb.sql(f"SELECT count(features) FROM '{path}'").fetchall() == [(3,)]
    again = pa.Table.from_batches(list(read(path).to_batches()))
    assert again["features"].is_null().to_pylist() == [False, True, False, False]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(3,), (2, 1, 3)])
@pytest.mark.parametrize("how", ["nan", "null", "empty"])
def test_every_form_becomes_every_other(how: str, shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(0).random((6, *shape)).astype(dtype)
    schema, rows = features(values, [None, BROKEN, None, BROKEN, None, None], dtype=dtype)
    files = {kind: encode(kind, schema, [rows]) for kind in (ParquetWriter, NpyWriter)}
    if len(shape) == 1:
        files[CsvWriter] = encode(CsvWriter, schema, [rows])
    other = fill_error_features(rows.slice(1), how)
    assert other.schema.equals(schema)
    batches = [rows.slice(0, 1), other]
    for kind, expected in files.items():
        assert encode(kind, schema, batches) == expected, kind
    file = pq.ParquetFile(io.BytesIO(files[ParquetWriter])).read()["features"].combine_chunks()
    column = file.chunk(0) if isinstance(file, pa.ChunkedArray) else file
    storage = column.storage if len(shape) > 1 else column
    finite = pc.is_finite(storage.values).to_numpy(zero_copy_only=False).reshape(6, -1)
    assert finite.all(1).tolist() == [True, False, True, False, True, True]


def test_other_rows_stay_as_they_are() -> None:
    schema, rows = features(UNIT, [None] * 4)
    assert fill_error_features(rows, "nan") is rows
    null = fill_error_features(features(UNIT, [BROKEN, None, None, None])[1], "null")
    damaged = null.set_column(1, schema.field(1), pa.array(["ok"] * 4))
    assert fill_error_features(damaged, "nan")["features"].to_pylist() == [[None, None], *UNIT[1:].tolist()]
    assert "features" not in classify_schema(1, "name", []).names
