"""The rows of a finished output, as the index of rows that an update and a comparison look images up in."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import chain
from operator import neg
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError, OutputError, SourceError
from xcli.core.records import ERROR, ERROR_STATUS, OK_STATUS, PATH, STATUS, STATUS_COLUMNS
from xcli.outputs.resume import KEY, MTIME, PASSING, SIZE, FinishedRows, plain_key
from xcli.outputs.target import Directory
from xcli.tables.formats import open_table
from xcli.tables.provenance import read_meta
from xcli.tables.states import States, read_states, states_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.core.records import ImageRef
    from xcli.outputs.target import KeptTarget


@dataclass(frozen=True, slots=True)
class BaseRows:
    """The rows of a finished output, as `OutputRows` takes them.

    Attributes:
        table: as `FinishedRows` takes it; its keys are those without carried values.
        carried: keys with these values, by row; None if there are none.
        states: what was recorded; None if nothing was, and the table was read instead.
    """

    table: pa.Table
    carried: NDArray[np.uint64] | None = None
    states: States | None = None


def base_rows(target: KeptTarget, *, trust: bool = False) -> BaseRows:
    """Reads the states of the rows of a finished output.

    Args:
        target: the output.
        trust: take what is missing from the table itself; then no changed file is noticed.

    Raises:
        CheckError: states are missing or damaged, or the table is.
        OutputError: an object store cannot be asked.
    """
    name = states_name(target.name, parts=isinstance(target, Directory))
    try:
        states = read_states(name, read_meta(target.meta_name))
    except CheckError:
        if not trust:
            raise
        states = None
    if states is None:
        return _rows_of_table(target.name)
    return _rows_of_states(states)


def _rows_of_states(states: States) -> BaseRows:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = states.rows
    reasons = rows.column("reason")
    statuses = pc.if_else(pc.is_null(reasons), OK_STATUS, ERROR_STATUS)
    columns = [statuses, reasons, rows.column("key"), rows.column("size"), rows.column("mtime")]
    carried = rows.column("carried")
    values = None if carried.null_count else carried.to_numpy()
    return BaseRows(pa.table(columns, names=[STATUS, ERROR, KEY, SIZE, MTIME]), values if len(rows) else None, states)


def _rows_of_table(name: str) -> BaseRows:
    import pyarrow as pa

    try:
        batches = list(open_table(name).batches(STATUS_COLUMNS))
    except SourceError as error:
        raise CheckError(str(error)) from error
    schema = pa.schema([(column, pa.string()) for column in STATUS_COLUMNS])
    table = pa.Table.from_batches(batches, schema)
    keys = pa.array(map(plain_key, (path or "" for path in table.column(PATH).to_pylist())), pa.uint64())
    nothing = pa.nulls(len(table), pa.int64())
    columns = [table.column(STATUS), table.column(ERROR), keys, nothing, nothing]
    return BaseRows(pa.table(columns, names=[STATUS, ERROR, KEY, SIZE, MTIME]))


class OutputRows(FinishedRows):
    """An index of the rows of a finished output, and of newer rows.

    The rows of a path that is listed more than once are taken in their order, unless there is a newer row.

    Args:
        base: the rows of the output, which are numbered first. Without recorded states they are valid whatever the
            state of their files.
        tables: of the newer rows, as `FinishedRows` takes them.
        update: error rows of the output are not valid if their reason is one of `PASSING`, and rows without a recorded
            state get that which their file has now.
    """

    def __init__(self, base: BaseRows, tables: Iterable[pa.Table] = (), *, update: bool = False) -> None:
        self.base_rows, self._trusted, self._update = len(base.table), base.states is None, update
        super().__init__(
            chain([base.table], tables), retry_errors=False, key=_path_key if self._trusted else _plain_key
        )
        self.carried = None if base.carried is None else base.carried.data  # one number is read faster from a view

    def _next_place(self, newest: int) -> int:
        keys, key = self._keys, self._keys[newest]
        if not newest or keys[newest - 1] != key or self._order[newest] >= self.base_rows:
            return newest
        # Those that were found come first.
        return bisect_left(self._found, 0, bisect_left(keys, key, 0, newest), newest, key=neg)

    def _is_retried(self, row: int) -> bool:
        return self.retry_errors or (self._update and row < self.base_rows and self.reason(row) in PASSING)

    def _is_valid(self, row: int, ref: ImageRef) -> bool:
        if not self._trusted or row >= self.base_rows:
            return super()._is_valid(row, ref)
        if self._update:
            self._adopt(row, ref)
        return True

    def _adopt(self, row: int, ref: ImageRef) -> None:
        if ref.location.offset is not None:
            raise OutputError(
                "--trust-existing does not take over members of archives, whose positions were not recorded; "
                "--overwrite computes the output again"
            )
        if (state := ref.location.state()) is not None:
            self._size[row], self._mtime[row] = state

    def gone(self) -> int:
        """Returns the number of rows of the output whose image was not given to `find`, or not as often."""
        import numpy as np

        keys = np.asarray(self._keys)
        if not len(keys):
            return 0
        last = np.append(keys[1:] != keys[:-1], True)  # of the rows of an image
        found, is_base = np.frombuffer(self._found, np.bool_), np.asarray(self._order) < self.base_rows
        replaced = (found & ~is_base)[last]  # by image, by a newer row
        image = np.cumsum(last) - last
        return int((is_base & ~found & ~replaced[image]).sum())


def _plain_key(ref: ImageRef) -> int:
    return plain_key(ref.path, ref.location.offset)


def _path_key(ref: ImageRef) -> int:
    return plain_key(ref.path)
