"""What was written is read back, value for value; what is damaged is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.writtentables import BROKEN, HOSTILE, provenance, rows_of, values_of, write
from xcli.core.errors import CheckError, SourceError
from xcli.core.records import ImageRef
from xcli.core.text import escape_path
from xcli.tables.formats import create_table, open_table
from xcli.tables.provenance import METADATA_KEY, PROVENANCE_KEYS
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema

EXTRA = [("note, with comma", None), ("other", None)]


def refs(count: int = 40) -> list[ImageRef]:
    names = [escape_path(os.fsdecode(name)) for name in HOSTILE] + [""] + [f"{n}.jpg" for n in range(count)]
    cells = ["", None, 'say "x"', "a\nb\r\nc", "null", "NaN", "0.10", " x "]
    return [ImageRef(name, name, name.encode(), extra=(cells[n % 8], "e")) for n, name in enumerate(names)]


def read(path: str) -> pa.Table:
    reader = open_table(path)
    return pa.Table.from_batches(reader.batches(), reader.schema)


def bits(table: pa.Table, name: str) -> list[bytes | None]:
    return [None if value is None else np.float32(value).tobytes() for value in table[name].to_pylist()]


@pytest.mark.parametrize("extension", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("label_type", ["name", "both"])
def test_predictions_come_back(tmp_path: Path, extension: str, label_type: str) -> None:
    batch = rows_of("classify", refs(), EXTRA, label_type=label_type)
    table = read(write(tmp_path / f"x.{extension}", batch, provenance("classify")))
    assert table.schema.names == batch.schema.names
    for name in batch.schema.names:
        if name.startswith("score"):
            assert bits(table, name) == bits(pa.Table.from_batches([batch]), name)
        elif extension == "jsonl" and name in dict(EXTRA):
            import json

            assert [json.loads(text) for text in table[name].to_pylist()] == batch[name].to_pylist()
        else:
            assert table[name].to_pylist() == batch[name].to_pylist()
    assert "error" in table["status"].to_pylist(), "the case has error rows"


@pytest.mark.parametrize("extension", ["csv", "parquet", "npy"])
def test_features_come_back_bit_for_bit(tmp_path: Path, extension: str) -> None:
    batch = rows_of("features", refs(), EXTRA)
    table = read(write(tmp_path / f"x.{extension}", batch, provenance("features")))
    assert table.schema.field("features").type == pa.list_(pa.float32(), 4)
    for name in ("path", "status", "error", *dict(EXTRA)):
        assert table[name].to_pylist() == batch[name].to_pylist()
    expected, found = (
        np.array(one["features"].to_pylist(), np.float32) for one in (pa.Table.from_batches([batch]), table)
    )
    assert found.tobytes() == expected.tobytes()
    if extension != "npy":
        assert table["features"].to_pylist() == batch["features"].to_pylist(), "nulls stay nulls"


@pytest.mark.parametrize("extension", ["parquet", "npy"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_maps_and_half_precision(tmp_path: Path, extension: str, dtype: str) -> None:
    batch = rows_of("features", refs(), shape=(2, 3, 2), dtype=dtype)
    reader = open_table(write(tmp_path / f"x.{extension}", batch, provenance("features")))
    assert reader.schema == batch.schema
    table = pa.Table.from_batches(reader.batches())
    column, expected = (one.combine_chunks().storage for one in (table["features"], pa.chunked_array([batch[3]])))
    both = [one.values.to_numpy(zero_copy_only=False).tobytes() for one in (column, expected)]
    assert both[0] == both[1]


def test_special_floats(tmp_path: Path) -> None:
    schema = features_schema((4,), "float32", [])
    values = np.array([[np.nan, np.inf, -np.inf, -0.0], [1e-45, 3.4028235e38, 1.1754944e-38, 0.1]], np.float32)
    ones = [ImageRef(name, name, b"") for name in "ab"]
    batch = features_batch(schema, ones, [None, None], values)
    for extension in ("csv", "parquet", "npy"):
        table = read(write(tmp_path / f"x.{extension}", batch, provenance("features")))
        np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), values)
        assert np.signbit(table["features"].to_pylist()[0][3])


def test_typed_columns_of_a_manifest_come_back_from_parquet(tmp_path: Path) -> None:
    types = [("when", pa.timestamp("us")), ("n", pa.int64()), ("list", pa.list_(pa.int32())), ("b", pa.large_binary())]
    ones = [ImageRef("a", "a", b"", extra=(5, 2**60, [1, None], b"\xff")), ImageRef("b", "b", b"", extra=(None,) * 4)]
    batch = rows_of("classify", ones, types)
    reader = open_table(write(tmp_path / "x.parquet", batch, provenance("classify")))
    assert reader.schema == batch.schema
    assert pa.Table.from_batches(reader.batches()).to_pylist() == pa.Table.from_batches([batch]).to_pylist()


def test_provenance_of_both_places(tmp_path: Path) -> None:
    made = provenance("classify", model__name="mod\udcffel")
    for extension in ("csv", "parquet", "jsonl"):
        reader = open_table(write(tmp_path / f"x.{extension}", rows_of("classify", refs()), made))
        assert reader.meta is not None
        assert {key: reader.meta[key] for key in PROVENANCE_KEYS} == made
        assert reader.provenance == (made if extension == "parquet" else None)
        assert reader.command == "classify"


def test_tables_without_rows(tmp_path: Path) -> None:
    for command, extensions in (("classify", ("csv", "parquet", "jsonl")), ("features", ("csv", "parquet", "npy"))):
        for extension in extensions:
            reader = open_table(write(tmp_path / f"x.{extension}", rows_of(command, []), provenance(command)))
            assert sum(batch.num_rows for batch in reader.batches()) == 0
            assert extension == "jsonl" or reader.schema == rows_of(command, []).schema


def test_a_directory_of_parts_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for number, part in enumerate((refs()[:5], refs()[5:])):
        write(folder / f"part-0000{number}.parquet", rows_of("classify", part), provenance("classify"), meta=False)
    (folder / "_lock").write_text("x")
    (folder / "_unfinished.parquet").write_text("x")
    table = read(str(folder))
    assert table["path"].to_pylist() == [ref.path for ref in refs()]
    assert open_table(str(folder) + "/").provenance == provenance("classify")
    write(
        folder / "part-00002.parquet", rows_of("classify", refs()), provenance("classify", precision="tf32"), meta=False
    )
    with pytest.raises(CheckError, match="provenance"):
        open_table(str(folder))


def test_some_columns_are_read_alone(tmp_path: Path) -> None:
    for command, extensions in (("classify", ("csv", "parquet", "jsonl")), ("features", ("csv", "parquet", "npy"))):
        for extension in extensions:
            reader = open_table(write(tmp_path / f"x.{extension}", rows_of(command, refs()), provenance(command)))
            for columns in (["path"], ["path", "status", "error"]):
                table = pa.Table.from_batches(reader.batches(columns))
                assert table.schema.names == columns
                assert table["path"].to_pylist() == [ref.path for ref in refs()]


def damage(path: Path, cut: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-cut])


@pytest.mark.parametrize("extension", ["csv", "parquet", "jsonl", "npy"])
@pytest.mark.parametrize("cut", [1, 9, 300])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, extension: str, cut: int) -> None:
    command = "features" if extension == "npy" else "classify"
    path = tmp_path / f"x.{extension}"
    write(path, rows_of(command, refs()), provenance(command))
    damage(path, cut)
    with pytest.raises(CheckError) as caught:
        read(str(path))
    assert "\n" not in str(caught.value)
    assert "x." + extension in str(caught.value)


def test_files_that_are_no_tables_of_ours(tmp_path: Path) -> None:
    cases = {
        "empty.csv": b"",
        "other.csv": b"path,label\nx,y\n",
        "text.csv": b"hello\n",
        "two.csv": b"path,status,error,label_1,label_1\n",
        "list.jsonl": b'{"path": "a"}\n',
        "broken.jsonl": b'{"path": "a", \n',
        "pk.parquet": b"PAR1" + b"x" * 50,
        "x.npy": b"\x93NUMPY\x01\x00\x05\x00{'a'}",
        "utf8.csv": b"path,status,error,label_1,index_1,score_1\n\xff,ok,,a,1,1\n",
        "number.csv": b"path,status,error,label_1,index_1,score_1\na,ok,,a,one,1\n",
        "fields.csv": b"path,status,error,label_1,index_1,score_1\na,ok,,a\n",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckError) as caught:
            read(str(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"path": [1], "status": ["ok"], "error": [""], "label_1": [""]}), tmp_path / "int.parquet")
    with pytest.raises(CheckError, match="path is int64"):
        open_table(str(tmp_path / "int.parquet"))


def test_lines_that_differ_from_the_first_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write(path, rows_of("classify", refs()[:3]), provenance("classify"))
    good = path.read_bytes()
    for bad in (b"{}\n", b'{"path": "a"}\n', b"[1]\n", good.splitlines(True)[0][:-2] + b', "more": 1}\n', b"\xff\n"):
        path.write_bytes(good + bad)
        with pytest.raises(CheckError, match="line 4"):
            read(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        open_table(str(tmp_path / "x.csv"))
    (tmp_path / "x.csv.partial").mkdir()
    with pytest.raises(SourceError, match="not finished"):
        open_table(str(tmp_path / "x.csv"))
    path = write(tmp_path / "x.npy", rows_of("features", refs()), provenance("features"))
    (tmp_path / "x.npy.csv").unlink()
    with pytest.raises(CheckError, match=r"x\.npy\.csv is missing"):
        open_table(path)


def test_an_array_and_its_table_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npy", rows_of("features", refs()), provenance("features"))
    other = write(tmp_path / "y.npy", rows_of("features", refs()[:-1]), provenance("features"))
    shutil.copy(other + ".csv", path + ".csv")
    with pytest.raises(CheckError, match="fewer rows"):
        read(path)
    with pytest.raises(CheckError, match="fewer rows"):
        list(open_table(path).batches(["path"]))


def test_wide_rows_of_csv_are_read_in_small_batches(tmp_path: Path) -> None:
    ones = [ImageRef(f"{n}", f"{n}", b"") for n in range(600)]
    schema = features_schema((2048,), "float32", [])
    values = values_of(ones, 2048)
    errors = [BROKEN if n % 50 == 0 else None for n in range(600)]
    with create_table("csv", str(tmp_path / "x.csv"), schema, {METADATA_KEY: "{}"}, False) as sink:
        sink.write(features_batch(schema, ones, errors, values))
    reader = open_table(str(tmp_path / "x.csv"))
    start = 0
    for batch in reader.batches():
        assert batch.num_rows <= 256
        found = np.array(batch["features"].to_pylist(), np.float32)
        expected = values[start : start + batch.num_rows].copy()
        expected[[n % 50 == 0 for n in range(start, start + batch.num_rows)]] = np.nan
        np.testing.assert_array_equal(found, expected)
        start += batch.num_rows
    assert start == 600
