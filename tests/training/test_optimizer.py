"""Steps of training, against Keras' own optimizer and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.training.freezing import cut_below
from xcli.training.optimizer import StepOptions, TrainStep, learning_rate
from xcli.training.trainable import TrainableLayers

X = np.random.default_rng(0).normal(size=(6, 2048)).astype(np.float32)
TARGETS = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]
ONES = np.ones(6, np.float32)


def stepper(seed: int = 0, **options: Any) -> TrainStep:
    return TrainStep(TrainableLayers(cut_below("none"), {}, 3), StepOptions(**options), seed)


def test_the_rate_rises_falls_and_ends_near_zero() -> None:
    rates = [learning_rate(step, 100, 1e-3, 10) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == max(rates) == 1e-3
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 1e-6
    assert learning_rate(55, 100, 1e-3, 10) == pytest.approx(0.5e-3)
    assert learning_rate(0, 1, 1.0, 0) == 1.0


def test_steps_are_those_of_adam(keras: Any) -> None:
    ours = stepper()
    head = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((2048,)), head])
    head.set_weights([ours.layers.variables[KERNEL].numpy(), ours.layers.variables[BIAS].numpy()])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-7), loss, jit_compile=False)
    for _ in range(4):
        expected = model.train_on_batch(X, TARGETS)
        found, _ = ours.step(X, TARGETS, ONES, 1e-2)
        assert found / 6 == pytest.approx(float(expected), rel=1e-4, abs=1e-6)
    assert np.abs(ours.layers.variables[KERNEL].numpy() - head.get_weights()[0]).max() < 2e-4


def test_smoothing_weights_and_right_answers() -> None:
    plain = stepper()
    logits = plain.layers.logits(X).numpy().astype(np.float64)
    logarithms = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    importance = np.array([1, 2, 0, 1, 1, 0], np.float32)
    targets = TARGETS * 0.9 + 0.1 / 3
    expected = -(targets * logarithms).sum(1) @ importance
    loss, right = stepper(label_smoothing=0.1).step(X, TARGETS, importance, 1e-3)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert right == ((logits.argmax(1) == TARGETS.argmax(1)) & (importance > 0)).sum()


def test_padding_changes_nothing() -> None:
    one, other = stepper(), stepper()
    one.step(X[:4], TARGETS[:4], ONES[:4], 1e-2)
    other.step(X, TARGETS, np.array([1, 1, 1, 1, 0, 0], np.float32), 1e-2)
    for name, variable in one.layers.variables.items():
        assert np.abs(variable.numpy() - other.layers.variables[name].numpy()).max() < 1e-5


def test_dropout_follows_from_the_seed_and_the_step() -> None:
    def losses(seed: int) -> list[float]:
        one = stepper(seed, dropout=0.5)
        return [one.step(X, TARGETS, ONES, 0.0)[0] for _ in range(3)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    assert len(set(losses(1))) == 3


def test_the_average_follows_the_weights() -> None:
    one = stepper(average=0.9)
    start = one.layers.variables[KERNEL].numpy()
    one.step(X, TARGETS, ONES, 1e-2)
    moved, average = one.layers.variables[KERNEL].numpy(), one.averaged()[KERNEL]
    assert np.allclose(average, 0.1 * start + 0.9 * moved, atol=1e-6)  # the first step keeps 1 / 10
    without = stepper()
    without.step(X, TARGETS, ONES, 1e-2)
    assert np.array_equal(without.averaged()[KERNEL], without.layers.variables[KERNEL].numpy())


def test_weight_decay_shrinks_kernels_alone() -> None:
    plain, decayed = stepper(), stepper(weight_decay=0.5)
    start = plain.layers.variables[KERNEL].numpy()
    for one in (plain, decayed):
        one.layers.variables[BIAS].assign([1.0, 2.0, 3.0])
        one.step(X, TARGETS, ONES, 1e-2)
    difference = plain.layers.variables[KERNEL].numpy() - decayed.layers.variables[KERNEL].numpy()
    assert np.allclose(difference, 1e-2 * 0.5 * start, atol=1e-7)
    assert np.array_equal(plain.layers.variables[BIAS].numpy(), decayed.layers.variables[BIAS].numpy())


def test_a_state_that_is_restored_goes_on_as_if_nothing_had_happened() -> None:
    whole, first = (stepper(dropout=0.3, average=0.9) for _ in range(2))
    for number in range(4):
        whole.step(X, TARGETS, ONES, 1e-2)
        if number < 2:
            first.step(X, TARGETS, ONES, 1e-2)
    second = stepper(dropout=0.3, average=0.9)
    second.restore(first.state())
    for _ in range(2):
        second.step(X, TARGETS, ONES, 1e-2)
    for name, array in whole.state().items():
        assert np.array_equal(array, second.state()[name]), name
