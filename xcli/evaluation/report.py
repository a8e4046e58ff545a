"""The report of an evaluation: tables and pictures, written into a directory."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, UsageError
from xcli.core.records import ERROR, ERROR_STATUS, OK_STATUS, PATH, STATUS
from xcli.core.text import one_line
from xcli.evaluation.metrics import FIGURES, Metrics
from xcli.storage import disk
from xcli.storage.atomic import AtomicFile, commit
from xcli.storage.ownership import check_ownership
from xcli.storage.staging import Staging, pending, staging_path
from xcli.storage.streams import write_errors
from xcli.storage.urls import is_url
from xcli.tables.csv import CsvWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from xcli.evaluation.evaluate import Prediction

METRICS_FILE, PER_CLASS_FILE, MATRIX_FILE = "metrics.json", "per_class.csv", "confusion_matrix.csv"
MATRIX_PICTURE, PREDICTIONS_FILE, MISTAKES_PICTURE = "confusion_matrix.png", "predictions.csv", "mistakes.png"
REPORT_FILES = (METRICS_FILE, PER_CLASS_FILE, MATRIX_FILE, MATRIX_PICTURE, PREDICTIONS_FILE, MISTAKES_PICTURE)
"""The files that `write_report` writes."""

HISTORY_FILE = "history.csv"
"""The epochs of a fine-tuning, which stands beside them in the directory of a run."""

_REPORT = "report"
"""They are staged under this name."""


def is_within(folder: str, data: str) -> bool:
    """Tells whether a directory is, or would be, `data` or below it, where its pictures would be read as images."""
    if not os.path.isdir(data):
        return False
    inner, outer = os.path.realpath(folder), os.path.realpath(data)
    return os.path.commonpath([inner, outer]) == outer


def check_folder(folder: str, overwrite: bool) -> None:
    """Refuses a directory that cannot take a report, before anything is computed.

    Raises:
        UsageError: it has no name, or is a URL.
        OutputError: it is not a directory, is not empty and `overwrite` is false, or cannot be made.
    """
    if not folder:
        raise UsageError("the name of the output directory is empty")
    if is_url(folder):
        raise UsageError(f"{folder!r}: evaluate writes a directory of this machine; copy that to the object store")
    shown = one_line(folder)
    exists = os.path.isdir(folder)
    writable = folder if exists else os.path.dirname(folder.rstrip("/")) or os.curdir
    staging = staging_path(os.path.join(folder, _REPORT))
    if exists:
        check_ownership(staging)
    # What a killed process has left there is completed, or dropped.
    others = set(os.listdir(folder)) - {os.path.basename(staging)} if exists else set()
    if others and not overwrite and not pending(staging, os.path.join(folder, _REPORT)):
        raise OutputError(f"{shown} is not empty; give another directory, or --overwrite to replace a report in it")
    if not exists and os.path.lexists(folder):
        raise OutputError(f"cannot write {shown}: it is not a directory")
    if not os.path.isdir(writable):
        raise OutputError(f"cannot write {shown}: the directory {one_line(writable)} does not exist; create it first")
    if not os.access(writable, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {shown}: no permission to write in {one_line(writable)}")


def write_report(
    folder: str,
    metrics: Metrics,
    predictions: Sequence[Prediction],
    *,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = True,
    escape_formulas: bool = False,
) -> None:
    """Writes `REPORT_FILES`; if one of them cannot be written, none is changed.

    Args:
        folder: the directory; made if it does not exist, but not its parents. Other files in it are left alone.
        metrics: of the images that could be read.
        predictions: the outcome for every image, in the order of the rows.
        extra: further members of `metrics.json`, besides `metrics.as_dict()` and the number of `errors`.
        overwrite: whether files of these names may be replaced.
        escape_formulas: in CSV, put an apostrophe before texts that spreadsheets take for formulas.

    Raises:
        OutputError: a file cannot be written.
    """
    with write_errors(folder):
        disk.make_directories(folder)
    files: list[AtomicFile] = []
    target = os.path.join(folder, _REPORT)
    # A process that was killed as it gave the names has decided that.
    overwrite = overwrite or bool(pending(staging_path(target), target))
    staging = Staging(target)
    try:
        for name, content in _contents(metrics, predictions, extra or {}):
            files.append(AtomicFile(os.path.join(folder, name), overwrite, staging))
            if isinstance(content, bytes):
                files[-1].stream.write(content)
                continue
            table = CsvWriter(files[-1].stream, content.schema, {}, escape_formulas=escape_formulas)
            table.write(content)
            table.close()
        commit(files)
    except BaseException:
        for file in files:
            file.discard()
        raise
    finally:
        staging.close()


def _contents(
    metrics: Metrics, predictions: Sequence[Prediction], extra: Mapping[str, Any]
) -> Iterator[tuple[str, bytes | pa.RecordBatch]]:
    from xcli.evaluation.plots import confusion_matrix_png, mistakes_png

    numbers = metrics.as_dict() | {"errors": sum(one.error is not None for one in predictions)} | dict(extra)
    text = json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"
    yield METRICS_FILE, text.encode("utf-8", "backslashreplace")
    yield PER_CLASS_FILE, _per_class(metrics)
    yield MATRIX_FILE, _confusion_matrix(metrics)
    yield MATRIX_PICTURE, confusion_matrix_png(metrics.confusion, metrics.labels)
    yield PREDICTIONS_FILE, _predictions(predictions)
    yield MISTAKES_PICTURE, mistakes_png(worst_mistakes(predictions))


def worst_mistakes(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Returns the wrong predictions, those with the highest scores first."""
    wrong = [one for one in predictions if one.error is None and not one.correct]
    return sorted(wrong, key=lambda one: -(one.score or 0.0))


def _per_class(metrics: Metrics) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {"label": pa.array(metrics.labels, pa.string()), "index": pa.array(range(len(metrics.labels)))}
    columns |= {name: pa.array(getattr(metrics, name)) for name in FIGURES}
    return pa.RecordBatch.from_pydict(columns)


def _confusion_matrix(metrics: Metrics) -> pa.RecordBatch:
    """One row for each true class: its name, then a column for each predicted class. Names may occur twice."""
    import pyarrow as pa

    arrays = [pa.array(metrics.labels, pa.string()), *(pa.array(column) for column in metrics.confusion.T.copy())]
    return pa.RecordBatch.from_arrays(arrays, ["true", *metrics.labels])


def _predictions(predictions: Sequence[Prediction]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {
        PATH: pa.array([one.ref.path for one in predictions], pa.string()),
        STATUS: pa.array([ERROR_STATUS if one.error else OK_STATUS for one in predictions], pa.string()),
    }
    types = dict.fromkeys((ERROR, "label", "predicted"), pa.string()) | {"score": pa.float32(), "correct": pa.bool_()}
    columns |= {name: pa.array([getattr(one, name) for one in predictions], kind) for name, kind in types.items()}
    return pa.RecordBatch.from_pydict(columns)
