"""Phases of training: validation, early stopping, and going on from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.core.errors import UsageError
from xcli.models.hdf5_weights import BIAS
from xcli.training.batches import RowSubset, TrainingSet
from xcli.training.checkpoints import Checkpoints
from xcli.training.freezing import cut_below
from xcli.training.optimizer import StepOptions
from xcli.training.trainable import TrainableLayers
from xcli.training.trainer import EpochMetrics, Phase, Scorer, Trainer, TrainingState, ValidationSet, accuracy_and_loss

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.models.hdf5_weights import Weights

RANDOM = np.random.default_rng(0)
CENTRES = RANDOM.normal(size=(3, 2048)).astype(np.float32)
CLASSES = np.arange(30) % 3
FEATURES = (CENTRES[CLASSES] + RANDOM.normal(0, 3, (30, 2048))).astype(np.float32)


class Killed(Exception):
    """Stands for the end of a process."""


def trainer(folder: Path | None = None, epochs: int = 6, patience: int = 99, **options: Any) -> Trainer:
    phase = Phase("head", epochs, 1e-3, 1.0, patience, 8, 0.2, StepOptions(0.1, 0.3, 0.0, 0.9))
    rows = RowSubset(FEATURES, np.arange(20))
    data = TrainingSet([rows], np.ones((1, 20), bool), CLASSES[:20], 3, np.ones(3, np.float32))
    held = options.pop("held", ValidationSet(RowSubset(FEATURES, np.arange(20, 30)), CLASSES[20:]))
    cut = cut_below("none")
    return Trainer(
        phase,
        TrainableLayers(cut, {}, 3),
        data,
        scorer=Scorer(TrainableLayers(cut, {}, 3), 4) if held is not None else None,
        held=held,
        seed=0,
        checkpoints=Checkpoints(folder, {}) if folder is not None else None,
        **options,
    )


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def without_times(rows: list[EpochMetrics]) -> list[tuple[Any, ...]]:
    return [(row.phase, row.epoch, row.learning_rate, row.loss, row.accuracy, row.val_loss) for row in rows]


def test_it_learns_and_keeps_the_best_epoch() -> None:
    progress = TrainingState()
    one = trainer(epochs=12)
    best = one.run(progress)
    assert [row.epoch for row in progress.rows] == list(range(1, 13))
    assert progress.rows[-1].loss < progress.rows[0].loss
    keys = [(row.val_accuracy or 0, -(row.val_loss or 0)) for row in progress.rows]
    assert max(keys) == progress.best == keys[progress.best_epoch - 1]
    assert one.held is not None
    assert one._scorer is not None
    accuracy, loss = accuracy_and_loss(one._scorer.scores(one.held.x, best), one.held.classes)
    assert accuracy == progress.best[0] > 0.5
    assert loss == pytest.approx(-progress.best[1])


def test_it_stops_early() -> None:
    progress = TrainingState()
    spoilt = ValidationSet(
        RowSubset(FEATURES, np.arange(20, 30)), (CLASSES[20:] + 1) % 3
    )  # gets worse with every epoch
    trainer(epochs=50, patience=3, held=spoilt).run(progress)
    assert len(progress.rows) == progress.best_epoch + 3 < 50


def test_without_validation_the_last_epoch_is_the_best() -> None:
    progress = TrainingState()
    one = trainer(held=None, patience=1)
    best = one.run(progress)
    assert progress.best_epoch == len(progress.rows) == 6
    assert progress.rows[0].val_accuracy is None
    assert same(best, one.stepper.averaged())


def killed(folder: Path, epoch: int) -> None:
    """Goes on from the last checkpoint, and dies in the middle of an epoch."""
    state = Checkpoints(folder, {}).load()
    progress = TrainingState.of(state) if state else TrainingState()

    def step(number: int, steps: int) -> None:
        if progress.epoch == epoch and number == 2:
            raise Killed

    with pytest.raises(Killed):
        trainer(folder, epochs=6, patience=3, on_step=step).run(progress)


@pytest.mark.parametrize("kills", [(1,), (2, 4), (1, 2, 3)])
def test_killed_and_continued_it_ends_in_the_same_weights(tmp_path: Path, kills: tuple[int, ...]) -> None:
    whole = TrainingState()
    expected = trainer(epochs=6, patience=3).run(whole)

    for kill in kills:
        killed(tmp_path, kill)
    state = Checkpoints(tmp_path, {}).load()
    assert state is not None
    progress = TrainingState.of(state)
    assert progress.epoch == kills[-1]
    found = trainer(tmp_path, epochs=6, patience=3).run(progress)
    assert same(found, expected)
    assert without_times(progress.rows) == without_times(whole.rows)
    assert (progress.best, progress.best_epoch) == (whole.best, whole.best_epoch)


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    one.tail.variables[BIAS].assign([np.nan, 0, 0])
    with pytest.raises(UsageError, match=r"in epoch 1 of the phase 'head'.*lower --learning-rate"):
        one.run(TrainingState())
    assert Checkpoints(tmp_path, {}).load() is None


def test_scores_do_not_depend_on_the_batch() -> None:
    tail, rows = TrainableLayers(cut_below("none"), {}, 3), RowSubset(FEATURES, np.arange(30))
    found = [
        Scorer(TrainableLayers(cut_below("none"), {}, 3), size).scores(rows, tail.weights()) for size in (4, 7, 64)
    ]
    assert found[0].shape == (30, 3)
    assert np.allclose(found[0].sum(1), 1)
    assert np.abs(found[0] - found[1]).max() < 1e-6
    assert np.abs(found[0] - found[2]).max() < 1e-6
    empty = Scorer(tail, 4).scores(RowSubset(FEATURES, np.arange(0)), tail.weights())
    assert empty.shape == (0, 3)


def test_accuracy_and_loss_by_hand() -> None:
    scores = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], np.float32)
    accuracy, loss = accuracy_and_loss(scores, np.array([0, 1, 0]))
    assert accuracy == 1.0
    assert loss == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 3)
    assert accuracy_and_loss(scores, np.array([0, 0, 1]))[1] < 20  # no infinity for a probability of zero


def test_progress_survives_json() -> None:
    progress = TrainingState(1, 2, 1, (0.5, -1.0), [EpochMetrics("head", 1, 1e-3, 1.0, 0.5, None, None, 0.1)])
    assert TrainingState.of(progress.as_dict()) == progress
