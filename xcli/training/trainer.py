"""Training in phases: epochs, validation, early stopping, and a checkpoint after every epoch.

All that is random follows from the seed and the number of the epoch or step, so a run that goes on from a checkpoint
does exactly what it would have done without the interruption.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.tensorflow import load_tensorflow
from xcli.training.calibration import apply_temperature, fit_temperature
from xcli.training.optimizer import StepOptions, TrainStep, learning_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights
    from xcli.training.batches import RowSubset, TrainingSet
    from xcli.training.checkpoints import Checkpoints
    from xcli.training.distribution import Replicas
    from xcli.training.trainable import TrainableLayers


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training with one schedule.

    Attributes:
        name: `head` or `blocks`.
        epochs: at most so many.
        rate: highest learning rate.
        warmup: epochs over which the rate rises to it; parts of one count.
        patience: epochs without a better one after which it ends.
        batch_size: examples in a step.
        mixup: see `TrainingSet.epoch`; 0 is none.
        step: what a step does.
    """

    name: str
    epochs: int
    rate: float
    warmup: float
    patience: int
    batch_size: int
    mixup: float = 0.0
    step: StepOptions = field(default_factory=StepOptions)


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One epoch of the history.

    Attributes:
        phase: name of the phase.
        epoch: number within the phase, from 1.
        learning_rate: at the last step.
        loss, accuracy: over the epoch's training batches, as they were trained on.
        val_loss, val_accuracy: of the averaged weights at the end of the epoch, without label smoothing; None without
            a validation part.
        seconds: that it took.
    """

    phase: str
    epoch: int
    learning_rate: float
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


@dataclass(slots=True)
class TrainingState:
    """How far a run has come; with the stepper's state, all that goes on from here needs.

    Attributes:
        phase: number of the phase under way.
        epoch: epochs of it that are done.
        best_epoch: the best of them, from 1; 0 before the first.
        best: accuracy and negative loss of that one.
        rows: the history.
        temperature: by which the logits of the finished weights were divided; 1 before the end.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] = (-1.0, 0.0)
    rows: list[EpochMetrics] = field(default_factory=list)
    temperature: float = 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, value: dict[str, Any]) -> TrainingState:
        """From what `as_dict` made."""
        rows = [EpochMetrics(**row) for row in value["rows"]]
        accuracy, loss = value["best"]
        return cls(value["phase"], value["epoch"], value["best_epoch"], (accuracy, loss), rows, value["temperature"])


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Images to validate on.

    Attributes:
        x: activations at the cut.
        classes: int64[m].
    """

    x: RowSubset
    classes: NDArray[np.int64]


class Scorer:
    """Computes probabilities of a tail's averaged weights, in batches of one size.

    Args:
        tail: of the same kind as the one that is trained, but another: its variables are overwritten.
        batch_size: images at a time.
    """

    def __init__(self, tail: TrainableLayers, batch_size: int) -> None:
        tf = load_tensorflow()
        self.tail, self._batch_size = tail, batch_size
        self._logits = tf.function(lambda x: tail.logits(tail.pooled(x)), autograph=False)

    def scores(self, rows: RowSubset, weights: Weights) -> NDArray[np.float32]:
        """Probabilities float32[m, classes] of images under `weights`."""
        import numpy as np

        tf = load_tensorflow()
        self.tail.assign(weights)
        found = []
        for start in range(0, len(rows), self._batch_size):
            numbers = np.arange(start, min(start + self._batch_size, len(rows)))
            padded = np.concatenate([numbers, np.repeat(numbers[:1], self._batch_size - len(numbers))])
            logits = self._logits(tf.constant(rows.take(padded)))
            found.append(tf.nn.softmax(logits).numpy()[: len(numbers)])
        classes = int(self.tail.logits(tf.zeros((1, 2048))).shape[1])
        return np.concatenate(found) if found else np.zeros((0, classes), np.float32)


def accuracy_and_loss(scores: NDArray[np.float32], classes: NDArray[np.int64]) -> tuple[float, float]:
    """Share of images whose best class is theirs, and mean cross-entropy in nats.

    Args:
        scores: float32[m, classes], probabilities.
        classes: int64[m].
    """
    import numpy as np

    right = scores.argmax(1) == classes
    picked = scores[np.arange(len(scores)), classes].astype(np.float64)
    return float(right.mean()), float(-np.log(np.maximum(picked, 1e-12)).mean())


class Trainer:
    """Trains one phase.

    Args:
        phase: its schedule.
        tail: what is trained; it starts from the weights that it has.
        scorer: for validation; None leaves it out, and the last epoch is the best.
        data: training examples.
        held: validation examples; None as for `scorer`.
        seed: of the order, the mixing and the dropout.
        checkpoints: where to keep the state after every epoch; None keeps nothing.
        on_epoch: called with every new row, and the number of epochs of the phase.
        on_step: called with the number of the step in its epoch, and the steps of an epoch.
        replicas: the devices; see `TrainStep`.
    """

    def __init__(
        self,
        phase: Phase,
        tail: TrainableLayers,
        data: TrainingSet,
        *,
        scorer: Scorer | None,
        held: ValidationSet | None,
        seed: int,
        checkpoints: Checkpoints | None = None,
        on_epoch: Callable[[EpochMetrics, Phase], None] = lambda row, phase: None,
        on_step: Callable[[int, int], None] = lambda step, steps: None,
        replicas: Replicas | None = None,
    ) -> None:
        self.phase, self.tail, self.data, self.held = phase, tail, data, held
        self._scorer, self._seed, self._checkpoints = scorer, seed, checkpoints
        self._on_epoch, self._on_step = on_epoch, on_step
        self.stepper = TrainStep(tail, phase.step, seed, replicas)
        self._best: Weights = tail.weights()

    def run(self, progress: TrainingState) -> Weights:
        """Trains from where `progress` says that it is, to the end of the phase.

        Args:
            progress: is brought up to date after every epoch.

        Returns:
            The averaged weights at the end of the best epoch.

        Raises:
            UsageError: the loss is not finite any more.
        """
        if progress.epoch and self._checkpoints is not None:
            self.stepper.restore(self._checkpoints.arrays(self._name("last", progress.epoch)))
            self._best = self._checkpoints.arrays(self._name("best", progress.best_epoch))
        while progress.epoch < self.phase.epochs and not self._is_over(progress):
            row = self._epoch(progress.epoch)
            progress.epoch += 1
            progress.rows.append(row)
            self._judge(row, progress)
            self._keep(progress)
            self._on_epoch(row, self.phase)
        return self._best

    def calibrated(self, weights: Weights) -> tuple[Weights, float]:
        """Weights with their logits divided by a temperature fitted on the validation images, and that temperature."""
        if self.held is None or self._scorer is None:
            return weights, 1.0
        temperature = fit_temperature(self._scorer.scores(self.held.x, weights), self.held.classes)
        return apply_temperature(weights, temperature), temperature

    def _is_over(self, progress: TrainingState) -> bool:
        return self.held is not None and progress.epoch - progress.best_epoch >= self.phase.patience

    def _epoch(self, number: int) -> EpochMetrics:
        phase, begin = self.phase, time.monotonic()
        steps = self.data.steps(phase.batch_size)
        loss = right = weight = rate = 0.0
        batches = self.data.epoch(number, phase.batch_size, self._seed, phase.mixup)
        for index, batch in enumerate(batches):
            rate = learning_rate(self.stepper.steps, steps * phase.epochs, phase.rate, round(phase.warmup * steps))
            step_loss, step_right = self.stepper.step(batch.x, batch.targets, batch.importance, rate)
            loss, right, weight = loss + step_loss, right + step_right, weight + float(batch.importance.sum())
            self._on_step(index + 1, steps)
        if not math.isfinite(loss):
            raise UsageError(
                f"training went out of bounds in epoch {number + 1} of the phase '{phase.name}' (its loss is NaN): "
                "give a lower --learning-rate, or --head-learning-rate"
            )
        val_loss = val_accuracy = None
        if self.held is not None and self._scorer is not None:
            scores = self._scorer.scores(self.held.x, self.stepper.averaged())
            val_accuracy, val_loss = accuracy_and_loss(scores, self.held.classes)
        return EpochMetrics(
            phase.name,
            number + 1,
            rate,
            loss / max(weight, 1e-9),
            right / len(self.data),
            val_loss,
            val_accuracy,
            time.monotonic() - begin,
        )

    def _judge(self, row: EpochMetrics, progress: TrainingState) -> None:
        """Takes note of an epoch that is the best so far; without validation the last one is."""
        if row.val_accuracy is None or row.val_loss is None:
            better = True
        else:
            found = (row.val_accuracy, -row.val_loss)
            better = found > progress.best
            if better:
                progress.best = found
        if better:
            progress.best_epoch = row.epoch
            self._best = self.stepper.averaged()

    def _keep(self, progress: TrainingState) -> None:
        if self._checkpoints is None:
            return
        last, best = self._name("last", progress.epoch), self._name("best", progress.best_epoch)
        self._checkpoints.write(last, self.stepper.state())
        if progress.best_epoch == progress.epoch:
            self._checkpoints.write(best, self._best)
        self._checkpoints.commit(progress.as_dict(), {last, best})

    def _name(self, kind: str, epoch: int) -> str:
        return f"{self.phase.name}-{kind}-{epoch:04d}.npz"
