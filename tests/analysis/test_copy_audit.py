"""Copies within a data set: what is sure, what the pixels decide, and which image is kept."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.analysis import copy_audit
from xcli.analysis.copy_audit import find_copies
from xcli.analysis.duplicates import WhitenedRows, whiten_vectors

ALL = np.ones(200, bool)
ORDER = np.arange(200)


def rows(pairs: dict[int, tuple[int, float]]) -> WhitenedRows:
    """200 rows with nothing in common, but that some are an earlier one and that share of something else."""
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (200, 400)).astype(np.float32)
    for row, (original, share) in pairs.items():
        values[row] = values[original] + share * values[row]
    return whiten_vectors(values)


def test_equal_images_are_copies_without_a_look() -> None:
    copies = find_copies(rows({9: (4, 0), 12: (4, 0)}), ALL, ORDER, None)
    assert np.flatnonzero(copies.kept != ORDER).tolist() == [9, 12]
    assert copies.kept[[9, 12]].tolist() == [4, 4]
    assert copies.severity(9) == 1
    assert not copies.looked


def test_the_order_says_what_is_kept() -> None:
    copies = find_copies(rows({9: (4, 0)}), ALL, ORDER[::-1], None)
    assert np.flatnonzero(copies.kept != ORDER).tolist() == [4]
    assert copies.kept[4] == 9


@pytest.mark.parametrize(("agreement", "expected"), [(0.97, [9]), (0.5, []), (np.nan, [])])
def test_of_what_is_only_similar_the_pixels_decide(agreement: float, expected: list[int]) -> None:
    asked: list[tuple[int, int]] = []

    def look(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        asked.extend(zip(first.tolist(), second.tolist(), strict=True))
        return np.where((first == 4) & (second == 9), agreement, 0).astype(np.float32)

    copies = find_copies(rows({9: (4, 0.8)}), ALL, ORDER, look)
    assert (4, 9) in asked
    assert np.flatnonzero(copies.kept != ORDER).tolist() == expected
    assert copies.looked
    if expected:
        assert "pixels agree by 0.97" in copies.detail(9)
        assert 0 < copies.severity(9) < 1


def test_rows_that_do_not_count_are_no_copies() -> None:
    usable = ALL.copy()
    usable[4] = False
    copies = find_copies(rows({9: (4, 0), 12: (4, 0)}), usable, ORDER, None)
    assert copies.kept[[4, 9, 12]].tolist() == [4, 9, 9]


def test_too_many_candidates_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_audit, "MAX_LOOKS", 0)
    copies = find_copies(rows({9: (4, 0.8)}), ALL, ORDER, lambda first, second: np.ones(len(first), np.float32))
    assert not copies.looked
    assert (copies.kept == ORDER).all()
