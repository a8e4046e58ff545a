"""A finished output compared with its sources: which images are new, have changed or are gone since it was written."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, OutputExistsError, SourceError
from xcli.core.records import ERROR, ERROR_STATUS, OK_STATUS, PATH, STATUS, STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.error_list import list_errors
from xcli.outputs.resume import KEY, MTIME, PASSING, SIZE, FinishedRows, RowOrder, plain_key
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
    from xcli.outputs.options import SaveOptions
    from xcli.outputs.target import KeptTarget


log = logging.getLogger("xcli")


class StaleOutputError(OutputExistsError):
    """A finished output is not what the command would write now; `comparison` says why."""

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison has found.

    Attributes:
        rows: of the output.
        new: images without a row.
        changed: images whose file is another than the one that their row was made of.
        gone: rows without an image.
        carried: rows whose values from the manifest have changed.
        reordered: whether the images come in another order, or another number of times.
        known: whether the states of the files were recorded, without which no changed file is noticed.
        errors: valid error rows by reason.
        retryable: those among them whose reason may have passed.
    """

    rows: int
    new: int
    changed: int
    gone: int
    carried: int
    reordered: bool
    known: bool
    errors: dict[str, int]
    retryable: int

    @property
    def stale(self) -> bool:
        """Whether a run would write another table."""
        return bool(self.new or self.changed or self.gone or self.carried or self.reordered)

    def as_dict(self) -> dict[str, Any]:
        """Returns it as a JSON object."""
        return {"up_to_date": not self.stale, **asdict(self)}

    def findings(self) -> str:
        """Returns the differences as a phrase."""
        found = [
            _phrase(self.new, "is new", "are new"),
            _phrase(self.changed, "has changed", "have changed"),
            _phrase(self.gone, "is gone", "are gone"),
            _phrase(self.carried, "has other values in the manifest", "have other values in the manifest"),
        ]
        phrases = [phrase for phrase in found if phrase]
        if not phrases:
            return "the images come in another order"
        first, *rest = phrases
        number, _, verb = first.partition(" ")
        return ", ".join([f"{number} image{'' if number == '1' else 's'} {verb}", *rest])


def _phrase(count: int, one: str, several: str) -> str:
    return "" if not count else f"{count:,} {one if count == 1 else several}"


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


def compare(target: KeptTarget, refs: Iterable[ImageRef], *, carried: bool) -> tuple[Comparison, RowOrder]:
    """Compares a finished output with its sources.

    Args:
        target: the output.
        refs: the sources.
        carried: whether they may carry values of a manifest.

    Raises:
        OutputError: a directory or an archive could not be listed, so that nothing is known of its images; or the
            states of files were not recorded, and the table cannot be read.
    """
    try:
        base = base_rows(target, trust=True)
    except CheckError as error:
        raise OutputError(
            f"{one_line(target.name)} is finished, but cannot be compared with its sources: {error}. --overwrite "
            "computes it again"
        ) from error
    order = RowOrder(finished_rows(base), carried=carried)
    for _ in order.rest(iter(refs)):
        pass
    order.check_sources(keep=True)
    return comparison_of(target, base, order), order


def comparison_of(target: KeptTarget, base: BaseRows, order: RowOrder) -> Comparison:
    """Returns what listing the sources has found; all of them have been taken by `order`."""
    gone, rows = order.gone(), len(base.table)
    others = order.new or order.changed or order.retried or gone
    in_order = order.images == rows if isinstance(target, Directory) else order.is_identity(rows)
    return Comparison(
        rows=rows,
        new=order.new,
        changed=order.changed,
        gone=gone,
        carried=order.recarried,
        reordered=not others and not in_order,
        known=base.states is not None,
        errors=dict(order.errors),
        retryable=sum(order.errors.get(reason, 0) for reason in PASSING),
    )


def updated(comparison: Comparison, retried: int) -> str:
    """Returns what an update has found, for a message."""
    found = comparison.findings() if comparison.stale else ""
    again = _phrase(retried, "error row was tried again", "error rows were tried again")
    return ", ".join(filter(None, [found, again])) or "what is recorded of its files is renewed"


def stale_output(target: KeptTarget, comparison: Comparison, remedy: str) -> StaleOutputError:
    """Returns the error for a finished output that is not what the command would write now."""
    shown = one_line(target.name)
    return StaleOutputError(f"{shown} is finished, but since then {comparison.findings()}: {remedy}", comparison)


def say_finished(target: KeptTarget, options: SaveOptions, comparison: Comparison) -> None:
    """Says what a finished output lacks, and writes the list of its errors if that is wanted.

    Raises:
        StaleOutputError: it is not what the command would write now.
    """
    if options.errors_out is not None:
        list_errors(options.errors_out, open_table(target.name).batches([PATH, STATUS]))
    shown = one_line(target.name)
    if not comparison.known:
        log.warning("%s does not record the states of its files, so that changed files are not noticed", shown)
    if comparison.stale:
        raise stale_output(target, comparison, options.how_to_update(target))
    stay = ""
    if failed := sum(comparison.errors.values()):
        stay = f"; {failed:,} error row{'s' if failed > 1 else ''} remain{'s' if failed == 1 else ''}"
        if comparison.retryable:
            stay += f", {comparison.retryable:,} of them for reasons that may have passed"
        if not options.update and (options.retry_errors or comparison.retryable):
            stay += f" ({options.how_to_retry(target)})"
    log.info("%s is finished and up to date%s", shown, stay)
