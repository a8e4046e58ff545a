"""Evaluation: labelled images through a model, folder names matched to its classes, and a report in files."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError, OutputError, SourceError, UsageError
from xcli.core.records import ERROR, ERROR_STATUS, FEATURES, OK_STATUS, PATH, STATUS, ImageRef, RunCounts
from xcli.core.text import one_line
from xcli.evaluation.metrics import Metrics, compute
from xcli.inference.options import RunOptions
from xcli.inference.profiler import Profile
from xcli.inference.run import Run
from xcli.models.labels import match_labels
from xcli.sources.labelled import SPLITS, TEST, VALIDATION
from xcli.sources.listing import Listing
from xcli.sources.options import SourceOptions
from xcli.storage.atomic import AtomicFile, commit
from xcli.storage.urls import is_url
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.core.records import ImageBatch
    from xcli.evaluation.plots import Mistake
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.tasks import Results, Shapes
    from xcli.models.folded import Forward
    from xcli.models.labels import Labels
    from xcli.models.network import LoadedModel
    from xcli.sources.labelled import LabelledImages, Sample

ALL = "all"
SPLIT_CHOICES = (*SPLITS, ALL)

METRICS_FILE, PER_CLASS_FILE, MATRIX_FILE = "metrics.json", "per_class.csv", "confusion_matrix.csv"
MATRIX_PICTURE, PREDICTIONS_FILE, MISTAKES_PICTURE = "confusion_matrix.png", "predictions.csv", "mistakes.png"
REPORT_FILES = (METRICS_FILE, PER_CLASS_FILE, MATRIX_FILE, MATRIX_PICTURE, PREDICTIONS_FILE, MISTAKES_PICTURE)
"""What `write_report` leaves in a directory."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one labelled image.

    Attributes:
        ref: the image.
        label: name of its true class, as the model has it.
        predicted: name of the best class; None for an image that could not be read.
        score: of the best class; None likewise.
        correct: whether the best class is the true one; None likewise.
        error: why it could not be read, as in the `error` column; else None.
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
        scores: float32[n, C], probabilities where the model's head makes such; zeros where there is an error.
        errors: for each image why it could not be read, as in the `error` column, or None.
        labels: names of the C classes.
        report: what became of the images, by reason.
        provenance: what made the scores.
        profile: where the time went.
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
        """Metrics of the images that could be read.

        Raises:
            ModelError: a score is NaN.
        """
        import numpy as np

        read = np.array([error is None for error in self.errors], bool)
        try:
            # Without errors not by the mask, which would copy all the scores.
            return compute(self.true[read], self.scores if read.all() else self.scores[read], self.labels)
        except ValueError as error:
            raise ModelError(f"the scores of the model cannot be used: {error}; try --precision float32") from error

    def predictions(self) -> list[Prediction]:
        """What became of each image, in the order of the samples."""
        return predictions_of(self.samples, self.true, self.scores, self.errors, self.labels)


@dataclass(frozen=True, slots=True)
class ScoresTask:
    """All scores of each image, in the column `features`; a `xcli.inference.tasks.Task`.

    Attributes:
        labels: names of the classes, for provenance.
    """

    labels: Labels

    def forward(self, model: LoadedModel) -> Forward:
        return model.scores()

    def schema(self, shapes: Shapes, extra: Any) -> pa.Schema:
        return features_schema(shapes[0], "float32", extra)

    def rows(self, schema: pa.Schema, batch: ImageBatch, results: Results) -> pa.RecordBatch:
        return features_batch(schema, batch.refs, batch.errors, results[0])

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

    All scores are held in memory: 4 bytes an image and class, 200 MB for the 50,000 of ImageNet's validation set; and
    once more while they are measured, where some of the images cannot be read.

    Args:
        samples: the images, at least one.
        model: it must have a classifier.
        preprocessing: how images become pixels.
        options: how to use the machine.
        skipped: what was passed over, for the report.
        on_batch: called after every batch.

    Raises:
        SourceError: a label is no class of the model, or means several.
        ModelError: the model has no classifier.
    """
    import numpy as np

    if model.labels is None:
        raise ModelError(f"{model.name} has no classifier on top, so there is nothing to evaluate")
    indices = match_labels(sorted({sample.label for sample in samples}), model.labels)
    # Its options say no more than that this is no list which somebody types.
    listing = Listing(iter([sample.ref for sample in samples]), SourceOptions(("labelled images",)))
    listing.skipped.update(skipped or {})
    run = Run(listing, model, ScoresTask(model.labels), preprocessing, options or RunOptions())
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
    """The samples to evaluate.

    Args:
        images: the data set.
        split: `train`, `validation`, `test` or `all`; None is the test split, else validation, else all.

    Raises:
        UsageError: there is no such split.
        SourceError: there are no images.
    """
    if split in SPLITS:
        chosen = images.part(split)
        if not chosen:
            have = f"only {', '.join(images.splits)}" if images.splits else "and does not say which image is in which"
            raise UsageError(f"--split {split}: the data have no such split, {have}; leave it out, or give --split all")
        return chosen
    if split not in (None, ALL):
        raise UsageError(f"the split is one of {', '.join(SPLIT_CHOICES)}; received {split!r}")
    if not images.samples:
        raise SourceError(f"the data have no images, only empty class folders: {', '.join(images.empty)}")
    if split is None:
        return images.part(TEST) or images.part(VALIDATION) or images.samples
    return images.samples


def split_of(samples: Sequence[Sample]) -> str:
    """The split that all samples belong to; `all` where they belong to several, or to none."""
    found = {sample.split for sample in samples}
    return found.pop() or ALL if len(found) == 1 else ALL


def predictions_of(
    samples: Sequence[Sample],
    true: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    errors: Sequence[str | None],
    labels: Sequence[str],
) -> list[Prediction]:
    """What became of each of n images, in order.

    Args:
        samples: the images.
        true: integers[n], their classes.
        scores: float32[n, C]; ignored where there is an error.
        errors: for each image why it could not be read, as in the `error` column, or None.
        labels: names of the C classes.
    """
    best = scores.argmax(1)
    found = []
    for number, (sample, error) in enumerate(zip(samples, errors, strict=True)):
        own, guess = int(true[number]), int(best[number])
        if error is not None:
            found.append(Prediction(sample.ref, labels[own], error=error))
        else:
            score = float(scores[number, guess])
            found.append(Prediction(sample.ref, labels[own], labels[guess], score, own == guess))
    return found


def check_folder(folder: str, overwrite: bool) -> None:
    """Refuses a directory that cannot take a report, before anything is computed for it.

    Raises:
        UsageError: it has no name, or is a URL.
        OutputError: it is no directory, is not empty and may not be written over, or cannot be made.
    """
    if not folder:
        raise UsageError("the name of the output directory is empty")
    if is_url(folder):
        raise UsageError(f"{folder!r}: evaluate writes a directory of this machine; copy that to the object store")
    shown = one_line(folder)
    if os.path.isdir(folder):
        if not overwrite and os.listdir(folder):
            raise OutputError(f"{shown} is not empty; give another directory, or --overwrite to replace a report in it")
        writable = folder
    elif os.path.lexists(folder):
        raise OutputError(f"cannot write {shown}: it is not a directory")
    else:
        writable = os.path.dirname(folder.rstrip("/")) or os.curdir
        if not os.path.isdir(writable):
            raise OutputError(f"cannot write {shown}: no such directory: {one_line(writable)}, create it first")
    if not os.access(writable, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {shown}: no permission to write in {one_line(writable)}")


def write_report(
    folder: str,
    metrics: Metrics,
    predictions: Sequence[Prediction],
    *,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = True,
) -> None:
    """Writes `REPORT_FILES`: all of them appear, or none that is new.

    Args:
        folder: the directory; made if it is not there, but not those above it. Other files in it are left alone.
        metrics: of the images that could be read.
        predictions: what became of every image, in the order of the rows.
        extra: what else goes into `metrics.json`, besides `metrics.as_dict()` and the number of `errors`.
        overwrite: whether files of these names may be replaced.

    Raises:
        OutputError: a file cannot be written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {one_line(folder)}: {error.strerror}") from error
    files: list[AtomicFile] = []
    try:
        for name, content in _report(metrics, predictions, extra or {}):
            file = AtomicFile(os.path.join(folder, name), overwrite)
            files.append(file)
            if isinstance(content, bytes):
                file.stream.write(content)
            else:
                _write_csv(file, content)
        commit(files)
    except BaseException:
        for file in files:
            file.discard()
        raise


def _report(
    metrics: Metrics, predictions: Sequence[Prediction], extra: Mapping[str, Any]
) -> Iterator[tuple[str, bytes | pa.RecordBatch]]:
    from xcli.evaluation.plots import confusion_matrix_png, mistakes_png

    numbers = metrics.as_dict() | {"errors": sum(one.error is not None for one in predictions)} | dict(extra)
    text = json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"
    yield METRICS_FILE, text.encode("utf-8", "backslashreplace")
    yield PER_CLASS_FILE, _per_class(metrics)
    yield MATRIX_FILE, _matrix(metrics)
    yield MATRIX_PICTURE, confusion_matrix_png(metrics.confusion, metrics.labels)
    yield PREDICTIONS_FILE, _rows(predictions)
    yield MISTAKES_PICTURE, mistakes_png(worst_mistakes(predictions))


def worst_mistakes(predictions: Sequence[Prediction]) -> list[Mistake]:
    """The mistakes, those first of which the model was surest."""
    from xcli.evaluation.plots import Mistake

    wrong = [
        Mistake(one.ref.path, one.ref.location, one.label, one.predicted, one.score)
        for one in predictions
        if one.predicted is not None and one.score is not None and not one.correct
    ]
    return sorted(wrong, key=lambda one: -one.probability)


def _per_class(metrics: Metrics) -> pa.RecordBatch:
    import numpy as np
    import pyarrow as pa

    columns = {"label": pa.array(metrics.labels, pa.string()), "index": pa.array(np.arange(len(metrics.labels)))}
    columns |= {name: pa.array(getattr(metrics, name)) for name in ("precision", "recall", "f1", "support")}
    return pa.RecordBatch.from_pydict(columns)


def _matrix(metrics: Metrics) -> pa.RecordBatch:
    """A row for each true class: its name, then a column for each predicted class. Two may have the same name."""
    import pyarrow as pa

    arrays = [pa.array(metrics.labels, pa.string()), *(pa.array(column) for column in metrics.confusion.T.copy())]
    return pa.RecordBatch.from_arrays(arrays, ["true", *metrics.labels])


def _rows(predictions: Sequence[Prediction]) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_pydict(
        {
            PATH: pa.array([one.ref.path for one in predictions], pa.string()),
            STATUS: pa.array([ERROR_STATUS if one.error else OK_STATUS for one in predictions], pa.string()),
            ERROR: pa.array([one.error for one in predictions], pa.string()),
            "label": pa.array([one.label for one in predictions], pa.string()),
            "predicted": pa.array([one.predicted for one in predictions], pa.string()),
            "score": pa.array([one.score for one in predictions], pa.float32()),
            "correct": pa.array([one.correct for one in predictions], pa.bool_()),
        }
    )


def _write_csv(file: AtomicFile, rows: pa.RecordBatch) -> None:
    from xcli.tables.encoders import CsvSink

    sink = CsvSink(file.stream, rows.schema, {})
    sink.write(rows)
    sink.close()


def inside(folder: str, data: str) -> bool:
    """Whether a directory is, or would be, `data` or one below it: its pictures would be taken for photographs."""
    if not os.path.isdir(data):
        return False
    inner, outer = os.path.realpath(folder), os.path.realpath(data)
    return os.path.commonpath([inner, outer]) == outer
