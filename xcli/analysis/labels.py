"""Labels that are likely wrong: what the other images say of each label, by their features.

Two judges that err in different ways. A logistic regression on the leading components of the features is fitted to four
fifths of the images and judges the others, five times. And the nearest neighbours of an image among all others, after
whitening, vote with a weight that grows with their likeness. The logarithms of both are added. `python -m benchmarks
labels` measures how many labels changed on purpose they find.

The judges are fitted to a sample where images are many; all images are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.analysis.nearest import unit_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.whitening import Whitening

MAX_GIVEN = 0.01
"""A label is likely wrong if its probability is below this, and that of another one is above `MIN_SUGGESTED`. Of 3,409
photographs of clothes with 5 % of their labels changed, this finds 82 % of these, and is right in 92 %."""

MIN_SUGGESTED = 0.5

FIT_IMAGES = 20_000
"""Images to which the judges are fitted, about; of each class at least `MIN_SHARE`, if it has so many."""

MIN_SHARE = 20

MIN_IMAGES = 5
"""Images of a class with which it takes part: with fewer, some fold has none."""

MAX_CLASSES = 2_000
"""With more classes a regression takes hours, and the neighbours judge alone."""

NEIGHBOURS = 20

_FOLDS = 5
_VOTING = 256  # whitened components in which neighbours are found
_VOTE = 0.5  # weight of the neighbours' logarithms
_TEMPERATURE = 0.1  # of the weight of a neighbour by its cosine
_PRIOR = 0.3  # votes for the classes as frequent as they are, as a share of an image's usual votes
_LENGTH = 45.0  # of the regression's vectors, in the mean of their squares
_INVERSE_PENALTY = 0.001  # C of the regression
_LEAST = 1e-6
_BLOCK = 2048


class Judged(NamedTuple):
    """What is thought of the labels of b images.

    Attributes:
        given: float32[b], probability of the label that an image has.
        suggested: int64[b], number of the most probable other class.
        best: float32[b], its probability.
        witness: int64[b], number in the sample of the nearest neighbour that has the suggested class; -1 for none.
    """

    given: NDArray[np.float32]
    suggested: NDArray[np.int64]
    best: NDArray[np.float32]
    witness: NDArray[np.int64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Which labels are likely wrong."""
        found: NDArray[np.bool_] = (self.given < MAX_GIVEN) & (self.best > MIN_SUGGESTED)
        return found


def choose_sample(labels: NDArray[np.integer[Any]], count: int = FIT_IMAGES) -> NDArray[np.int64]:
    """Returns the places of the images to which the judges are fitted, ascending.

    Args:
        labels: int[n], numbers of classes; -1 for images that have none, or no features.
        count: about how many.
    """
    import numpy as np

    counts = np.bincount(labels[labels >= 0]) if (labels >= 0).any() else np.zeros(0, np.int64)
    total = int(counts[counts >= MIN_IMAGES].sum())
    random, chosen = np.random.default_rng(0), [np.zeros(0, np.int64)]
    for label in np.flatnonzero(counts >= MIN_IMAGES).tolist():
        own = np.flatnonzero(labels == label)
        wanted = min(len(own), max(MIN_SHARE, round(len(own) * min(1.0, count / total))))
        chosen.append(own if wanted == len(own) else random.choice(own, wanted, replace=False))
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True, eq=False)
class LabelJudges:
    """Judges that were fitted to a sample of m images of k classes.

    Attributes:
        whitening: of the features.
        classes: int64[k], the numbers of the classes that take part, ascending.
        labels: int64[m], of the sample, as places in `classes`.
        neighbours: float32[m, _VOTING], where the sample is looked for neighbours.
        frequency: float64[k], share of each class.
        usual: the mean weight of a neighbour.
        folds: int64[m], of the sample.
        weights: float32[folds, c + 1, k], the regression without each fold: coefficients, then intercepts; None where
            there are too many classes, or all images are the same.
        directions: float32[d, c], principal components, divided by the scale of the features.
    """

    whitening: Whitening
    classes: NDArray[np.int64]
    labels: NDArray[np.int64]
    neighbours: NDArray[np.float32]
    frequency: NDArray[np.float64]
    usual: float
    folds: NDArray[np.int64]
    weights: NDArray[np.float32] | None
    directions: NDArray[np.float32]

    def judge(self, values: NDArray[np.float32], labels: NDArray[np.integer[Any]], own: NDArray[np.int64]) -> Judged:
        """Judges the labels of some images.

        Args:
            values: float32[b, d], features.
            labels: int[b], numbers of classes, all of which take part.
            own: int64[b], the number of each image in the sample, by which it is not its own witness; -1 for none.
        """
        import numpy as np

        parts = [np.zeros((4, 0))]
        for at in range(0, len(values), _BLOCK):
            here = slice(at, at + _BLOCK)
            given = np.searchsorted(self.classes, labels[here])
            parts.append(np.stack(self._judge(values[here], given, own[here])))
        given, suggested, best, witness = np.concatenate(parts, axis=1)
        return Judged(
            given.astype(np.float32),
            self.classes[suggested.astype(np.int64)],
            best.astype(np.float32),
            witness.astype(np.int64),
        )

    def _judge(
        self, values: NDArray[np.float32], given: NDArray[np.int64], own: NDArray[np.int64]
    ) -> tuple[NDArray[Any], ...]:
        import numpy as np

        rows = np.arange(len(values))
        places, weights = _nearest(_voting(self.whitening, values), self.neighbours, own)
        votes = np.zeros((len(values), len(self.classes)))
        np.add.at(votes, (rows[:, None], self.labels[places]), weights)
        prior = _PRIOR * self.usual
        votes = (votes + prior * self.frequency) / (votes.sum(axis=1, keepdims=True) + prior)
        logits = np.log(votes + _LEAST) * (1.0 if self.weights is None else _VOTE)
        if self.weights is not None:
            logits += self._regression(values, own)
        chances = _softmax(logits)
        rest = chances.copy()
        rest[rows, given] = -1
        suggested = rest.argmax(axis=1)
        # Neighbours are in the order of their likeness.
        agree = self.labels[places] == suggested[:, None]
        witness = np.where(agree.any(axis=1), places[rows, agree.argmax(axis=1)], -1)
        return chances[rows, given], suggested, rest[rows, suggested], witness

    def _regression(self, values: NDArray[np.float32], own: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns logarithms of probabilities, of each image by the regressions that have not seen it."""
        import numpy as np

        assert self.weights is not None
        there = (values - self.whitening.mean) @ self.directions
        folds = np.where(own >= 0, self.folds[own], -1)
        sums = np.zeros((len(values), len(self.classes)))
        for fold, weights in enumerate(self.weights):
            rows = np.flatnonzero((folds == fold) | (folds == -1))
            sums[rows] += np.log(_softmax((there[rows] @ weights[:-1] + weights[-1]).astype(np.float64)) + _LEAST)
        sums[folds == -1] /= len(self.weights)
        return sums


def fit_judges(values: NDArray[np.float32], labels: NDArray[np.integer[Any]], whitening: Whitening) -> LabelJudges:
    """Fits the judges.

    Args:
        values: float32[m, d], features of the images that `choose_sample` chose.
        labels: int[m], numbers of their classes, at least two different ones.
        whitening: of the features.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    classes, own = np.unique(labels, return_inverse=True)
    neighbours = _voting(whitening, values)
    numbers, blocks = np.arange(len(values)), range(0, len(values), _BLOCK)
    usual = sum(
        _nearest(neighbours[at : at + _BLOCK], neighbours, numbers[at : at + _BLOCK])[1].mean(axis=1).sum()
        for at in blocks
    ) / len(values)
    directions = _principal(whitening)
    there = (values - whitening.mean) @ directions
    # Vectors get the same length for all kinds of features, so that the penalty is the same.
    length = float(np.sqrt(np.einsum("ij,ij->", there, there, dtype=np.float64) / len(there)))
    scale = length / _LENGTH or 1.0
    there /= np.float32(scale)
    folds, weights = _folds(own), None
    if len(classes) <= MAX_CLASSES and there.shape[1]:
        weights = np.zeros((_FOLDS, there.shape[1] + 1, len(classes)), np.float32)
        for fold, made in enumerate(weights):
            seen = folds != fold
            fitted = LogisticRegression(C=_INVERSE_PENALTY, max_iter=100, tol=1e-3).fit(there[seen], own[seen])
            made[:] = _of_all(np.vstack([fitted.coef_.T, fitted.intercept_]))
    return LabelJudges(
        whitening,
        classes.astype(np.int64),
        own,
        neighbours,
        np.bincount(own) / len(own),
        float(usual),
        folds,
        weights,
        directions / np.float32(scale),
    )


def _of_all(weights: NDArray[Any]) -> NDArray[Any]:
    """Returns the weights of both classes where there are two, of which the library has only the second."""
    import numpy as np

    return np.hstack([-weights / 2, weights / 2]) if weights.shape[1] == 1 else weights


def _folds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divides each class evenly among the folds, at random."""
    import numpy as np

    random, folds = np.random.default_rng(0), np.empty(len(labels), np.int64)
    for label in np.unique(labels).tolist():
        own = random.permutation(np.flatnonzero(labels == label))
        folds[own] = np.arange(len(own)) % _FOLDS
    return folds


def _principal(whitening: Whitening) -> NDArray[np.float32]:
    """Returns the principal components of the fit at unit length, float32[d, c]."""
    import numpy as np

    lengths = np.linalg.norm(whitening.projection, axis=0)
    found: NDArray[Any] = whitening.projection[:, lengths > 0] / lengths[lengths > 0]
    return found


def _voting(whitening: Whitening, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns features whitened, at unit length, in the leading components: float32[n, _VOTING or fewer]."""
    there: NDArray[Any] = (values - whitening.mean) @ whitening.projection[:, :_VOTING]
    return unit_vectors(there)


def _nearest(
    values: NDArray[np.float32], sample: NDArray[np.float32], own: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the nearest images of the sample, int64[b, NEIGHBOURS or fewer], nearest first, and their weights."""
    import numpy as np

    products = values @ sample.T
    rows = np.flatnonzero(own >= 0)
    products[rows, own[rows]] = -np.inf
    count = min(NEIGHBOURS, len(sample) - 1)
    places = np.argpartition(-products, count - 1, axis=1)[:, :count]
    found = np.take_along_axis(products, places, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    places, found = np.take_along_axis(places, order, axis=1), np.take_along_axis(found, order, axis=1)
    return places, np.exp(found.astype(np.float64) / _TEMPERATURE)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    found: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found
