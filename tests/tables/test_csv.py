"""CSV."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.tables.tablerows import (
    BROKEN,
    classify,
    encode,
    features,
    read_csv,
)
from tests.writtentables import values_of
from xcli.core.errors import SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.tables.csv import CsvWriter
from xcli.tables.formats import create_table, open_table
from xcli.tables.provenance import METADATA_KEY
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema


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


def test_joining_wide_rows_does_not_mix_them_up() -> None:
    values = np.arange(300 * 700, dtype=np.float32).reshape(300, 700)
    schema, batch = features(values, [BROKEN if i in (0, 7, 299) else None for i in range(300)])
    rows = read_csv(encode(CsvWriter, schema, [batch]))[1:]
    for i, row in enumerate(rows):
        expected = [""] * 700 if i in (0, 7, 299) else [str(int(value)) for value in values[i]]
        assert [row[0], *row[3:]] == [f"{i}.jpg", *expected]
    assert batch.column("features").flatten().null_count == 3 * 700


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


@pytest.mark.parametrize("place", [0, 1, 500, 999])
def test_a_row_longer_than_a_block_is_read_and_none_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr("xcli.tables.csv._BLOCK_BYTES", (500, 50_000))
    text = "a line\n" * 1000
    rows = [f"{n}.jpg,ok,,cat,1,0.5\n" for n in range(1000)]
    rows[place] = f'{place}.jpg,error,"{text}",,,\n'
    (tmp_path / "x.csv").write_text("path,status,error,label_1,index_1,score_1\n" + "".join(rows))
    table = pa.Table.from_batches(open_table(str(tmp_path / "x.csv")).batches())
    assert table.column("path").to_pylist() == [f"{n}.jpg" for n in range(1000)]
    assert table.column("error").to_pylist() == [text if n == place else None for n in range(1000)]
