"""One step of training: loss, AdamW, a running average of the weights; and the schedule of the learning rate.

Sources: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (AdamW) and "SGDR", ICLR 2017
(cosine decay); Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016 (label smoothing); Verma et al.,
"Manifold Mixup", ICML 2019; Polyak and Juditsky, 1992 (averaging).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.tensorflow import load_tensorflow
from xcli.training.distribution import Replicas

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from xcli.training.trainable import TrainableLayers

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What a step does besides following the gradient.

    Attributes:
        label_smoothing: share of the target that all classes have in common, from 0 to below 1.
        dropout: share of the pooled features that are set to zero, from 0 to below 1.
        weight_decay: share of a kernel that is taken off at a learning rate of 1.
        average: decay of the running average of the weights, from 0 (none) to below 1.
    """

    label_smoothing: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    average: float = 0.0


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate at a step: it rises linearly over the first `warmup` steps, then falls to zero along a cosine.

    Args:
        step: from 0.
        steps: of the whole phase.
        peak: highest rate.
        warmup: steps of the rise.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class TrainStep:
    """Trains a tail step by step; all of its state is in `state()`, as arrays.

    Args:
        tail: what is trained.
        options: how.
        seed: of the dropout, which follows from it and the number of the step.
        replicas: the devices; the tail must have been made in their scope. Their number changes nothing but rounding.
    """

    def __init__(
        self, tail: TrainableLayers, options: StepOptions, seed: int, replicas: Replicas | None = None
    ) -> None:
        tf = load_tensorflow()
        self.tail, self.options, self._seed = tail, options, seed
        self._replicas = replicas or Replicas(["/CPU:0"])
        self.steps = 0
        start = tail.weights()
        with self._replicas.scope():
            self._first = {name: tf.Variable(tf.zeros_like(one)) for name, one in start.items()}
            self._second = {name: tf.Variable(tf.zeros_like(one)) for name, one in start.items()}
            self._average = {name: tf.Variable(one) for name, one in start.items()}
        self._step = tf.function(self._train, autograph=False)

    def step(
        self, x: NDArray[Any], targets: NDArray[np.float32], importance: NDArray[np.float32], rate: float
    ) -> tuple[float, int]:
        """Trains on one batch.

        Args:
            x: activations at the cut.
            targets: float32[b, classes], probabilities.
            importance: float32[b], weight of each example; 0 for padding.
            rate: learning rate.

        Returns:
            The loss, summed over the batch with its weights, and how many of the examples with a weight were right.
        """
        tf = load_tensorflow()
        t = self.steps + 1
        correction = math.sqrt(1 - _BETA2**t) / (1 - _BETA1**t)
        # At first it follows quickly, or it would be an average with the weights of the beginning for long.
        keep = min(self.options.average, t / (t + 9))
        total = max(float(importance.sum()), 1e-9)
        split = self._replicas.split_batch
        loss, right = self._step(
            split(x),
            split(targets),
            split(importance),
            tf.constant([rate, rate * correction, keep, total], tf.float32),
            tf.constant([self._seed, self.steps], tf.int32),
        )
        self.steps += 1
        return float(loss), int(right)

    def _train(self, x: Any, targets: Any, importance: Any, numbers: Any, seed: Any) -> tuple[Any, Any]:
        variables = self.tail.variables

        def share(x: Any, targets: Any, importance: Any) -> list[Any]:
            return self._gradients(x, targets, importance, numbers[3], seed)

        loss, right, *gradients = self._replicas.run(share, x, targets, importance)
        for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
            self._update(name, variable, gradient, numbers)
        return loss, right

    def _gradients(self, x: Any, targets: Any, importance: Any, total: Any, seed: Any) -> list[Any]:
        """Summed loss, number of right answers and gradients, of one device's share of a batch."""
        tf = load_tensorflow()
        smooth = self.options.label_smoothing
        with tf.GradientTape() as tape:
            pooled = self._dropped(self.tail.pooled(x), seed)
            logits = self.tail.logits(pooled)
            smoothed = targets * (1 - smooth) + smooth / int(targets.shape[1])
            losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits) * importance
            loss = tf.reduce_sum(losses) / total
        gradients = tape.gradient(loss, list(self.tail.variables.values()))
        correct = tf.equal(tf.argmax(logits, -1), tf.argmax(targets, -1)) & (importance > 0)
        right = tf.reduce_sum(tf.cast(correct, tf.int32))
        return [tf.reduce_sum(losses), right, *(tf.cast(one, tf.float32) for one in gradients)]

    def _dropped(self, pooled: Any, seed: Any) -> Any:
        """Pooled features with some of them set to zero: the same ones on any number of devices."""
        tf = load_tensorflow()
        share = self.options.dropout
        if not share:
            return pooled
        rows, width = int(pooled.shape[0]), int(pooled.shape[1])
        chance = tf.random.stateless_uniform((rows * self._replicas.count, width), seed)
        kept = self._replicas.local_rows(chance, rows) >= share
        return tf.where(kept, pooled / (1 - share), tf.zeros_like(pooled))

    def _update(self, name: str, variable: Any, gradient: Any, numbers: Any) -> None:
        tf = load_tensorflow()
        rate, corrected, keep = numbers[0], numbers[1], numbers[2]
        first = _BETA1 * self._first[name] + (1 - _BETA1) * gradient
        second = _BETA2 * self._second[name] + (1 - _BETA2) * tf.square(gradient)
        change = corrected * first / (tf.sqrt(second) + _EPSILON)
        if self.options.weight_decay and name.endswith("kernel"):
            change += rate * self.options.weight_decay * variable
        value = variable - change
        average = keep * self._average[name] + (1 - keep) * value
        slots = (variable, self._first[name], self._second[name], self._average[name])
        for slot, new in zip(slots, (value, first, second, average), strict=True):
            slot.assign(new)

    def averaged(self) -> dict[str, NDArray[np.float32]]:
        """The weights to be used: the running average."""
        return {name: variable.numpy() for name, variable in self._average.items()}

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that the next step depends on, besides its arguments."""
        import numpy as np

        arrays = {
            f"{kind}:{name}": variable.numpy()
            for kind, variables in self._slots().items()
            for name, variable in variables.items()
        }
        return {**arrays, "steps": np.asarray(self.steps)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes back to a `state`."""
        for kind, variables in self._slots().items():
            for name, variable in variables.items():
                variable.assign(arrays[f"{kind}:{name}"])
        self.steps = int(arrays["steps"])

    def _slots(self) -> dict[str, dict[str, Any]]:
        return {
            "weight": self.tail.variables,
            "first": self._first,
            "second": self._second,
            "average": self._average,
        }
