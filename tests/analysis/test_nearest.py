"""Blocks against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.analysis import nearest as module
from xcli.analysis.nearest import bands, pairs_above
from xcli.core.errors import UsageError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BAND_ROWS", 32)
    monkeypatch.setattr(module, "_TILE", 48)
    monkeypatch.setattr(module, "_REFINED", 7)


def unit(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(length > 0, length, 1)).astype(np.float32)


def tables(random: np.random.Generator) -> dict[str, np.ndarray]:
    some = random.normal(size=(150, 8))
    return {
        "random": some,
        "clusters": np.repeat(random.normal(size=(15, 8)), 10, axis=0) + random.normal(size=(150, 8)) * 0.1,
        "all rows equal": np.ones((150, 8)),
        "zero rows": some * (np.arange(150) % 3 == 0)[:, None],
        "one direction": np.outer(random.normal(size=150), some[0]),
        "one row": some[:1],
        "a band": some[:32],
        "none": some[:0],
    }


NAMES = list(tables(np.random.default_rng(0)))


def brute_force(values: np.ndarray, other: np.ndarray | None, threshold: float) -> dict[tuple[int, int], float]:
    similarity = values.astype(float) @ (values if other is None else other).astype(float).T
    if other is None:
        similarity[np.tril_indices(len(values))] = -2
    return {pair: similarity[pair] for pair in zip(*np.nonzero(similarity >= threshold), strict=True)}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("with_other", [False, True])
@pytest.mark.parametrize("threshold", [0.05, 0.6, 0.999])
@pytest.mark.parametrize("name", NAMES)
def test_the_pairs_are_those_of_brute_force(name: str, threshold: float, with_other: bool, dtype: str) -> None:
    values = unit(tables(np.random.default_rng(1))[name]).astype(dtype)
    other = unit(tables(np.random.default_rng(2))["clusters"]).astype(dtype) if with_other else None
    expected = brute_force(values, other, threshold)
    found = list(pairs_above(values, threshold, other))
    assert len(found) == bands(len(values))
    pairs = [pair for one in found for pair in zip(one.first.tolist(), one.second.tolist(), strict=True)]
    assert pairs == sorted(expected)
    similarity = [value for one in found for value in one.similarity.tolist()]
    np.testing.assert_allclose(similarity, [min(expected[pair], 1) for pair in pairs], atol=1e-6)


def test_it_goes_on_with_a_band() -> None:
    values = unit(tables(np.random.default_rng(3))["clusters"])
    whole, rest = list(pairs_above(values, 0.6)), list(pairs_above(values, 0.6, band=2))
    for one, other in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threshold", [0, -1, 1.1, float("nan")])
def test_a_threshold_that_zeros_would_pass_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="threshold"):
        next(pairs_above(np.ones((2, 2), np.float32), threshold))
