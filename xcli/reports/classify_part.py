"""The part of a page for a table of `classify`: counts, distributions, classes, images by class and score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.reports.page import embedded_json
from xcli.reports.parts import Names, seconds_and_rate
from xcli.reports.summary import MAX_SAMPLE, Summary, chart_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xcli.reports.summary import Row
    from xcli.reports.thumbnails import Thumbnails
    from xcli.tables.base import TableReader


class ClassifyPart:
    """What a page shows of a table of `classify` that has been read.

    Args:
        reader: of the table, for its provenance.
        summary: what was read of it.
        top_images: rows that were kept of each class, at each end.
        room: bytes that the data may take, nearly.

    Attributes:
        rows: those that the page shows.
    """

    name = "classify"

    def __init__(self, reader: TableReader, summary: Summary, top_images: int, room: int) -> None:
        self._reader, self._summary, self._top_images = reader, summary, top_images
        self.rows: list[Row] = []
        self.data = self._data(room)

    def _data(self, room: int) -> dict[str, Any]:
        summary = self._summary
        classes = sorted(summary.classes.items(), key=lambda one: (-one[1].count, one[0]))
        data: dict[str, Any] = {
            "classes": [[label, kept.count, round(kept.total / kept.count, 5)] for label, kept in classes],
            "score": chart_data(summary.score_histogram()),
            "margin": chart_data(summary.margin_histogram()),
        }
        left = room - len(embedded_json(data))
        names = Names()
        for label, _ in classes:
            names.of(label)
        kept = []
        for row in summary.shown_rows():
            known = len(names.all)
            pairs = [[names.of(label), round(score, 5)] for label, score in row.predictions]
            value = [row.number, row.path, pairs, names.of(row.label)]
            left -= len(embedded_json([value, names.all[known:]]))
            if left < 0:
                break
            kept.append(value)
            self.rows.append(row)
        return data | {"labels": names.all, "rows": kept, "top": self._ends()}

    def _ends(self) -> list[list[list[int]]]:
        """Returns for each class, in the order of the data, the places in `rows` of its surest and least sure rows."""
        places = {row.number: place for place, row in enumerate(self.rows)}
        found = []
        for _, kept in sorted(self._summary.classes.items(), key=lambda one: (-one[1].count, one[0])):
            ends = (sorted(heap, reverse=True) for heap in (kept.surest, kept.least))
            found.append([[places[row.number] for _, _, row in end if row.number in places] for end in ends])
        return found

    def paths(self) -> Sequence[str]:
        return [row.path for row in self.rows]

    def attach(self, thumbnails: Thumbnails) -> None:
        for value, row in zip(self.data["rows"], self.rows, strict=True):
            value.append(thumbnails.of(row.path))

    def facts(self) -> dict[str, Any]:
        summary = self._summary
        scores = summary.score_histogram()
        seconds, rate = seconds_and_rate(self._reader, summary.rows)
        return {
            "summary": summary,
            "classes": sum(label != "" for label in summary.classes),
            "errors": summary.rows - summary.ok,
            "median": None if scores is None else scores.median,
            "rate": rate,
            "seconds": seconds,
            "shown": len(self.rows),
            "is_sample": len(self.rows) < summary.ok,
            "sample_limit": MAX_SAMPLE,
            "top_images": self._top_images,
        }
