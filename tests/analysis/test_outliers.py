"""Images unlike all others, among many that are alike."""

from __future__ import annotations

import numpy as np

from xcli.analysis.nearest import unit_vectors
from xcli.analysis.outliers import MAX_DEVIATION, deviations, nearness


def test_what_lies_apart_is_far_and_its_nearest_image_is_named() -> None:
    random = np.random.default_rng(0)
    values = (random.normal(0, 1, (300, 40)) + 2).astype(np.float32)
    values[17] = np.where(np.arange(40) % 2, 5, -5)
    values[18] = values[40] * 3
    found = nearness(values, unit_vectors(values), np.arange(300))
    far, median = deviations(found.cosine)
    assert np.flatnonzero(far > MAX_DEVIATION).tolist() == [17]
    assert found.nearest[18] == 40
    assert 0.7 < median < 0.95


def test_an_image_is_not_its_own_neighbour_but_one_outside_of_the_sample_may_be_near_any() -> None:
    values = np.eye(4, dtype=np.float32)
    found = nearness(values, values, np.array([0, 1, 2, -1]))
    assert found.cosine.tolist() == [0, 0, 0, np.float32(1 / 3)]
    assert found.nearest.tolist()[3] == 3


def test_copies_of_one_image_are_no_outliers_for_a_small_difference() -> None:
    cosine = np.full(100, 0.999, np.float32)
    cosine[3] = 0.99
    far, _ = deviations(cosine)
    assert far.max() < MAX_DEVIATION


def test_zero_vectors_stay() -> None:
    assert unit_vectors(np.zeros((2, 3), np.float32)).tolist() == [[0] * 3] * 2
