"""What a RUN holds and tells, whatever its head was trained on: images, or features of a table."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from xcli.evaluation.evaluate import Prediction
from xcli.evaluation.report import write_report
from xcli.models.bundle import build_model, write_bundle
from xcli.sources.splits import TEST, TRAIN, VALIDATION
from xcli.storage import disk
from xcli.storage.streams import write_errors
from xcli.tables.formats import write_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from xcli.evaluation.metrics import Metrics
    from xcli.images.preprocessing import Preprocessing
    from xcli.models.hdf5_weights import Weights
    from xcli.training.base_model import BaseModel
    from xcli.training.callbacks import EpochMetrics
    from xcli.training.run_directory import RunPaths
    from xcli.training.split import Example, Split

SPLIT_FILE = "split.csv"


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """The result of a fine-tuning.

    Attributes:
        run: the directory that was made.
        metrics: of `split`, computed with the finished bundle; None if RUN was already finished.
        split: `validation`, or `train` if there is no validation part.
        test: metrics of the test part, if there is one.
        counts: number of images by part.
        bad: the images that could not be read and were left out: path to reason.
        kept: the epoch whose weights the bundle has; None if RUN was already finished, begun by an older version, or
            trained on features.
    """

    run: str
    metrics: Metrics | None = None
    split: str = VALIDATION
    test: Metrics | None = None
    counts: dict[str, int] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    kept: EpochMetrics | None = None


def data_digest(examples: Iterable[Example]) -> str:
    """Returns the SHA-256 of what examples are, of their labels, and of the parts that they are in."""
    content = sha256()
    for one in examples:
        content.update(f"{one.digest} {one.sample.label!r} {one.split}\n".encode("utf-8", "backslashreplace"))
    return content.hexdigest()


def write_new_bundle(
    folder: str,
    base: BaseModel,
    head: Weights,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    record: dict[str, Any],
    dropout: float = 0.0,
) -> None:
    """Writes a bundle of a network and weights that replace some of its own, in the place of an older one.

    Raises:
        OutputError: it cannot be written.
    """
    with write_errors(folder):
        disk.remove_tree(folder)
        disk.make_directory(folder)
    keras_model = build_model({**base.weights, **head}, len(labels), preprocessing.size, base.scaling, dropout)
    write_bundle(folder, keras_model, labels, preprocessing, record)


def write_rows(folder: str, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file of at least one row."""
    write_csv(folder, name, {key: [row[key] for row in rows] for key in rows[0]})


def write_split_file(paths: RunPaths, split: Split) -> None:
    """Writes which image was in which part."""
    images = [(one.sample.ref.path, one.sample.label, one.split) for one in split.examples]
    columns = dict(zip(("path", "label", "split"), zip(*images, strict=True), strict=True))
    write_csv(paths.bundle, SPLIT_FILE, columns, escape_formulas=paths.csv_safe)


def write_reports(
    paths: RunPaths,
    counts: dict[str, int],
    evaluate_part: Callable[[str], tuple[Metrics, list[Prediction]]],
    unreadable: Sequence[tuple[Example, str]],
) -> FineTuneResult:
    """Writes the reports into the bundle: of the validation part, else of the training part, and of a test part.

    Args:
        paths: of the run.
        counts: number of images by part.
        evaluate_part: evaluates the bundle on a part.
        unreadable: the images outside of the test part that could not be read, and why.
    """
    folder = paths.bundle
    report = partial(write_report, escape_formulas=paths.csv_safe)
    part = VALIDATION if counts[VALIDATION] else TRAIN
    metrics, predictions = evaluate_part(part)
    bad = {one.sample.ref.path: text for one, text in unreadable}
    if part == VALIDATION:
        rest = [(one.sample, text) for one, text in unreadable if one.split == TRAIN]
        predictions += [Prediction(sample.ref, sample.label, error=text) for sample, text in rest]
    extra: dict[str, Any] = {"split": part}
    test = None
    if counts[TEST]:
        test, outcomes = evaluate_part(TEST)
        extra["test"] = test.as_dict() | {"errors": sum(one.error is not None for one in outcomes)}
        report(os.path.join(folder, TEST), test, outcomes, extra={"split": TEST})
        bad |= {one.ref.path: one.error for one in outcomes if one.error is not None}
    report(folder, metrics, predictions, extra=extra)
    return FineTuneResult(paths.run, metrics, part, test, counts, bad)
