"""The best epoch of all phases is kept; temperatures are found where they are known, and are harmless elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.sources.splits import VALIDATION
from xcli.training.callbacks import Callbacks, EpochMetrics
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.optimizer import Replicas
from xcli.training.recipe import BLOCKS, HEAD, Recipe
from xcli.training.session import MIN_IMAGES, TrainingSession, apply_temperature, fit_temperature
from xcli.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.models.hdf5_weights import Weights

BLOCK = "block14_sepconv2/pointwise_kernel"

Course = dict[str, list[tuple[float, float] | None]]
"""Accuracy and loss of each epoch by phase; None without a validation part."""


class Killed(Exception):
    """Stands for the end of a process."""


class StubStep:
    """Counts the epochs of a phase in its weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def averaged(self) -> Weights:
        return dict(self._weights)

    state = averaged

    def restore(self, weights: Weights) -> None:
        self._weights = dict(weights)

    def add(self) -> None:
        self._weights = {name: array + 1 for name, array in self._weights.items()}


class StubTrainer(Trainer):
    """Has the checkpoints of a `Trainer`, and a course that is known beforehand."""

    def __init__(self, phase: Any, checkpoints: Checkpoints, course: Course, kill: tuple[str, int] | None) -> None:
        first = {KERNEL: 0} if phase.name == HEAD else {KERNEL: 10, BLOCK: 10}
        self.train_step: Any = StubStep({name: np.full(1, value, np.float32) for name, value in first.items()})
        self.phase, self.validator = phase, None
        self._checkpoints, self._callbacks, self._course, self._kill = checkpoints, Callbacks(), course, kill

    def _epoch(self, number: int) -> EpochMetrics:
        if self._kill == (self.phase.name, number):
            raise Killed
        self.train_step.add()
        accuracy, loss = self._course[self.phase.name][number] or (None, None)
        return EpochMetrics(self.phase.name, number + 1, 0.1, 1.0, 0.5, loss, accuracy, 1.0)


def session(recipe: Recipe, validation: int) -> TrainingSession:
    """A session over a number of validation images, whose frozen network has a block of zeros."""
    base: Any = SimpleNamespace(weights={BLOCK: np.zeros(1, np.float32)})
    data: Any = SimpleNamespace(readable=lambda part: np.arange(validation if part == VALIDATION else 100))
    return TrainingSession(recipe, base, data, "float32", Replicas([]), Callbacks())


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains the head, whose weights are the number of the epoch, then the blocks, from 11 on."""

    def run(course: Course, kill: tuple[str, int] | None = None, older: bool = False, **options: Any) -> Any:
        def trainer(self: Any, phase: Any, weights: Weights, checkpoints: Checkpoints) -> StubTrainer:
            return StubTrainer(phase, checkpoints, course, kill)

        monkeypatch.setattr(TrainingSession, "_trainer", trainer)
        recipe = Recipe(head_epochs=len(course[HEAD]), epochs=len(course[BLOCKS]), **options)
        checkpoints = Checkpoints(tmp_path, {})
        state = checkpoints.load()
        if older and state is not None:
            del state["kept"]
        try:
            return session(recipe, 9).train(checkpoints, TrainingState.from_dict(state) if state else None)
        except Killed:
            return None

    return run


@pytest.mark.parametrize(
    ("head", "blocks", "expected"),
    [
        ([(0.5, 1.0), (0.75, 0.9), (0.7, 0.8)], [(0.725, 0.7), (0.7, 0.6)], ("head", 2)),
        ([(0.5, 1.0), (0.75, 0.9), (0.7, 0.8)], [(0.725, 0.7), (0.8, 0.9)], ("blocks", 2)),
        ([(0.75, 0.9), (0.75, 0.8), (0.75, 0.9)], [(0.75, 0.85), (0.75, 0.9)], ("head", 2)),
        ([(0.75, 0.9), (0.75, 0.8), (0.75, 0.9)], [(0.75, 0.7), (0.75, 0.9)], ("blocks", 1)),
        ([(0.75, 0.9)], [(0.75, 0.9)], ("head", 1)),
        ([None, None], [None, None, None], ("blocks", 3)),
    ],
)
@pytest.mark.parametrize("kill", [None, ("head", 1), ("blocks", 0), ("blocks", 1)])
def test_the_best_epoch_of_all_phases_is_kept(
    train: Any, head: Any, blocks: Any, expected: tuple[str, int], kill: tuple[str, int] | None
) -> None:
    if kill is not None:
        train({HEAD: head, BLOCKS: blocks}, kill)
    weights, state = train({HEAD: head, BLOCKS: blocks})
    assert (state.kept_epoch.phase, state.kept_epoch.epoch) == expected
    assert weights[KERNEL] == expected[1] + (10 if expected[0] == BLOCKS else 0)
    assert weights[BLOCK] == (10 + expected[1] if expected[0] == BLOCKS else 0)  # as it was, if the head is kept


def test_a_run_of_an_older_version_ends_with_the_best_of_its_phase(train: Any) -> None:
    course: Course = {HEAD: [(0.75, 0.9)], BLOCKS: [(0.7, 0.7), (0.725, 0.6)]}
    train(course, ("blocks", 1))
    weights, state = train(course, older=True)
    assert state.kept_epoch.phase == BLOCKS
    assert weights[BLOCK] == 12


def test_calibration_that_is_skipped_is_said(train: Any, caplog: pytest.LogCaptureFixture) -> None:
    course: Course = {HEAD: [(0.75, 0.9)], BLOCKS: [(0.7, 0.7)]}
    train(course, calibrate=False)  # not asked for
    assert "calibrated" not in caplog.text
    train(course)
    assert "not calibrated, which takes 50 validation images (there are 9)" in caplog.text
    caplog.clear()
    session(Recipe(), MIN_IMAGES)._warn_of_few()
    assert not caplog.text


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
