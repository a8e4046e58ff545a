"""The activations of a data set with its classes, for validation and, in batches, for training.

The view of each image, the order and the mixup of each epoch follow from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError
from xcli.sources.splits import TEST, TRAIN, VALIDATION
from xcli.training.split import Example, Split, quote_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.training.activations import ActivationExtractor, ViewActivations
    from xcli.training.callbacks import Callbacks


@dataclass(frozen=True, slots=True)
class RowSubset:
    """Some rows of an array [n, ...] that may be on disk: those with the indices `rows`, int64[m]."""

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
    """Images to validate on: the activations of m images at the cut, and their classes, int64[m]."""

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
            numbers = np.concatenate([numbers, np.repeat(numbers[:1], batch_size - count)])
            views = chosen[numbers]
            array = self.views[0].array
            x = np.empty((len(numbers), *array.shape[1:]), array.dtype)
            for view in np.unique(views):
                x[views == view] = self.views[view].take(numbers[views == view])
            targets = np.eye(self.count, dtype=np.float32)[self.classes[numbers]]
            importance = self.weights[self.classes[numbers]].copy()
            importance[count:] = 0
            if mixup:
                x, targets = apply_mixup(x, targets, count, rng, mixup)
            yield Batch(x, targets, importance, count)


def apply_mixup(
    x: NDArray[Any], targets: NDArray[np.float32], count: int, rng: np.random.Generator, mixup: float
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Blends each of the first `count` examples, which are not padding, with another one that has the smaller share.

    `x` is [b, ...], the targets are float32[b, classes], and `mixup` is the parameter of the beta distribution of the
    shares. Returns the blends, in the dtype of `x` (pixels are rounded), and their targets.
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
    """Returns class weights float32[count]: the square root of the inverse frequency in `classes`, int64[m].

    They are scaled to a mean of 1 over the examples. The inverse frequency itself would give the few images of a rare
    class so much weight that they are overfitted.
    """
    import numpy as np

    members = np.bincount(classes, minlength=count)
    weights = 1 / np.sqrt(np.maximum(members, 1))
    return (weights * len(classes) / (weights * members).sum()).astype(np.float32)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Activations of the n images of the training and validation parts.

    Attributes:
        images: in the order of the data.
        labels: class names, in the order of the model's outputs.
        views: the activations: the first view of all images, further views of the training images only.
        further_rows: int64[n], the row of each training image in the further views.
    """

    images: tuple[Example, ...]
    labels: tuple[str, ...]
    views: tuple[ViewActivations, ...]
    further_rows: NDArray[np.int64]

    @property
    def errors(self) -> dict[int, str]:
        """`reason: message` of the images that cannot be read, by index."""
        return self.views[0].errors

    def training_set(self, *, pooled: bool, balance: bool) -> TrainingSet:
        """Returns the readable training images, pooled features or maps; `balance` gives rare classes more weight."""
        import numpy as np

        images, count = self.readable(TRAIN), len(self.labels)
        classes = self._classes(images)
        rows = [images, *[self.further_rows[images]] * (len(self.views) - 1)]
        pairs = list(zip(self.views, rows, strict=True))
        return TrainingSet(
            [self._subset(view, some, pooled) for view, some in pairs],
            np.stack([~np.isin(some, list(view.errors)) for view, some in pairs]),
            classes,
            count,
            balanced_weights(classes, count) if balance else np.ones(count, np.float32),
        )

    def validation_set(self, *, pooled: bool) -> ValidationSet | None:
        """Returns the validation images that can be read, or None if there are none."""
        images = self.readable(VALIDATION)
        if not len(images):
            return None
        return ValidationSet(self._subset(self.views[0], images, pooled), self._classes(images))

    def readable(self, part: str) -> NDArray[np.int64]:
        """Returns the indices, int64[m], of the images of one part that can be read."""
        import numpy as np

        indices = [index for index, one in enumerate(self.images) if one.split == part and index not in self.errors]
        return np.array(indices, np.int64)

    def _classes(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        import numpy as np

        index = {label: number for number, label in enumerate(self.labels)}
        return np.array([index[self.images[image].sample.label] for image in images], np.int64)

    def _subset(self, view: ViewActivations, rows: NDArray[np.int64], pooled: bool) -> RowSubset:
        array = view.pooled if pooled else view.maps
        assert array is not None, "the cut is within the network, so there are maps"
        return RowSubset(array, rows)


def extract_activations(split: Split, views: int, extractor: ActivationExtractor, callbacks: Callbacks) -> TrainingData:
    """Computes the activations of all views, or takes them from the cache.

    Images of the test part are left out; the training images have `views` views.

    Raises:
        SourceError: no training image of a class can be read.
        UsageError: the activations take more than the cache may.
        OutputError: the cache cannot be written.
    """
    import numpy as np

    images = tuple(one for one in split.examples if one.split != TEST)
    found = extractor.extract([images, *[split.part(TRAIN)] * (views - 1)], callbacks)
    further_rows = np.cumsum([one.split == TRAIN for one in images]) - 1
    data = TrainingData(images, split.labels, tuple(found), further_rows)
    usable = {images[index].sample.label for index in data.readable(TRAIN)}
    lacking = [label for label in split.labels if label not in usable]
    if lacking:
        reason = next(text for index, text in data.errors.items() if images[index].sample.label == lacking[0])
        raise SourceError(f"no training image of {quote_names(lacking)} can be read (the first: {reason})")
    return data
