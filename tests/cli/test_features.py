"""`xception features`, from the command line to the file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Invoke

SMALL = ("--weights", "none", "--image-size", "71", "--batch-size", "2")


def vectors(table: pa.Table) -> np.ndarray:
    return np.stack([np.asarray(row, np.float32) for row in table["features"].to_pylist()])


def test_parquet_csv_and_npy_hold_the_same(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    for name in ("x.parquet", "x.csv", "x.npy"):
        result = invoke("features", photos, *SMALL, "-o", tmp_path / name)
        assert result.code == 0, result
        assert result.out == b""
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.names == ["path", "status", "error", "features"]
    assert table.schema.field("features").type == pa.list_(pa.float32(), 2048)
    expected = vectors(table)
    rows = list(csv.reader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert rows[0] == ["path", "status", "error", *(f"f{n}" for n in range(2048))]
    np.testing.assert_array_equal(np.array([row[3:] for row in rows[1:]], np.float32), expected)
    array = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (array.shape, array.dtype) == ((5, 2048), np.float32)
    np.testing.assert_array_equal(array, expected)
    beside = list(csv.DictReader(io.StringIO((tmp_path / "x.npy.csv").read_text())))
    assert [row["path"] for row in beside] == table["path"].to_pylist() == [row[0] for row in rows[1:]]


def test_typed_in_a_directory_with_nothing_else(invoke: Invoke, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setenv("XCEPTION_FEATURES_WEIGHTS", "none")
    monkeypatch.setenv("XCEPTION_FEATURES_IMAGE_SIZE", "71")
    result = invoke("features", "--pooling", "avg")
    assert result.code == 0, result
    assert "taking the current directory" in result.err
    rows = list(csv.DictReader(io.StringIO(result.text)))
    assert [row["path"] for row in rows] == ["a.jpg", "b.JPG", "c.jpeg", "d.jpg", "sub/e.jpg"]


def test_error_rows_are_empty_and_aligned(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing")
    sources = (photos / "a.jpg", bad, photos / "d.jpg")
    for name in ("x.parquet", "x.npy"):
        assert invoke("features", *sources, *SMALL, "-o", tmp_path / name).code == 4
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["status"].to_pylist() == ["ok", "error", "ok"]
    assert np.isnan(table["features"].to_pylist()[1]).all()
    assert table["features"].combine_chunks().values.null_count == 0
    array = np.load(tmp_path / "x.npy")
    assert np.isnan(array[1]).all()
    np.testing.assert_array_equal(array[[0, 2]], vectors(table.take([0, 2])))


def test_null_lists_in_error_rows(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    asked = (photos / "a.jpg", tmp_path / "bad.jpg", *SMALL, "--error-features", "null")
    for name in ("x.parquet", "parts/"):
        assert invoke("features", *asked, "-o", f"{tmp_path}/{name}").code == 4
        table = pq.read_table(tmp_path / name)
        assert table["features"].is_null().to_pylist() == [False, True]
        assert invoke("verify", tmp_path / name).code == 0
    both = ("-o", tmp_path / "both.csv", "--features-out", tmp_path / "both.parquet")
    classes = ("--weights", "none", "--error-features", "null")
    assert invoke("classify", *asked[:2], *classes, *both).code == 4
    assert pq.read_table(tmp_path / "both.parquet")["features"].is_null().to_pylist() == [False, True]
    for command in (("features", *asked, "-o", tmp_path / "y.npy"), ("classify", *asked[:2], *classes)):
        result = invoke(*command)
        assert (result.code, "--error-features null is for features in Parquet" in result.err) == (2, True), result


def test_pooling(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    for pooling in ("none", "avg", "max"):
        target = tmp_path / f"{pooling}.npy"
        assert invoke("features", photos, *SMALL, "--pooling", pooling, "-o", target).code == 0
    maps = np.load(tmp_path / "none.npy")
    assert maps.shape == (5, 3, 3, 2048)
    np.testing.assert_allclose(np.load(tmp_path / "avg.npy"), maps.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "max.npy"), maps.max((1, 2)))
    target = tmp_path / "maps.parquet"
    assert invoke("features", photos, *SMALL, "--pooling", "none", "-o", target).code == 0
    column = pq.read_table(target)["features"]
    assert column.type == pa.fixed_shape_tensor(pa.float32(), (3, 3, 2048))
    np.testing.assert_array_equal(column.combine_chunks().to_numpy_ndarray(), maps)


def test_layer_dtype_and_normalize(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.npy"
    assert invoke("features", photos, *SMALL, "--layer", "block4_add", "--pooling", "none", "-o", target).code == 0
    assert np.load(target).shape == (5, 5, 5, 728)
    result = invoke("features", photos, *SMALL, "--layer", "block4_ad", "-o", tmp_path / "y.npy")
    assert result.code == 2
    assert "block4_add" in result.err, "the close match"
    half = tmp_path / "half.parquet"
    assert invoke("features", photos, *SMALL, "--dtype", "float16", "--normalize", "-o", half).code == 0
    table = pq.read_table(half)
    assert table.schema.field("features").type == pa.list_(pa.float16(), 2048)
    np.testing.assert_allclose(np.linalg.norm(vectors(table), axis=1), 1, atol=2e-3)


def test_scores_of_the_top_as_features(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.npy"
    args = ("features", photos / "a.jpg", "--weights", "none", "--layer", "predictions", "-o", target)
    assert invoke(*args).code == 0
    assert np.load(target).shape == (1, 1000)
    assert np.load(target).sum() == pytest.approx(1, abs=1e-5)


def test_an_image_has_the_same_row_wherever_it_stands(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    one = photos / "d.jpg"
    for batch_size in ("1", "3"):
        options = ("--weights", "none", "--image-size", "71", "--batch-size", batch_size)
        target = tmp_path / f"{batch_size}.npy"
        assert invoke("features", one, photos, one, photos / "a.jpg", one, *options, "-o", target).code == 0
        array = np.load(target)
        for place in (4, 6, 8):
            assert array[place].tobytes() == array[0].tobytes()
