"""The rows of a finished output, as the index of rows that an update and a comparison look images up in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError, SourceError
from xcli.core.records import ERROR, ERROR_STATUS, OK_STATUS, PATH, STATUS, STATUS_COLUMNS
from xcli.outputs.resume import KEY, MTIME, SIZE, FinishedRows, plain_key
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
    """The rows of a finished output, as `FinishedRows` takes them.

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


def finished_rows(base: BaseRows, tables: Iterable[pa.Table] = (), *, retry_errors: bool = False) -> FinishedRows:
    """Returns the index of the rows of a finished output, and of newer rows.

    Args:
        base: the rows of the output, which are numbered first.
        tables: of the newer rows.
        retry_errors: no error row is valid.
    """
    key = _path_key if base.states is None else _plain_key
    rows = FinishedRows(chain([base.table], tables), retry_errors, key)
    rows.base_rows, rows.trusted = len(base.table), base.states is None
    rows.carried = None if base.carried is None else base.carried.data  # one number is read faster from a view
    return rows


def _plain_key(ref: ImageRef) -> int:
    return plain_key(ref.path, ref.location.offset)


def _path_key(ref: ImageRef) -> int:
    return plain_key(ref.path)
