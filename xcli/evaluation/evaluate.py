"""Evaluation: labelled images through a model, with folder names matched to its classes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError, SourceError, UsageError
from xcli.core.records import ERROR, FEATURES, ImageBatch, ImageRef, RunCounts
from xcli.evaluation.metrics import Metrics, compute_metrics
from xcli.inference.options import RunOptions
from xcli.inference.profiler import Profile
from xcli.inference.run import Run
from xcli.models.labels import Labels, match_labels
from xcli.sources.listing import Listing
from xcli.sources.options import SourceOptions
from xcli.sources.splits import SPLITS, TEST, VALIDATION
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.tasks import Results, Shapes
    from xcli.models.network import ForwardPass, LoadedModel
    from xcli.sources.labelled import LabelledImages, Sample

ALL = "all"
SPLIT_CHOICES = (*SPLITS, ALL)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome for one labelled image.

    Attributes:
        ref: the image.
        label: name of its true class, as the model spells it.
        predicted, score: of the best class; None for an image that could not be read.
        correct: whether the best class is the true one; None for an image that could not be read.
        error: why the image could not be read, as in the `error` column; else None.
    """

    ref: ImageRef
    label: str
    predicted: str | None = None
    score: float | None = None
    correct: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A model's scores of labelled images.

    Attributes:
        samples: the n images.
        true: int64[n], index of each image's class among those of the model.
        scores: float32[n, C], probabilities if the model's head gives probabilities; ignored where there is an error.
        errors: for each image why it could not be read, as in the `error` column, or None.
        labels: names of the C classes.
        report: counts of images, and of errors by reason.
        provenance: of the scores, as in a table's metadata.
        profile: seconds by stage of the computation.
        seconds: from the first image to the last.
    """

    samples: tuple[Sample, ...]
    true: NDArray[np.int64]
    scores: NDArray[np.float32]
    errors: tuple[str | None, ...]
    labels: tuple[str, ...]
    report: RunCounts = field(default_factory=RunCounts)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile = field(default_factory=Profile)
    seconds: float = 0.0

    def metrics(self) -> Metrics:
        """Returns the metrics of the images that could be read.

        Raises:
            ModelError: a score is NaN.
        """
        import numpy as np

        read = np.array([error is None for error in self.errors], bool)
        # Indexing with the mask copies all scores, so it is avoided when there are no errors.
        scores = self.scores if read.all() else self.scores[read]
        try:
            return compute_metrics(self.true[read], scores, self.labels)
        except ValueError as error:
            raise ModelError(f"the scores of the model cannot be used: {error}; try --precision float32") from error

    def predictions(self) -> list[Prediction]:
        """Returns the outcome for each image, in the order of the samples."""
        best, scores = self.scores.argmax(1).tolist(), self.scores.max(1).tolist()
        columns = (self.samples, self.true.tolist(), best, scores, self.errors)
        found = []
        for sample, true, guess, score, error in zip(*columns, strict=True):
            one = Prediction(sample.ref, self.labels[true], error=error)
            if error is None:
                one = replace(one, predicted=self.labels[guess], score=score, correct=true == guess)
            found.append(one)
        return found


@dataclass(frozen=True, slots=True)
class ScoresTask:
    """All scores of each image, in the column `features`; a `xcli.inference.tasks.Task`."""

    labels: Labels

    def forward(self, model: LoadedModel) -> ForwardPass:
        return model.scores()

    def schema(self, shapes: Shapes, extra: Any) -> pa.Schema:
        return features_schema(shapes[0], "float32", extra)

    def values(self, results: Results) -> Results:
        return results

    def rows(self, schema: pa.Schema, batch: ImageBatch, values: Results) -> pa.RecordBatch:
        return features_batch(schema, batch.refs, batch.errors, values[0])

    def settings(self) -> dict[str, Any]:
        return {"labels": {"source": self.labels.source, "sha256": self.labels.digest}}


def evaluate(
    samples: Sequence[Sample],
    model: LoadedModel,
    preprocessing: Preprocessing,
    options: RunOptions | None = None,
    *,
    skipped: Mapping[str, int] | None = None,
    on_batch: Callable[[ImageBatch], None] | None = None,
) -> Evaluation:
    """Computes the scores of labelled images, by the same pipeline and engine as `classify`.

    All scores are held in memory: 4 bytes for each image and class, 200 MB for the 50,000 images of ImageNet's
    validation set. If some images cannot be read, `Evaluation.metrics` makes a second copy.

    Args:
        samples: the images, at least one.
        model: it must have a classifier.
        preprocessing: how images become pixels.
        options: how to use the machine.
        skipped: counts of skipped directory entries by reason, for the report.
        on_batch: called after every batch.

    Raises:
        SourceError: a label matches no class of the model, or more than one.
        ModelError: the model has no classifier.
    """
    import numpy as np

    if model.labels is None:
        raise ModelError(f"{model.name} has no classifier on top, so there is nothing to evaluate")
    indices = match_labels(sorted({sample.label for sample in samples}), model.labels)
    # A listing needs options; these only name the sources in messages.
    listing = Listing(iter([sample.ref for sample in samples]), SourceOptions(("labelled images",)))
    listing.skipped.update(skipped or {})
    task, chosen = ScoresTask(model.labels), options or RunOptions()
    run = Run(listing, model, task, preprocessing, chosen, again=lambda: iter([sample.ref for sample in samples]))
    schema = run.start()
    begin = time.monotonic()
    classes = schema.field(FEATURES).type.list_size
    scores = np.zeros((len(samples), classes), np.float32)
    errors: list[str | None] = []
    for batch, rows in run.batches():
        read = [number for number, error in enumerate(batch.errors) if error is None]
        block = rows.column(FEATURES).values.to_numpy(zero_copy_only=False).reshape(-1, classes)
        scores[len(errors) : len(errors) + len(block)][read] = block[read]
        errors += rows.column(ERROR).to_pylist()
        if on_batch is not None:
            on_batch(batch)
    return Evaluation(
        samples=tuple(samples),
        true=np.array([indices[sample.label] for sample in samples], np.int64),
        scores=scores,
        errors=tuple(errors),
        labels=model.labels.names,
        report=run.report,
        provenance=run.provenance("evaluate"),
        profile=run.profile,
        seconds=time.monotonic() - begin,
    )


def choose_split(images: LabelledImages, split: str | None) -> tuple[Sample, ...]:
    """Returns the samples of a split, or of `all`; None is the test split, else validation, else all.

    Raises:
        UsageError: there is no such split.
        SourceError: there are no images.
    """
    if split in SPLITS:
        chosen = images.part(split)
        if not chosen:
            have = f"they have {', '.join(images.splits)}" if images.splits else "they are not divided into splits"
            raise UsageError(f"--split {split}: the data have no such split ({have}); omit it, or give --split all")
        return chosen
    if split not in (None, ALL):
        raise UsageError(f"the split must be one of {', '.join(SPLIT_CHOICES)}; received {split!r}")
    if not images.samples:
        raise SourceError(f"the data have no images, only empty class folders: {', '.join(images.empty)}")
    return (split is None and (images.part(TEST) or images.part(VALIDATION))) or images.samples


def split_of(samples: Sequence[Sample]) -> str:
    """Returns the split that all samples belong to, or `all` if they belong to several or to none."""
    found = {sample.split for sample in samples}
    return found.pop() or ALL if len(found) == 1 else ALL
