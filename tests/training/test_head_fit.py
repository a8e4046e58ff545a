"""A head fitted to vectors: what it finds, and which strength is taken."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.training.head_fit import STRENGTHS, USUAL_STRENGTH, FittedHead, Vectors, fit_head

WIDTH = 24


def vectors(count: int, classes: int, seed: int) -> Vectors:
    """Vectors around a point for each class, far from zero."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(5, 1, (classes, WIDTH))
    numbers = np.arange(count) % classes
    return Vectors((centres[numbers] + random.normal(0, 0.8, (count, WIDTH))).astype(np.float32), numbers)


def right(head: FittedHead, some: Vectors) -> float:
    return float(((some.values @ head.kernel + head.bias).argmax(1) == some.classes).mean())


@pytest.mark.parametrize("classes", [2, 5])
def test_the_head_takes_vectors_as_they_are(classes: int) -> None:
    told = []
    head = fit_head(
        vectors(200, classes, 0), vectors(60, classes, 1), classes, np.ones(classes, np.float32), told.append
    )
    assert (head.kernel.shape, head.bias.shape) == ((WIDTH, classes), (classes,))
    assert (head.kernel.dtype, head.bias.dtype) == (np.float32, np.float32)
    assert right(head, vectors(500, classes, 2)) > 0.95
    assert tuple(told) == head.trials
    assert [trial.strength for trial in head.trials] == [*STRENGTHS]
    ranks = [(trial.val_accuracy, -(trial.val_loss or 0)) for trial in head.trials]
    assert ranks[head.kept] == max(ranks)
    assert right(head, vectors(60, classes, 1)) == pytest.approx(head.trials[head.kept].val_accuracy)


def test_without_validation_the_usual_strength_is_taken() -> None:
    none = Vectors(np.zeros((0, WIDTH), np.float32), np.zeros(0, np.int64))
    head = fit_head(vectors(60, 3, 0), none, 3, np.ones(3, np.float32))
    assert [(trial.strength, trial.val_accuracy) for trial in head.trials] == [(USUAL_STRENGTH, None)]
    assert right(head, vectors(90, 3, 2)) > 0.9


def test_weights_of_classes_count() -> None:
    def biases(weight: float) -> np.ndarray:
        some = Vectors(np.ones((20, WIDTH), np.float32), (np.arange(20) < 4).astype(np.int64))
        return fit_head(some, some, 2, np.array([1, weight], np.float32)).bias

    assert biases(1)[0] > biases(1)[1]
    assert biases(16)[0] < biases(16)[1]
