"""The phases of a fine-tuning, one after the other, from the last checkpoint on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from xcli.training.calibration import apply_temperature, fit_temperature
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.freezing import cut_below
from xcli.training.recipe import HEAD, Phase, Recipe
from xcli.training.trainable import TrainableLayers
from xcli.training.trainer import Trainer, Validator

if TYPE_CHECKING:
    from xcli.models.hdf5_weights import Weights
    from xcli.training.base_model import BaseModel
    from xcli.training.callbacks import Callbacks
    from xcli.training.distribution import Replicas
    from xcli.training.training_data import TrainingData

_SCORED = 256
"""Pooled features that are validated at a time."""


@dataclass(frozen=True, slots=True)
class TrainingSession:
    """Trains all phases of a recipe.

    Attributes:
        recipe: how to train.
        base: what training starts from.
        data: activations with classes.
        dtype: of the arithmetic in the trained layers.
        replicas: the devices that train.
        callbacks: called during the training.
    """

    recipe: Recipe
    base: BaseModel
    data: TrainingData
    dtype: str
    replicas: Replicas
    callbacks: Callbacks

    def train(self, checkpoints: Checkpoints, state: TrainingState | None = None) -> tuple[Weights, TrainingState]:
        """Trains from the beginning, or from where an earlier process stopped.

        Args:
            checkpoints: where the state is written.
            state: that of the earlier process, which is updated.

        Returns:
            The best weights of the last phase, calibrated if the recipe says so, and the final state.
        """
        state = state or TrainingState()
        weights: Weights = {}
        if state.phase and not state.epoch:
            weights = checkpoints.arrays(_start_name(state.phase))
        phases = self.recipe.phases()
        while state.phase < len(phases):
            phase = phases[state.phase]
            self.callbacks.on_phase_begin(phase, state.epoch)
            trainer = self._trainer(phase, weights, checkpoints)
            weights = trainer.run(state)
            if phase is phases[-1] and self.recipe.calibrate and trainer.validator is not None:
                scores = trainer.validator.scores(weights)
                state.temperature = fit_temperature(scores, trainer.validator.data.classes)
                weights = apply_temperature(weights, state.temperature)
            state.phase, state.epoch = state.phase + 1, 0
            state.best_epoch, state.best = 0, (-1.0, 0.0)
            checkpoints.write(_start_name(state.phase), weights)
            checkpoints.commit(asdict(state), {_start_name(state.phase)})
        return weights, state

    def _trainer(self, phase: Phase, weights: Weights, checkpoints: Checkpoints) -> Trainer:
        recipe, classes = self.recipe, len(self.data.labels)
        cut = cut_below("none" if phase.name == HEAD else recipe.unfreeze)
        pooled = cut.tap is None
        start = {**self.base.weights, **weights}

        def layers() -> TrainableLayers:
            return TrainableLayers(cut, start, classes, dtype=self.dtype, scaling=self.base.scaling, seed=recipe.seed)

        validation = self.data.validation_set(pooled=pooled)
        batch_size = _SCORED if pooled else recipe.batch_size
        validator = Validator(layers(), validation, batch_size) if validation is not None else None
        with self.replicas.scope():
            trained = layers()
        return Trainer(
            phase,
            trained,
            self.data.training_set(pooled=pooled, balance=recipe.class_weights == "auto"),
            validator=validator,
            seed=recipe.seed,
            checkpoints=checkpoints,
            callbacks=self.callbacks,
            replicas=self.replicas,
        )


def _start_name(phase: int) -> str:
    """Name of the file of weights that a phase starts from; after the last phase, of the finished weights."""
    return f"start-{phase}.npz"
