"""The rows of parts in the order of the output, a limited number at a time; few parts are open at once.

In the parts of each start of a run the rows are in the order of the sources, so that consecutive rows of the output
come from few parts, wherever rows were computed again. If the order has changed since (of a manifest that was sorted
anew), they come from all parts. Then the rows are first written as runs, which are read side by side: each has the rows
of some consecutive parts, in the order of the output.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from xcli.core.errors import CheckError, OutputError
from xcli.core.process import raise_file_limit
from xcli.core.text import one_line
from xcli.outputs.checked_file import CheckedReader, CheckedWriter, Part, split_by
from xcli.storage import disk
from xcli.storage.streams import read_errors, write_errors
from xcli.tables.base import GATHERED_BYTES, sliced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.outputs.resume import RowOrder

_MAX_OPEN = 4  # parts, each with a batch in memory; a run that was continued takes rows from several in turn
_RUN_WINDOWS = 2  # rows of a run, in windows
_RUN_BYTES = 1 << 16  # of a batch of a run
_WORTHWHILE = 4  # how often parts are read, on average, before runs take less time


class RowReader:
    """The rows of several parts, numbered from 0 across all of them; a context manager that closes what is open.

    Args:
        parts: the parts.
        open_part: opens one, by name.
        intact: gives a context for reading one, by name, which deals with a CheckError.
        most_open: number of parts that stay open.

    Attributes:
        starts: int64[parts + 1], number of the first row of each part, and of all rows.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        open_part: Callable[[str], CheckedReader],
        intact: Callable[[str], AbstractContextManager[None]],
        most_open: int = _MAX_OPEN,
    ) -> None:
        import numpy as np

        self._parts, self._open, self._intact, self._most_open = parts, open_part, intact, most_open
        self._opened: OrderedDict[int, CheckedReader] = OrderedDict()
        self.starts = np.cumsum([0, *(part.rows for part in parts)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._opened.values():
            reader.close()

    def _reader(self, index: int) -> CheckedReader:
        if index not in self._opened:
            if len(self._opened) == self._most_open:
                self._opened.popitem(last=False)[1].close()
            self._opened[index] = self._open(self._parts[index].name)
            if self._opened[index].digest != self._parts[index].digest:
                raise CheckError("it is another file than before")
        self._opened.move_to_end(index)
        return self._opened[index]

    def pieces(self, ascending: NDArray[np.int64], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields the rows with these ascending numbers, as they are in the parts; keeps one piece in memory."""
        for index, rows_of_part in split_by(self.starts, ascending):
            with self._intact(self._parts[index].name):
                yield from self._reader(index).take(rows_of_part, columns)

    def take(self, numbers: NDArray[np.int64], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields the rows with these numbers, at least one, in this order; from each part they are read at once.

        Rows of more than `GATHERED_BYTES` together are read in halves, which are read in halves again.
        """
        import numpy as np
        import pyarrow as pa

        by_number = np.argsort(numbers, kind="stable")
        ascending = numbers[by_number]
        pieces: list[pa.RecordBatch] = []
        gathered = 0
        for piece in self.pieces(ascending, columns):
            pieces.append(piece)
            gathered += piece.nbytes
            if gathered > GATHERED_BYTES and len(numbers) > 1:
                del pieces, piece
                for half in np.array_split(numbers, 2):
                    yield from self.take(half, columns)
                return
        rows = pa.concat_batches(pieces) if len(pieces) > 1 else pieces[0]
        if not (ascending == numbers).all():
            places = np.empty(len(numbers), np.int64)
            places[by_number] = np.arange(len(numbers))
            rows = rows.take(pa.array(places))
        del pieces
        yield rows


def ordered_rows(
    order: RowOrder, reader: RowReader, columns: Sequence[str], window: int, scratch: Callable[[], str]
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of an order, at most `window` at a time.

    Args:
        order: the order.
        reader: of the parts.
        columns: of the rows.
        window: rows that may be in memory a few times; fewer where they are long.
        scratch: returns the path of a new temporary file.

    Raises:
        OutputError: a temporary file cannot be written or read. What the parts raise is up to their reader.
    """
    if not _is_scattered(order, reader.starts, window):
        for numbers in order.numbers(window):
            if (numbers[1:] > numbers[:-1]).all():  # long rows that are in order already are not gathered
                yield from reader.pieces(numbers, columns)
            else:
                yield from reader.take(numbers, columns)
        return
    runs: list[Part] = []
    try:
        places = _write_runs(order, reader, columns, window, scratch, runs)
        raise_file_limit(len(runs))
        with RowReader(runs, _open_run, _intact_run, len(runs)) as sorted_rows:
            for start in range(0, len(places), window):
                yield from sorted_rows.take(places[start : start + window], columns)
    finally:
        for run in runs:
            with suppress(OSError):  # otherwise it goes with all other files of the run
                disk.unlink(run.name)


def _is_scattered(order: RowOrder, starts: NDArray[np.int64], window: int) -> bool:
    """Says whether parts would be read so often, for different windows, that runs are worthwhile."""
    import numpy as np

    parts = len(starts) - 1
    if order.range_count <= parts:
        return False
    windows = reads = 0
    for numbers in order.numbers(window):
        windows += 1
        reads += len(np.unique(np.searchsorted(starts, numbers, "right")))
    return reads > _WORTHWHILE * (parts + windows)


def _write_runs(
    order: RowOrder,
    reader: RowReader,
    columns: Sequence[str],
    window: int,
    scratch: Callable[[], str],
    runs: list[Part],
) -> NDArray[np.int64]:
    """Writes the runs, which `runs` receives; returns for each row of the output its number in them, 8 bytes each."""
    import numpy as np

    numbers, starts = np.empty(sum(stop - start for start, stop in order.ranges()), np.int64), reader.starts
    filled = 0
    for some in order.numbers(window):
        numbers[filled : filled + len(some)] = some
        filled += len(some)
    first = written = 0
    while first < len(starts) - 1:
        begin = starts[first]
        first = max(first + 1, int(np.searchsorted(starts, begin + _RUN_WINDOWS * window, "right")) - 1)
        places = np.flatnonzero((numbers >= begin) & (numbers < starts[first]))
        if len(places):
            path = scratch()
            with write_errors(path):
                runs.append(_write_run(path, reader.take(numbers[places], columns)))
            # New numbers are negative until all are there, so that they are not taken for old ones.
            numbers[places] = np.invert(np.arange(written, written + len(places)))
            written += len(places)
    return np.invert(numbers, out=numbers)


def _write_run(path: str, batches: Iterator[pa.RecordBatch]) -> Part:
    writer, written = CheckedWriter(path, frame_bytes=0), 0
    try:
        for rows in batches:
            for piece in sliced(rows, max(1, _RUN_BYTES * rows.num_rows // rows.nbytes)):
                writer.write(piece)
            written += rows.num_rows
        return Part(path, written, writer.close(0))
    except BaseException:
        with suppress(OSError):
            writer.abandon()
        raise


def _open_run(path: str) -> CheckedReader:
    return CheckedReader(disk.open_file(path), 0)


@contextmanager
def _intact_run(path: str) -> Iterator[None]:
    try:
        with read_errors(path):
            yield
    except CheckError as error:
        raise OutputError(
            f"{one_line(path)} was damaged during the run: {error}. Run the same command again"
        ) from error
