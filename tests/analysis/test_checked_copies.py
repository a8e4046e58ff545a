"""Pairs whose pixels are looked at: which they are, and the groups of those that are copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_pixel_alignment import scene
from xcli.analysis import checked_copies as module
from xcli.analysis import nearest
from xcli.analysis.checked_copies import LOWER, CheckedPairs
from xcli.analysis.duplicates import WhitenedRows, group_pairs, group_rows, linked_rows, whiten_vectors
from xcli.analysis.nearest import Pairs, joined, pairs_above
from xcli.core.errors import UsageError

THRESHOLD = 0.7


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BAND_ROWS", 32)
    monkeypatch.setattr(nearest, "_TILE", 48)


def rows_of(seed: int = 0, number: int = 150) -> WhitenedRows:
    random = np.random.default_rng(seed)
    copies = np.repeat(random.normal(size=(number // 5, 16)), 5, axis=0) + random.normal(size=(number, 16)) * 0.5
    copies[40] = copies[20]
    return whiten_vectors(copies.astype(np.float32))


def found_by(sides: list[WhitenedRows]) -> CheckedPairs:
    found = CheckedPairs(sides, THRESHOLD)
    for _ in found.compare():
        pass
    return found


def all_pairs(sides: list[WhitenedRows]) -> Pairs:
    return joined(pairs_above(sides[0].values, THRESHOLD - LOWER, sides[1].values if sides[1:] else None))


@pytest.mark.parametrize("most", [1, 3, 1000])
@pytest.mark.parametrize("between", [False, True])
def test_all_likely_pairs_and_of_others_the_most_similar_ones(
    monkeypatch: pytest.MonkeyPatch, most: int, between: bool
) -> None:
    monkeypatch.setattr(module, "MOST", most)
    monkeypatch.setattr(module, "_ROOM", 20)
    sides = [rows_of(0), rows_of(1)] if between else [rows_of(0)]
    found, every = found_by(sides), all_pairs(sides)
    expected = set()
    for side in range(2):
        for row in range(150):
            own = [
                (-float(similarity), first, second)
                for first, second, similarity in zip(*(part.tolist() for part in every), strict=True)
                if row == (first, second)[side] or (not between and row in (first, second))
            ]
            low = sorted(one for one in own if -one[0] < THRESHOLD)
            expected |= {one[1:] for one in own if -one[0] >= THRESHOLD} | {one[1:] for one in low[:most]}
    assert set(zip(found.pairs.first.tolist(), found.pairs.second.tolist(), strict=True)) == expected
    assert len(found.pairs.first) == len(expected)


def test_what_is_known_is_taken_over() -> None:
    whole, first = found_by([rows_of()]), CheckedPairs([rows_of()], THRESHOLD)
    for band in first.compare():
        if band == 1:
            break
    rest = CheckedPairs([rows_of()], THRESHOLD)
    rest.state = first.state
    assert [*rest.compare(2)] == [2, 3, 4]
    np.testing.assert_array_equal(rest.state, whole.state)


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 50)
    with pytest.raises(UsageError, match="more than 50 pairs"):
        found_by([rows_of()])


@pytest.mark.slow
def test_pixels_are_looked_at_and_what_is_left_after_an_interruption(tmp_path: Path) -> None:
    rows = rows_of()
    for row in range(len(rows)):
        if row % 5 != 4:
            scene(row // 10).resize((120, 90)).save(tmp_path / f"{row}.png")
    looked: list[int] = []

    def paths(numbers: np.ndarray) -> list[str]:
        looked.append(len(numbers))
        return [str(tmp_path / f"{number}.png") for number in numbers]

    found = found_by([rows])
    kept: list[np.ndarray] = []
    found.check(paths, None, lambda *_: None, lambda: kept.append(found.state))
    copies = found.copies()
    assert {Path(path).stem for path in found.unreadable} <= {str(row) for row in range(4, 150, 5)}
    for first, second, similarity in zip(*(part.tolist() for part in found.pairs), strict=True):
        unreadable = first % 5 == 4 or second % 5 == 4
        expected = similarity >= THRESHOLD if unreadable else first // 10 == second // 10
        assert (first, second) in zip(copies.first, copies.second, strict=True) or not expected
        assert (first, second) not in zip(copies.first, copies.second, strict=True) or expected
    again = CheckedPairs([rows], THRESHOLD)
    again.state = kept[-1]
    again.agreement[:3] = module.NOT_YET
    again.check(paths, None, lambda *_: None, lambda: None)
    np.testing.assert_allclose(again.agreement, found.agreement, atol=1e-6)
    assert looked[1] <= 6 < looked[0]


def test_groups_of_all_pairs_are_those_of_the_rows() -> None:
    rows = rows_of()
    order = np.random.default_rng(5).permutation(len(rows))
    expected = group_rows(rows, linked_rows(rows, THRESHOLD), THRESHOLD, order)
    found = group_pairs(rows, joined(pairs_above(rows.values, THRESHOLD)), order)
    np.testing.assert_array_equal(found.kept, expected.kept)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)
    assert rows.same[40] == 20
    assert found.kept[40] == found.kept[20]
