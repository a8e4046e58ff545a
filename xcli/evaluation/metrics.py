"""Classification metrics: accuracies, the confusion matrix, figures by class and their averages, calibration.

The definitions are those of scikit-learn, with 0 in place of a division by zero.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

TOP_K = 5
"""`top5` counts an image as right if its true class is among so many best ones, or among all if there are fewer."""

FIGURES = ("precision", "recall", "f1", "support")
"""The figures of each class."""

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""

_CHUNK = 1 << 22  # scores processed at a time, so that temporary arrays stay small


@dataclass(frozen=True, slots=True, eq=False)
class ClassFigures:
    """The figures of each of C classes, and their averages.

    Attributes:
        precision, recall, f1: float64[C]; 0 where undefined.
        support: int64[C]; images of each class.
        macro, weighted: `precision`, `recall` and `f1`, averaged over the classes that occur among the true or the
            predicted ones (plain; or weighted by support), as in scikit-learn without `labels`.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    macro: dict[str, float]
    weighted: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Metrics(ClassFigures):
    """Metrics of n predictions among C classes, beside the figures of these.

    Attributes:
        labels: names of the C classes.
        n: number of images.
        top1, top5: share of the images whose true class has the best, or one of the min(5, C) best scores; None
            without images. Of equal scores, that of the lower class index counts as better, as in the predictions.
        confusion: int64[C, C]; rows are true classes, columns predicted ones.
        ece: expected calibration error, 0 to 1; None without images, or if the scores are not probabilities.
    """

    labels: tuple[str, ...]
    n: int
    top1: float | None
    top5: float | None
    confusion: NDArray[np.int64]
    ece: float | None

    def occurring(self) -> NDArray[np.int64]:
        """Returns the indices of the classes that occur among the true or the predicted ones."""
        import numpy as np

        return np.flatnonzero(self.support + self.confusion.sum(0))

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON's types: `top1`, `top5`, `n`, `macro`, `weighted`, `ece`, and `per_class` with all C classes."""
        members = {name: getattr(self, name) for name in ("top1", "top5", "n", "macro", "weighted", "ece")}
        columns = [getattr(self, name).tolist() for name in FIGURES]
        per_class = [
            {"label": label, "index": index, **dict(zip(FIGURES, figures, strict=True))}
            for index, (label, *figures) in enumerate(zip(self.labels, *columns, strict=True))
        ]
        return {**members, "per_class": per_class}


def compute_metrics(
    true: NDArray[np.integer[Any]], scores: NDArray[np.floating[Any]], labels: Sequence[str]
) -> Metrics:
    """Computes the metrics of predictions; the class with the best score is the predicted one.

    Args:
        true: integers[n] from 0 to C - 1, the true classes.
        scores: float32[n, C], usually probabilities.
        labels: names of the C classes.

    Raises:
        ValueError: the shapes do not match, a class is out of range, or a score is NaN.
    """
    import numpy as np

    classes = len(labels)
    if scores.ndim != 2 or scores.shape[1] != classes or true.shape != scores.shape[:1] or classes == 0:
        raise ValueError(
            f"{classes} labels and true classes of shape {true.shape} need scores[n, C]; received {scores.shape}"
        )
    if len(true) and not 0 <= true.min() <= true.max() < classes:
        raise ValueError(f"true classes must be from 0 to {classes - 1}; received {true.min()} to {true.max()}")
    target, n = true.astype(np.int64), len(true)
    predicted, best, rank = _ranked(target, scores)
    confusion = np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    figures = class_figures(confusion.diagonal(), confusion.sum(1), confusion.sum(0))
    probabilities = n and are_probabilities(scores)
    return Metrics(
        labels=tuple(labels),
        n=n,
        top1=float(np.mean(rank < 1)) if n else None,
        top5=float(np.mean(rank < TOP_K)) if n else None,
        confusion=confusion,
        ece=calibrate(best, predicted == target).error if probabilities else None,
        **asdict(figures),
    )


def class_figures(right: NDArray[np.int64], support: NDArray[np.int64], guessed: NDArray[np.int64]) -> ClassFigures:
    """Computes figures from the numbers of images of each class, int64[C]: rightly predicted, true, and predicted."""
    figures = {
        "precision": _ratio(right, guessed),
        "recall": _ratio(right, support),
        "f1": _ratio(2 * right, support + guessed),
    }
    occurring, n = support + guessed > 0, int(support.sum())
    return ClassFigures(
        support=support,
        macro={name: float(values[occurring].mean()) if n else 0.0 for name, values in figures.items()},
        weighted={name: float(values @ support / n) if n else 0.0 for name, values in figures.items()},
        **figures,
    )


def are_probabilities(scores: NDArray[np.floating[Any]]) -> bool:
    """Returns whether scores, at least one, are from 0 to 1, with a margin for rounding to few bits."""
    return bool(scores.min() >= 0 and scores.max() <= 1.01)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Predictions in M intervals of their confidence; interval m is ((m - 1) / M, m / M], the first one with 0.

    Attributes:
        counts: int64[M], number of predictions.
        confidence, right: float64[M], the sum of their confidences, and how many of them are right.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of the best probability from the accuracy.

        Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017 (arXiv 1706.04599), equation
        3: the mean of |accuracy - confidence| over the intervals, weighted by their number of predictions.
        """
        import numpy as np

        return float(np.abs(self.right - self.confidence).sum() / self.counts.sum())


def calibrate(
    confidence: NDArray[np.floating[Any]], right: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> Calibration:
    """Sorts n predictions into intervals of the confidence, float[n] from 0 to 1; `right` is bool[n], `bins` is M."""
    import numpy as np

    confidence = confidence.astype(np.float64)
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # NumPy's types have it that weights are counted as integers.
    sums: list[Any] = [np.bincount(number, weights, minlength=bins) for weights in (confidence, right)]
    return Calibration(np.bincount(number, minlength=bins), *sums)


def _ranked(
    true: NDArray[np.int64], scores: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Returns for each image the predicted class, its score, and how many classes score better than the true one."""
    import numpy as np

    n, classes = scores.shape
    predicted, rank, best = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, scores.dtype)
    step = max(1, _CHUNK // classes)
    for start in range(0, n, step):
        part = slice(start, start + step)
        some, at = scores[part], true[part, None]
        predicted[part] = some.argmax(1)
        best[part] = some.max(1)  # is NaN if any score is
        own = np.take_along_axis(some, at, 1)
        rank[part] = (some > own).sum(1) + ((some == own) & (np.arange(classes) < at)).sum(1)
    if np.isnan(best).any():
        raise ValueError(f"{int(np.isnan(best).sum())} of {n} images have a score that is NaN")
    return predicted, best, rank


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
