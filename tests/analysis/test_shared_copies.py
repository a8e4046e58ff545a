"""Copies that two collections share, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.test_duplicates import NAMES, tables
from xcli.analysis import nearest
from xcli.analysis.duplicates import WhitenedRows, whiten_vectors
from xcli.analysis.shared_copies import SharedCopies


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BAND_ROWS", 32)
    monkeypatch.setattr(nearest, "_TILE", 48)


def whitened(name: str) -> tuple[WhitenedRows, WhitenedRows]:
    values = tables()[name]
    other = tables()["copies"][::-1][:100].copy()
    other[:20] = values[:1]
    other[20:30] = values[-10:]
    both = whiten_vectors(np.concatenate([values, other])).whitening
    return whiten_vectors(values, whitening=both), whiten_vectors(other, whitening=both)


def best_of(one: WhitenedRows, other: WhitenedRows, threshold: float) -> tuple[list[int], list[float]]:
    similarity = one.values[one.same].astype(float) @ other.values[other.same].astype(float).T
    similarity[(one.digests[:, None] == other.digests[None]) & (one.digests[:, None] != np.void(bytes(16)))] = 1
    similarity = np.where(similarity >= threshold, np.minimum(similarity.round(6), 1), 0)
    best = similarity.max(axis=1, initial=0)
    return np.where(best > 0, similarity.argmax(axis=1), -1).tolist(), best.tolist()


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", NAMES)
def test_each_row_has_the_most_similar_one_of_brute_force(name: str, threshold: float) -> None:
    one, other = whitened(name)
    shared = SharedCopies(one, other)
    assert [*shared.compare(threshold)] == [*range(shared.bands())]
    shared.spread()
    for side, (mine, theirs) in enumerate(((one, other), (other, one))):
        rows, similarity = best_of(mine, theirs, threshold)
        np.testing.assert_allclose(shared.similarity[side], similarity, atol=2e-6)
        # Among rows that are equally similar but for rounding, any may be the one.
        for row in np.flatnonzero(shared.row[side] != rows):
            there = theirs.same[shared.row[side][row]]
            product = mine.values[mine.same[row]].astype(float) @ theirs.values[there]
            assert abs(product - similarity[row]) < 1e-5


def test_a_state_is_continued() -> None:
    one, other = whitened("copies")
    whole, first, rest = (SharedCopies(one, other) for _ in range(3))
    for _ in whole.compare(0.5):
        pass
    for number in first.compare(0.5):
        if number == 1:
            break
    rest.state = first.state
    assert [*rest.compare(0.5, 2)] == [2, 3, 4]
    assert (rest.state == whole.state).all()
    assert (first.state != whole.state).any()
