"""The rows of shards in the order of the sources: the shards are read side by side, once, from beginning to end."""

from __future__ import annotations

from collections import deque
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple

from xcli.core.errors import CheckError
from xcli.core.process import raise_file_limit
from xcli.core.text import one_line
from xcli.tables.base import GATHERED_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.core.records import RunCounts
    from xcli.tables.base import TableReader

MAX_RUNS = 256
"""How often the rows of shards may break the order of the sources; the rows after each break are read on their own."""


class _Run(NamedTuple):
    """Consecutive rows of a table that are in the order of the sources: `rows` of them from number `begin` on."""

    reader: TableReader
    begin: int
    rows: int


def _runs(readers: Sequence[TableReader], positions: NDArray[np.int64], counts: Sequence[RunCounts]) -> list[_Run]:
    """Returns one run per shard; more for a table that was merged before without the sources."""
    import numpy as np

    runs: list[_Run] = []
    first = 0
    for reader, one in zip(readers, counts, strict=True):
        own = positions[first : first + one.rows]
        first += one.rows
        breaks = [0, *(np.flatnonzero(np.diff(own) < 0) + 1).tolist(), one.rows]
        runs += [_Run(reader, begin, end - begin) for begin, end in pairwise(breaks)]
    if len(runs) > len(readers) + MAX_RUNS:
        raise CheckError(
            f"the rows break the order of the sources in {len(runs) - len(readers):,} places; "
            "give the sources in the order in which the runs had them"
        )
    return runs


def in_source_order(
    readers: Sequence[TableReader], positions: NDArray[np.int64], counts: Sequence[RunCounts]
) -> Iterator[pa.RecordBatch]:
    import numpy as np
    import pyarrow as pa

    runs = _runs(readers, positions, counts)
    raise_file_limit(2 * len(runs))  # an array of features has a table beside it
    run_of = np.empty(len(positions), np.int16)
    first = 0
    for number, run in enumerate(runs):
        run_of[positions[first : first + run.rows]] = number
        first += run.rows
    del positions
    cursors = [_Cursor(run) for run in runs]
    step = readers[0].batch_rows
    start = 0
    while start < len(run_of):
        chunk = run_of[start : start + step]
        while (pieces := _gathered(cursors, chunk)) is None:
            chunk = chunk[: len(chunk) // 2]
        # The pieces are grouped by run; within a run, rows are in the order of the sources.
        order = np.empty(len(chunk), np.int64)
        order[np.argsort(chunk, kind="stable")] = np.arange(len(chunk))
        yield pa.concat_batches(pieces).take(pa.array(order))
        start += len(chunk)


def _gathered(cursors: list[_Cursor], chunk: NDArray[np.int16]) -> list[pa.RecordBatch] | None:
    """Returns the next rows of the runs in `chunk`, by run; None, and takes none, where they are too many bytes."""
    import numpy as np

    numbers = np.bincount(chunk, minlength=len(cursors))
    pieces: list[pa.RecordBatch] = []
    size = 0
    for number in np.flatnonzero(numbers):
        for piece in cursors[number].ahead(int(numbers[number])):
            pieces.append(piece)
            size += piece.nbytes
            if size > GATHERED_BYTES and len(chunk) > 1:
                return None
    for number in np.flatnonzero(numbers):
        cursors[number].drop(int(numbers[number]))
    return pieces


class _Cursor:
    def __init__(self, run: _Run) -> None:
        self._name = run.reader.name
        self._stream = run.reader.batches()
        self._ahead: deque[pa.RecordBatch] = deque()
        self.drop(run.begin)

    def _read(self) -> pa.RecordBatch:
        batch = next(self._stream, None)
        if batch is None:
            raise CheckError(f"{one_line(self._name)} has changed while it was read")
        return batch

    def ahead(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yields the next rows of the run, in batches that together have exactly so many, and keeps them."""
        for number in count():
            if not rows:
                return
            if number == len(self._ahead):
                self._ahead.append(self._read())
            piece = self._ahead[number].slice(0, rows)
            rows -= piece.num_rows
            yield piece

    def drop(self, rows: int) -> None:
        """Goes on by so many rows."""
        while rows:
            first = self._ahead.popleft() if self._ahead else self._read()
            if first.num_rows > rows:
                self._ahead.appendleft(first.slice(rows))
            rows -= min(rows, first.num_rows)
