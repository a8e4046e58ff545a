"""Training examples in batches: the view of each image, the order and the mixup of each epoch follow from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowSubset:
    """Some rows of an array that may be on disk.

    Attributes:
        array: [n, ...].
        rows: int64[m], indices of rows.
    """

    array: NDArray[Any]
    rows: NDArray[np.int64]

    def take(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Returns a copy of those of the m rows that have these indices."""
        import numpy as np

        return np.asarray(self.array[self.rows[numbers]])

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Images to validate on.

    Attributes:
        x: activations at the cut, of m images.
        classes: int64[m].
    """

    x: RowSubset
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of a fixed size; the last one of an epoch is padded with examples without weight.

    Attributes:
        x: [b, ...] activations.
        targets: float32[b, classes], each a distribution.
        importance: float32[b]; 0 for padding.
        count: examples that are not padding.
    """

    x: NDArray[Any]
    targets: NDArray[np.float32]
    importance: NDArray[np.float32]
    count: int


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Images in several views, with their classes.

    Attributes:
        views: one `RowSubset` for each view, all of the same m images.
        usable: bool[views, m]: whether an image has that view; all images have the first one.
        classes: int64[m].
        count: number of classes.
        weights: float32[classes], weight of an example of each class.
    """

    views: Sequence[RowSubset]
    usable: NDArray[np.bool_]
    classes: NDArray[np.int64]
    count: int
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.classes)

    def steps(self, batch_size: int) -> int:
        """Returns the number of batches of one epoch."""
        return -(-len(self) // batch_size)

    def epoch(self, number: int, batch_size: int, seed: int, mixup: float) -> Iterator[Batch]:
        """Yields the batches of one epoch: every image once, in one of its views, in random order.

        Each image goes through its views in turn, beginning with a random one, so that all of its views have been used
        after as many epochs as there are views.

        Args:
            number: of the epoch, from 0.
            batch_size: examples in a batch.
            seed: all random numbers follow from it and the number of the epoch.
            mixup: parameter of the beta distribution for blending pairs of examples; 0 turns mixup off.
        """
        import numpy as np

        rng = np.random.default_rng([seed, 2, number])
        first = np.random.default_rng([seed, 3]).integers(0, len(self.views), len(self))
        chosen = (first + number) % len(self.views)
        chosen = np.where(self.usable[chosen, np.arange(len(self))], chosen, 0)
        order = rng.permutation(len(self))
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            count = len(numbers)
            padded = np.concatenate([numbers, np.repeat(numbers[:1], batch_size - count)])
            yield self._batch(padded, chosen[padded], count, rng, mixup)

    def _batch(
        self,
        numbers: NDArray[np.int64],
        views: NDArray[np.int64],
        count: int,
        rng: np.random.Generator,
        mixup: float,
    ) -> Batch:
        import numpy as np

        parts = [(np.flatnonzero(views == view), view) for view in np.unique(views)]
        x: Any = None
        for where, view in parts:
            rows = self.views[view].take(numbers[where])
            if x is None:
                x = np.empty((len(numbers), *rows.shape[1:]), rows.dtype)
            x[where] = rows
        targets = np.eye(self.count, dtype=np.float32)[self.classes[numbers]]
        importance = self.weights[self.classes[numbers]].copy()
        importance[count:] = 0
        if mixup:
            x, targets = apply_mixup(x, targets, count, rng, mixup)
        return Batch(x, targets, importance, count)


def apply_mixup(
    x: NDArray[Any], targets: NDArray[np.float32], count: int, rng: np.random.Generator, mixup: float
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Blends each of the first `count` examples with another one, whose share is the smaller one.

    Args:
        x: [b, ...].
        targets: float32[b, classes].
        count: examples that are not padding.
        rng: the source of random numbers.
        mixup: parameter of the beta distribution of the shares.

    Returns:
        The blends, in the dtype of `x` (pixels are rounded), and their targets.
    """
    import numpy as np

    share = rng.beta(mixup, mixup, len(x))
    share = np.maximum(share, 1 - share).astype(np.float32)
    other = np.concatenate([rng.permutation(count), np.arange(count, len(x))])
    wide = share.reshape(-1, *[1] * (x.ndim - 1))
    blend = x.astype(np.float32) * wide + x[other].astype(np.float32) * (1 - wide)
    if x.dtype == np.uint8:
        blend = np.rint(blend)
    return blend.astype(x.dtype), targets * share[:, None] + targets[other] * (1 - share[:, None])


def balanced_weights(classes: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Returns class weights: the square root of the inverse frequency, scaled to a mean of 1 over the examples.

    The inverse frequency itself would give the few images of a rare class so much weight that they are overfitted.

    Args:
        classes: int64[m].
        count: number of classes.

    Returns:
        float32[count].
    """
    import numpy as np

    members = np.bincount(classes, minlength=count)
    weights = 1 / np.sqrt(np.maximum(members, 1))
    total: NDArray[np.float64] = weights * len(classes) / (weights * members).sum()
    return total.astype(np.float32)
