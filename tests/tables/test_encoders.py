"""Bytes of each format."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xcli.core.errors import ImageError, SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.tables import base
from xcli.tables.base import rows_per_group
from xcli.tables.csv import CsvWriter
from xcli.tables.jsonl import JsonlWriter
from xcli.tables.npy import NpyWriter
from xcli.tables.parquet import ParquetWriter
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

BROKEN = ImageError("empty", "no bytes")
EVIL = [
    'he said "hi", twice.jpg',
    "new\nline\r\nand\rreturn.jpg",
    "🦊/ß/日本.png",
    r"caf\xe9.jpg",
    r"back\\slash",
    " spaces around ",
    "tab\t;semi'colon",
    "=1+1",
    "\u2028\x85\x1b[0m",
    "",
    '"',
    ",",
    "a" * 5000,
]


def refs(paths: list[str], extra: list[tuple] | None = None) -> list[ImageRef]:
    return [ImageRef(path, path, path.encode(), extra=extra[i] if extra else ()) for i, path in enumerate(paths)]


def encode(kind, schema, batches, **more) -> bytes:
    stream = io.BytesIO()
    sink = kind(stream, schema, {"xception": '{"tool": "é"}'}, **more)
    for batch in batches:
        sink.write(batch)
    sink.close()
    return stream.getvalue()


def read_csv(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def classify(paths, scores, errors=None, top=1, min_score=None, label_type="name", types=(), extra=None):
    schema = classify_schema(top, label_type, list(types))
    errors = errors or [None] * len(paths)
    scores = np.asarray(scores, np.float32).reshape(len(paths), -1)
    names = [f"class {i}" for i in range(scores.shape[1])]
    wnids = [f"n{i}" for i in range(scores.shape[1])]
    labels = wnids if label_type == "wnid" else names
    return schema, classify_batch(schema, refs(paths, extra), errors, scores, labels, wnids, min_score)


def features(values, errors=None, types=(), extra=None, dtype="float32"):
    values = np.asarray(values, dtype)
    schema = features_schema(values.shape[1:], dtype, list(types))
    paths = [f"{i}.jpg" for i in range(len(values))]
    return schema, features_batch(schema, refs(paths, extra), errors or [None] * len(values), values)


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


def test_csv_text() -> None:
    schema, batch = classify(
        ["a b.jpg", "c,d", ""],
        [[0.92345, 0.1], [1, 0], [0.5, 0.5]],
        errors=[None, BROKEN, None],
        top=2,
        min_score=0.2,
        types=[("say, what", None), ("ok", pa.bool_())],
        extra=[("", True), (None, None), ('x"y', False)],
    )
    assert encode(CsvWriter, schema, [batch]).decode() == (
        'path,status,error,label_1,index_1,score_1,label_2,index_2,score_2,"say, what",ok\n'
        'a b.jpg,ok,,class 0,0,0.92345,,,,"",true\n'
        '"c,d",error,empty: no bytes,,,,,,,,\n'
        '"",ok,,class 0,0,0.5,class 1,1,0.5,"x""y",false\n'
    )


def test_csv_features_text() -> None:
    values = [[0.1, 1e-7, 1], [0, 0, 0], [np.nan, np.inf, 1 / 3]]
    schema, batch = features(values, errors=[None, BROKEN, None], types=[("n", None)], extra=[("z",)] * 3)
    assert encode(CsvWriter, schema, [batch]).decode() == (
        "path,status,error,f0,f1,f2,n\n"
        "0.jpg,ok,,0.1,1e-7,1,z\n"
        "1.jpg,error,empty: no bytes,,,,z\n"
        "2.jpg,ok,,nan,inf,0.33333334,z\n"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_csv_numbers_are_exact_and_shortest(dtype: str) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 ** (16 if dtype == "float16" else 32), 4096, dtype="u2" if dtype == "float16" else "u4")
    values = np.nan_to_num(bits.view(dtype), posinf=1, neginf=-1).reshape(64, 64)
    schema, batch = features(values, dtype=dtype)
    texts = [row[3:] for row in read_csv(encode(CsvWriter, schema, [batch]))[1:]]
    np.testing.assert_array_equal(np.array(texts).astype(np.float32), values.astype(np.float32))
    digits = [len(text.split("e")[0].replace(".", "").replace("-", "").strip("0")) for row in texts for text in row]
    best = [
        len(np.format_float_scientific(value, trim="-").split("e")[0].replace(".", "").replace("-", "").strip("0"))
        for value in values.astype(np.float32).ravel()
    ]
    assert digits == best


def test_csv_refuses_maps_and_names_like_its_own() -> None:
    with pytest.raises(UsageError, match="--pooling avg"):
        CsvWriter(io.BytesIO(), features_schema((2, 2, 3), "float32", []), {})
    with pytest.raises(SourceError, match="'f1'"):
        CsvWriter(io.BytesIO(), features_schema((2,), "float32", [("f1", None)]), {})
    CsvWriter(io.BytesIO(), features_schema((2,), "float32", [("f2", None)]), {})


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


def test_jsonl_text() -> None:
    schema, batch = classify(
        ["ü.jpg", "b", "c"],
        [[0.92345, 0.1], [1, 0], [np.nan, np.inf]],
        errors=[None, BROKEN, None],
        top=2,
        min_score=0.2,
        label_type="both",
    )
    assert encode(JsonlWriter, schema, [batch]).decode() == (
        '{"path": "ü.jpg", "status": "ok", "error": null, "predictions":'
        ' [{"label": "class 0", "wnid": "n0", "index": 0, "score": 0.92345}]}\n'
        '{"path": "b", "status": "error", "error": "empty: no bytes", "predictions": []}\n'
        '{"path": "c", "status": "ok", "error": null, "predictions":'
        ' [{"label": "class 1", "wnid": "n1", "index": 1, "score": null},'
        ' {"label": "class 0", "wnid": "n0", "index": 0, "score": null}]}\n'
    )


def test_jsonl_has_no_wnid_without_both_and_refuses_features() -> None:
    schema, batch = classify(["a"], [[0.5, 0.25]], label_type="wnid")
    (line,) = encode(JsonlWriter, schema, [batch]).splitlines()
    assert json.loads(line)["predictions"] == [{"label": "n0", "index": 0, "score": 0.5}]
    with pytest.raises(UsageError, match="parquet"):
        JsonlWriter(io.BytesIO(), features_schema((2,), "float32", []), {})


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


@pytest.mark.parametrize("kind", [CsvWriter, ParquetWriter, JsonlWriter])
def test_a_batch_of_another_schema_is_refused(kind) -> None:
    schema, _ = classify(["a"], [[1.0]])
    _, other = classify(["a"], [[1.0, 0.0]], top=2)
    with pytest.raises(ValueError, match="schema"):
        encode(kind, schema, [other])


def test_joining_wide_rows_does_not_mix_them_up() -> None:
    values = np.arange(300 * 700, dtype=np.float32).reshape(300, 700)
    schema, batch = features(values, [BROKEN if i in (0, 7, 299) else None for i in range(300)])
    rows = read_csv(encode(CsvWriter, schema, [batch]))[1:]
    for i, row in enumerate(rows):
        expected = [""] * 700 if i in (0, 7, 299) else [str(int(value)) for value in values[i]]
        assert [row[0], *row[3:]] == [f"{i}.jpg", *expected]
    assert batch.column("features").flatten().null_count == 3 * 700
