"""What `evaluate -o DIR` and `finetune -o RUN` have written, read for a page."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from contextlib import contextmanager
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, Schema, parse_object
from xcli.core.errors import CheckError, reason_of
from xcli.core.records import ERROR, OK_STATUS, PATH, STATUS
from xcli.core.shortage import raise_shortage
from xcli.core.text import one_line
from xcli.evaluation.metrics import FIGURES, ClassFigures, calibrate
from xcli.evaluation.report import HISTORY_FILE, MATRIX_FILE, METRICS_FILE, PREDICTIONS_FILE
from xcli.models.bundle import BUNDLE_RECIPE
from xcli.reports.outcomes import Cells, Outcomes
from xcli.reports.summary import MAX_ERRORS
from xcli.storage import disk
from xcli.tables.csv import is_escaped_text
from xcli.tables.parquet import is_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_NUMBER = int | float
_OPTIONAL = int | float | None
_METRICS: Schema = {
    "n": range(1 << 53),
    "top1": _OPTIONAL,
    "top5": _OPTIONAL,
    "ece": _OPTIONAL,
    "macro": {str: _NUMBER},
    "weighted": {str: _NUMBER},
    "per_class": [{"label": str, "precision": _NUMBER, "recall": _NUMBER, "f1": _NUMBER, "support": range(1 << 53)}],
    "split": str,
    "provenance": dict,
    "test": {"n": range(1 << 53), "top1": _OPTIONAL},
}
_RUN: Schema = {
    "tool": {"version": str},
    "settings": {"model": {"name": str}, "precision": str, "device": str},
    "kept": dict | None,
    "images": {str: int},
    "temperature": _OPTIONAL,
}
_HISTORY = ("learning_rate", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
_MAX_EPOCHS = 100_000
_BLOCK_BYTES = 1 << 20  # no row of predictions is longer


class EvaluationFiles:
    """The directory of an evaluation, or of a fine-tuned run.

    Attributes:
        name: as the user gave it.
        provenance: how the predictions were made, as in a table.
        split: which part of the data the images are, or "".
        test: images and top-1 accuracy of the test part of a run, which has a directory of its own; or None.
        errors: number of images that could not be read, by reason.
        error_rows: path and error of the first of them.

    Raises:
        CheckError: a file is missing or damaged.
    """

    meta: dict[str, Any] | None = None
    row_count: int | None = None
    on_rows: Callable[[int], object] | None = None  # as in TableReader

    def __init__(self, name: str) -> None:
        self.name = name
        self._metrics = self._object(METRICS_FILE, _METRICS)
        self.run = self._object(BUNDLE_RECIPE, _RUN) if os.path.exists(os.path.join(name, BUNDLE_RECIPE)) else None
        self.split = self._metrics.get("split", "")
        self.test = self._metrics.get("test")
        self.errors: Counter[str] = Counter()
        self.error_rows: list[tuple[str, str]] = []
        self.rows = 0

    @staticmethod
    def recognizes(name: str) -> bool:
        """Returns whether a directory holds the files of an evaluation, and is no directory of a table's parts."""
        try:
            names = set(os.listdir(name))
        except OSError:
            return False
        return {METRICS_FILE, PREDICTIONS_FILE} <= names and not any(map(is_part, names))

    @property
    def provenance(self) -> dict[str, Any]:
        if self.run is not None:
            return {**self.run.get("settings", {}), "tool": self.run.get("tool")}
        found: dict[str, Any] = self._metrics.get("provenance", {})
        return found

    def outcomes(self) -> Outcomes:
        """Reads the predictions and the confusion matrix.

        Raises:
            CheckError: a file is damaged, or they are not of one evaluation.
        """
        import numpy as np

        metrics = self._metrics
        with self._reading(METRICS_FILE):
            classes, n = metrics["per_class"], metrics["n"]
            labels = tuple(one["label"] for one in classes)
            columns = {name: np.nan_to_num(np.array([one[name] for one in classes], float)) for name in FIGURES}
            averages = {
                name: {key: _finite(value) or 0.0 for key, value in metrics[name].items()}
                for name in ("macro", "weighted")
            }
            support = columns.pop("support").astype(np.int64)
            figures = ClassFigures(support=support, **columns, **averages)  # type: ignore[arg-type]
        true, predicted, scores, rows = self._read_predictions(labels)
        cells = self._read_matrix(len(labels))
        for count, what in ((len(rows), PREDICTIONS_FILE), (int(cells.counts.sum()), MATRIX_FILE)):
            if count != n:
                raise CheckError(
                    f"{one_line(self.name)}: {what} has {count:,} images and {METRICS_FILE} {n:,}: "
                    "they are not of one evaluation; evaluate once more with --overwrite"
                )
        ece = _finite(metrics.get("ece"))
        known = ece is not None and len(rows) > 0 and not np.isnan(scores).any()
        return Outcomes(
            names=labels,
            true=true,
            predicted=predicted,
            scores=scores,
            rows=rows,
            paths=self._paths,
            cells=cells,
            figures=figures,
            top1=_finite(metrics.get("top1")),
            top5=_finite(metrics.get("top5")),
            ece=ece,
            calibration=calibrate(scores, true == predicted) if known else None,
            errors=self.errors,
        )

    def history(self) -> dict[str, Any] | None:
        """Returns the epochs of a run, which of them was kept (from 1, or 0), and None for what is no run.

        Raises:
            CheckError: the file is damaged.
        """
        if self.run is None or not os.path.exists(os.path.join(self.name, HISTORY_FILE)):
            return None
        with self._reading(HISTORY_FILE):
            rows = [
                [row["phase"], int(row["epoch"]), *(_finite(float(row[name] or "nan")) for name in _HISTORY)]
                for row in islice(csv.DictReader(io.StringIO(self._text(HISTORY_FILE)), strict=True), _MAX_EPOCHS)
            ]
        kept = self.run.get("kept") or {}
        is_kept = [row[:2] == [kept.get("phase"), kept.get("epoch")] for row in rows]
        return {"epochs": rows, "kept": is_kept.index(True) + 1 if True in is_kept else 0}

    @contextmanager
    def _reading(self, file: str) -> Iterator[None]:
        """Turns what reading a damaged file raises into a CheckError."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, csv.Error) as error:
            raise_shortage(error)
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            shown = one_line(os.path.join(self.name, file))
            raise CheckError(f"{shown} cannot be read: {one_line(reason)[:500]}") from error

    def _text(self, file: str) -> str:
        content = disk.read_file(os.path.join(self.name, file), MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return content.decode()

    def _object(self, file: str, schema: Schema) -> dict[str, Any]:
        with self._reading(file):
            return parse_object(self._text(file), schema)

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        types = dict.fromkeys((PATH, STATUS, ERROR, "label", "predicted"), pa.string()) | {"score": pa.float32()}
        with self._reading(PREDICTIONS_FILE):
            reader = arrow_csv.open_csv(
                os.path.join(self.name, PREDICTIONS_FILE),
                read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=types,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    include_columns=list(columns),
                ),
            )
            with reader:
                for batch in reader:
                    yield batch
                    if self.on_rows is not None:
                        self.on_rows(batch.num_rows)

    def _paths(self, rows: NDArray[np.int64]) -> Iterator[str]:
        start = at = 0
        wanted = rows.tolist()
        for batch in self._batches([PATH]):
            while at < len(wanted) and wanted[at] < start + batch.num_rows:
                yield batch.column(0)[wanted[at] - start].as_py() or ""
                at += 1
            start += batch.num_rows

    def _read_predictions(self, labels: Sequence[str]) -> tuple[Any, Any, Any, Any]:
        """Returns the true and predicted classes, int32, the scores, float32, and the row numbers, int64."""
        import numpy as np
        import pyarrow.compute as pc

        numbers: dict[str, int] = {}
        for number, label in enumerate(labels):
            numbers.setdefault(label, number)
            if is_escaped_text(f"'{label}"):  # as --csv-safe writes it
                numbers.setdefault(f"'{label}", number)
        kinds = (np.int32, np.int32, np.float32, np.int64)
        chunks: list[list[NDArray[Any]]] = [[np.zeros(0, kind)] for kind in kinds]
        self.errors.clear()
        self.error_rows.clear()
        self.rows = 0
        for batch in self._batches([PATH, STATUS, ERROR, "label", "predicted", "score"]):
            ok = pc.equal(batch.column(STATUS), OK_STATUS).fill_null(False).to_numpy(zero_copy_only=False)
            for place in np.flatnonzero(~ok).tolist():
                self._add_error(batch.column(PATH)[place].as_py(), batch.column(ERROR)[place].as_py())
            found = [self._numbers(batch.column(name), numbers, ok) for name in ("label", "predicted")]
            scores = batch.column("score").to_numpy(zero_copy_only=False).astype(np.float32)
            columns = (
                *found,
                np.where(np.isfinite(scores), scores, np.float32(np.nan)),
                self.rows + np.arange(len(ok)),
            )
            for chunk, column in zip(chunks, columns, strict=True):
                chunk.append(column[ok])
            self.rows += len(ok)
        true, predicted, scores, rows = (np.concatenate(chunk) for chunk in chunks)
        return true, predicted, scores, rows

    def _add_error(self, path: str | None, error: str | None) -> None:
        self.errors[reason_of(error)] += 1
        if len(self.error_rows) < MAX_ERRORS:
            self.error_rows.append((path or "", error or ""))

    def _numbers(self, column: pa.Array, numbers: dict[str, int], ok: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Returns the numbers of classes by their names, int32[n]; -1 for rows that are not `ok`."""
        import numpy as np

        encoded = column.dictionary_encode()
        known = np.array([*(numbers.get(name, -1) for name in encoded.dictionary.to_pylist()), -1], np.int32)
        found: NDArray[np.int32] = known[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
        if (unknown := np.flatnonzero(ok & (found < 0))).size:
            name = one_line(str(column[int(unknown[0])].as_py()))
            raise CheckError(
                f"{one_line(self.name)}: {PREDICTIONS_FILE} has the class {name!r} and {METRICS_FILE} has not: "
                "they are not of one evaluation; evaluate once more with --overwrite"
            )
        return found

    def _read_matrix(self, classes: int) -> Cells:
        """Reads the matrix a row at a time, since it may be much larger than what is not zero in it."""
        import numpy as np

        true, predicted, counts = ([np.zeros(0, np.int64)] for _ in range(3))
        number = -1
        with (
            self._reading(MATRIX_FILE),
            open(os.path.join(self.name, MATRIX_FILE), encoding="utf-8", newline="") as file,
        ):
            for number, row in enumerate(csv.reader(file, strict=True), start=-1):
                if len(row) != classes + 1:
                    raise ValueError(f"a row has {len(row):,} fields instead of {classes + 1:,}")
                if number < 0:  # the header
                    continue
                values = np.array(row[1:], str).astype(np.int64)
                if values.min(initial=0) < 0:
                    raise ValueError("a number is negative")
                predicted.append(np.flatnonzero(values))
                counts.append(values[predicted[-1]])
                true.append(np.full(len(predicted[-1]), number, np.int64))
            if number + 1 != classes:
                raise ValueError(f"it has {number + 1:,} rows for {classes:,} classes")
        return Cells(*(np.concatenate(one) for one in (true, predicted, counts)))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and isfinite(value) else None
