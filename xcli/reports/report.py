"""Makes the report of a table of `classify`: reads it, makes thumbnails, writes the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError
from xcli.core.text import one_line
from xcli.reports.page import embedded_json, page
from xcli.reports.summary import MAX_ERRORS, MAX_SAMPLE, Histogram, Summary
from xcli.reports.thumbnails import Thumbnails, make_thumbnails
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.reports.options import ReportOptions
    from xcli.reports.summary import Row
    from xcli.tables.base import TableReader

_MARKUP_BYTES = 60_000
"""Room for the template, the script and the style, and for the place of each thumbnail in the data."""

_ROWS_SHARE = 0.5
"""Part of the page that rows may take, so that there is room for thumbnails."""


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
        on_total: is told how many images there will be at most, before the first of them.

    Raises:
        CheckError: the table is damaged, or is not of `classify`.
        OutputError: the page cannot be written.
    """
    check_table(reader)
    file = open_output(target, overwrite)
    try:
        summary = Summary(options.top_images)
        summary.read(reader, lambda rows: None)
        most = int(options.max_size * 1_000_000)
        data, rows = _data(summary, int(most * _ROWS_SHARE))
        paths = list(dict.fromkeys(row.path for row in rows))
        on_total(len(paths))
        # A thumbnail costs its text and some ten bytes, for quotes, a comma and its number.
        room = most - _MARKUP_BYTES - len(embedded_json(data)) - 10 * len(paths)
        thumbnails = make_thumbnails(paths, room, options.images, options.workers, progress)
        _attach(data, rows, thumbnails)
        content = page(data, _facts(reader, summary, rows, thumbnails, options))
        file.stream.write(content)
        commit([file])
    except BaseException:
        file.discard()
        raise
    return Made(
        summary.rows, len(rows), len(thumbnails.made), len(thumbnails.missing), thumbnails.left_out, len(content)
    )


def _data(summary: Summary, most: int) -> tuple[dict[str, Any], list[Row]]:
    """Returns what the script shows, in at most about `most` bytes, and the rows in it."""
    classes = sorted(summary.classes.items(), key=lambda one: (-one[1].count, one[0]))
    data: dict[str, Any] = {
        "classes": [[label, kept.count, round(kept.total / kept.count, 5)] for label, kept in classes],
        "reasons": summary.errors.most_common(),
        "score": _distribution(summary.score_histogram()),
        "margin": _distribution(summary.margin_histogram()),
        "total": summary.rows,
    }
    left = most - len(embedded_json(data))
    labels: dict[str, int] = {label: index for index, (label, _) in enumerate(classes)}
    names = [label for label, _ in classes]
    kept, rows, errors = [], [], []
    for path, error in summary.error_rows:
        left -= len(embedded_json([path, error])) + 1
        if left < 0:
            break
        errors.append([path, error])
    for row in summary.shown_rows():
        known = len(names)
        pairs = []
        for label, score in row.predictions:
            if label not in labels:
                labels[label] = len(names)
                names.append(label)
            pairs.append([labels[label], round(score, 5)])
        value = [row.number, row.path, pairs, labels[row.label]]
        left -= len(embedded_json([value, names[known:]]))
        if left < 0:
            break
        kept.append(value)
        rows.append(row)
    return data | {"errors": errors, "labels": names, "rows": kept, "top": _ends(summary, rows)}, rows


def _ends(summary: Summary, rows: list[Row]) -> list[list[list[int]]]:
    """Returns for each class, in the order of the data, the places in `rows` of its surest and least sure rows."""
    places = {row.number: place for place, row in enumerate(rows)}
    found = []
    for _, kept in sorted(summary.classes.items(), key=lambda one: (-one[1].count, one[0])):
        ends = (sorted(heap, reverse=True) for heap in (kept.surest, kept.least))
        found.append([[places[row.number] for _, _, row in end if row.number in places] for end in ends])
    return found


def _distribution(histogram: Histogram | None) -> dict[str, Any] | None:
    return None if histogram is None else histogram._asdict()


def _attach(data: dict[str, Any], rows: list[Row], thumbnails: Thumbnails) -> None:
    """Adds the thumbnails to the data, and to each row the number of its own, or why it has none."""
    numbers = {path: number for number, path in enumerate(thumbnails.made)}
    for value, row in zip(data["rows"], rows, strict=True):
        value.append(numbers.get(row.path, thumbnails.missing.get(row.path, "")))
    data["thumbnails"] = list(thumbnails.made.values())


def _facts(
    reader: TableReader, summary: Summary, rows: list[Row], thumbnails: Thumbnails, options: ReportOptions
) -> dict[str, Any]:
    made = {**(reader.provenance or {}), **(reader.meta or {})}
    model, tool, images = (made.get(name) or {} for name in ("model", "tool", "images"))
    seconds = made.get("seconds")
    # Rows of an earlier run took none of the time.
    computed = summary.rows - int(images.get("resumed") or 0)
    is_timed = isinstance(seconds, int | float) and seconds > 0 and computed > 0
    scores = summary.score_histogram()
    return {
        "title": os.path.basename(reader.name.rstrip("/")) or reader.name,
        "summary": summary,
        "classes": sum(label != "" for label in summary.classes),
        "errors": summary.rows - summary.ok,
        "reasons": summary.errors.most_common(),
        "median": None if scores is None else scores.median,
        "rate": computed / seconds if is_timed and seconds else None,
        "seconds": seconds if is_timed else None,
        "finished": str(made.get("finished") or "").replace("T", " ").replace("+00:00", " UTC"),
        "model": model.get("name"),
        "precision": made.get("precision"),
        "device": made.get("device"),
        "tool": tool.get("version"),
        "shown": len(rows),
        "is_sample": len(rows) < summary.ok,
        "sample_limit": MAX_SAMPLE,
        "error_limit": MAX_ERRORS,
        "thumbnails": thumbnails,
        "top_images": options.top_images,
        "max_size": options.max_size,
    }
