"""Some rows of a table, read without the others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.writtentables import provenance, write
from xcli.tables.base import TableReader
from xcli.tables.formats import open_table
from xcli.tables.npy import NpyReader
from xcli.tables.parquet import ParquetReader
from xcli.tables.rows import features_array, flat_features
from xcli.tables.schema import FIRST_RESULT, features_schema

ROWS = 40


def features(first: int = 0, rows: int = ROWS) -> pa.RecordBatch:
    schema = features_schema((2,), "float32", ())
    numbers = np.arange(first, first + rows)
    values = features_array(schema.field(FIRST_RESULT).type, np.repeat(numbers, 2).astype(np.float32))
    paths = pa.array([f"{number}.jpg" for number in numbers.tolist()])
    arrays = [paths, pa.array(["ok"] * rows), pa.nulls(rows, pa.string()), values]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcli.tables.parquet.rows_per_group", lambda schema: 3)
    monkeypatch.setattr(TableReader, "batch_rows", 2)


@pytest.fixture
def table(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "directory":
        return write(tmp_path / f"t.{request.param}", features(), provenance("features"))
    (tmp_path / "t").mkdir()
    for part, (first, rows) in enumerate([(0, 7), (7, 1), (8, 32)]):
        write(tmp_path / "t" / f"part-{part:05}.parquet", features(first, rows), provenance("features"), meta=False)
    return str(tmp_path / "t")


TABLES = pytest.mark.parametrize("table", ["csv", "npy", "parquet", "directory"], indirect=True)


@TABLES
@pytest.mark.parametrize("rows", [[], [0], [39], [7], [6, 7, 8], [0, 20, 39], [*range(ROWS)], [3, 40, 99]])
@pytest.mark.parametrize("columns", [None, ["path"]])
def test_some_rows(table: str, rows: list[int], columns: list[str] | None) -> None:
    found = []
    for numbers, batch in open_table(table).rows(rows, columns):
        assert batch.column(0).to_pylist() == [f"{number}.jpg" for number in numbers]
        if columns is None:
            assert flat_features(batch.column(FIRST_RESULT)).to_pylist() == np.repeat(numbers, 2).tolist()
        else:
            assert batch.schema.names == columns
        found += numbers
    assert found == [row for row in rows if row < ROWS]


@TABLES
def test_little_more_is_read(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def spied(self: Any, rows: Any, columns: Any, original: Any) -> Iterator[Any]:
        for start, batch in original(self, rows, columns):
            read.append(batch.num_rows)
            yield start, batch

    for kind in (TableReader, NpyReader, ParquetReader):
        original = kind.__dict__["_batches_with"]
        monkeypatch.setattr(kind, "_batches_with", partialmethod(spied, original=original))
    assert [numbers for numbers, _ in open_table(table).rows([7, 20])]
    assert 2 <= sum(read) <= (22 if table.endswith(".csv") else 6)
