"""The rows of a finished output as those of a part that comes before all others: an update takes them over.

They are read forward. An order that goes back and forth has them written first as files that are read at random.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from xcli.core.errors import CheckError, OutputError, SourceError
from xcli.core.records import FEATURES, PATH
from xcli.core.text import one_line
from xcli.outputs.checked_file import CheckedReader, CheckedWriter, Part
from xcli.outputs.resume import KEY, MTIME, SIZE, plain_key
from xcli.storage import disk
from xcli.storage.streams import read_errors
from xcli.tables.base import sliced
from xcli.tables.csv import is_escaped_text
from xcli.tables.formats import open_table
from xcli.tables.rows import features_array, flat_features
from xcli.tables.states import PathDigest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.core.records import ImageRef
    from xcli.outputs.base_rows import BaseRows
    from xcli.outputs.resume import RowOrder

_NAME = "the table"
_SPILLED_ROWS = 1 << 14
_MOST_RESTARTS = 2  # of reading the table, before a copy takes less time


class BaseTable:
    """The rows of a finished output, numbered from 0.

    Args:
        names: of its tables: of two tables of one pass the second one has the features.
        rows: their states.
        schema: columns of the run.
        carried: names of the columns that are taken from the manifest, and are null here.

    Raises:
        CheckError: from every method, if a table is damaged, or was changed since it was written.
    """

    def __init__(self, names: Sequence[str], rows: BaseRows, schema: pa.Schema, carried: Sequence[str]) -> None:
        self.names, self.rows, self._schema = names, rows, schema
        self._own = set(schema.names).difference(carried)
        self._spilled: list[Part] = []
        self._stream: Iterator[pa.RecordBatch] = iter(())
        self._ahead: pa.RecordBatch | None = None
        self._position = 0
        self._paths = PathDigest()
        self._restart()

    # What `RowReader` uses of a `CheckedReader`

    digest = ""

    def close(self) -> None:
        """Stays where it is: opening it again would begin anew."""

    def take(self, numbers: NDArray[np.int64], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields the rows with these ascending numbers, as they were cut into batches."""
        import numpy as np
        import pyarrow as pa

        if numbers[0] < self._position:
            self._restart()
        while len(numbers):
            batch = self._next()
            stop = self._position + batch.num_rows
            own, numbers = np.split(numbers, [np.searchsorted(numbers, stop)])
            if len(own):
                yield self._with_states(batch).select(columns).take(pa.array(own - self._position))
            if len(numbers):
                self._pass(batch)
            else:
                self._ahead = batch

    def _restart(self) -> None:
        self._stream, self._position, self._ahead, self._paths = self._read(), 0, None, PathDigest()

    def _next(self) -> pa.RecordBatch:
        batch, self._ahead = self._ahead or next(self._stream, None), None
        if batch is None:
            raise CheckError("it has fewer rows than it had")
        return batch

    def _pass(self, batch: pa.RecordBatch) -> None:
        self._position += batch.num_rows
        self._paths.update(batch.column(PATH).to_pylist())

    def _read(self) -> Iterator[pa.RecordBatch]:
        """Yields all rows with the columns of the run."""
        import pyarrow as pa

        readers = [open_table(name, escaped="keep") for name in self.names]
        columns = [self._own.intersection(reader.schema.names) for reader in readers]
        rows_at_once = min(reader.batch_rows for reader in readers)
        streams = [_cut(reader.batches(), rows_at_once) for reader in readers]
        keys, begin = self.rows.table.column(KEY), 0
        for batches in zip(*streams, strict=True):
            arrays = []
            for field in self._schema:
                # Of two tables the second one has the features, which the first does not.
                holder = next((b for b, there in zip(batches, columns, strict=True) if field.name in there), None)
                arrays.append(_converted(None if holder is None else holder.column(field.name), field, batches[0]))
            if readers[0].is_escaped:
                own = keys.slice(begin, len(arrays[0]))
                begin += len(own)
                arrays[0] = unescaped_paths(arrays[0], own)
            yield pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _with_states(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        own = self.rows.table.slice(self._position, batch.num_rows)
        if len(own) < batch.num_rows:
            raise CheckError("it has more rows than it had")
        for name in (KEY, SIZE, MTIME):
            batch = batch.append_column(name, own.column(name).combine_chunks())
        return batch

    def check(self) -> None:
        """Reads what was not read yet, and checks that the paths are those of the states; raises OutputError."""
        if not self._spilled:
            with self.intact():
                self._check()

    def _check(self) -> None:
        while (batch := self._ahead or next(self._stream, None)) is not None:
            self._ahead = None
            self._pass(batch)
        states = self.rows.states
        if self._paths.rows != len(self.rows.table) or (states is not None and self._paths.text() != states.paths):
            raise CheckError("its paths are others than when it was written")

    # As parts

    def parts(self, order: RowOrder, window: int, scratch: Callable[[], str]) -> list[Part]:
        """Returns the parts that have these rows: the table itself, or copies of its rows for an order that goes back.

        Args:
            order: the order in which they will be read.
            window: rows that will be read at a time.
            scratch: returns the path of a new temporary file.

        Raises:
            OutputError: the table is damaged, or was changed since it was written.
        """
        rows = len(self.rows.table)
        if not rows:
            return []
        restarts = end = 0
        for numbers in order.numbers(window):
            own = numbers[numbers < rows]
            if len(own):
                restarts += int(own.min()) < end
                end = int(own.max())
        if restarts <= _MOST_RESTARTS:
            return [Part(_NAME, rows, self.digest)]
        self._restart()
        with self.intact():
            spilled = []
            while self._position < rows:
                spilled.append(self._spill(scratch()))
            self._check()
        self._spilled = spilled
        return spilled

    def _spill(self, path: str) -> Part:
        writer = CheckedWriter(path)
        try:
            while writer.rows < _SPILLED_ROWS and self._position < len(self.rows.table):
                batch = self._next()
                writer.write(self._with_states(batch))
                self._pass(batch)
            rows = writer.rows
            return Part(path, rows, writer.close(0))
        except BaseException:
            writer.abandon()
            raise

    def opens(self, name: str) -> bool:
        """Returns whether a part is one of these."""
        return name == _NAME or any(part.name == name for part in self._spilled)

    def open(self, name: str) -> CheckedReader:
        """Opens one of these parts."""
        return cast("CheckedReader", self) if name == _NAME else CheckedReader(disk.open_file(name), 0)

    @contextmanager
    def intact(self) -> Iterator[None]:
        """A context for reading the table; raises OutputError for one that is not what its states say."""
        try:
            with read_errors(self.names[0]):
                yield
        except (CheckError, SourceError) as error:
            raise OutputError(
                f"{one_line(self.names[0])} cannot be updated: it is damaged, or was changed since it was written "
                f"({error}). --overwrite computes it again"
            ) from error


def _cut(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yields the rows in batches of exactly so many, but for the last."""
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        for piece in sliced(batch, rows):
            rest = piece
            while count + rest.num_rows >= rows:
                waiting.append(rest.slice(0, rows - count))
                rest = rest.slice(rows - count)
                yield pa.concat_batches(waiting) if len(waiting) > 1 else waiting[0]
                waiting, count = [], 0
            if rest.num_rows:
                waiting.append(rest)
                count += rest.num_rows
    if waiting:
        yield pa.concat_batches(waiting) if len(waiting) > 1 else waiting[0]


def _converted(column: pa.Array | None, field: pa.Field, batch: pa.RecordBatch) -> pa.Array:
    """Returns a column with the type of the run; nulls where the file has none, or where values will be replaced."""
    import pyarrow as pa

    if column is None:
        return pa.nulls(batch.num_rows, field.type)
    if column.type == field.type:
        return column
    if field.name == FEATURES:
        flat = flat_features(column)
        missing = flat.is_null().to_numpy(zero_copy_only=False)
        values = flat.to_numpy(zero_copy_only=False).astype(field.type.value_type.to_pandas_dtype())
        return features_array(field.type, values, missing if missing.any() else None)
    return column.cast(field.type)


def unescaped_paths(paths: pa.Array, keys: pa.ChunkedArray) -> pa.Array:
    """Returns paths without the apostrophe that --csv-safe has put before some: those that are no part of the name.

    Other texts stay as they are: to escape them again changes nothing.
    """
    import pyarrow as pa

    texts = paths.to_pylist()
    for row, text in enumerate(texts):
        if text and is_escaped_text(text) and plain_key(text) != keys[row].as_py():
            texts[row] = text[1:]
    return pa.array(texts, paths.type)


class CarriedValues:
    """The values that images carry from a manifest, in the order of the listing, in a temporary file.

    Args:
        schema: columns of the run.
        names: of the columns that are carried.
        path: of the file.
    """

    def __init__(self, schema: pa.Schema, names: Sequence[str], path: str) -> None:
        import pyarrow as pa

        self._schema = pa.schema([schema.field(name) for name in names])
        self._path = path
        self._writer = CheckedWriter(path)
        self._waiting: list[tuple[Any, ...]] = []
        self._rows = 0

    def add(self, ref: ImageRef) -> None:
        """Adds the values of the next image."""
        self._waiting.append(ref.extra)
        if len(self._waiting) == _SPILLED_ROWS:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        rows = self._waiting
        columns = [[row[i] if i < len(row) else None for row in rows] for i in range(len(self._schema))]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._waiting, self._rows = [], self._rows + len(rows)

    def replace(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yields all rows, in the order of the listing, with these values in place of their own."""
        import numpy as np
        import pyarrow as pa

        if self._waiting or not self._rows:
            self._write()
        self._writer.close(0)
        begin = 0
        with CheckedReader(disk.open_file(self._path), 0) as reader:
            for batch in batches:
                numbers = np.arange(begin, begin + batch.num_rows)
                begin += batch.num_rows
                pieces = list(reader.take(numbers, self._schema.names)) if batch.num_rows else []
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                for values in [pa.concat_batches(pieces)] if pieces else []:
                    columns |= zip(self._schema.names, values.columns, strict=True)
                yield pa.RecordBatch.from_arrays([*columns.values()], schema=batch.schema)
