"""Makes the report of a table: reads it, makes thumbnails, writes the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError
from xcli.core.text import one_line
from xcli.reports.classify_part import ClassifyPart
from xcli.reports.page import embedded_json, page
from xcli.reports.parts import ErrorsPart, provenance_facts
from xcli.reports.summary import MAX_ERRORS, Summary
from xcli.reports.thumbnails import make_thumbnails
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.reports.options import ReportOptions
    from xcli.reports.parts import Part
    from xcli.tables.base import TableReader

_MARKUP_BYTES = 100_000
"""Room for the templates, the scripts and the style, and for the place of each thumbnail in the data."""

_ROWS_SHARE = 0.5
"""Part of the page that rows may take, so that there is room for thumbnails."""

_ERRORS_SHARE = 0.1
"""Part of the page that error rows may take."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a report has become.

    Attributes:
        rows: of the table.
        shown: of them in the page.
        thumbnails: number of thumbnails.
        missing: number of images that could not be shown.
        left_out: number of images for which there was no room.
        bytes: of the page.
    """

    rows: int
    shown: int
    thumbnails: int
    missing: int
    left_out: int
    bytes: int


def check_table(reader: TableReader) -> None:
    """Raises CheckError for a table that is not of `classify`."""
    if reader.command != "classify":
        raise CheckError(f"{one_line(reader.name)} is a table of features; a report is made of a table of classify")


def write_report(
    reader: TableReader,
    target: str,
    options: ReportOptions,
    *,
    overwrite: bool,
    progress: Callable[[int, int], object] = lambda images, failed: None,
    on_total: Callable[[int], object] = lambda total: None,
) -> Made:
    """Writes the report of a table, whole or not at all.

    Args:
        progress: is told the numbers of images, and of those that cannot be shown.
        on_total: is told how many images there will be at most: after the table was read, before the first of them.

    Raises:
        CheckError: the table is damaged, or is not of `classify`.
        OutputError: the page cannot be written.
    """
    check_table(reader)
    file = open_output(target, overwrite)
    try:
        most = int(options.max_size * 1_000_000)
        summary = Summary(options.top_images)
        summary.read(reader)
        main = ClassifyPart(reader, summary, options.top_images, int(most * _ROWS_SHARE))
        parts: list[Part] = [main]
        if summary.errors:
            parts.append(_errors(summary, int(most * _ERRORS_SHARE)))
        paths = list(dict.fromkeys(path for part in parts for path in part.paths()))
        on_total(len(paths))
        # A thumbnail costs its text and some ten bytes, for quotes, a comma and its number.
        room = most - _MARKUP_BYTES - sum(len(embedded_json(part.data)) for part in parts) - 10 * len(paths)
        thumbnails = make_thumbnails(paths, room, options.images, options.workers, progress)
        for part in parts:
            part.attach(thumbnails)
        title = os.path.basename(reader.name.rstrip("/")) or reader.name
        facts = {"title": title, "max_size": options.max_size, **provenance_facts(reader)}
        content = page(parts, thumbnails, facts)
        file.stream.write(content)
        commit([file])
    except BaseException:
        file.discard()
        raise
    return Made(
        summary.rows, len(main.rows), len(thumbnails.made), len(thumbnails.missing), thumbnails.left_out, len(content)
    )


def _errors(summary: Summary, room: int) -> ErrorsPart:
    """Returns the part with the first error rows, as many as have room."""
    kept = []
    for row in summary.error_rows[:MAX_ERRORS]:
        room -= len(embedded_json(row)) + 1
        if room < 0:
            break
        kept.append(row)
    return ErrorsPart(summary.errors, kept)
