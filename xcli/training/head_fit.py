"""A head fitted to vectors alone: multinomial logistic regression, with the regularisation that validation prefers.

The vectors are centred, and divided by their mean length, so that the strengths that are tried mean the same for all
kinds of features; both are folded into the head afterwards, which takes vectors as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.training.trainer import accuracy_and_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

STRENGTHS = tuple(2.0**power for power in range(7))
"""Inverse strengths of the regularisation that are tried, from a strong one to a weak one."""

USUAL_STRENGTH = 8.0
"""What is taken where there is nothing to choose by."""

_MOST_STEPS = 50
_TOLERANCE = 1e-6  # relative change of the loss, and the mean gradient, at which a fit ends


@dataclass(frozen=True, slots=True)
class Trial:
    """A head with one strength of the regularisation, and how it does.

    Attributes:
        strength: the inverse strength, as `C` of scikit-learn.
        accuracy, loss: on the training vectors; the loss is the mean cross-entropy in nats.
        val_accuracy, val_loss: on those of validation; None without them.
    """

    strength: float
    accuracy: float
    loss: float
    val_accuracy: float | None = None
    val_loss: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class FittedHead:
    """A head: float32[d, C] and float32[C], with all trials, and the number of the one that it is of."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    trials: tuple[Trial, ...]
    kept: int


@dataclass(frozen=True, eq=False, slots=True)
class Vectors:
    """Vectors float32[n, d], and the numbers of their classes, int64[n]."""

    values: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


def fit_head(
    training: Vectors,
    validation: Vectors,
    count: int,
    weights: NDArray[np.float32],
    on_trial: Callable[[Trial], object] = lambda trial: None,
) -> FittedHead:
    """Fits a head of `count` classes, each of which has a training vector.

    Args:
        training, validation: what is fitted to, which is changed, and what the strength is chosen by: the accuracy,
            then the loss. Of equals the stronger regularisation is taken.
        count: number of classes, at least two.
        weights: float32[count], weight of a vector of each class.
        on_trial: called after each.
    """
    import numpy as np

    mean = training.values.mean(axis=0, dtype=np.float64).astype(np.float32)
    training.values[...] -= mean
    squares = np.einsum("ij,ij->", training.values, training.values, dtype=np.float64)
    scale = np.float32(np.sqrt(squares / len(training)) or 1.0)
    training.values[...] /= scale
    judged = Vectors((validation.values - mean) / scale, validation.classes)
    fitter, importance = _Fitter(), weights[training.classes]
    trials, best, kept = list[Trial](), None, 0
    for strength in STRENGTHS if len(judged) else (USUAL_STRENGTH,):
        found = fitter.fit(training, strength, importance)
        trial = Trial(strength, *accuracy_and_loss(_probabilities(training.values, found), training.classes))
        if len(judged):
            scored = accuracy_and_loss(_probabilities(judged.values, found), judged.classes)
            trial = Trial(strength, trial.accuracy, trial.loss, *scored)
        trials.append(trial)
        on_trial(trial)
        if best is None or _rank(trial) > _rank(trials[kept]):
            best, kept = found, len(trials) - 1
    assert best is not None, "there is at least one strength"
    kernel = (best[:-1] / scale).astype(np.float32)
    bias = (best[-1] - mean.astype(np.float64) @ kernel).astype(np.float32)
    return FittedHead(kernel, bias, tuple(trials), kept)


def _rank(trial: Trial) -> tuple[float, float]:
    return trial.val_accuracy or 0.0, -(trial.val_loss or 0.0)


class _Fitter:
    """Fits one regression after the other, each from where the last one ended, by L-BFGS.

    Products are in float32: the optimizer's own numbers are of float64, with which each step would copy all vectors.
    """

    def __init__(self) -> None:
        self._last: NDArray[np.float64] | None = None

    def fit(self, training: Vectors, strength: float, importance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns coefficients and, in the last row, intercepts: float64[d + 1, classes]."""
        import numpy as np
        from scipy.optimize import minimize

        values, count = training.values, int(training.classes.max()) + 1
        targets = np.eye(count, dtype=np.float32)[training.classes]
        share = importance / importance.sum()
        penalty = 1 / (strength * len(training))

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = flat.reshape(-1, count)
            chances = _probabilities(values, weights)
            right = np.maximum((chances * targets).sum(axis=1), np.float32(1e-30))
            wrong = (chances - targets) * share[:, None]
            gradient = np.vstack([values.T @ wrong, wrong.sum(axis=0)]).astype(np.float64)
            gradient[:-1] += penalty * weights[:-1]
            return float(-(np.log(right) @ share) + penalty / 2 * (weights[:-1] ** 2).sum()), gradient.ravel()

        start = np.zeros((values.shape[1] + 1) * count) if self._last is None else self._last
        options = {"maxiter": _MOST_STEPS, "ftol": _TOLERANCE, "gtol": _TOLERANCE}
        self._last = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
        found: NDArray[np.float64] = np.asarray(self._last).reshape(-1, count)
        return found


def _probabilities(values: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    import numpy as np

    logits: NDArray[np.float32] = values @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
