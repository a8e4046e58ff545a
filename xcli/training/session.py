"""The phases of a fine-tuning, one after the other, from the last checkpoint on, and the calibration at the end.

Label smoothing and mixup make a network underconfident, long training makes it overconfident. Dividing its logits by
one number, the temperature, corrects both and changes no prediction (Guo et al., "On Calibration of Modern Neural
Networks", ICML 2017). It is fitted on images that the network was not trained on.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from xcli.models.hdf5_weights import BIAS, KERNEL, Weights
from xcli.sources.splits import VALIDATION
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.freezing import cut_below
from xcli.training.recipe import HEAD, Phase, Recipe
from xcli.training.trainable import TrainableLayers
from xcli.training.trainer import Trainer, Validator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.training.base_model import BaseModel
    from xcli.training.batches import TrainingData
    from xcli.training.callbacks import Callbacks
    from xcli.training.optimizer import Replicas

_SCORED = 256
"""Pooled features that are validated at a time."""

MIN_IMAGES = 50
"""With fewer images the temperature would be fitted to their noise."""

_LEAST, _MOST = 0.2, 5.0

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class TrainingSession:
    """Trains all phases of a recipe; `dtype` is that of the arithmetic in the trained layers."""

    recipe: Recipe
    base: BaseModel
    data: TrainingData
    dtype: str
    replicas: Replicas
    callbacks: Callbacks

    def train(self, checkpoints: Checkpoints, state: TrainingState | None = None) -> tuple[Weights, TrainingState]:
        """Trains from the beginning, or from the state of an earlier process, which is updated.

        Returns:
            The weights of the best epoch of all phases, calibrated if the recipe says so, and the final state.
        """
        state = state or TrainingState()
        # An earlier version did not keep the weights that the phase had started from.
        begun = state.phase and (state.kept or not state.epoch)
        weights = checkpoints.arrays(state.start, checkpoints.start, (KERNEL, BIAS)) if begun else {}
        phases = self.recipe.phases()
        while state.phase < len(phases):
            phase = phases[state.phase]
            self.callbacks.on_phase_begin(phase, state.epoch)
            trainer = self._trainer(phase, weights, checkpoints)
            best = trainer.run(state)
            start = {**self.base.weights, **weights}
            weights = best if state.end_phase() else {name: start[name] for name in best}
            if phase is phases[-1] and self.recipe.calibrate and trainer.validator is not None:
                scores = trainer.validator.scores(weights)
                state.temperature = fit_temperature(scores, trainer.validator.data.classes)
                weights = apply_temperature(weights, state.temperature)
            checkpoints.write(state.start, weights)
            checkpoints.commit(asdict(state), {state.start})
        if self.recipe.calibrate:
            self._warn_of_few()
        return weights, state

    def _warn_of_few(self) -> None:
        """Says that scores are not calibrated, and what that means, if there are too few validation images for it."""
        count = len(self.data.readable(VALIDATION))
        if count < MIN_IMAGES:
            log.warning(
                "scores are not calibrated, which takes %d validation images (there are %d): they rank the classes, "
                "but are no measure of how often the model is right; label smoothing and mixup make them too low",
                MIN_IMAGES,
                count,
            )

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
        training = self.data.training_set(pooled=pooled, balance=recipe.class_weights == "auto")
        return Trainer(phase, trained, training, validator, recipe.seed, checkpoints, self.callbacks, self.replicas)


def fit_temperature(scores: NDArray[np.float32], classes: NDArray[np.int64]) -> float:
    """Returns the temperature, from 0.2 to 5, that makes the true classes, int64[m], most likely.

    The scores are probabilities, float32[m, classes]; if there are too few images, the temperature is 1.
    """
    import numpy as np

    if len(scores) < MIN_IMAGES:
        return 1.0
    logits = np.log(np.maximum(scores.astype(np.float64), 1e-30))
    true = logits[np.arange(len(logits)), classes]

    def loss(sharpness: float) -> float:
        scaled = logits * sharpness
        top = scaled.max(1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(1)) - true * sharpness).mean())

    # The loss is convex in the inverse temperature, so a ternary search finds its minimum.
    low, high = 1 / _MOST, 1 / _LEAST
    while high - low > 1e-4:
        one, other = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, other) if loss(one) <= loss(other) else (one, high)
    return 2 / (low + high)


def apply_temperature(weights: Weights, temperature: float) -> Weights:
    """Returns the weights with the logits of the classifier divided by a temperature."""
    import numpy as np

    return {
        name: (array / np.float32(temperature)).astype(np.float32) if name in (KERNEL, BIAS) else array
        for name, array in weights.items()
    }
