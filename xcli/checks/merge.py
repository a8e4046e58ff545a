"""`xception merge`: the outputs of shards joined to the table that one run would have written.

With the sources at hand every source has exactly one row, or nothing is written, and the rows are in the order of the
sources. Each shard is in that order already, so that shards are read side by side, once, from the beginning to the end.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.checks.findings import Finding, Findings, RowIndex
from xcli.checks.verify import check_counts, count_rows, match, refusal
from xcli.core.errors import CheckError, UsageError
from xcli.core.records import STATUS_COLUMNS, RunCounts
from xcli.core.text import join_names, one_line
from xcli.sources.listing import OTHER_SHARD
from xcli.tables.base import TableReader, rows_per_group
from xcli.tables.formats import create_table, open_table
from xcli.tables.provenance import MACHINE_KEYS, NAMES_ONLY, differences, provenance_metadata, provenance_of, write_meta

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.sources.listing import Listing

MAX_RUNS = 256
"""Places where the rows of shards may break the order of the sources; what follows each is read on its own."""


class MergeError(CheckError):
    """Shards do not make one whole.

    Attributes:
        findings: what is wrong.
    """

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__(str(refusal(findings)))
        self.findings = findings


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written.

    Attributes:
        report: counts of the rows.
        shards: number of files that were joined.
        ordered: whether the rows are in the order of sources.
    """

    report: RunCounts
    shards: int
    ordered: bool


class Shards:
    """Tables that belong together, opened and compared.

    Args:
        names: as the user gave them.
        mixed_machines: whether device and batch size may differ.

    Attributes:
        readers: of the tables, in the order given.
        schema: of all of them.
        provenance: what made the rows, without what is of one machine only where they differ in that.

    Raises:
        SourceError: a file cannot be opened.
        CheckError: a file is damaged, is there twice, or was not made by the same run as the first.
    """

    def __init__(self, names: Sequence[str], *, mixed_machines: bool = False) -> None:
        _check_twice(names)
        self.readers = [open_table(name) for name in names]
        self._check_formats()
        self.provenance = self._common_provenance(mixed_machines)
        self.schema: pa.Schema = self._common_schema()

    @property
    def format(self) -> str:
        """Of all the tables."""
        return self.readers[0].format

    @property
    def command(self) -> str:
        """`classify` or `features`."""
        return self.readers[0].command

    def check_format(self, format: str) -> None:
        """Refuses to write another format than the shards have, unless they are Parquet, which knows all types.

        Raises:
            UsageError: the format is another one.
        """
        if format != self.format and not self.readers[0].self_describing:
            raise UsageError(
                f"the shards are {self.format}, which does not tell the types that {format} needs; "
                f"merge them to {self.format} (shards in Parquet can become any format)"
            )

    def _check_formats(self) -> None:
        first = self.readers[0]
        for other in self.readers[1:]:
            for what, one, two in (("format", first.format, other.format), ("command", first.command, other.command)):
                if one != two:
                    raise _mixed(what, one, first, two, other)

    def _common_provenance(self, mixed_machines: bool) -> dict[str, Any]:
        """Compares every shard with the first.

        Where a model or label file lay does not matter beside its digest; device and batch size change values within
        the stated precision, and differ only with the user's leave.
        """
        first = self.readers[0]
        provenance = _provenance(first)
        values = {key: [provenance.get(key)] for key in MACHINE_KEYS}
        for other in self.readers[1:]:
            for key, one, two in differences(provenance, _provenance(other)):
                if key in NAMES_ONLY:
                    continue
                if key not in MACHINE_KEYS:
                    raise _mixed(key, one, first, two, other)
                if not mixed_machines:
                    raise CheckError(
                        f"{_mixed(key, one, first, two, other)}; the rows then agree within the precision, not bit for "
                        "bit: pass --mixed-machines if that will do"
                    )
                if two not in values[key]:
                    values[key].append(two)
        mixed = {key: sorted(found, key=str) for key, found in values.items() if len(found) > 1}
        return provenance | mixed

    def _common_schema(self) -> Any:
        first = self.readers[0]
        type(first).align(self.readers)
        for other in self.readers[1:]:
            if other.schema != first.schema:
                one, two = _different_columns(first.schema, other.schema)
                raise _mixed("the column", one, first, two, other)
        return first.schema


def _check_twice(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        place = os.path.realpath(name)
        if place in seen:
            raise CheckError(f"{one_line(name)} and {one_line(seen[place])} are the same file; give each shard once")
        seen[place] = name


def _provenance(reader: TableReader) -> dict[str, Any]:
    found = reader.provenance or provenance_of(reader.meta or {})
    if not found:
        raise CheckError(
            f"{one_line(reader.name)} has no provenance ({one_line(reader.name)}.meta.json is missing), "
            "so nothing says that the same model made it"
        )
    return found


def _mixed(what: str, one: Any, first: TableReader, two: Any, other: TableReader) -> CheckError:
    shown = [one_line(value) if isinstance(value, str) else json.dumps(value) for value in (one, two)]
    return CheckError(
        f"these are not shards of one run: {what} is {shown[0]} in {one_line(first.name)}, "
        f"but {shown[1]} in {one_line(other.name)}"
    )


def _different_columns(one: pa.Schema, other: pa.Schema) -> tuple[str | None, str | None]:
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            return f"{mine.name} ({mine.type})", f"{theirs.name} ({theirs.type})"
    longer = one if len(one) > len(other) else other
    extra = longer.field(min(len(one), len(other))).name
    return (extra, None) if longer is one else (None, extra)


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
    """Joins shards to one table.

    Args:
        shards: what to join.
        listing: all sources of the shards together, not begun; None joins them one behind the other, unproven.
        format: a key of `FORMATS`.
        target: a file; None or `-` is standard output.
        overwrite: whether existing files may be replaced.
        findings: gets what is wrong with the rows.
        command_line: for `FILE.meta.json`.

    Raises:
        MergeError: a source has no row, or a row no source, or more than its source. Nothing is written.
        CheckError: a shard is damaged, or does not have the rows that its `FILE.meta.json` counts. Nothing is written.
        SourceError: the listing fails.
        OutputError: the table cannot be written.
    """
    started = datetime.now(UTC)
    reports = [RunCounts() for _ in shards.readers]
    metadata = provenance_metadata(shards.provenance)
    if listing is None:
        _check_complete(shards.readers)
        batches = _behind(shards, reports, findings)
    else:
        batches = _ordered(shards, _order(shards, reports, listing, findings), reports)
    with create_table(format, target, shards.schema, metadata, overwrite) as sink:
        for batch in batches:
            sink.write(batch)
    report = _sum(shards.readers, reports, listing)
    meta = {
        "command_line": command_line,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "merged": [
            {"file": reader.name, "rows": one.rows, "command_line": (reader.meta or {}).get("command_line")}
            for reader, one in zip(shards.readers, reports, strict=True)
        ],
        "images": report.as_dict(),
    }
    write_meta(target, shards.provenance | meta)
    return Merged(report, len(shards.readers), ordered=listing is not None)


def _check_complete(readers: Sequence[TableReader]) -> None:
    """Refuses what, by the `FILE.meta.json` of all, cannot be all the shards of one run."""
    shards = [(reader.meta or {}).get("shard") for reader in readers]
    parts = [shard.split("/") for shard in shards if isinstance(shard, str)]
    if len(parts) < len(shards) or not all(len(part) == 2 and "".join(part).isdecimal() for part in parts):
        return  # joined before, or made elsewhere: nothing is known
    given, counts = [int(number) for number, _ in parts], {int(count) for _, count in parts}
    count = max(counts)
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in given]
    if len(counts) > 1 or len(set(given)) < len(given):
        raise CheckError(f"these are not the shards of one run, each once: {join_names(map(str, shards))}")
    if missing:
        raise CheckError(f"shards are missing: {join_names(missing)}; give them too")


def _behind(shards: Shards, reports: Sequence[RunCounts], findings: Findings) -> Iterator[pa.RecordBatch]:
    """The rows of all shards, one behind the other, counted."""
    for reader, report in zip(shards.readers, reports, strict=True):
        for batch in reader.batches():
            count_rows(batch, report)
            yield batch
        check_counts(reader, report, findings)
    _refuse(findings)


def _order(shards: Shards, reports: Sequence[RunCounts], listing: Listing, findings: Findings) -> NDArray[np.int64]:
    """For each row the number of its source; counts the rows."""
    index = RowIndex.of(map(_counted_paths, shards.readers, reports))
    for reader, report in zip(shards.readers, reports, strict=True):
        check_counts(reader, report, findings)
    match(index, shards.readers, listing, findings)
    _refuse(findings)
    return index.positions


def _counted_paths(reader: TableReader, report: RunCounts) -> Iterator[list[str | None]]:
    for batch in reader.batches(STATUS_COLUMNS):
        count_rows(batch, report)
        yield batch.column(0).to_pylist()


def _refuse(findings: Findings) -> None:
    if findings.failures:
        raise MergeError(findings.failures)


def _sum(readers: Sequence[TableReader], reports: Sequence[RunCounts], listing: Listing | None) -> RunCounts:
    """The counts of all; what was skipped each shard has met for itself, so that is the most that one says."""
    total = RunCounts()
    skipped: dict[str, int] = {}
    for reader, report in zip(readers, reports, strict=True):
        total.ok += report.ok
        for reason, count in report.errors.items():
            total.errors[reason] = total.errors.get(reason, 0) + count
        told = (reader.meta or {}).get("images") or {}
        total.resumed += told.get("resumed", 0)
        for reason, count in (told.get("skipped") or {}).items():
            skipped[reason] = max(count, skipped.get(reason, 0))
    total.listed = total.rows
    found: Mapping[str, int] = skipped if listing is None else listing.skipped
    total.skipped = {reason: count for reason, count in found.items() if reason != OTHER_SHARD}
    return total


class _Cursor:
    """The rows of a table from one on, taken by number."""

    def __init__(self, reader: TableReader, begin: int) -> None:
        self._name = reader.name
        self._stream = reader.batches()
        self._rest: pa.RecordBatch | None = None
        for _ in self.take(begin):
            pass

    def take(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The next rows, in batches that together have exactly so many."""
        while rows:
            if self._rest is None or not self._rest.num_rows:
                self._rest = next(self._stream, None)
                if self._rest is None:
                    raise CheckError(f"{one_line(self._name)} has changed while it was read")
            piece = self._rest.slice(0, rows)
            self._rest = self._rest.slice(piece.num_rows)
            rows -= piece.num_rows
            yield piece


def _ordered(shards: Shards, positions: NDArray[np.int64], reports: Sequence[RunCounts]) -> Iterator[pa.RecordBatch]:
    """The rows of all shards in the order of the sources."""
    import numpy as np
    import pyarrow as pa

    runs = _runs(shards, positions, reports)
    _allow_open_files(len(runs))
    source = np.empty(len(positions), np.int16)
    source[positions] = np.repeat(np.arange(len(runs), dtype=np.int16), [run.rows for run in runs])
    cursors = [_Cursor(run.reader, run.begin) for run in runs]
    step = max(1, rows_per_group(shards.schema) // 4)
    for start in range(0, len(source), step):
        chunk = source[start : start + step]
        counts = np.bincount(chunk, minlength=len(cursors))
        pieces = [piece for number in np.flatnonzero(counts) for piece in cursors[number].take(int(counts[number]))]
        # The pieces stand by cursor; within one, rows are in the order of the sources.
        place = np.empty(len(chunk), np.int64)
        place[np.argsort(chunk, kind="stable")] = np.arange(len(chunk))
        yield pa.concat_batches(pieces).take(pa.array(place))


def _allow_open_files(tables: int) -> None:
    """Asks for as many open files as so many tables need, of which the usual limit allows a thousand."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * tables + 256  # an array of features has a table beside it
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Run(NamedTuple):
    """Rows of a table that follow the order of the sources: `rows` of them from `begin`."""

    reader: TableReader
    begin: int
    rows: int


def _runs(shards: Shards, positions: NDArray[np.int64], reports: Sequence[RunCounts]) -> list[_Run]:
    """One a shard; more of a table that shards were merged to before, without the sources."""
    import numpy as np

    runs: list[_Run] = []
    first = 0
    for reader, report in zip(shards.readers, reports, strict=True):
        own = positions[first : first + report.rows]
        first += report.rows
        breaks = [0, *(np.flatnonzero(np.diff(own) < 0) + 1).tolist(), report.rows]
        runs += [_Run(reader, begin, end - begin) for begin, end in pairwise(breaks)]
    if len(runs) > len(shards.readers) + MAX_RUNS:
        raise CheckError(
            f"the rows break the order of the sources in {len(runs) - len(shards.readers):,} places; "
            "give the sources in the order in which the runs had them"
        )
    return runs
