"""Pairs found through lists, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.test_nearest import NAMES, brute_force, tables, unit
from xcli.analysis import approximate as module
from xcli.analysis.approximate import RowLists, list_rows, measured_recall, pairs_near, pairs_of_lists
from xcli.core.errors import UsageError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", 64)
    monkeypatch.setattr(module, "_PRODUCTS", 400)
    monkeypatch.setattr(module, "BANDS", 5)


def found_pairs(values: np.ndarray, lists: RowLists, threshold: float) -> dict[tuple[int, int], float]:
    found = list(pairs_near(values, lists, threshold))
    assert len(found) == lists.bands
    pairs = [
        (first, second, similarity)
        for one in found
        for first, second, similarity in zip(*(part.tolist() for part in one), strict=True)
    ]
    result = {(first, second): similarity for first, second, similarity in pairs}
    assert len(result) == len(pairs), "a pair is found twice"
    return result


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("threshold", [0.05, 0.6, 0.999])
@pytest.mark.parametrize("name", NAMES)
def test_where_all_lists_are_near_all_pairs_are_found(name: str, threshold: float, dtype: str) -> None:
    values = unit(tables(np.random.default_rng(1))[name]).astype(dtype)
    found = found_pairs(values, list_rows(values), threshold)
    expected = brute_force(values, None, threshold)
    assert found.keys() == expected.keys()
    for pair, similarity in found.items():
        assert similarity == pytest.approx(min(expected[pair], 1), abs=1e-6)


def rows_with_copies(number: int = 1500, width: int = 48) -> np.ndarray:
    """Random vectors, of which each tenth has a copy with a cosine from 0.6 to 1."""
    random = np.random.default_rng(0)
    values = random.normal(size=(number, width))
    cosine = random.uniform(0.6, 1, (number // 10, 1))
    values[: number // 10] = unit(values[-(number // 10) :]) * cosine + unit(values[: number // 10]) * np.sqrt(
        1 - cosine**2
    )
    return unit(values)


@pytest.mark.parametrize("probes", [1, 3, 8])
def test_what_is_found_is_what_is_near_and_the_recall_says_how_much(
    probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PRODUCTS", 100_000)
    monkeypatch.setattr(module, "PROBES", probes)
    values = rows_with_copies()
    values[5] = 0
    lists = list_rows(values)
    found, expected = found_pairs(values, lists, 0.6), brute_force(values, None, 0.6)
    first, second = np.array(sorted(expected)).T
    near = lists.are_near(first, second)
    assert set(found) == set(zip(first[near].tolist(), second[near].tolist(), strict=True))
    recall = measured_recall(values, lists, 0.6, rows=len(values))
    assert recall == (2 * len(found), 2 * len(expected), len(values) - 1)
    some = measured_recall(values, lists, 0.6, rows=1000)
    assert some.rows == 1000
    assert some.found / some.pairs == pytest.approx(len(found) / len(expected), abs=0.1)


def test_more_lists_that_are_looked_at_find_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRODUCTS", 100_000)
    values = rows_with_copies()
    recalls = []
    for probes in (1, 4, 16):
        monkeypatch.setattr(module, "PROBES", probes)
        found = measured_recall(values, list_rows(values), 0.6, rows=len(values))
        recalls.append(found.found / found.pairs)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9 < recalls[-1]


def test_the_same_vectors_give_the_same_pairs_and_it_goes_on_with_a_band() -> None:
    values = rows_with_copies(500)
    lists, again = list_rows(values), list_rows(values)
    np.testing.assert_array_equal(lists.near, again.near)
    whole = list(pairs_near(values, lists, 0.6))
    for one, other in zip(whole[2:], pairs_near(values, again, 0.6, band=2), strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_wanted_pairs_are_computed() -> None:
    values = rows_with_copies(500)
    lists = list_rows(values)
    whole = {pair for pair in found_pairs(values, lists, 0.6) if pair[0] % 2}
    parts = [
        pairs
        for band in range(lists.bands)
        for pairs in pairs_of_lists(values, lists, band, 0.6, wanted=lambda first, second, about: first % 2 == 1)
    ]
    assert {pair for one in parts for pair in zip(one.first.tolist(), one.second.tolist(), strict=True)} == whole


@pytest.mark.parametrize("columns", [5, 64, 67])
@pytest.mark.parametrize("count", [1, 5])
def test_the_highest_products_are_those_of_a_sort(columns: int, count: int) -> None:
    products = np.random.default_rng(2).normal(size=(30, columns)).astype(np.float32)
    expected = np.argsort(-products, axis=1)[:, :count]
    np.testing.assert_array_equal(module._highest(products, count), expected)


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    list_rows(rows_with_copies(500), progress=lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("threshold", [0, 1.1, float("nan")])
def test_a_threshold_that_zeros_would_pass_is_refused(threshold: float) -> None:
    values = rows_with_copies(100)
    with pytest.raises(UsageError, match="threshold"):
        next(pairs_near(values, list_rows(values), threshold))
