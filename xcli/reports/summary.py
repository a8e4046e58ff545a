"""Reads a table of `classify` once, and keeps what a page shows of it.

Exact are all counts and distributions. Of the rows only some are kept: of each class the surest and the least sure,
and a sample of all, drawn so that every row has the same chance. Memory is eight bytes a row, and what is kept.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from dataclasses import dataclass, field
from math import isfinite
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import reason_of
from xcli.core.records import ERROR, OK_STATUS, PATH, STATUS
from xcli.tables.schema import prediction_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader

MAX_SAMPLE = 3000
"""Rows of the sample."""

MAX_ERRORS = 500
"""Error rows that are kept; all are counted."""

BINS = 20
"""Of a distribution."""


class Row(NamedTuple):
    """One row with a result.

    Attributes:
        number: its place in the table, from 0.
        path: as the table has it.
        predictions: labels and scores, best first; none where no class reached `--min-score`.
    """

    number: int
    path: str
    predictions: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        return self.predictions[0][0] if self.predictions else ""


class Histogram(NamedTuple):
    """How many values are in each of some intervals of the same width, from `low` to `high`."""

    low: float
    high: float
    counts: list[int]
    median: float


@dataclass(slots=True)
class ClassRows:
    """What is kept of the rows with one best class: how many, the sum of their scores, and two heaps of `most` rows."""

    count: int = 0
    total: float = 0.0
    surest: list[tuple[float, int, Row]] = field(default_factory=list)
    least: list[tuple[float, int, Row]] = field(default_factory=list)

    def add(self, score: float, number: int, make: Callable[[], Row], most: int) -> None:
        """Counts a row, and keeps it if it is among the first; `make` makes it."""
        self.count += 1
        self.total += score
        for heap, key in ((self.surest, score), (self.least, -score)):
            # Of rows with the same score, the first ones of the table stay.
            if len(heap) < most:
                heapq.heappush(heap, (key, -number, make()))
            elif (key, -number) > heap[0][:2]:
                heapq.heapreplace(heap, (key, -number, make()))

    def ranked(self) -> Iterator[Row]:
        """Yields the kept rows: the surest, the least sure, the second surest, and so on; a row may come twice."""
        surest, least = (sorted(heap, reverse=True) for heap in (self.surest, self.least))
        for one, other in zip(surest, least, strict=True):
            yield one[2]
            yield other[2]


class Summary:
    """Collects a table of `classify`.

    Args:
        top_images: rows that are kept of each class, at each end.

    Attributes:
        rows, ok: numbers of rows.
        errors: number of error rows, by reason.
        error_rows: path and error of the first `MAX_ERRORS` of them.
        classes: by label; the empty label stands for rows without a class (`--min-score`).
        sample: rows, in no order.
    """

    def __init__(self, top_images: int) -> None:
        self.rows = self.ok = 0
        self.errors: Counter[str] = Counter()
        self.error_rows: list[tuple[str, str]] = []
        self.classes: dict[str, ClassRows] = {}
        self.sample: list[Row] = []
        self._most = top_images
        self._scores, self._margins = array("f"), array("f")
        self._random = Random(0)  # noqa: S311 - the same table gives the same page

    def read(self, reader: TableReader) -> None:
        """Reads all rows of a table.

        Raises:
            CheckError: the table is damaged.
        """
        width = prediction_count(reader.schema)
        for batch in reader.batches():
            self._add(batch, width)

    def _add(self, batch: pa.RecordBatch, width: int) -> None:
        paths, labels, scores = batch[PATH], batch["label_1"].to_pylist(), batch["score_1"].to_pylist()
        seconds = batch["score_2"].to_pylist() if width > 1 else [None] * len(scores)
        columns = [(batch[f"label_{k}"], batch[f"score_{k}"]) for k in range(1, width + 1)]
        for index, status in enumerate(batch[STATUS].to_pylist()):
            number = self.rows
            self.rows += 1
            if status != OK_STATUS:
                self._add_error(str(paths[index]), batch[ERROR][index].as_py())
                continue
            label, score, second = labels[index], _finite(scores[index]), _finite(seconds[index])
            if label is None or score is None:
                label, score = "", 0.0
            else:
                self._scores.append(score)
                if second is not None:
                    self._margins.append(score - second)

            def make(index: int = index, number: int = number) -> Row:
                return Row(number, str(paths[index]), predictions(columns, index))

            kept = self.classes.get(label)
            if kept is None:
                kept = self.classes[label] = ClassRows()
            kept.add(score, number, make, self._most)
            self._draw(make)

    def _add_error(self, path: str, error: str | None) -> None:
        self.errors[reason_of(error)] += 1
        if len(self.error_rows) < MAX_ERRORS:
            self.error_rows.append((path, error or ""))

    def _draw(self, make: Callable[[], Row]) -> None:
        """Takes the next row into the sample, so that each row so far has the same chance to be there."""
        self.ok += 1
        if len(self.sample) < MAX_SAMPLE:
            self.sample.append(make())
        elif (place := int(self._random.random() * self.ok)) < MAX_SAMPLE:
            self.sample[place] = make()

    def score_histogram(self) -> Histogram | None:
        """Returns the distribution of the best score; None where there is none."""
        return histogram(self._scores)

    def margin_histogram(self) -> Histogram | None:
        """Returns the distribution of the difference between the two best scores; None where there is none."""
        return histogram(self._margins)

    def shown_rows(self) -> list[Row]:
        """Returns the rows that are kept, each once, those first that deserve a thumbnail most.

        First comes the surest of each class, the largest class first, then the least sure of each, and so on; at last
        the sample.
        """
        classes = sorted(self.classes.values(), key=lambda one: -one.count)
        found: dict[int, Row] = {}
        ranked = [one.ranked() for one in classes]
        while ranked:
            rows = [(rest, next(rest, None)) for rest in ranked]
            found |= {row.number: row for _, row in rows if row is not None and row.number not in found}
            ranked = [rest for rest, row in rows if row is not None]
        for row in sorted(self.sample):
            found.setdefault(row.number, row)
        return list(found.values())


def _finite(score: float | None) -> float | None:
    """Returns a score, or None where it is no number: the raw score of a class that a head does not compute is -inf."""
    return score if score is not None and isfinite(score) else None


def predictions(columns: Sequence[tuple[pa.Array, pa.Array]], row: int) -> tuple[tuple[str, float], ...]:
    """Returns the labels and scores of a row, best first, from the columns of both."""
    pairs = ((labels[row].as_py(), _finite(scores[row].as_py())) for labels, scores in columns)
    return tuple((label, score) for label, score in pairs if label is not None and score is not None)


def histogram(
    values: array[float] | NDArray[Any], low: float = 0.0, high: float = 1.0, bins: int = BINS
) -> Histogram | None:
    """Returns the distribution of the finite values, from `low` to `high` or further; None where there is none."""
    import numpy as np

    numbers: Any = np.asarray(values)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return None
    low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    counts, _ = np.histogram(numbers, bins, (low, high))
    return Histogram(low, high, counts.tolist(), float(np.median(numbers)))


def chart_data(found: Histogram | None) -> dict[str, Any] | None:
    """Returns a distribution as the function `chart` of the script takes it."""
    return None if found is None else found._asdict()
