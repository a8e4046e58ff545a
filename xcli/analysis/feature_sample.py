"""Reads a table of `features` once, and keeps a sample of its vectors: memory is that of the sample.

Every row with a vector has the same chance to be in it, and the same table gives the same sample, whatever its format.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from xcli.analysis.vectors import batch_vectors, vector_width
from xcli.core.errors import reason_of
from xcli.core.records import ERROR, PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader

MAX_SAMPLE = 10_000
"""Rows of the sample."""

MAX_BYTES = 256 * 2**20
"""Of the sample's vectors; fewer rows are drawn where they are wide."""

NOT_FINITE = "not-finite"
"""The reason of rows that are `ok`, but have values that are no finite numbers."""


class Vectors(NamedTuple):
    """Rows of a batch that have a vector.

    Attributes:
        numbers: int64[b], their places in the table, from 0.
        paths: the column `path`, b texts.
        values: float32[b, width], each row of length one, or zero.
    """

    numbers: NDArray[np.int64]
    paths: pa.StringArray
    values: NDArray[np.float32]


@dataclass(slots=True)
class FeatureSample:
    """What is kept of a table of n rows.

    Attributes:
        rows: n.
        ok: number of rows that have a vector.
        errors: number of the other rows, by reason.
        error_rows: path and error of the first of them.
        numbers: int64[m], places of the sampled rows in the table, ascending.
        paths: of the sampled rows.
        values: float32[m, width], each of length one, or zero.
    """

    rows: int
    ok: int
    errors: Counter[str]
    error_rows: list[tuple[str, str]]
    numbers: NDArray[np.int64]
    paths: list[str]
    values: NDArray[np.float32]


@dataclass(slots=True)
class _Errors:
    """Counts rows without a vector."""

    most: int
    counts: Counter[str] = field(default_factory=Counter)
    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str | None, reason: str, error: str) -> None:
        self.counts[reason] += 1
        if len(self.rows) < self.most:
            self.rows.append((path or "", error))


def sample_rows(width: int) -> int:
    """Returns how many rows of so many values the sample may have."""
    return max(1, min(MAX_SAMPLE, MAX_BYTES // (4 * width)))


def read_sample(
    reader: TableReader, max_errors: int, wanted: Callable[[list[str]], NDArray[np.bool_]] | None = None
) -> FeatureSample:
    """Reads a table of features.

    Args:
        max_errors: rows of `error_rows`.
        wanted: says of paths of rows with a vector which rows are to be counted as `ok`, and sampled; without it all.

    Raises:
        UsageError: its rows are maps, not vectors.
        CheckError: it is damaged.
    """
    import numpy as np
    import pyarrow as pa

    width = vector_width(reader)
    most = sample_rows(width)
    random = np.random.default_rng(0)
    errors = _Errors(max_errors)
    values, numbers, paths = np.zeros((0, width), np.float32), np.zeros(most, np.int64), [""] * most
    ok = unwanted = 0
    for found in vectors(reader, errors):
        if wanted is not None:
            mask = wanted(found.paths.to_pylist())
            unwanted += len(mask) - int(mask.sum())
            found = Vectors(found.numbers[mask], found.paths.filter(pa.array(mask)), found.values[mask])
        count = len(found.numbers)
        # Algorithm R: the t-th row replaces one of the sample with the chance most / t.
        order = np.arange(ok, ok + count)
        places = (random.random(count) * (order + 1)).astype(np.int64)
        places = np.where(order < most, order, places)
        taken = np.flatnonzero(places < most)
        if len(values) < min(most, ok + count):
            # The system moves pages of a large array instead of copying them.
            values.resize((min(most, max(ok + count, 2 * len(values))), width), refcheck=False)
        for row in taken.tolist():
            paths[places[row]] = found.paths[row].as_py()
            numbers[places[row]] = found.numbers[row]
            values[places[row]] = found.values[row]
        ok += count
    rows = ok + unwanted + errors.counts.total()
    kept = min(ok, most)
    order = np.argsort(numbers[:kept], kind="stable")
    values = values[:kept] if kept == ok and bool((order == np.arange(kept)).all()) else values[order]
    return FeatureSample(rows, ok, errors.counts, errors.rows, numbers[order], [paths[row] for row in order], values)


def vectors(reader: TableReader, errors: _Errors | None = None) -> Iterator[Vectors]:
    """Yields the rows of a table that have a vector, batch by batch; the others are told to `errors`.

    Raises:
        CheckError: it is damaged.
    """
    import numpy as np
    import pyarrow as pa

    start, width = 0, vector_width(reader)
    for batch in reader.batches():
        values, is_ok, is_finite = batch_vectors(batch, width)
        usable = np.flatnonzero(is_ok & is_finite)
        if errors is not None:
            for row in np.flatnonzero(~(is_ok & is_finite)).tolist():
                text = "it has values that are no finite numbers" if is_ok[row] else batch[ERROR][row].as_py() or ""
                reason = NOT_FINITE if is_ok[row] else reason_of(text)
                errors.add(batch[PATH][row].as_py(), reason, f"{NOT_FINITE}: {text}" if is_ok[row] else text)
        if len(usable):
            paths = batch[PATH].fill_null("").take(pa.array(usable))
            yield Vectors(start + usable, paths, _of_length_one(values[usable].astype(np.float32, copy=False)))
        start += batch.num_rows


def _of_length_one(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the rows at length one, whatever their size; rows of zeros stay."""
    import numpy as np

    largest = np.abs(values).max(1, keepdims=True, initial=0)
    values = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    lengths = np.sqrt((values * values).sum(1, keepdims=True))
    made: NDArray[np.float32] = values / np.maximum(lengths, 1)
    return made
