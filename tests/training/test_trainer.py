"""Phases of training: validation, early stopping, and going on from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.core.errors import UsageError
from xcli.models.hdf5_weights import BIAS
from xcli.training.batches import RowSubset, TrainingSet, ValidationSet
from xcli.training.callbacks import Callbacks, EpochMetrics
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.freezing import cut_below
from xcli.training.optimizer import StepOptions
from xcli.training.recipe import Phase
from xcli.training.trainable import TrainableLayers
from xcli.training.trainer import Trainer, Validator, accuracy_and_loss

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
    validation = options.pop("validation", ValidationSet(RowSubset(FEATURES, np.arange(20, 30)), CLASSES[20:]))
    cut = cut_below("none")
    return Trainer(
        phase,
        TrainableLayers(cut, {}, 3),
        data,
        validator=Validator(TrainableLayers(cut, {}, 3), validation, 4) if validation is not None else None,
        seed=0,
        checkpoints=Checkpoints(folder, {}) if folder is not None else None,
        **options,
    )


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def without_times(rows: list[EpochMetrics]) -> list[tuple[Any, ...]]:
    return [(row.phase, row.epoch, row.learning_rate, row.loss, row.accuracy, row.val_loss) for row in rows]


def test_it_learns_and_keeps_the_best_epoch() -> None:
    state = TrainingState()
    one = trainer(epochs=12)
    best = one.run(state)
    assert [row.epoch for row in state.rows] == list(range(1, 13))
    assert state.rows[-1].loss < state.rows[0].loss
    keys = [(row.val_accuracy or 0, -(row.val_loss or 0)) for row in state.rows]
    assert max(keys) == state.best == keys[state.best_epoch - 1]
    assert one.validator is not None
    accuracy, loss = accuracy_and_loss(one.validator.scores(best), one.validator.data.classes)
    assert accuracy == state.best[0] > 0.5
    assert loss == pytest.approx(-state.best[1])


def test_it_stops_early() -> None:
    state = TrainingState()
    spoilt = ValidationSet(
        RowSubset(FEATURES, np.arange(20, 30)), (CLASSES[20:] + 1) % 3
    )  # gets worse with every epoch
    trainer(epochs=50, patience=3, validation=spoilt).run(state)
    assert len(state.rows) == state.best_epoch + 3 < 50


def test_without_validation_the_last_epoch_is_the_best() -> None:
    state = TrainingState()
    one = trainer(validation=None, patience=1)
    best = one.run(state)
    assert state.best_epoch == len(state.rows) == 6
    assert state.rows[0].val_accuracy is None
    assert same(best, one.train_step.averaged())


def killed(folder: Path, epoch: int) -> None:
    """Goes on from the last checkpoint, and dies in the middle of an epoch."""
    state = Checkpoints(folder, {}).load()
    state = TrainingState.from_dict(state) if state else TrainingState()

    class Killer(Callbacks):
        def on_step_end(self, step: int, steps: int) -> None:
            if state.epoch == epoch and step == 2:
                raise Killed

    with pytest.raises(Killed):
        trainer(folder, epochs=6, patience=3, callbacks=Killer()).run(state)


@pytest.mark.parametrize("kills", [(1,), (2, 4), (1, 2, 3)])
def test_killed_and_continued_it_ends_in_the_same_weights(tmp_path: Path, kills: tuple[int, ...]) -> None:
    whole = TrainingState()
    expected = trainer(epochs=6, patience=3).run(whole)

    for kill in kills:
        killed(tmp_path, kill)
    state = Checkpoints(tmp_path, {}).load()
    assert state is not None
    state = TrainingState.from_dict(state)
    assert state.epoch == kills[-1]
    found = trainer(tmp_path, epochs=6, patience=3).run(state)
    assert same(found, expected)
    assert without_times(state.rows) == without_times(whole.rows)
    assert (state.best, state.best_epoch) == (whole.best, whole.best_epoch)


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    one.train_step.layers.variables[BIAS].assign([np.nan, 0, 0])
    with pytest.raises(UsageError, match=r"diverged in epoch 1 of the phase 'head'.*lower --learning-rate"):
        one.run(TrainingState())
    assert Checkpoints(tmp_path, {}).load() is None


def test_scores_do_not_depend_on_the_batch() -> None:
    layers, data = TrainableLayers(cut_below("none"), {}, 3), ValidationSet(RowSubset(FEATURES, np.arange(30)), CLASSES)
    weights = layers.weights()
    found = [Validator(layers, data, size).scores(weights) for size in (4, 7, 64)]
    assert found[0].shape == (30, 3)
    assert np.allclose(found[0].sum(1), 1)
    assert np.abs(found[0] - found[1]).max() < 1e-6
    assert np.abs(found[0] - found[2]).max() < 1e-6


def test_accuracy_and_loss_by_hand() -> None:
    scores = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], np.float32)
    accuracy, loss = accuracy_and_loss(scores, np.array([0, 1, 0]))
    assert accuracy == 1.0
    assert loss == pytest.approx(-(np.log(0.5) + np.log(0.75)) / 3)
    assert accuracy_and_loss(scores, np.array([0, 0, 1]))[1] < 20  # no infinity for a probability of zero


def test_the_state_survives_json() -> None:
    state = TrainingState(1, 1, 1, (0.5, -1.0), [EpochMetrics("head", 1, 1e-3, 1.0, 0.5, None, None, 0.1)])
    assert TrainingState.from_dict(asdict(state)) == state
