"""The sample of a table of features."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from xcli.analysis import feature_sample
from xcli.analysis.feature_sample import FeatureSample, read_sample, sample_rows
from xcli.tables.formats import open_table


def sample_of(target: Path, values: np.ndarray, max_errors: int = 10, **options: object) -> FeatureSample:
    return read_sample(open_table(write_features(target, values, **options)), max_errors)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["f.parquet", "f.npy", "f.csv"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_without_a_vector_are_counted(tmp_path: Path, name: str, dtype: str) -> None:
    values = np.arange(1, 25, dtype=np.float32).reshape(6, 4)
    values[1], values[4, 2] = 0, np.nan
    found = sample_of(tmp_path / name, values, failed=[3], dtype=dtype)
    assert (found.rows, found.ok, found.numbers.tolist()) == (6, 4, [0, 1, 2, 5])
    assert found.paths == ["0000.jpg", "0001.jpg", "0002.jpg", "0005.jpg"]
    assert found.errors == Counter({"empty": 1, "not-finite": 1})
    assert [path for path, _ in found.error_rows] == ["0003.jpg", "0004.jpg"]
    assert np.linalg.norm(found.values, axis=1) == pytest.approx([1, 0, 1, 1], abs=1e-5)
    assert found.values[2] == pytest.approx(values[2] / np.linalg.norm(values[2]), abs=1e-3)


def test_lengths_do_not_matter_whatever_they_are(tmp_path: Path) -> None:
    values = np.array([[1e38, 1e38], [1e-38, 1e-38], [-2, -2]], np.float32)
    found = sample_of(tmp_path / "f.parquet", values)
    assert np.abs(found.values) == pytest.approx(np.full((3, 2), 0.5**0.5), abs=1e-6)


def test_every_row_has_the_same_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_sample, "MAX_SAMPLE", 400)
    values = np.arange(1, 8001, dtype=np.float32).reshape(-1, 2)
    first = sample_of(tmp_path / "f.parquet", values)
    again = sample_of(tmp_path / "f.npy", values)
    assert (first.rows, first.ok, len(first.paths), first.values.shape) == (4000, 4000, 400, (400, 2))
    numbers = first.numbers
    assert len(set(numbers.tolist())) == 400
    assert bool((np.diff(numbers) > 0).all())
    assert np.histogram(numbers, 4, (0, 4000))[0] == pytest.approx([100] * 4, abs=35)
    assert first.paths == [f"{number:04}.jpg" for number in numbers]
    assert first.values == pytest.approx(values[numbers] / np.linalg.norm(values[numbers], axis=1, keepdims=True))
    assert again.numbers.tolist() == numbers.tolist()
    assert bool((again.values == first.values).all())


def test_wide_rows_are_fewer() -> None:
    assert sample_rows(2048) == feature_sample.MAX_SAMPLE
    assert sample_rows(1_000_000) * 4_000_000 <= feature_sample.MAX_BYTES
    assert sample_rows(10**9) == 1


def test_no_rows(tmp_path: Path) -> None:
    found = sample_of(tmp_path / "f.parquet", np.zeros((0, 3), np.float32))
    assert (found.rows, found.ok, found.values.shape, found.paths) == (0, 0, (0, 3), [])
