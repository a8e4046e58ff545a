"""`xception merge`: joins the outputs of shards to the table that one run would have written.

Each shard is in the order of the sources already, so the shards are read side by side, once, from beginning to end.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.checks.merged_states import merged_states, recorded_positions, write_merged
from xcli.checks.row_index import RowIndex
from xcli.checks.source_order import in_source_order
from xcli.checks.unmatched import match_sources, recorded_shards
from xcli.checks.verify import check_counts, count_rows
from xcli.core.errors import CheckError, UsageError
from xcli.core.process import return_freed_memory
from xcli.core.records import STATUS_COLUMNS, RunCounts
from xcli.core.text import join_names, one_line
from xcli.sources.selection import OTHER_SHARD
from xcli.storage.staging import complete
from xcli.storage.streams import is_direct
from xcli.storage.urls import is_url
from xcli.tables.formats import create_table, open_table
from xcli.tables.provenance import (
    IMPLIED_KEYS,
    MACHINE_KEYS,
    META_SUFFIX,
    differences,
    provenance_metadata,
    provenance_of,
    read_meta,
)
from xcli.tables.states import STATES, PathDigest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.checks.findings import Finding, Findings
    from xcli.sources.listing import Listing
    from xcli.tables.base import TableReader


class MergeError(CheckError):
    """The shards do not make one complete table; `findings` say what is wrong."""

    def __init__(self, findings: list[Finding], hint: str | None = None) -> None:
        causes = [f"{finding.what}: {finding.count:,}" for finding in findings]
        super().__init__("; ".join([*causes, *([hint] if hint else [])]))
        self.findings = findings


class Merged(NamedTuple):
    """The result of `merge`: counts of the rows, the number of shards, and whether rows are in the sources' order."""

    counts: RunCounts
    shards: int
    ordered: bool


class Shards:
    """Tables of one run, opened and compared.

    Args:
        names: as the user gave them.
        mixed_machines: whether device and batch size may differ.

    Attributes:
        readers: of the tables, in the order given.
        format, command, schema: of all of them.
        provenance: of all of them; members that differ between machines are lists where they differ.
        readings: how often `merge` reads each row.

    Raises:
        SourceError: a file cannot be opened.
        CheckError: a file is damaged, is given twice, or was not made by the same run as the first.
    """

    def __init__(self, names: Sequence[str], *, mixed_machines: bool = False) -> None:
        _check_distinct(names)
        self.readers = [open_table(name) for name in names]
        first = self.readers[0]
        self.format, self.command = first.format, first.command
        for other in self.readers[1:]:
            for what, one, two in (("format", first.format, other.format), ("command", first.command, other.command)):
                if one != two:
                    raise _not_one_run(what, one, first, two, other)
        self.provenance = self._common_provenance(mixed_machines)
        self.schema = self._common_schema()
        self.readings = 2

    def check_format(self, format: str) -> None:
        """Raises UsageError if `format` is another one, and that of the shards does not hold the types of columns."""
        if format != self.format and not self.readers[0].self_describing:
            raise UsageError(
                f"the shards are {self.format}, which does not hold the types that {format} needs; "
                f"merge them to {self.format} (only Parquet shards can be converted)"
            )

    def _common_provenance(self, mixed_machines: bool) -> dict[str, Any]:
        first = self.readers[0]
        provenance = _provenance(first)
        values = {key: [provenance.get(key)] for key in MACHINE_KEYS}
        for other in self.readers[1:]:
            for key, one, two in differences(provenance, _provenance(other)):
                if key in IMPLIED_KEYS:
                    continue
                if key not in MACHINE_KEYS:
                    raise _not_one_run(key, one, first, two, other)
                if not mixed_machines:
                    raise CheckError(
                        f"{_not_one_run(key, one, first, two, other)}; their rows agree within the precision, but are "
                        "not identical: pass --mixed-machines to merge them nevertheless"
                    )
                if two not in values[key]:
                    values[key].append(two)
        mixed = {key: sorted(found, key=str) for key, found in values.items() if len(found) > 1}
        return provenance | mixed

    def _common_schema(self) -> pa.Schema:
        first = self.readers[0]
        first.align(self.readers)
        for other in self.readers[1:]:
            if other.schema != first.schema:
                one, two = _different_columns(first.schema, other.schema)
                raise _not_one_run("the column", one, first, two, other)
        return first.schema


def _check_distinct(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        path = os.path.realpath(name)
        if path in seen:
            raise CheckError(f"{one_line(name)} and {one_line(seen[path])} are the same file; give each shard once")
        seen[path] = name


def _provenance(reader: TableReader) -> dict[str, Any]:
    found = reader.provenance or provenance_of(reader.meta or {})
    if not found:
        name = one_line(reader.name)
        raise CheckError(
            f"{name} has no provenance ({name}{META_SUFFIX} is missing), so it cannot be checked that it was made by "
            "the same model"
        )
    return found


def _not_one_run(what: str, one: Any, first: TableReader, two: Any, other: TableReader) -> CheckError:
    shown = [one_line(value) if isinstance(value, str) else json.dumps(value) for value in (one, two)]
    return CheckError(
        f"these are not shards of one run: {what} is {shown[0]} in {one_line(first.name)}, "
        f"but {shown[1]} in {one_line(other.name)}"
    )


def _different_columns(one: pa.Schema, other: pa.Schema) -> tuple[str | None, str | None]:
    """Returns the first columns that differ; None for one that has no counterpart."""
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return f"{mine.name} ({mine.type})", f"{theirs.name} ({theirs.type})"
    if len(one) > len(other):
        return one.names[len(other)], None
    return None, other.names[len(one)]


def merge(
    shards: Shards,
    listing: Listing | None,
    format: str,
    target: str | None,
    *,
    overwrite: bool,
    findings: Findings,
    command_line: str | None = None,
) -> Merged:
    """Joins shards to one table, with exactly one row for each source, in their order.

    Args:
        shards: what to join.
        listing: all sources of the shards together, not yet iterated; None takes their order from what the shards
            have recorded, or else appends the shards to one another in the order given.
        format, target, overwrite: see `create_table`.
        findings: receives what is wrong with the rows.
        command_line: for `FILE.meta.json`.

    Raises:
        MergeError: a source has no row, or a row has no source, or is a duplicate. Nothing is written.
        CheckError: a shard is damaged, or its rows differ from the counts in its `FILE.meta.json`. Nothing is written.
        SourceError: the listing fails.
        OutputError: the table cannot be written.
    """
    started = datetime.now(UTC)
    counts = [RunCounts() for _ in shards.readers]
    states = merged_states(shards.readers, format, shards.provenance)
    positions = None
    if listing is None:
        if problem := _incomplete(shards.readers):
            raise CheckError(f"{problem}; give every shard of the run once")
        if states is not None:
            positions = recorded_positions(shards.readers, states)
        if positions is not None:
            count_recorded(shards.readers, counts, findings)
    else:
        positions = _positions(shards, counts, listing, findings)
    if positions is None:
        shards.readings = 1
        batches = _appended(shards, counts, findings)
    else:
        batches = in_source_order(shards.readers, positions, counts)
    states = None if is_direct(target) else states
    with create_table(format, target, shards.schema, provenance_metadata(shards.provenance), overwrite) as output:
        member = write_merged(output, batches, states, positions)
        total = _total(shards.readers, counts, listing)
        output.record(shards.provenance | _merge_meta(shards, counts, total, started, command_line) | member)
    return Merged(total, len(shards.readers), ordered=positions is not None)


def _merge_meta(
    shards: Shards, counts: Sequence[RunCounts], total: RunCounts, started: datetime, command_line: str | None
) -> dict[str, Any]:
    return {
        "command_line": command_line,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "merged": [
            {"file": reader.name, "rows": one.rows, "command_line": (reader.meta or {}).get("command_line")}
            for reader, one in zip(shards.readers, counts, strict=True)
        ],
        "images": total.as_dict(),
    }


def was_cut_short(target: str | None, names: Sequence[str]) -> bool:
    """Completes what an earlier merge was killed at, while its files got their names; such a merge is done again.

    Args:
        target: of the merge.
        names: of the shards.

    Returns:
        Whether these files were being written, by a merge of these shards.

    Raises:
        OutputError: another process writes the target.
        CheckError: its `FILE.meta.json` cannot be read.
    """
    if target is None or is_direct(target) or is_url(target) or not complete(target):
        return False
    meta = read_meta(target + META_SUFFIX) or {}
    return [one.get("file") for one in meta.get("merged") or []] == list(names)


def _incomplete(readers: Sequence[TableReader]) -> str | None:
    """Says which shards are missing or given twice by their `FILE.meta.json`; None where that tells of no problem."""
    shards = recorded_shards(readers)
    if not shards:
        return None  # merged before, or made elsewhere: nothing is known
    given, totals = [number for number, _ in shards], {total for _, total in shards}
    if len(totals) > 1 or len(set(given)) < len(given):
        names = join_names(f"{number}/{total}" for number, total in shards)
        return f"these are not the shards of one run, each once: {names}"
    (total,) = totals
    missing = total - len(given)
    absent = (f"{number}/{total}" for number in range(1, total + 1) if number not in given)
    return f"shards are missing: {join_names(absent, count=missing)}" if missing else None


def _appended(shards: Shards, counts: Sequence[RunCounts], findings: Findings) -> Iterator[pa.RecordBatch]:
    for reader, one in zip(shards.readers, counts, strict=True):
        for batch in reader.batches():
            count_rows(batch, one)
            yield batch
        check_counts(reader, one, findings)
    if findings.failures:
        raise MergeError(findings.failures)


def count_recorded(readers: Sequence[TableReader], counts: Sequence[RunCounts], findings: Findings) -> None:
    """Counts the rows of shards, and checks that their paths are those that were recorded with their states."""
    for reader, one in zip(readers, counts, strict=True):
        paths = PathDigest()
        for batch in reader.batches(STATUS_COLUMNS):
            count_rows(batch, one)
            paths.update(batch.column(0).to_pylist())
        check_counts(reader, one, findings)
        if not str((reader.meta or {})[STATES]).startswith(f"{paths.text()} "):
            findings.add("states", "shards whose paths have changed since they were written", [one_line(reader.name)])
    if findings.failures:
        raise MergeError(findings.failures)


def _positions(shards: Shards, counts: Sequence[RunCounts], listing: Listing, findings: Findings) -> NDArray[np.int64]:
    """Returns for each row the position of its source, and counts the rows."""
    index = RowIndex(map(_counted_paths, shards.readers, counts))
    for reader, one in zip(shards.readers, counts, strict=True):
        check_counts(reader, one, findings)
    match_sources(index, shards.readers, listing, findings)
    if findings.failures:
        said = any(finding.check == "shard" for finding in findings.failures)
        raise MergeError(findings.failures, None if said else _incomplete(shards.readers))
    positions = index.positions
    del index
    return_freed_memory()  # else the index would stay beside the rows that are read next
    return positions


def _counted_paths(reader: TableReader, counts: RunCounts) -> Iterator[list[str | None]]:
    for batch in reader.batches(STATUS_COLUMNS):
        count_rows(batch, counts)
        yield batch.column(0).to_pylist()


def _total(readers: Sequence[TableReader], counts: Sequence[RunCounts], listing: Listing | None) -> RunCounts:
    total = RunCounts(ok=sum(one.ok for one in counts))
    skipped: Counter[str] = Counter()
    for reader, one in zip(readers, counts, strict=True):
        total.errors.update(one.errors)
        stored = (reader.meta or {}).get("images") or {}
        total.resumed += stored.get("resumed", 0)
        # Every shard has skipped the same entries, so without a listing the largest of their counts holds.
        skipped |= Counter(stored.get("skipped") or {})
    total.listed = total.rows
    found = skipped if listing is None else listing.skipped
    total.skipped = {reason: count for reason, count in found.items() if reason != OTHER_SHARD}
    return total
