"""Training of one phase: epochs, validation, early stopping, and a checkpoint after every epoch.

All random numbers depend only on the seed and the number of the epoch or step, so a run that is continued from a
checkpoint does exactly what it would have done without the interruption.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from xcli.core.errors import UsageError
from xcli.core.tensorflow import load_tensorflow
from xcli.training.callbacks import Callbacks, EpochMetrics
from xcli.training.optimizer import Replicas, TrainStep, learning_rate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights
    from xcli.training.batches import TrainingSet, ValidationSet
    from xcli.training.checkpoints import Checkpoints, TrainingState
    from xcli.training.recipe import Phase
    from xcli.training.trainable import TrainableLayers


class Validator:
    """Computes the probabilities of validation images, in batches of one size.

    The layers are like those that are trained, but others: their variables are overwritten.
    """

    def __init__(self, layers: TrainableLayers, data: ValidationSet, batch_size: int) -> None:
        self.data, self._layers, self._batch_size = data, layers, batch_size
        self._logits = load_tensorflow().function(lambda x: layers.logits(layers.pooled(x)), autograph=False)

    def scores(self, weights: Weights) -> NDArray[np.float32]:
        """Returns probabilities float32[m, classes] under `weights`."""
        import numpy as np

        tf = load_tensorflow()
        self._layers.assign(weights)
        found = []
        for start in range(0, len(self.data.x), self._batch_size):
            numbers = np.arange(start, min(start + self._batch_size, len(self.data.x)))
            padded = np.concatenate([numbers, np.repeat(numbers[:1], self._batch_size - len(numbers))])
            logits = self._logits(tf.constant(self.data.x.take(padded)))
            found.append(tf.nn.softmax(logits).numpy()[: len(numbers)])
        return np.concatenate(found)


def accuracy_and_loss(scores: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[float, float]:
    """Returns the share of images whose best class is the true one, and the mean cross-entropy in nats.

    The scores are probabilities, float32[m, classes], the true classes int64[m].
    """
    import numpy as np

    right = scores.argmax(1) == classes
    picked = scores[np.arange(len(scores)), classes].astype(np.float64)
    return float(right.mean()), float(-np.log(np.maximum(picked, 1e-12)).mean())


class Trainer:
    """Trains one phase, from the current weights of the layers, and writes a checkpoint after every epoch.

    Args:
        phase: its schedule.
        layers: what is trained.
        data: training examples.
        validator: computes the validation metrics; without it, the last epoch counts as the best.
        seed: of the order, the mixup and the dropout.
        checkpoints: where the state is written; None writes nothing.
        callbacks: called after every step and epoch.
        replicas: see `TrainStep`.
    """

    def __init__(
        self,
        phase: Phase,
        layers: TrainableLayers,
        data: TrainingSet,
        validator: Validator | None,
        seed: int,
        checkpoints: Checkpoints | None = None,
        callbacks: Callbacks | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self.phase, self.data, self.validator = phase, data, validator
        self._seed, self._checkpoints, self._callbacks = seed, checkpoints, callbacks or Callbacks()
        self.train_step = TrainStep(layers, phase.step, seed, replicas)
        self._best: Weights = layers.weights()

    def run(self, state: TrainingState) -> Weights:
        """Trains from `state`, which is updated after every epoch, to the end of the phase.

        Returns:
            The averaged weights at the end of the best epoch.

        Raises:
            UsageError: the loss is no longer finite.
        """
        if state.epoch and self._checkpoints is not None:
            last = self._checkpoints.arrays(self._name("last", state.epoch), self.train_step.state())
            self.train_step.restore(last)
            best = self._name("best", state.best_epoch)
            self._best = self._checkpoints.arrays(best, self.train_step.averaged())
        patience = self.phase.patience if self.validator is not None else self.phase.epochs
        while state.epoch < self.phase.epochs and state.epoch - state.best_epoch < patience:
            metrics = self._epoch(state.epoch)
            state.epoch += 1
            state.rows.append(metrics)
            self._keep_best(metrics, state)
            self._write_checkpoint(state)
            self._callbacks.on_epoch_end(metrics, self.phase)
        return self._best

    def _epoch(self, number: int) -> EpochMetrics:
        phase, begin = self.phase, time.monotonic()
        steps = self.data.steps(phase.batch_size)
        loss = right = weight = rate = 0.0
        batches = self.data.epoch(number, phase.batch_size, self._seed, phase.mixup)
        for index, batch in enumerate(batches):
            rate = learning_rate(self.train_step.steps, steps * phase.epochs, phase.rate, round(phase.warmup * steps))
            step_loss, step_right = self.train_step.step(batch.x, batch.targets, batch.importance, rate)
            loss, right, weight = loss + step_loss, right + step_right, weight + float(batch.importance.sum())
            self._callbacks.on_step_end(index + 1, steps)
        if not math.isfinite(loss):
            raise UsageError(
                f"training diverged in epoch {number + 1} of the phase '{phase.name}' (its loss is not finite): "
                "give a lower --learning-rate, or --head-learning-rate"
            )
        val_loss = val_accuracy = None
        if self.validator is not None:
            scores = self.validator.scores(self.train_step.averaged())
            val_accuracy, val_loss = accuracy_and_loss(scores, self.validator.data.classes)
        loss, accuracy, seconds = loss / max(weight, 1e-9), right / len(self.data), time.monotonic() - begin
        return EpochMetrics(phase.name, number + 1, rate, loss, accuracy, val_loss, val_accuracy, seconds)

    def _keep_best(self, metrics: EpochMetrics, state: TrainingState) -> None:
        """Keeps the weights of an epoch that is the best so far; without validation, every epoch is."""
        if metrics.rank is not None:
            if not metrics.rank > state.best:
                return
            state.best = metrics.rank
        state.best_epoch = metrics.epoch
        self._best = self.train_step.averaged()

    def _write_checkpoint(self, state: TrainingState) -> None:
        if self._checkpoints is None:
            return
        last, best = self._name("last", state.epoch), self._name("best", state.best_epoch)
        self._checkpoints.write(last, self.train_step.state())
        if state.best_epoch == state.epoch:
            self._checkpoints.write(best, self._best)
        self._checkpoints.commit(asdict(state), {last, best, state.start})

    def _name(self, kind: str, epoch: int) -> str:
        return f"{self.phase.name}-{kind}-{epoch:04d}.npz"
