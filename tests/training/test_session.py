"""Temperatures: found again where they are known, harmless elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.training.session import MIN_IMAGES, apply_temperature, fit_temperature


def drawn(count: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores that a temperature has spoilt, and classes drawn by the true ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, 5))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes = np.array([rng.choice(5, p=row) for row in true])
    spoilt = np.exp(logits * temperature)
    return (spoilt / spoilt.sum(1, keepdims=True)).astype(np.float32), classes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    scores, classes = drawn(4000, temperature)
    assert fit_temperature(scores, classes) == pytest.approx(temperature, rel=0.08)


def test_it_stays_within_bounds_and_out_of_small_numbers() -> None:
    scores = np.full((MIN_IMAGES, 2), [0.6, 0.4], np.float32)
    assert fit_temperature(scores, np.zeros(MIN_IMAGES, np.int64)) == pytest.approx(0.2, rel=1e-3)
    # All wrong: the best that can be said is nothing at all.
    assert fit_temperature(scores, np.ones(MIN_IMAGES, np.int64)) == pytest.approx(5, rel=1e-2)
    assert fit_temperature(scores[1:], np.zeros(MIN_IMAGES - 1, np.int64)) == 1
    certain = np.eye(2, dtype=np.float32)[np.arange(MIN_IMAGES) % 2]
    assert np.isfinite(fit_temperature(certain, np.zeros(MIN_IMAGES, np.int64)))


def test_only_the_classifier_is_changed() -> None:
    weights = {KERNEL: np.ones((3, 2), np.float32), BIAS: np.ones(2, np.float32), "x/kernel": np.ones(1, np.float32)}
    found = apply_temperature(weights, 0.5)
    assert found[KERNEL].dtype == np.float32
    assert (found[KERNEL] == 2).all()
    assert (found[BIAS] == 2).all()
    assert (found["x/kernel"] == 1).all()
