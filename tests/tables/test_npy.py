"""NPY."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.tables.tablerows import (
    BROKEN,
    encode,
    features,
    hostile_refs,
    read,
    read_csv,
)
from tests.writtentables import provenance, rows_of, write
from xcli.core.errors import CheckError, UsageError
from xcli.tables.formats import open_table
from xcli.tables.npy import NpyWriter
from xcli.tables.schema import classify_schema, features_schema


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(3,), (2, 1, 3)])
def test_npy(tmp_path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random((5, *shape)).astype(dtype)
    schema, batch = features(
        values, errors=[None, BROKEN, None, None, None], dtype=dtype, types=[("n", pa.int8())], extra=[(1,)] * 5
    )
    companion = io.BytesIO()
    data = encode(NpyWriter, schema, [batch.slice(0, 2), batch.slice(2)], companion=companion)
    (tmp_path / "x.npy").write_bytes(data)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(array, np.memmap)
    assert array.offset % 64 == 0
    assert (array.dtype, array.shape, array.flags.c_contiguous) == (np.dtype(dtype), (5, *shape), True)
    assert np.isnan(array[1]).all()
    np.testing.assert_array_equal(array[[0, 2, 3, 4]], values[[0, 2, 3, 4]])
    rows = read_csv(companion.getvalue())
    assert rows[0] == ["path", "status", "error", "n"]
    assert [row[1] for row in rows[1:]] == ["ok", "error", "ok", "ok", "ok"]
    assert encode(NpyWriter, schema, [batch]) == data  # without a companion


def test_npy_header_has_room_for_any_number_of_rows() -> None:
    schema = features_schema((10, 10, 2048), "float32", [])
    sink = NpyWriter(io.BytesIO(), schema, {})
    empty = sink._header()
    for rows in (1, 10**6, 2**63 - 1):
        sink._rows = rows
        assert len(sink._header()) == len(empty)
        stream = io.BytesIO(sink._header())
        assert np.lib.format.read_magic(stream) == (1, 0)
        assert np.lib.format.read_array_header_1_0(stream) == ((rows, 10, 10, 2048), False, np.dtype("<f4"))


def test_npy_refuses_tables_without_features() -> None:
    with pytest.raises(UsageError, match="features"):
        NpyWriter(io.BytesIO(), classify_schema(1, "name", []), {})


def test_an_array_and_its_table_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npy", rows_of("features", hostile_refs()), provenance("features"))
    other = write(tmp_path / "y.npy", rows_of("features", hostile_refs()[:-1]), provenance("features"))
    shutil.copy(other + ".csv", path + ".csv")
    with pytest.raises(CheckError, match="fewer rows"):
        read(path)
    with pytest.raises(CheckError, match="fewer rows"):
        list(open_table(path).batches(["path"]))
