"""Parquet."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tables.tablerows import (
    BROKEN,
    classify,
    encode,
    features,
    hostile_refs,
    read,
)
from tests.writtentables import provenance, rows_of, write
from xcli.core.errors import CheckError
from xcli.core.records import ImageRef
from xcli.tables import base
from xcli.tables.base import rows_per_group
from xcli.tables.formats import open_table
from xcli.tables.parquet import ParquetWriter
from xcli.tables.schema import classify_schema, features_schema


def test_parquet_file() -> None:
    schema, batch = classify(["a", "b", "a"], [[0.5], [0.25], [0.5]], errors=[None, BROKEN, None])
    file = pq.ParquetFile(io.BytesIO(encode(ParquetWriter, schema, [batch])))
    assert file.schema_arrow.equals(schema)
    assert file.read().equals(pa.Table.from_batches([batch]))
    assert json.loads(file.schema_arrow.metadata[b"xception"]) == {"tool": "é"}
    columns = {column.path_in_schema: column for column in map(file.metadata.row_group(0).column, range(6))}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    dictionaries = {name for name, column in columns.items() if column.has_dictionary_page}
    assert dictionaries == {"status", "error", "label_1", "index_1"}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(3,), (2, 1, 3)])
def test_parquet_features(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random((5, *shape)).astype(dtype)
    schema, batch = features(values, errors=[None, BROKEN, None, None, None], dtype=dtype)
    file = pq.ParquetFile(io.BytesIO(encode(ParquetWriter, schema, [batch])))
    assert file.schema_arrow.equals(schema)
    column = file.read().combine_chunks()["features"].chunk(0)
    storage = column.storage if len(shape) > 1 else column
    read = storage.flatten().to_numpy(zero_copy_only=False).reshape(5, *shape)
    assert np.isnan(read[1]).all()
    np.testing.assert_array_equal(read[[0, 2, 3, 4]], values[[0, 2, 3, 4]])
    chunk = file.metadata.row_group(0).column(3)
    assert not chunk.has_dictionary_page
    assert not chunk.is_stats_set


def test_row_groups_follow_from_the_schema() -> None:
    assert rows_per_group(features_schema((2048,), "float32", [])) == 4002
    assert rows_per_group(features_schema((10, 10, 2048), "float32", [])) == 40
    assert rows_per_group(features_schema((2**24,), "float32", [])) == 1
    assert rows_per_group(classify_schema(1, "name", [])) == 65536
    wide = classify_schema(1, "name", [("old", pa.list_(pa.float32(), 2048)), ("text", pa.list_(pa.int8()))])
    assert rows_per_group(wide) < 4002


def test_pages_of_parquet_do_not_end_where_batches_do() -> None:
    values = np.random.default_rng(0).random((400, 1000), np.float32)
    schema, batch = features(values, [BROKEN if i % 50 == 7 else None for i in range(400)])
    ragged = [batch.slice(i, 3) for i in range(0, 400, 3)]
    later = batch.take(pa.array([0, 0, *range(400)])).slice(2)
    whole = encode(ParquetWriter, schema, [batch])
    assert encode(ParquetWriter, schema, ragged) == whole
    assert encode(ParquetWriter, schema, [later]) == whole


def test_rows_reach_the_file_while_parquet_holds_at_most_a_group(monkeypatch) -> None:
    monkeypatch.setattr(base, "_GROUP_ROWS", 16)
    schema, batch = classify(["a"] * 40, [[1.0]] * 40)
    stream = io.BytesIO()
    sink = ParquetWriter(stream, schema, {})
    sink.write(batch.slice(0, 15))
    assert stream.tell() == 4
    sink.write(batch.slice(15))
    assert stream.tell() > 100
    assert sum(piece.num_rows for piece in sink._pending) == 8
    sink.close()
    assert pq.read_table(io.BytesIO(stream.getvalue())).num_rows == 40


def test_an_abandoned_parquet_file_stays_without_a_footer() -> None:
    schema, batch = classify(["a"], [[1.0]])
    stream = io.BytesIO()
    sink = ParquetWriter(stream, schema, {})
    sink.write(batch)
    sink.abandon()
    del sink
    assert stream.getvalue() == b"PAR1"


def test_typed_columns_of_a_manifest_come_back_from_parquet(tmp_path: Path) -> None:
    types = [("when", pa.timestamp("us")), ("n", pa.int64()), ("list", pa.list_(pa.int32())), ("b", pa.large_binary())]
    ones = [ImageRef("a", "a", b"", extra=(5, 2**60, [1, None], b"\xff")), ImageRef("b", "b", b"", extra=(None,) * 4)]
    batch = rows_of("classify", ones, types)
    reader = open_table(write(tmp_path / "x.parquet", batch, provenance("classify")))
    assert reader.schema == batch.schema
    assert pa.Table.from_batches(reader.batches()).to_pylist() == pa.Table.from_batches([batch]).to_pylist()


def test_a_directory_of_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for number, part in enumerate((hostile_refs()[:5], hostile_refs()[5:])):
        write(folder / f"part-0000{number}.parquet", rows_of("classify", part), provenance("classify"), meta=False)
    (folder / "_lock").write_text("x")
    (folder / "_unfinished.parquet").write_text("x")
    table = read(str(folder))
    assert table["path"].to_pylist() == [ref.path for ref in hostile_refs()]
    assert open_table(str(folder) + "/").provenance == provenance("classify")
    write(
        folder / "part-00002.parquet",
        rows_of("classify", hostile_refs()),
        provenance("classify", precision="tf32"),
        meta=False,
    )
    with pytest.raises(CheckError, match="provenance"):
        open_table(str(folder))
