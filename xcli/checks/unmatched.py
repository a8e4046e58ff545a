"""Why sources have no row: a shard is missing, or the same files go by other names in the table.

Each cause is one finding with a count, instead of a list of every image.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from xcli.checks.row_index import row_paths
from xcli.sources.selection import shard_of
from xcli.storage.urls import is_url
from xcli.tables.provenance import parse_division

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xcli.checks.findings import Findings
    from xcli.checks.row_index import RowIndex
    from xcli.core.records import ImageRef
    from xcli.sources.listing import Listing
    from xcli.tables.base import TableReader

_MAX_COMPARED = 200_000  # names that are kept to compare them; what is beyond is listed as it is


def match_sources(index: RowIndex, readers: Sequence[TableReader], listing: Listing, findings: Findings) -> int:
    """Matches the rows of tables to sources, and returns their number; what has no counterpart becomes a finding.

    Raises:
        SourceError: the listing fails.
    """
    shards = None if listing.options.shard is not None else _one_division(readers)
    missing: list[str] = []

    def add_missing(ref: ImageRef) -> None:
        if shards is not None:
            given, total = shards
            number = shard_of(ref.key, total)
            if number not in given:
                what = f"images of shard {number}/{total}, which is missing"
                if len(readers) == 1:
                    what = f"images of other shards: this table is shard {min(given)}/{total} (give --shard)"
                findings.add("shard", what, [ref.path], listed=False)
                return
        if len(missing) < _MAX_COMPARED:
            missing.append(ref.path)
        else:
            findings.add("missing", _MISSING, [ref.path])

    listed = index.match(listing, add_missing)
    unknown, surplus = index.unmatched()
    rows = list(row_paths(readers, unknown)) if missing and len(unknown) <= _MAX_COMPARED else None
    pairs = {} if rows is None else _same_files(missing, rows)
    _add_pairs(pairs, findings)
    renamed = set(pairs.values())
    findings.add("missing", _MISSING, (path for path in missing if path not in pairs))
    unknown_paths = row_paths(readers, unknown) if rows is None else rows
    findings.add("unknown", "rows without a source", (path for path in unknown_paths if path not in renamed))
    if len(surplus):
        findings.add("duplicate", "duplicate rows", row_paths(readers, surplus))
    return listed


_MISSING = "sources without a row"


def recorded_shards(readers: Sequence[TableReader]) -> list[tuple[int, int]]:
    """Returns for each table the I and N of its shard by `FILE.meta.json`; nothing if one of these tells of none."""
    found = []
    for reader in readers:
        division = parse_division((reader.meta or {}).get("shard") or "")
        if division is None:
            return []
        found.append(division)
    return found


def _one_division(readers: Sequence[TableReader]) -> tuple[set[int], int] | None:
    """Returns the numbers of the given shards and their total; None if there is no single one."""
    found = recorded_shards(readers)
    totals = {total for _, total in found}
    return ({number for number, _ in found}, totals.pop()) if len(totals) == 1 else None


def _same_files(missing: Iterable[str], rows: Iterable[str]) -> dict[str, str]:
    """Returns for sources without a row the path that the table has for the same file."""
    missing = list(dict.fromkeys(missing))
    left = dict.fromkeys(rows)
    by_place = {_place(path): path for path in left}
    pairs = {path: by_place[place] for path in missing if (place := _place(path)) in by_place}
    if pairs or not missing or not left:
        return pairs
    # The run was made elsewhere, if all of its paths begin otherwise and end alike.
    first = missing[0]
    for row in left:
        before, after = _beginnings(first, row)
        if before == first:
            continue
        pairs = {path: after + path.removeprefix(before) for path in missing if path.startswith(before)}
        if len(pairs) == len(missing) and all(path in left for path in pairs.values()):
            return pairs
    return {}


def _place(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


def _beginnings(one: str, other: str) -> tuple[str, str]:
    """Returns what is left of two paths without the components at their ends that they share."""
    mine, theirs = one.split("/"), other.split("/")
    while mine and theirs and mine[-1] == theirs[-1]:
        mine.pop()
        theirs.pop()
    return "/".join([*mine, ""]) if mine else "", "/".join([*theirs, ""]) if theirs else ""


def _add_pairs(pairs: dict[str, str], findings: Findings) -> None:
    """Adds one finding for each way in which names differ."""
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for source, row in pairs.items():
        ways[_beginnings(source, row)].append(source)
    for sources in ways.values():
        first = sources[0]
        what = (
            f"images that go by other names: the sources say '{first}', the table says '{pairs[first]}' "
            "(give the sources as the run had them)"
        )
        findings.add("spelling", what, (f"{one} is {pairs[one]} in the table" for one in sources), listed=False)
