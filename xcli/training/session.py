"""The course of a fine-tuning: activations, then the phases of training, from the last checkpoint on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError
from xcli.inference.options import LONG_RUN
from xcli.sources.labelled import TEST, TRAIN, VALIDATION
from xcli.training.batches import RowSubset, TrainingSet, balanced_weights
from xcli.training.freezing import cut_below
from xcli.training.recipe import HEAD, Recipe
from xcli.training.split import Split, named
from xcli.training.trainable import TrainableLayers
from xcli.training.trainer import EpochMetrics, Phase, Scorer, Trainer, TrainingState, ValidationSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights
    from xcli.training.activation_cache import ActivationCache
    from xcli.training.activations import ActivationExtractor, View
    from xcli.training.base_model import BaseModel
    from xcli.training.checkpoints import Checkpoints
    from xcli.training.distribution import Replicas
    from xcli.training.split import Example

_SCORED = 256
"""Pooled features scored at a time."""


class Callbacks:
    """What is told of a run while it is under way; this one keeps it to itself."""

    def computing(self, images: int) -> None:
        """So many activations are about to be computed; the count includes the views."""

    def computed(self, images: int) -> None:
        """So many more have been."""

    def cached(self, reused: int, views: int, size: int, cache: ActivationCache) -> None:
        """Of the views so many were in the cache; all of them take `size` bytes there."""

    def phase(self, phase: Phase, done: int) -> None:
        """A phase begins, or goes on after `done` epochs."""

    def step(self, step: int, steps: int) -> None:
        """So many steps of the epoch are done."""

    def epoch(self, row: EpochMetrics, phase: Phase) -> None:
        """An epoch is done."""

    def scoring(self) -> None:
        """The finished model is being tried on the images that it was not trained on."""


@dataclass(slots=True)
class TrainingSession:
    """One run, from its split to its weights.

    Attributes:
        split: the images.
        base: what training starts from.
        recipe: how to train.
        dtype: of the arithmetic in the trained layers.
        replicas: the devices that train.
        watch: is told how it goes.
        bad: those of `images` that cannot be read, by number: `reason: message`; after `prepare`.
    """

    split: Split
    base: BaseModel
    recipe: Recipe
    dtype: str
    replicas: Replicas
    watch: Callbacks
    bad: dict[int, str] = field(default_factory=dict)
    _views: list[View] = field(default_factory=list, init=False)
    _train: Any = field(default=None, init=False)
    _places: Any = field(default=None, init=False)

    @property
    def images(self) -> tuple[Example, ...]:
        """The images that training has to do with, in the order of the data: all but the test part."""
        return tuple(one for one in self.split.examples if one.split != TEST)

    def prepare(self, extractor: ActivationExtractor) -> None:
        """Computes the activations of all views, and sorts out the images that cannot be read."""
        import numpy as np

        examples, trained = self.images, self.split.part(TRAIN)
        views = self.recipe.view_count
        lists = [examples, *([trained] * (views - 1))]
        keys = [extractor.key(one, view) for view, one in enumerate(lists)]
        each = extractor.cut.bytes_per_image(extractor.preprocessing.size)
        extractor.cache.reserve(keys, each * sum(map(len, lists)))
        missing = [one for key, one in zip(keys, lists, strict=True) if extractor.cache.description(key) is None]
        if missing:
            self.watch.computing(sum(map(len, missing)))
            extractor.on_batch = self.watch.computed
            extractor.long = sum(map(len, missing)) >= LONG_RUN
        self._views = [extractor.view(one, view) for view, one in enumerate(lists)]
        reused, size = sum(view.reused for view in self._views), sum(view.size for view in self._views)
        self.watch.cached(reused, views, size, extractor.cache)
        self.bad = self._views[0].errors
        good = [index for index, one in enumerate(examples) if one.split == TRAIN and index not in self.bad]
        place = {index: number for number, index in enumerate(i for i, e in enumerate(examples) if e.split == TRAIN)}
        self._train = np.array(good, np.int64)
        self._places = np.array([place[index] for index in good], np.int64)
        self._check()

    def _check(self) -> None:
        images = self.images
        there = {images[index].sample.label for index in self._train}
        lacking = [label for label in self.split.labels if label not in there]
        if lacking:
            reason = next(text for index, text in self.bad.items() if images[index].sample.label == lacking[0])
            raise SourceError(f"no training image of {named(lacking)} can be read (the first: {reason})")

    def train(self, checkpoints: Checkpoints, state: dict[str, Any] | None) -> tuple[Weights, TrainingState]:
        """Trains all phases; `prepare` comes first.

        Args:
            checkpoints: where to keep the state.
            state: what they have loaded, to go on from, or None.

        Returns:
            The best weights of the last phase, calibrated if that is wanted, and the course.
        """
        progress = TrainingState.of(state) if state is not None else TrainingState()
        weights: Weights = {}
        if state is not None and progress.epoch == 0 and progress.phase:
            weights = checkpoints.arrays(start_name(progress.phase))
        phases = self.recipe.phases()
        while progress.phase < len(phases):
            phase = phases[progress.phase]
            self.watch.phase(phase, progress.epoch)
            trainer = self._trainer(phase, weights, checkpoints)
            weights = trainer.run(progress)
            if phase is phases[-1] and self.recipe.calibrate:
                weights, progress.temperature = trainer.calibrated(weights)
            progress.phase, progress.epoch = progress.phase + 1, 0
            progress.best_epoch, progress.best = 0, (-1.0, 0.0)
            checkpoints.write(start_name(progress.phase), weights)
            checkpoints.commit(progress.as_dict(), {start_name(progress.phase)})
        return weights, progress

    def _trainer(self, phase: Phase, weights: Weights, checkpoints: Checkpoints) -> Trainer:
        import numpy as np

        recipe, classes = self.recipe, len(self.split.labels)
        cut = cut_below("none" if phase.name == HEAD else recipe.unfreeze)
        arrays = [view.pooled if cut.tap is None else view.maps for view in self._views]
        rows = [self._train, *([self._places] * (len(arrays) - 1))]
        usable = np.ones((len(arrays), len(self._train)), bool)
        for number, view in enumerate(self._views[1:], start=1):
            usable[number] = ~np.isin(self._places, list(view.errors))
        truth = self._classes()
        data = TrainingSet(
            [RowSubset(array, row) for array, row in zip(arrays, rows, strict=True)],  # type: ignore[arg-type]
            usable,
            truth[self._train],
            classes,
            balanced_weights(truth[self._train], classes)
            if recipe.class_weights == "auto"
            else np.ones(classes, np.float32),
        )
        start = {**self.base.weights, **weights}

        def tail() -> TrainableLayers:
            return TrainableLayers(cut, start, classes, dtype=self.dtype, scaling=self.base.scaling, seed=recipe.seed)

        numbers = self._validation()
        held = ValidationSet(RowSubset(arrays[0], numbers), truth[numbers]) if len(numbers) else None  # type: ignore[arg-type]
        scorer = Scorer(tail(), _SCORED if cut.tap is None else recipe.batch_size)
        with self.replicas.scope():
            trained = tail()
        return Trainer(
            phase,
            trained,
            data,
            scorer=scorer if held is not None else None,
            held=held,
            seed=recipe.seed,
            checkpoints=checkpoints,
            on_epoch=self.watch.epoch,
            on_step=self.watch.step,
            replicas=self.replicas,
        )

    def _classes(self) -> NDArray[np.int64]:
        """The class of every image, in the order of the data."""
        import numpy as np

        index = {label: number for number, label in enumerate(self.split.labels)}
        return np.array([index[example.sample.label] for example in self.images], np.int64)

    def _validation(self) -> NDArray[np.int64]:
        import numpy as np

        chosen = (i for i, one in enumerate(self.images) if one.split == VALIDATION and i not in self.bad)
        return np.array(list(chosen), np.int64)


def start_name(phase: int) -> str:
    """Name of the weights that a phase starts from; behind the last phase, of the finished ones."""
    return f"start-{phase}.npz"
