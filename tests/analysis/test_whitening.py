from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.covariance import LedoitWolf

from xcli.analysis.vectors import Block
from xcli.analysis.whitening import fit_whitening, load_whitening
from xcli.core.errors import CheckError, UsageError


def blocks(values: np.ndarray, size: int = 100, ok: np.ndarray | None = None) -> list[Block]:
    ok = np.ones(len(values), bool) if ok is None else ok
    return [
        Block(
            start, pa.array([""] * len(values[start : start + size])), values[start : start + size], ok[start:][:size]
        )
        for start in range(0, len(values), size)
    ]


def correlated(random: np.random.Generator, rows: int, width: int) -> np.ndarray:
    scales = np.geomspace(10, 0.01, width)
    turned = np.linalg.qr(random.normal(size=(width, width)))[0]
    return ((random.normal(size=(rows, width)) * scales) @ turned + 100).astype(np.float32)


def test_directions_get_the_variance_one() -> None:
    values = correlated(np.random.default_rng(0), 20_000, 20)
    fit = fit_whitening(blocks(values), components=8)
    scores = (values - fit.mean) @ fit.projection
    np.testing.assert_allclose(np.cov(scores.T), np.eye(8), atol=0.01)
    np.testing.assert_allclose(np.linalg.norm(fit.transform(values), axis=1), 1, atol=1e-6)
    assert fit.rows == 20_000


@pytest.mark.parametrize("rows", [5, 40, 3000])
def test_the_estimate_is_that_of_ledoit_and_wolf(rows: int) -> None:
    values = correlated(np.random.default_rng(1), rows, 30)
    estimate = LedoitWolf().fit(values.astype(np.float64))
    fit = fit_whitening(blocks(values), components=30)
    assert fit.shrinkage == pytest.approx(estimate.shrinkage_, rel=1e-3)
    inverse = np.linalg.inv(estimate.covariance_)
    np.testing.assert_allclose(fit.projection @ fit.projection.T, inverse, rtol=1e-2, atol=1e-3 * np.abs(inverse).max())


def test_copies_stay_alike_in_a_table_of_fewer_rows_than_values() -> None:
    random = np.random.default_rng(2)
    values = correlated(random, 60, 200)
    values = np.concatenate([values, values[:1] + random.normal(size=200).astype(np.float32) * 0.01])
    unit = fit_whitening(blocks(values)).transform(values)
    similarity = unit[-1] @ unit[:-1].T
    assert similarity.argmax() == 0
    assert similarity[0] > 0.9 > 0.5 > np.sort(similarity)[-2]


@pytest.mark.parametrize(("leave_out", "kept"), [(0, slice(60)), (10, slice(2, 15))])
def test_of_few_rows_the_directions_are_those_of_the_whole_covariance(leave_out: int, kept: slice) -> None:
    values = correlated(np.random.default_rng(5), 40, 300)
    fit = fit_whitening(blocks(values), components=60, leave_out=leave_out)
    variances, directions = np.linalg.eigh(np.cov(values.T.astype(np.float64), bias=True))
    scales = ((1 - fit.shrinkage) * variances.clip(0) + fit.shrinkage * variances.mean())[::-1][kept]
    found, expected = (values - fit.mean) @ fit.projection, (values - fit.mean) @ directions[:, ::-1][:, kept]
    np.testing.assert_allclose(np.abs(found), np.abs(expected / np.sqrt(scales)), atol=1e-3)
    # Beyond the rank they are any, but as many, and at right angles.
    np.testing.assert_allclose(fit.projection.T @ fit.projection, np.diag(1 / scales), atol=1e-4 / scales.min())


def test_error_rows_take_no_part() -> None:
    values = correlated(np.random.default_rng(3), 300, 10)
    ok = np.arange(300) % 3 > 0
    damaged = np.where(ok[:, None], values, 0)
    assert fit_whitening(blocks(damaged, ok=ok)).rows == 200
    expected = fit_whitening(blocks(values[ok])).transform(values[ok])
    np.testing.assert_allclose(fit_whitening(blocks(damaged, ok=ok)).transform(values[ok]), expected, atol=1e-4)


def test_equal_rows_have_no_direction() -> None:
    values = np.full((50, 6), 0.1, np.float32)
    assert not fit_whitening(blocks(values)).transform(values).any()


def test_rows_along_one_line_are_at_its_two_ends() -> None:
    values = np.outer(np.arange(-10, 11), [1, 2, 3, 4]).astype(np.float32)
    unit = fit_whitening(blocks(values)).transform(values)
    assert np.isfinite(unit).all()
    np.testing.assert_allclose(unit[1:10] @ unit[0], 1, atol=1e-3)
    np.testing.assert_allclose(unit[11:] @ unit[0], -1, atol=1e-3)


def test_without_vectors_there_is_no_fit() -> None:
    with pytest.raises(UsageError, match="no row"):
        fit_whitening(blocks(np.zeros((3, 2), np.float32), ok=np.zeros(3, bool)))


def test_a_fit_is_saved_and_read(tmp_path: Path) -> None:
    fit = fit_whitening(blocks(correlated(np.random.default_rng(4), 50, 5)))
    path = tmp_path / "fit.npz"
    path.write_bytes(fit.save())
    again = load_whitening(str(path))
    assert again.digest == fit.digest
    assert (again.rows, again.shrinkage) == (fit.rows, fit.shrinkage)
    np.testing.assert_array_equal(again.projection, fit.projection)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"other"])
def test_a_damaged_fit_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fit.npz"
    path.write_bytes(content)
    with pytest.raises(CheckError, match=r"fit\.npz"):
        load_whitening(str(path))


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    np.savez(path, mean=np.array([{}], object), projection=0, rows=0, shrinkage=0)
    with pytest.raises(CheckError, match=r"fit\.npz"):
        load_whitening(str(path))
