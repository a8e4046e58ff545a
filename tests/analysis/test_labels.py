"""Labels that are likely wrong, found among classes whose features lie apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xcli.analysis import labels as module
from xcli.analysis.labels import Judged, choose_sample, fit_judges
from xcli.analysis.vectors import Block
from xcli.analysis.whitening import Whitening, fit_whitening

WIDTH = 6


def clusters(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of classes of these sizes, which overlap hardly."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = random.normal(0, 6, (len(sizes), WIDTH))
    return (centres[labels] + random.normal(0, 1, (len(labels), WIDTH))).astype(np.float32), labels


def whitened(values: np.ndarray) -> Whitening:
    paths: Any = None
    return fit_whitening([Block(0, paths, values, np.ones(len(values), bool))])


def judge(values: np.ndarray, labels: np.ndarray, chosen: np.ndarray | None = None) -> Judged:
    chosen = choose_sample(labels) if chosen is None else chosen
    own = np.full(len(labels), -1)
    own[chosen] = np.arange(len(chosen))
    return fit_judges(values[chosen], labels[chosen], whitened(values)).judge(values, labels, own)


@pytest.mark.parametrize("classes", [2, 5])
def test_changed_labels_are_found_and_the_right_ones_suggested(classes: int) -> None:
    values, labels = clusters((60,) * classes)
    changed = np.array([3, 40, 70, 110])
    given = labels.copy()
    given[changed] = (labels[changed] + 1) % classes
    judged = judge(values, given)
    assert np.sort(np.argsort(judged.given)[:4]).tolist() == changed.tolist()
    assert set(np.flatnonzero(judged.wrong)) <= set(changed)
    assert judged.wrong.sum() >= 2
    assert judged.suggested[changed].tolist() == labels[changed].tolist()
    assert (judged.witness[changed] >= 0).all()
    assert (given[judged.witness[changed]] == labels[changed]).all()
    assert not set(judged.witness[changed]) & set(changed)


def test_right_labels_are_left_alone() -> None:
    values, labels = clusters((50, 200, 8))
    assert not judge(values, labels).wrong.any()


def test_images_outside_of_the_sample_are_judged_too() -> None:
    values, labels = clusters((100, 100, 100))
    given = labels.copy()
    given[[1, 150]] = 2
    judged = judge(values, given, np.arange(0, 300, 2))
    assert np.flatnonzero(judged.wrong).tolist() == [1, 150]


def test_the_scale_of_features_does_not_matter() -> None:
    values, labels = clusters((40, 40, 40))
    labels[5] = 2
    one, other = judge(values, labels), judge(values * np.float32(1000), labels)
    assert np.allclose(one.given, other.given, atol=1e-3)


def test_of_too_many_classes_the_neighbours_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLASSES", 2)
    values, labels = clusters((60, 60, 60))
    given = labels.copy()
    given[10] = 1
    judged = judge(values, given)
    assert judged.given.argmin() == 10
    assert judged.suggested[10] == 0


def test_equal_features_are_no_reason_to_doubt() -> None:
    values, labels = np.ones((40, WIDTH), np.float32), np.arange(40) % 2
    judged = judge(values, labels)
    assert not judged.wrong.any()
    assert np.isfinite(judged.given).all()


def test_the_sample_has_of_small_classes_what_it_needs() -> None:
    labels = np.repeat([0, 1, 2, 3, -1], [5000, 30, 4, 6, 100])
    chosen = choose_sample(labels, 500)
    assert np.bincount(labels[chosen]).tolist() == [round(5000 * 500 / 5036), 20, 0, 6]
    assert (np.diff(chosen) > 0).all()
    assert choose_sample(labels, 500).tolist() == chosen.tolist()
    assert len(choose_sample(np.full(10, -1))) == 0
