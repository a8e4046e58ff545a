"""Makes the report of a table or an evaluation: reads it, makes thumbnails, writes the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.analysis.compare import check_comparable, compare
from xcli.analysis.feature_sample import sample_rows
from xcli.analysis.truth import read_truth
from xcli.analysis.vectors import vector_width
from xcli.core.errors import UsageError
from xcli.core.text import one_line
from xcli.reports.against_truth import read_against
from xcli.reports.changes_part import ChangesPart
from xcli.reports.class_map import class_map
from xcli.reports.classify_part import ClassifyPart
from xcli.reports.evaluation_files import EvaluationFiles
from xcli.reports.features_part import features_parts, read_map
from xcli.reports.history_part import HistoryPart
from xcli.reports.labelled_part import LabelledPart
from xcli.reports.page import embedded_json, page, thumbnail_room
from xcli.reports.parts import ErrorsPart, source_facts
from xcli.reports.summary import MAX_ERRORS, Summary
from xcli.reports.thumbnails import make_thumbnails
from xcli.storage.atomic import published
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

_CHANGES_SHARE = 0.2
"""Part of the page that rows of a comparison may take."""

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


def open_input(name: str, options: ReportOptions, other: TableReader | None = None) -> TableReader | EvaluationFiles:
    """Opens what a report is to be made of.

    Args:
        name: of a table, or of a directory that `evaluate` or `finetune` wrote.
        options: of the report.
        other: a second table, with which the first is to be compared.

    Raises:
        SourceError: there is no such file, or it cannot be opened.
        CheckError: it is damaged, or no page can be made of it.
        UsageError: the options do not go with it.
    """
    if EvaluationFiles.recognizes(name):
        if options.truth is not None:
            raise UsageError(f"--truth goes with a table of classify; {one_line(name)} has the true classes itself")
        if options.clusters is not None:
            raise UsageError(f"--clusters goes with a table of features; {one_line(name)} is an evaluation")
        if other is not None:
            raise UsageError(f"--compare goes with two tables; {one_line(name)} is an evaluation or a run")
        return EvaluationFiles(name)
    reader = open_table(name, escaped="restore")
    if reader.command == "features":
        if options.truth is not None:
            raise UsageError(f"--truth goes with a table of classify; {one_line(name)} is one of features")
        vector_width(reader)  # refuses maps
    if options.clusters is not None and (reader.command != "features" or other is not None):
        raise UsageError("--clusters goes with a table of features that is not compared with another one")
    if other is not None:
        check_comparable(reader, other)
    return reader


def open_map_table(name: str, source: TableReader | EvaluationFiles) -> TableReader:
    """Opens the table of features of which the page of a table of `classify` shows a map.

    Raises:
        SourceError, CheckError: as `open_input`.
        UsageError: it is no such table, or the page is not one of `classify`.
    """
    if isinstance(source, EvaluationFiles) or source.command != "classify":
        raise UsageError(f"--features goes with a table of classify; {one_line(source.name)} is none")
    features = open_table(name, escaped="restore")
    if features.command != "features":
        raise UsageError(f"--features takes a table of features; {one_line(name)} is one of {features.command}")
    vector_width(features)  # refuses maps
    return features


def readings_of(source: TableReader | EvaluationFiles, other: TableReader | None, options: ReportOptions) -> int:
    """Returns how often the rows are read, as far as can be said before."""
    if not isinstance(source, EvaluationFiles) and source.command == "features":
        if other is not None:
            return 3
        # Those of a table that is larger than the sample are read a second time for the sizes of the clusters.
        return 1 + ((source.row_count or 0) > sample_rows(vector_width(source)))
    # With labels the rows are read a second time to be compared with them, a third time for the paths of some.
    return 1 + (other is not None) + 2 * (options.truth is not None)


def write_report(
    source: TableReader | EvaluationFiles,
    target: str,
    options: ReportOptions,
    *,
    overwrite: bool,
    other: TableReader | None = None,
    features: TableReader | None = None,
    progress: Callable[[int, int], object] = lambda images, failed: None,
    on_total: Callable[[int], object] = lambda total: None,
) -> Made:
    """Writes the report of what `open_input` has opened, whole or not at all.

    Args:
        other: a second table, of the same images: the page also shows what has changed from the first to it.
        features: a table of features of the same images, of which the page shows a map.
        progress: is told the numbers of images, and of those that cannot be shown.
        on_total: is told how many images there will be at most: after the table was read, before the first of them.

    Raises:
        CheckError: the source is damaged.
        SourceError: the true classes cannot be read, or do not go with the table.
        OutputError: the page cannot be written.
    """
    with published(target, overwrite) as file:
        most = int(options.max_size * 1_000_000)
        if isinstance(source, EvaluationFiles):
            parts, rows, shown = _evaluation(source, options, most)
        elif source.command == "features" and other is None:
            parts, rows, shown = _features(source, options, most)
        else:
            parts, rows, shown = _table(source, other, features, options, most)
        paths = list(dict.fromkeys(path for part in parts for path in part.paths()))
        on_total(len(paths))
        room = thumbnail_room(options.max_size, _MARKUP_BYTES, parts, len(paths))
        thumbnails = make_thumbnails(paths, room, options.images, options.workers, progress)
        for part in parts:
            part.attach(thumbnails)
        facts = {"max_size": options.max_size, **source_facts(source)}
        content = page(parts, thumbnails, facts)
        file.stream.write(content)
    return Made(rows, shown, len(thumbnails.made), len(thumbnails.missing), thumbnails.left_out, len(content))


def _table(
    reader: TableReader,
    other: TableReader | None,
    features: TableReader | None,
    options: ReportOptions,
    most: int,
) -> tuple[list[Part], int, int]:
    """Returns the parts for a table, the number of its rows, and of those shown."""
    parts: list[Part] = []
    if other is not None:
        result = compare(reader, other, most=0)
        changes = ChangesPart(result, reader, other, options.top_images, int(most * _CHANGES_SHARE))
        if reader.command == "features":
            return [changes], len(result.partner), len(changes.paths())
        parts.append(changes)
        del result  # 80 bytes a row
    summary = Summary(options.top_images)
    summary.read(reader)
    # Where several show rows, they share the room.
    room = int(most * _ROWS_SHARE) // (1 + (options.truth is not None) + (features is not None))
    main = ClassifyPart(reader, summary, options.top_images, room)
    parts.append(main)
    if features is not None:
        classes = [(label, count) for label, count, _ in main.data["classes"]]
        parts.append(class_map(reader, features, classes, room))
    if options.truth is not None:
        outcomes = read_against(reader, read_truth(options.truth))
        parts.append(LabelledPart(outcomes, options.top_images, room, is_first=False))
    if summary.errors:
        parts.append(_errors(summary.errors, summary.error_rows, int(most * _ERRORS_SHARE)))
    return parts, summary.rows, len(main.rows)


def _features(reader: TableReader, options: ReportOptions, most: int) -> tuple[list[Part], int, int]:
    """Returns the parts for a table of `features`, the number of its rows, and of those shown."""
    found = read_map(reader, options.clusters, options.top_images)
    sample = found.sample
    drawn, clusters = features_parts(reader, found, options.top_images, int(most * _ROWS_SHARE))
    parts: list[Part] = [drawn, clusters]
    if sample.errors:
        parts.append(_errors(sample.errors, sample.error_rows, int(most * _ERRORS_SHARE)))
    return parts, sample.rows, len(drawn.points)


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
