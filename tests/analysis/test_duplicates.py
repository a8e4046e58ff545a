"""Pairs and groups of copies, against brute force."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from xcli.analysis import duplicates as module
from xcli.analysis import nearest
from xcli.analysis.approximate import list_rows
from xcli.analysis.duplicates import (
    DEFAULT_THRESHOLD,
    Links,
    WhitenedRows,
    find_pairs,
    group_pairs,
    group_rows,
    linked_rows,
    threshold_for,
    whiten_tables,
    whiten_vectors,
)
from xcli.analysis.nearest import joined, pairs_above
from xcli.analysis.vectors import open_features
from xcli.core.errors import UsageError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BAND_ROWS", 32)
    monkeypatch.setattr(nearest, "_TILE", 48)
    monkeypatch.setattr(module, "BAND_ROWS", 40)
    monkeypatch.setattr(module, "_LINKED", 50)
    monkeypatch.setattr(module, "_CENTRES", 4)


def tables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    some = random.normal(size=(150, 16)).astype(np.float32)
    copies = np.repeat(random.normal(size=(30, 16)), 5, axis=0) + random.normal(size=(150, 16)) * 0.2
    steps = np.cumsum(random.normal(size=(150, 16)), axis=0)  # each row like the next one
    repeated = some[random.integers(0, 20, 150)]
    return {
        "random": some,
        "copies": copies.astype(np.float32),
        "steps": steps.astype(np.float32),
        "repeated": repeated,
        "all rows equal": np.ones((150, 16), np.float32),
        "zero rows": some * (np.arange(150) % 3 == 0)[:, None].astype(np.float32),
        "NaN rows": np.where((np.arange(150) % 3 == 0)[:, None], np.nan, copies).astype(np.float32),
        "one direction": np.outer(random.normal(size=150), some[0]).astype(np.float32),
        "one row": some[:1],
    }


NAMES = list(tables())


def similarities(values: np.ndarray, rows: WhitenedRows) -> np.ndarray:
    """All with all, in float64, -2 for rows without a vector."""
    ok = np.isfinite(values).all(axis=1)
    there = (np.where(ok[:, None], values, 0).astype(float) - rows.whitening.mean) @ rows.whitening.projection.astype(
        float
    )
    length = np.linalg.norm(there, axis=1, keepdims=True)
    there = there / np.where(length > 0, length, 1)
    found = there @ there.T
    equal = (values[:, None] == values[None]).all(axis=2) & (values != 0).any(axis=1)
    found[equal] = 1
    found[~ok] = found[:, ~ok] = -2
    return found


def brute_groups(similarity: np.ndarray, threshold: float, order: np.ndarray) -> list[int]:
    kept = {}
    for row in order.tolist():
        if row not in kept:
            for other in order.tolist():
                if other not in kept and (other == row or similarity[row, other] >= threshold):
                    kept[other] = row
    return [kept[row] for row in range(len(similarity))]


def brute_links(similarity: np.ndarray, threshold: float) -> list[int]:
    label = np.arange(len(similarity))
    for _ in range(len(label)):
        for one, other in zip(*np.nonzero(similarity >= threshold), strict=True):
            label[one] = label[other] = min(label[one], label[other])
    return [int(one) for one in label]


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", NAMES)
def test_pairs_and_groups_are_those_of_brute_force(name: str, threshold: float) -> None:
    values = tables()[name]
    rows = whiten_vectors(values)
    similarity = similarities(values, rows)
    pairs = find_pairs(rows, threshold)
    expected = np.nonzero(np.triu(similarity >= threshold, 1))
    np.testing.assert_array_equal([pairs.first, pairs.second], expected)
    np.testing.assert_allclose(pairs.similarity, similarity[expected], atol=1e-5)
    linked = linked_rows(rows, threshold)
    if name != "steps":
        assert linked.tolist() == brute_links(similarity, threshold)
    for order in (None, np.random.default_rng(1).permutation(len(values))):
        groups = group_rows(rows, linked, threshold, order)
        assert groups.kept.tolist() == brute_groups(
            similarity, threshold, np.arange(len(values)) if order is None else order
        )
        own = groups.kept != np.arange(len(values))
        np.testing.assert_allclose(groups.similarity[own], similarity[own, groups.kept[own]], atol=1e-5)
        assert (groups.similarity[~own] == 1).all()
        assert groups.grouped().tolist() == [
            row in set(groups.kept[own]) or bool(own[row]) for row in range(len(values))
        ]


@pytest.mark.parametrize("name", ["a.parquet", "a.npy", "a.csv"])
def test_tables_give_what_vectors_in_memory_give(tmp_path: Path, name: str) -> None:
    values = tables()["copies"]
    values[1] = values[0]
    table = open_features([write_features(tmp_path / name, values, failed=[7])])
    rows, expected = whiten_tables(table), whiten_vectors(values, np.arange(150) != 7)
    assert rows.paths is not None
    assert rows.paths.to_pylist() == [f"{number:04}.jpg" for number in range(150)]
    assert rows.same.tolist() == expected.same.tolist() == [0, 0, *range(2, 150)]
    assert rows.ok.tolist() == expected.ok.tolist()
    for one, other in zip(find_pairs(rows), find_pairs(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_many_rows_are_kept_in_float16_and_give_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_pairs(whiten_vectors(tables()["copies"]))
    monkeypatch.setattr(module, "FLOAT16_ROWS", 100)
    rows = whiten_vectors(tables()["copies"])
    assert rows.values.dtype == np.float16
    half = find_pairs(rows)
    assert (half.first.tolist(), half.second.tolist()) == (whole.first.tolist(), whole.second.tolist())
    np.testing.assert_allclose(half.similarity, whole.similarity, atol=1e-3)


def test_more_pairs_than_fit_into_memory_are_refused() -> None:
    with pytest.raises(UsageError, match="more than 5 pairs"):
        find_pairs(whiten_vectors(tables()["copies"]), most=5)


def test_groups_need_no_more_memory_than_rows_where_all_are_copies() -> None:
    values = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    values[100:] = values[0] * 2 + values[100:] * 1e-3
    rows = whiten_vectors(values, whitening=whiten_vectors(values[:100]).whitening)
    tracemalloc.start()
    groups = group_rows(rows, linked_rows(rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert groups.similarity.min() > 0.9
    assert len(set(groups.kept[100:].tolist())) == 1
    assert peak < 4_000_000  # all pairs are 4,200,000 of 20 bytes


def test_a_fit_leaves_the_leading_directions_out_and_few_rows_get_few() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 200)) * np.linspace(9, 1, 200)
    many, few = (whiten_vectors(some).whitening for some in (values, values[:80]))
    assert (many.components, few.components) == (146, 22)
    variances = values.var(axis=0)
    scales = np.linalg.norm(many.projection, axis=0)
    assert 1 / scales.max() ** 2 < variances.max() / 1.5  # the greatest one that is left
    assert DEFAULT_THRESHOLD < threshold_for(many) < threshold_for(few) <= 0.9


@pytest.mark.parametrize("name", NAMES)
def test_pairs_give_the_groups_that_rows_give(name: str) -> None:
    rows = whiten_vectors(tables()[name])
    order = np.random.default_rng(2).permutation(len(rows))
    expected = group_rows(rows, linked_rows(rows, 0.6), 0.6, order)
    found = group_pairs(rows, joined(pairs_above(rows.values, 0.6)), order)
    assert found.kept.tolist() == expected.kept.tolist()
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)


def test_lists_that_bring_all_rows_together_link_what_is_linked() -> None:
    rows = whiten_vectors(tables()["copies"])
    lists = list_rows(rows.values)
    links = Links(rows)
    assert [*links.compare(0.6, 0, lists)] == [*range(lists.bands)]
    assert links.root.tolist() == linked_rows(rows, 0.6).tolist()
