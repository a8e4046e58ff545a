"""`--update`: a finished table is brought up to date, and only what is new or has changed is computed.

An update is an unfinished run that takes its rows over from the old table (`xcli.outputs.base_table`). Its `run.json`
has the digest of the `.meta.json` of that table, so that rows of an update are told from what a finished run has left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, OutputExistsError
from xcli.core.records import ERROR
from xcli.core.text import one_line
from xcli.outputs.base_rows import BaseRows, base_rows
from xcli.outputs.base_table import BaseTable, CarriedValues
from xcli.outputs.comparison import Comparison, comparison_of
from xcli.outputs.journal import refuse_other_settings
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import KEY, MTIME, SIZE
from xcli.outputs.target import Directory
from xcli.tables.provenance import LISTING, digest, read_meta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.outputs.options import SaveOptions
    from xcli.outputs.parts import Parts
    from xcli.outputs.resume import RowOrder
    from xcli.outputs.target import File, KeptTarget

UPDATE = "update"
"""Member of `run.json` during an update: a digest of the `.meta.json` of the table."""

_FEW_ROWS, _SHARE = 10, 100  # rows that may be gone, and one in so many of all rows


def marker_of(target: KeptTarget) -> dict[str, str]:
    """Returns the member of `run.json` for an update of a finished table."""
    return {UPDATE: digest(read_meta(target.meta_name) or {})}


def is_update(fingerprint: Mapping[str, Any] | None) -> bool:
    """Returns whether a `run.json` is that of an update."""
    return fingerprint is not None and UPDATE in fingerprint


def without_marker(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fingerprint of the run in a `run.json`."""
    return {name: value for name, value in fingerprint.items() if name != UPDATE}


def refuse_settings(target: KeptTarget, fingerprint: dict[str, Any]) -> None:
    """Raises OutputExistsError, which names what differs, for a table of a run with another fingerprint."""
    shown = one_line(target.name)
    try:
        states = base_rows(target).states
    except CheckError:
        states = None
    if states is not None and states.fingerprint is not None:
        remedy = "another -o, or --overwrite to compute it again"
        now = json.loads(json.dumps(fingerprint))  # as the recorded one was: a tuple has become a list
        refuse_other_settings(target.name, states.fingerprint, now, "rows of a run", remedy=remedy)
    raise OutputExistsError(
        f"{shown} is from a run with other settings or sources, which --update cannot bring up to date; pass "
        "--overwrite to compute it again"
    )


def open_base(
    target: KeptTarget, second: File | None, schema: pa.Schema, *, carried: Sequence[str], trust: bool
) -> BaseTable:
    """Opens the rows of a finished table, to be taken over.

    Args:
        target: the table.
        second: the second table of the same pass, if there is one.
        schema: columns of the run.
        carried: names of the columns that are taken from a manifest.
        trust: whether the files of now are those that the rows were made of, if that was not recorded.

    Raises:
        OutputError: the table cannot be updated.
    """
    shown = one_line(target.name)
    try:
        rows = base_rows(target, trust=trust)
        if rows.states is None and not trust:
            raise CheckError(f"{shown} was written without the states of its files")
        names = [target.name, *([] if second is None else [second.name])]
        return BaseTable(names, rows, schema, carried)
    except CheckError as error:
        raise OutputError(
            f"{shown} cannot be updated: {error}. If its files are still those that the rows were made of, add "
            "--trust-existing; --overwrite computes it again"
        ) from error


def carry(order: RowOrder, parts: Parts, schema: pa.Schema, names: Sequence[str]) -> CarriedValues | None:
    """Has the values that images carry kept as they are listed; None if they carry none."""
    if not names:
        return None
    values = CarriedValues(schema, names, parts.new_scratch())
    order.carry = values.add
    return values


def check_gone(target: KeptTarget, found: Comparison, *, drop_missing: bool) -> None:
    """Raises OutputError if more rows would be dropped than may be without `--drop-missing`, or if none is left."""
    many = found.gone > _FEW_ROWS and found.gone * _SHARE > found.rows
    nothing_left = found.gone == found.rows and not found.new
    if found.gone and (many or nothing_left) and not drop_missing:
        raise OutputError(
            f"{one_line(target.name)} was not changed: {found.gone:,} of its {found.rows:,} rows are of images that "
            "are gone. Mount the disk that they are on and run the same command again; --drop-missing drops the rows"
        )


def is_other_listing(target: KeptTarget, order: RowOrder) -> bool:
    """Returns whether the images of other shards have changed, so that those of this one have other positions."""
    return order.whole is not None and (read_meta(target.meta_name) or {}).get(LISTING) != order.whole.text()


def adopt_states(base: BaseRows, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> BaseRows:
    """Returns rows with these states, those of the files of now; a size of -1 is no state."""
    import pyarrow as pa

    unknown = sizes < 0
    table = base.table
    for name, values in ((SIZE, sizes), (MTIME, times)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.int64(), mask=unknown))
    return BaseRows(table, base.carried, base.states)


def fingerprint_of_run(parts: Parts) -> dict[str, Any]:
    """Returns the fingerprint of the run whose parts are kept."""
    return without_marker(parts.fingerprint or {})


def is_left(target: KeptTarget, journal: dict[str, Any], fingerprint: dict[str, Any]) -> bool:
    """Returns whether a `run.json` beside a finished output was left by the run, or the update, that finished it."""
    is_current = digest(journal) == digest(fingerprint | marker_of(target))
    return not is_current and digest(without_marker(journal)) == digest(fingerprint)


@dataclass(slots=True)
class Update:
    """One update of a finished output.

    Attributes:
        target: the output.
        second: the second table of the same pass, if there is one.
        options: how rows are kept.
        fingerprint: of the run.
        schema: columns of the run.
        carried: names of the columns that are taken from a manifest.
        base: the rows of the output.
    """

    target: KeptTarget
    second: File | None
    options: SaveOptions
    fingerprint: dict[str, Any]
    schema: pa.Schema
    carried: Sequence[str]
    base: BaseTable = field(init=False)

    @property
    def journal(self) -> dict[str, Any]:
        """The `run.json` of the update."""
        return self.fingerprint | marker_of(self.target)

    def open(self, parts: Parts, stack: ExitStack) -> Parts:
        """Opens the rows of the output, and where new ones are kept until all are computed.

        Args:
            parts: of the output; a file keeps new rows there.
            stack: closes what is opened.

        Raises:
            OutputError, UsageError: the output cannot be updated.
        """
        trust = self.options.trust_existing
        self.base = open_base(self.target, self.second, self.schema, carried=self.carried, trust=trust)
        if isinstance(self.target, Directory):
            parts = stack.enter_context(self._open_beside())
        journal = parts.fingerprint
        if journal is not None and is_left(self.target, journal, self.fingerprint):
            parts.discard()
        parts.base = self.base
        return parts

    def _open_beside(self) -> PartialFile:
        name, options = self.target.name.rstrip("/"), self.options
        rows, seconds = options.part_rows, options.part_seconds
        return PartialFile(name, restart=options.restart, part_rows=rows, part_seconds=seconds)

    def check_when_listed(self, order: RowOrder) -> None:
        """Has `check` done as soon as all sources are listed, and nothing computed before."""
        order.on_listed = partial(self.check, order)

    def check(self, order: RowOrder) -> Comparison:
        """Returns what has changed, now that all sources are listed.

        Raises:
            OutputError: rows would be dropped that are perhaps not gone.
        """
        order.check_sources(keep=True)
        comparison = comparison_of(self.target, self.base.rows, order)
        check_gone(self.target, comparison, drop_missing=self.options.drop_missing)
        return comparison

    def is_needed(self, comparison: Comparison, order: RowOrder, parts: Parts) -> bool:
        """Returns whether the output is to be written anew, now that all images of `parts` are computed."""
        if self.base.rows.states is None:
            self.base.rows = adopt_states(self.base.rows, *order.states())
            return True
        if comparison.stale or is_other_listing(self.target, order):
            return True
        return bool(order.retried) and not self._are_same(order.retried_rows(), parts)

    def _are_same(self, retried: NDArray[np.int64], parts: Parts) -> bool:
        """Returns whether the rows of images that were tried again are as they were: the same errors."""
        import pyarrow as pa

        columns = [KEY, SIZE, MTIME, ERROR]
        with self.base.intact():
            old, new = list(self.base.take(retried, columns)), [rows.select(columns) for rows in parts.own_rows()]
        both = [pa.Table.from_batches(rows).sort_by([(name, "ascending") for name in columns]) for rows in (old, new)]
        return bool(both[0].equals(both[1]))
