from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.featuretables import PROVENANCE, with_changes, write_features
from tests.tables.tablerows import refs
from xcli.analysis.vectors import open_features, read_matrix
from xcli.core.errors import CheckError, SourceError, UsageError
from xcli.tables.formats import FEATURES_FORMATS, create_table
from xcli.tables.rows import classify_batch
from xcli.tables.schema import classify_schema


@pytest.fixture
def values() -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    found[2, 1] = np.nan
    found[7] = 0
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", FEATURES_FORMATS)
def test_rows_come_in_blocks_of_one_size_from_every_format(
    tmp_path: Path, values: np.ndarray, form: str, dtype: str
) -> None:
    one = write_features(tmp_path / f"a.{form}", values[:5], failed=[0], dtype=dtype)
    two = write_features(tmp_path / f"b.{form}", values[5:], dtype=dtype)
    tables = open_features([one, two])
    blocks = list(tables.blocks(4))
    assert [(block.start, len(block.ok)) for block in blocks] == [(0, 4), (4, 4), (8, 2)]
    ok = [number not in (0, 2) for number in range(10)]
    assert np.concatenate([block.ok for block in blocks]).tolist() == ok
    expected = np.where(np.array(ok)[:, None], values, 0).astype(dtype).astype(np.float32)
    found = np.concatenate([block.values for block in blocks])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert [path for block in blocks for path in block.paths.to_pylist()] == [f"{i:04}.jpg" for i in [*range(5)] * 2]


def test_a_matrix_has_all_rows_after_the_transformation(tmp_path: Path, values: np.ndarray) -> None:
    tables = open_features([write_features(tmp_path / "a.npy", values)])
    matrix = read_matrix(tables, lambda block: block[:, :2] + 1, width=2, dtype="float16")
    assert matrix.values.dtype == np.float16
    assert matrix.paths[-1].as_py() == "0009.jpg"
    expected = (values[:, :2] + 1).astype(np.float16)
    expected[2] = 0
    np.testing.assert_array_equal(matrix.values, expected)


def test_a_table_without_rows(tmp_path: Path) -> None:
    tables = open_features([write_features(tmp_path / "a.parquet", np.zeros((0, 3), np.float32))])
    assert read_matrix(tables).values.shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"sha256": "1" * 64}}, "model.sha256"),
        ({"preprocessing": {"resize": "pad"}}, "preprocessing.resize"),
        ({"preprocessing": {"bit_depth": 12}}, "preprocessing.bit_depth"),
        ({"options": {"pooling": "max"}}, "options.pooling"),
        ({"options": {"layer": "block4_pool"}}, "options.layer"),
        ({"options": {"normalize": True}}, "options.normalize"),
    ],
)
def test_tables_that_were_made_otherwise_are_refused_by_name(
    tmp_path: Path, values: np.ndarray, changes: dict, named: str
) -> None:
    one = write_features(tmp_path / "one.parquet", values)
    other = write_features(tmp_path / "other.npy", values, provenance=with_changes(**changes))
    with pytest.raises(UsageError, match=rf"other\.npy and .*one\.parquet cannot be compared.*{named} "):
        open_features([one, other])
    with pytest.raises(UsageError, match=named):
        open_features([other], like=open_features([one]))


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"dtype": "float16"}},
        {"preprocessing": {"resampler": "simd", "strict": True, "max_pixels": 10}},
        {"model": {"name": "elsewhere/imagenet"}},
        {"tool": {"version": "9"}},
    ],
)
def test_what_changes_no_more_than_the_last_digits_is_no_difference(
    tmp_path: Path, values: np.ndarray, changes: dict
) -> None:
    one = write_features(tmp_path / "one.parquet", values)
    assert open_features([one, write_features(tmp_path / "b.parquet", values, provenance=with_changes(**changes))])


def test_features_beside_a_table_of_classify_are_average_pooled(tmp_path: Path, values: np.ndarray) -> None:
    one = write_features(tmp_path / "one.parquet", values)
    beside = PROVENANCE | {"options": {"top": 5, "features": "avg"}}
    assert open_features([one, write_features(tmp_path / "b.parquet", values, provenance=beside)])


def test_other_widths_are_refused_without_provenance_too(tmp_path: Path, values: np.ndarray) -> None:
    one = write_features(tmp_path / "one.csv", values, provenance=None)
    two = write_features(tmp_path / "two.csv", values[:, :3], provenance=None)
    with pytest.raises(UsageError, match="vectors of 3 and of 4 values"):
        open_features([one, two])


def test_a_table_without_provenance_is_taken_with_a_warning(
    tmp_path: Path, values: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    tables = open_features([write_features(tmp_path / "one.csv", values, provenance=None)])
    assert tables.origin is None
    assert "one.csv does not say what made it" in caplog.text


def test_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="maps of 2x2x3 values"):
        open_features([write_features(tmp_path / "maps.npy", np.zeros((1, 2, 2, 3), np.float32))])


def test_tables_of_classify_are_refused(tmp_path: Path) -> None:
    schema = classify_schema(1, "name", [])
    with create_table("csv", str(tmp_path / "labels.csv"), schema, {}, overwrite=False) as table:
        table.write(classify_batch(schema, refs(["a"]), [None], np.ones((1, 1), np.float32), ["cat"]))
    with pytest.raises(UsageError, match=r"labels\.csv is a table of classify"):
        open_features([str(tmp_path / "labels.csv")])


def test_missing_and_damaged_tables_are_named(tmp_path: Path, values: np.ndarray) -> None:
    with pytest.raises(SourceError, match="gone"):
        open_features([str(tmp_path / "gone.npy")])
    path = Path(write_features(tmp_path / "cut.npy", values))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckError, match=r"cut\.npy"):
        open_features([str(path)])
