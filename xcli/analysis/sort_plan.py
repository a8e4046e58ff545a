"""From a table to where each of its files is to go; nothing is changed here."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.analysis.folder_names import ERRORS, UNSURE, Template, candidates, file_name, folder_of
from xcli.analysis.sort_log import Placement, absolute, log_name
from xcli.core.errors import ImageError, UsageError
from xcli.core.records import ERROR_STATUS, FEATURES, PATH, STATUS
from xcli.core.text import one_line, unescape_path
from xcli.sources.archives.members import is_archive_name
from xcli.storage.urls import is_url
from xcli.tables.column_text import FORMULA_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xcli.tables.base import TableReader

COPY, HARDLINK, SYMLINK, MOVE = MODES = ("copy", "hardlink", "symlink", "move")

IN_PLACE = "in their places before"
"""Said of files that need not be placed."""

_RANK = re.compile(r"(?:label|wnid|index)_([0-9]+)")


@dataclass(frozen=True)
class SortOptions:
    """How files are sorted.

    Attributes:
        by: the column whose values name the folders.
        min_score: below it a row goes to `_unsure`.
        mode: one of `MODES`.
        errors: whether error rows go to `_errors`; else their files stay where they are.
        rename: a template of the new names, see `Template`.
    """

    by: str = "label_1"
    min_score: float | None = None
    mode: str = COPY
    errors: bool = False
    rename: str | None = None


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        log: the name of its log.
        wishes: each file with the place that it would have if nothing were there.
        placements: those that remain, with names that nothing has; filled by `settle`.
        passed_over: rows that have no place, by reason.
        problems: paths that cannot be placed, with the reason.
    """

    log: str = ""
    wishes: list[Placement] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, ImageError]] = field(default_factory=list)

    def settle(self, names_in: Callable[[str], list[str]], is_placed: Callable[[Placement], bool]) -> None:
        """Gives each file a name that nothing has: its own, or one with a digest of its path.

        Args:
            names_in: returns the names in a folder of the destination, none where it is missing.
            is_placed: says whether the file is in that place already.
        """
        here: dict[str, frozenset[str]] = {}
        taken: dict[str, set[str]] = {}
        for wish in self.wishes:
            folder = wish.folder
            if folder not in taken:
                here[folder] = frozenset(names_in(folder))
                taken[folder] = set(here[folder])
            for name in candidates(wish.name, wish.source):
                place = wish._replace(name=name)
                if name not in taken[folder]:
                    taken[folder].add(name)
                    self.placements.append(place)
                    break
                if name in here[folder] and is_placed(place):
                    self.passed_over[IN_PLACE] += 1
                    break


def plan_sort(reader: TableReader, options: SortOptions) -> Plan:
    """Reads a table, and says for each file where it is to go.

    Raises:
        UsageError: a column is missing, the template is wrong, or the mode cannot be had for such paths.
        CheckError: the table is damaged.
    """
    plan = Plan()
    columns = [one.name for one in reader.schema if one.name != FEATURES]
    if options.by not in columns:
        raise UsageError(f"--by {options.by!r}: the table has no such column; it has {', '.join(columns[:20])}")
    score = _score_column(options, columns)
    template = None if options.rename is None else Template(options.rename, columns)
    seen: set[str] = set()
    for number, row in enumerate(_rows(reader, [options.by, *([score] if score else []), *_named(template)]), 1):
        path = row[PATH] or ""
        folder = _folder(row, options, score)
        if folder is None:
            plan.passed_over["error rows, whose files stay where they are (--errors places them)"] += 1
        elif path in seen:
            plan.passed_over["rows whose path an earlier row has"] += 1
        else:
            seen.add(path)
            try:
                source = _source(path, is_restored=reader.restores_texts)
            except ImageError as error:
                plan.problems.append((path, error))
            else:
                plan.wishes.append(_wish(source, folder, options, template, row, number))
    plan.log = log_name(asdict(options), plan.wishes)
    return plan


def _score_column(options: SortOptions, columns: list[str]) -> str | None:
    """Returns the column of the score that belongs to the label, if there is a limit for it."""
    if options.min_score is None:
        return None
    rank = _RANK.fullmatch(options.by)
    name = f"score_{rank[1] if rank else 1}"
    if name not in columns:
        raise UsageError(f"--min-score: the table has no column {name}")
    return name


def _named(template: Template | None) -> list[str]:
    return [] if template is None else template.columns


def _rows(reader: TableReader, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows with path, status and some other columns."""
    wanted = list(dict.fromkeys([PATH, STATUS, *columns]))
    as_json = [name for name in wanted if reader.schema.field(name).metadata == {b"xception": b"json"}]
    for batch in reader.batches(wanted):
        for row in batch.to_pylist():
            for name in as_json:
                row[name] = json.loads(row[name] or "null")
            yield row


def _folder(row: dict[str, Any], options: SortOptions, score: str | None) -> str | None:
    """Returns the folder of a row; None if its file stays where it is."""
    if row[STATUS] == ERROR_STATUS and options.by not in (STATUS, PATH):
        return ERRORS if options.errors else None
    value = row[options.by]
    if value is None or value == "":
        return UNSURE
    if score is not None and options.min_score is not None:
        found = row[score]
        if found is None or math.isnan(found) or found < options.min_score:
            return UNSURE
    return folder_of(str(value))


def _source(path: str, *, is_restored: bool) -> str:
    """Returns the file that a row is about.

    Of the files `=a.jpg` and `'=a.jpg` --csv-safe has made the same text. Where the second one is there, the row may be
    its own.

    Raises:
        ImageError: no file can have this name, or the row may be that of another file.
    """
    try:
        source = unescape_path(path)
    except ValueError as error:
        raise ImageError("missing", str(error)) from None
    if not source or "\0" in source:
        raise ImageError("missing", "no file can have this name")
    other = f"'{source}"
    if is_restored and re.match(FORMULA_START, source) and os.path.lexists(other):
        problem = f"the row may be that of {one_line(other)}, since --csv-safe has written both names alike"
        raise ImageError("unreadable", f"{problem}; sort by a table that was written without it")
    return source


def _wish(
    source: str, folder: str, options: SortOptions, template: Template | None, row: dict[str, Any], number: int
) -> Placement:
    outer, separator, inner = source.rpartition("::")
    is_member = bool(separator) and is_archive_name(os.fsencode(outer)) and not os.path.lexists(source)
    if options.mode != COPY and (is_url(source) or is_member):
        what = "an object of a store" if is_url(source) else "a member of an archive"
        raise UsageError(f"--mode {options.mode}: {one_line(source)} is {what}, which can only be copied (--mode copy)")
    name = file_name((inner if is_member else source).rstrip("/").rpartition("/")[2])
    if template is not None:
        name = template.fill(row, name=name, row=number, folder=folder)
    return Placement(source if is_url(source) else absolute(source), folder, name)
