"""Makes the report of a table or an evaluation: reads it, makes thumbnails, writes the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.analysis.truth import read_truth
from xcli.core.errors import CheckError, UsageError
from xcli.core.text import one_line
from xcli.reports.against_truth import read_against
from xcli.reports.classify_part import ClassifyPart
from xcli.reports.evaluation_files import EvaluationFiles
from xcli.reports.history_part import HistoryPart
from xcli.reports.labelled_part import LabelledPart
from xcli.reports.page import embedded_json, page
from xcli.reports.parts import ErrorsPart, provenance_facts
from xcli.reports.summary import MAX_ERRORS, Summary
from xcli.reports.thumbnails import make_thumbnails
from xcli.storage.atomic import commit, open_output
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

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


def open_input(name: str, options: ReportOptions) -> TableReader | EvaluationFiles:
    """Opens what a report is to be made of.

    Raises:
        SourceError: there is no such file, or it cannot be opened.
        CheckError: it is damaged, or no page can be made of it.
        UsageError: the options do not go with it.
    """
    if EvaluationFiles.recognizes(name):
        if options.truth is not None:
            raise UsageError(f"--truth goes with a table of classify; {one_line(name)} has the true classes itself")
        return EvaluationFiles(name)
    reader = open_table(name, escaped="restore")
    if reader.command != "classify":
        raise CheckError(f"{one_line(name)} is a table of features; a report is made of a table of classify")
    return reader


def write_report(
    source: TableReader | EvaluationFiles,
    target: str,
    options: ReportOptions,
    *,
    overwrite: bool,
    progress: Callable[[int, int], object] = lambda images, failed: None,
    on_total: Callable[[int], object] = lambda total: None,
) -> Made:
    """Writes the report of what `open_input` has opened, whole or not at all.

    Args:
        progress: is told the numbers of images, and of those that cannot be shown.
        on_total: is told how many images there will be at most: after the table was read, before the first of them.

    Raises:
        CheckError: the source is damaged.
        SourceError: the true classes cannot be read, or do not go with the table.
        OutputError: the page cannot be written.
    """
    file = open_output(target, overwrite)
    try:
        most = int(options.max_size * 1_000_000)
        if isinstance(source, EvaluationFiles):
            parts, rows, shown = _evaluation(source, options, most)
        else:
            parts, rows, shown = _table(source, options, most)
        paths = list(dict.fromkeys(path for part in parts for path in part.paths()))
        on_total(len(paths))
        # A thumbnail costs its text and some ten bytes, for quotes, a comma and its number.
        room = most - _MARKUP_BYTES - sum(len(embedded_json(part.data)) for part in parts) - 10 * len(paths)
        thumbnails = make_thumbnails(paths, room, options.images, options.workers, progress)
        for part in parts:
            part.attach(thumbnails)
        title = os.path.basename(source.name.rstrip("/")) or source.name
        facts = {"title": title, "max_size": options.max_size, **provenance_facts(source)}
        content = page(parts, thumbnails, facts)
        file.stream.write(content)
        commit([file])
    except BaseException:
        file.discard()
        raise
    return Made(rows, shown, len(thumbnails.made), len(thumbnails.missing), thumbnails.left_out, len(content))


def _table(reader: TableReader, options: ReportOptions, most: int) -> tuple[list[Part], int, int]:
    """Returns the parts for a table of `classify`, the number of its rows, and of those shown."""
    summary = Summary(options.top_images)
    summary.read(reader)
    # Where both show rows, they share the room.
    room = int(most * _ROWS_SHARE) // (1 if options.truth is None else 2)
    main = ClassifyPart(reader, summary, options.top_images, room)
    parts: list[Part] = [main]
    if options.truth is not None:
        outcomes = read_against(reader, read_truth(options.truth))
        parts.append(LabelledPart(outcomes, options.top_images, room, is_first=False))
    if summary.errors:
        parts.append(_errors(summary.errors, summary.error_rows, int(most * _ERRORS_SHARE)))
    return parts, summary.rows, len(main.rows)


def _evaluation(files: EvaluationFiles, options: ReportOptions, most: int) -> tuple[list[Part], int, int]:
    """Returns the parts for an evaluation or a run, the number of its images, and of those shown."""
    outcomes, history = files.outcomes(), files.history()
    about = {"split": files.split, "test": files.test}
    main = LabelledPart(outcomes, options.top_images, int(most * _ROWS_SHARE), is_first=True, about=about)
    parts: list[Part] = [main]
    if history is not None:
        parts.append(HistoryPart(history, files.run or {}))
    if files.errors:
        parts.append(_errors(files.errors, files.error_rows, int(most * _ERRORS_SHARE)))
    return parts, files.rows, len(main.shown)


def _errors(reasons: Counter[str], rows: Sequence[tuple[str, str]], room: int) -> ErrorsPart:
    """Returns the part with the first error rows, as many as have room."""
    kept = []
    for row in rows[:MAX_ERRORS]:
        room -= len(embedded_json(row)) + 1
        if room < 0:
            break
        kept.append(row)
    return ErrorsPart(reasons, kept)
