"""The activations of a data set with its classes, as what trains and what validates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import SourceError
from xcli.sources.labelled import TEST, TRAIN, VALIDATION
from xcli.training.batches import RowSubset, TrainingSet, ValidationSet, balanced_weights
from xcli.training.split import quote_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.training.activations import ActivationExtractor, ViewActivations
    from xcli.training.callbacks import Callbacks
    from xcli.training.split import Example, Split


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
        """The images that cannot be read, by index: `reason: message`."""
        return self.views[0].errors

    def training_set(self, *, pooled: bool, balance: bool) -> TrainingSet:
        """Returns the training images that can be read.

        Args:
            pooled: take pooled features, not maps at the cut.
            balance: give rare classes more weight.
        """
        import numpy as np

        images, count = self._readable(TRAIN), len(self.labels)
        rows = [images, *[self.further_rows[images]] * (len(self.views) - 1)]
        usable = [~np.isin(some, list(view.errors)) for some, view in zip(rows, self.views, strict=True)]
        classes = self._classes(images)
        return TrainingSet(
            [self._subset(view, some, pooled) for view, some in zip(self.views, rows, strict=True)],
            np.stack(usable),
            classes,
            count,
            balanced_weights(classes, count) if balance else np.ones(count, np.float32),
        )

    def validation_set(self, *, pooled: bool) -> ValidationSet | None:
        """Returns the validation images that can be read, or None if there are none."""
        images = self._readable(VALIDATION)
        if not len(images):
            return None
        return ValidationSet(self._subset(self.views[0], images, pooled), self._classes(images))

    def check_classes(self) -> None:
        """Checks that every class has a training image that can be read.

        Raises:
            SourceError: a class has none.
        """
        usable = {self.images[index].sample.label for index in self._readable(TRAIN)}
        lacking = [label for label in self.labels if label not in usable]
        if lacking:
            reason = next(text for index, text in self.errors.items() if self.images[index].sample.label == lacking[0])
            raise SourceError(f"no training image of {quote_names(lacking)} can be read (the first: {reason})")

    def _readable(self, part: str) -> NDArray[np.int64]:
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

    Args:
        split: the images; those of the test part are left out.
        views: number of views of each training image.
        extractor: computes activations.
        callbacks: called during the computation.

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
    data.check_classes()
    return data
