"""What every format keeps: values, whatever they are, and bytes, however the rows came."""

from __future__ import annotations

import datetime
import decimal
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import save_photos
from tests.tables.tablerows import (
    BROKEN,
    EVIL,
    EXTRA,
    bits,
    classify,
    encode,
    features,
    hostile_refs,
    read,
    read_csv,
)
from tests.writtentables import provenance, rows_of, write
from xcli.core.errors import CheckError, SourceError
from xcli.core.records import ImageRef
from xcli.tables import base
from xcli.tables.csv import CsvWriter
from xcli.tables.formats import open_table
from xcli.tables.jsonl import JsonlWriter
from xcli.tables.npy import NpyWriter
from xcli.tables.parquet import ParquetWriter
from xcli.tables.provenance import PROVENANCE_KEYS
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema


def test_evil_paths_survive_every_format() -> None:
    schema, batch = classify(EVIL, [[1.0]] * len(EVIL), types=[("note", None)], extra=[(path,) for path in EVIL])
    rows = read_csv(encode(CsvWriter, schema, [batch]))
    assert [row[0] for row in rows[1:]] == EVIL
    assert [row[-1] for row in rows[1:]] == EVIL
    assert {len(row) for row in rows} == {len(schema.names)}
    table = pq.read_table(io.BytesIO(encode(ParquetWriter, schema, [batch])))
    assert table["path"].to_pylist() == table["note"].to_pylist() == EVIL
    lines = encode(JsonlWriter, schema, [batch]).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line)["path"] for line in lines] == [json.loads(line)["note"] for line in lines] == EVIL
    schema, batch = features(np.zeros((len(EVIL), 2)), types=[("note", None)], extra=[(path,) for path in EVIL])
    companion = io.BytesIO()
    encode(NpyWriter, schema, [batch], companion=companion)
    assert [row[-1] for row in read_csv(companion.getvalue())[1:]] == EVIL


CARRIED = [
    (pa.bool_(), True, "true", True),
    (pa.int64(), -(2**60), str(-(2**60)), -(2**60)),
    (pa.uint8(), 7, "7", 7),
    (pa.float64(), 0.1, "0.1", 0.1),
    (pa.float32(), 0.1, "0.1", 0.1),
    (pa.float16(), np.float16(0.5), "0.5", 0.5),
    (pa.float64(), float("nan"), "nan", None),
    (pa.float64(), float("-inf"), "-inf", None),
    (pa.large_string(), 'a"b', 'a"b', 'a"b'),
    (pa.string_view(), "a,b", "a,b", "a,b"),
    (pa.binary(), b"a\xff", r"a\xff", r"a\xff"),
    (pa.binary(2), b"ab", "ab", "ab"),
    (pa.date32(), datetime.date(2024, 2, 29), "2024-02-29", "2024-02-29"),
    (pa.timestamp("s"), datetime.datetime(2024, 2, 29, 1), "2024-02-29 01:00:00", "2024-02-29 01:00:00"),
    (pa.decimal128(5, 2), decimal.Decimal("1.20"), "1.20", "1.20"),
    (pa.dictionary(pa.int8(), pa.string()), "a", "a", "a"),
    (pa.list_(pa.int8()), [1, None], "[1, null]", [1, None]),
    (pa.struct([("a", pa.float64()), ("b", pa.date32())]), {"a": float("nan")}, '{"a": null, "b": null}', None),
    (pa.map_(pa.string(), pa.binary()), [("k", b"v")], '[["k", "v"]]', [["k", "v"]]),
    (pa.null(), None, "", None),
    (pa.month_day_nano_interval(), (1, 2, 3), None, None),
    (pa.fixed_shape_tensor(pa.int8(), (2,)), [1, 2], "[1, 2]", [1, 2]),
]


@pytest.mark.parametrize(("data_type", "value", "text", "plain"), CARRIED, ids=lambda value: str(value)[:30])
def test_carried_columns_of_any_type(data_type, value, text, plain) -> None:
    schema, batch = classify(
        ["a", "b"], [[1.0]] * 2, types=[("x", data_type)], extra=[(value,), (None,)], errors=[None, BROKEN]
    )
    rows = read_csv(encode(CsvWriter, schema, [batch]))
    if text is not None:
        assert rows[1][-1] == text
    assert rows[2][-1] == ""
    first, second = map(json.loads, encode(JsonlWriter, schema, [batch]).decode().splitlines())
    if plain is not None:
        assert first["x"] == plain
    assert second["x"] is None
    assert list(first) == ["path", "status", "error", "predictions", "x"]


@pytest.mark.parametrize("kind", [CsvWriter, ParquetWriter, JsonlWriter])
def test_no_rows_give_a_valid_empty_table_of_predictions(kind) -> None:
    schema, batch = classify(["a"], [[1.0]])
    data = encode(kind, schema, [])
    assert encode(kind, schema, [batch.slice(0, 0)]) == data
    if kind is CsvWriter:
        assert data == b"path,status,error,label_1,index_1,score_1\n"
    elif kind is JsonlWriter:
        assert data == b""
    else:
        table = pq.read_table(io.BytesIO(data))
        assert table.schema.equals(schema)
        assert table.num_rows == 0


@pytest.mark.parametrize("kind", [CsvWriter, ParquetWriter, NpyWriter])
def test_no_rows_give_a_valid_empty_table_of_features(kind) -> None:
    schema = features_schema((3,), "float32", [])
    data = encode(kind, schema, [])
    if kind is CsvWriter:
        assert data == b"path,status,error,f0,f1,f2\n"
    elif kind is NpyWriter:
        assert np.load(io.BytesIO(data)).shape == (0, 3)
    else:
        table = pq.read_table(io.BytesIO(data))
        assert table.schema.equals(schema)
        assert table.num_rows == 0


def cuts(batch: pa.RecordBatch) -> list[list[pa.RecordBatch]]:
    """The same rows as one batch, as single rows, unevenly, as copies without offsets, and back from a part."""
    n = batch.num_rows
    uneven = [0, 1, 1, 17, 18, 50, n]
    pieces = [batch.slice(a, b - a) for a, b in itertools.pairwise(uneven)]
    part = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), part)
    return [
        [batch],
        [batch.slice(i, 1) for i in range(n)],
        pieces,
        [piece.take(pa.array(range(piece.num_rows), pa.int64())) for piece in pieces],
        pq.read_table(io.BytesIO(part.getvalue())).to_batches(max_chunksize=13),
    ]


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(base, "_GROUP_ROWS", 16)
    monkeypatch.setattr(base, "_SLICE_VALUES", 64)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", [CsvWriter, ParquetWriter, JsonlWriter])
def test_predictions_have_the_same_bytes_however_they_came(kind) -> None:
    rng = np.random.default_rng(1)
    schema, batch = classify(
        [f"{'é' * (i % 7)}{i},.jpg" for i in range(67)],
        rng.random((67, 8)),
        errors=[BROKEN if i % 5 == 0 else None for i in range(67)],
        top=3,
        min_score=0.5,
        types=[("kind", pa.dictionary(pa.int8(), pa.string())), ("raw", pa.binary())],
        extra=[(f"k{i % 9}" if i % 4 else None, b"\xff" if i == 40 else b"a") for i in range(67)],
    )
    results = {encode(kind, schema, pieces) for pieces in cuts(batch)}
    assert len(results) == 1
    if kind is ParquetWriter:
        file = pq.ParquetFile(io.BytesIO(results.pop()))
        assert [file.metadata.row_group(i).num_rows for i in range(5)] == [16, 16, 16, 16, 3]
        assert file.read().equals(pa.Table.from_batches([batch]))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("kind", "shape"),
    [(CsvWriter, (5,)), (ParquetWriter, (5,)), (ParquetWriter, (2, 2, 3)), (NpyWriter, (5,)), (NpyWriter, (2, 2, 3))],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features_have_the_same_bytes_however_they_came(kind, shape: tuple[int, ...], dtype: str) -> None:
    values = np.random.default_rng(1).random((67, *shape))
    schema, batch = features(values, [BROKEN if i % 5 == 0 else None for i in range(67)], dtype=dtype)
    assert len({encode(kind, schema, pieces) for pieces in cuts(batch)}) == 1


@pytest.mark.parametrize("kind", [CsvWriter, ParquetWriter, JsonlWriter])
def test_a_batch_of_another_schema_is_refused(kind) -> None:
    schema, _ = classify(["a"], [[1.0]])
    _, other = classify(["a"], [[1.0, 0.0]], top=2)
    with pytest.raises(ValueError, match="schema"):
        encode(kind, schema, [other])


@pytest.mark.parametrize("extension", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("label_type", ["name", "both"])
def test_predictions_come_back(tmp_path: Path, extension: str, label_type: str) -> None:
    batch = rows_of("classify", hostile_refs(), EXTRA, label_type=label_type)
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
    batch = rows_of("features", hostile_refs(), EXTRA)
    table = read(write(tmp_path / f"x.{extension}", batch, provenance("features")))
    assert table.schema.field("features").type == pa.list_(pa.float32(), 4)
    for name in ("path", "status", "error", *dict(EXTRA)):
        assert table[name].to_pylist() == batch[name].to_pylist()
    expected, found = (
        np.array(one["features"].to_pylist(), np.float32) for one in (pa.Table.from_batches([batch]), table)
    )
    assert found.tobytes() == expected.tobytes()
    if extension == "csv":
        assert table["features"].to_pylist() == batch["features"].to_pylist(), "nulls stay nulls"


@pytest.mark.parametrize("extension", ["parquet", "npy"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_maps_and_half_precision(tmp_path: Path, extension: str, dtype: str) -> None:
    batch = rows_of("features", hostile_refs(), shape=(2, 3, 2), dtype=dtype)
    reader = open_table(write(tmp_path / f"x.{extension}", batch, provenance("features")))
    assert reader.schema == batch.schema
    table = pa.Table.from_batches(reader.batches())
    column, expected = (one.combine_chunks().storage for one in (table["features"], pa.chunked_array([batch[3]])))
    both = [one.values.to_numpy(zero_copy_only=False) for one in (column, expected)]
    np.testing.assert_array_equal(*both)  # NaN has more than one pattern of bits
    assert np.nan_to_num(both[0]).tobytes() == np.nan_to_num(both[1]).tobytes()


def test_special_floats(tmp_path: Path) -> None:
    schema = features_schema((4,), "float32", [])
    values = np.array([[np.nan, np.inf, -np.inf, -0.0], [1e-45, 3.4028235e38, 1.1754944e-38, 0.1]], np.float32)
    ones = [ImageRef(name, name, b"") for name in "ab"]
    batch = features_batch(schema, ones, [None, None], values)
    for extension in ("csv", "parquet", "npy"):
        table = read(write(tmp_path / f"x.{extension}", batch, provenance("features")))
        np.testing.assert_array_equal(np.array(table["features"].to_pylist(), np.float32), values)
        assert np.signbit(table["features"].to_pylist()[0][3])


def test_provenance_of_both_places(tmp_path: Path) -> None:
    made = provenance("classify", model__name="mod\udcffel")
    for extension in ("csv", "parquet", "jsonl"):
        reader = open_table(write(tmp_path / f"x.{extension}", rows_of("classify", hostile_refs()), made))
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


def test_some_columns_are_read_alone(tmp_path: Path) -> None:
    for command, extensions in (("classify", ("csv", "parquet", "jsonl")), ("features", ("csv", "parquet", "npy"))):
        for extension in extensions:
            reader = open_table(
                write(tmp_path / f"x.{extension}", rows_of(command, hostile_refs(), EXTRA), provenance(command))
            )
            of_classes = ["score_2", "path", "label_1"] if command == "classify" else ["path"]
            whole = pa.Table.from_batches(reader.batches())
            for columns in (["path"], ["path", "status", "error"], of_classes, ["other", "path", "note, with comma"]):
                table = pa.Table.from_batches(reader.batches(columns))
                assert table.schema.names == columns
                assert table["path"].to_pylist() == [ref.path for ref in hostile_refs()]
                assert repr(table.to_pylist()) == repr(whole.select(columns).to_pylist())


def damage(path: Path, cut: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-cut])


@pytest.mark.parametrize("extension", ["csv", "parquet", "jsonl", "npy"])
@pytest.mark.parametrize("cut", [1, 9, 300])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, extension: str, cut: int) -> None:
    command = "features" if extension == "npy" else "classify"
    path = tmp_path / f"x.{extension}"
    write(path, rows_of(command, hostile_refs()), provenance(command))
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


def test_photographs_in_place_of_a_table(tmp_path: Path) -> None:
    """A wrong argument, not a damaged table: one line says what makes a table of them."""
    photos = tmp_path / "my photos"
    save_photos(photos, ["a.jpg"])
    command = f"xception features '{photos}' -o FILE"
    with pytest.raises(SourceError, match=r"is no table: it is a directory without parts") as caught:
        open_table(str(photos))
    assert str(caught.value).startswith(f"{photos} is no table")
    assert command in str(caught.value)
    with pytest.raises(SourceError, match=r"is no table: it is an image \(JPEG\)"):
        open_table(str(photos / "a.jpg"))
    for name in ("_SUCCESS", "_meta.json"):
        (tmp_path / name[1:]).mkdir()
        (tmp_path / name[1:] / name).write_text("{}")
        with pytest.raises(CheckError, match="has lost its parts"):
            open_table(str(tmp_path / name[1:]))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        open_table(str(tmp_path / "x.csv"))
    (tmp_path / "x.csv.partial").mkdir()
    with pytest.raises(SourceError, match="not finished"):
        open_table(str(tmp_path / "x.csv"))
    path = write(tmp_path / "x.npy", rows_of("features", hostile_refs()), provenance("features"))
    (tmp_path / "x.npy.csv").unlink()
    with pytest.raises(CheckError, match=r"x\.npy\.csv is missing"):
        open_table(path)
