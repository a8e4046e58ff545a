"""The part of a page for a search, and the page: each query with its answers, as pictures."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.text import one_line
from xcli.reports.page import embedded_json, page, thumbnail_room
from xcli.reports.parts import source_facts
from xcli.reports.thumbnails import Thumbnails, make_thumbnails
from xcli.storage.atomic import published

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xcli.analysis.queries import Queries, Query
    from xcli.analysis.search import Answers
    from xcli.reports.options import ReportOptions
    from xcli.tables.base import TableReader

_MARKUP_BYTES = 60_000
"""Room for the templates, the scripts and the style."""

ROWS_SHARE = 0.5
"""Part of the page that names and scores may take, so that there is room for thumbnails."""

_PROBLEMS = 100
"""Queries without a vector that are named."""


class SearchPart:
    """What a page shows of a search.

    Args:
        queries, answers: of the search; of the answers the first `top_images` of a query are shown.
        whitened: whether vectors were whitened.
        top_images: see above.
        room: bytes that the data may take, nearly.
    """

    name = "search"

    def __init__(self, queries: Queries, answers: Answers, *, whitened: bool, top_images: int, room: int) -> None:
        self._queries, self._answers, self._whitened, self._top = queries, answers, whitened, top_images
        self.shown: list[Query] = []
        found: list[list[Any]] = []
        for number, query in enumerate(queries.found):
            rows = [[path, round(score, 4)] for path, score in islice(answers.of(number), top_images)]
            value = [query.name, rows]
            room -= len(embedded_json(value)) + 8 * (len(rows) + 1)
            if room < 0:
                break
            found.append(value)
            self.shown.append(query)
        self.data: dict[str, Any] = {"queries": found}

    def paths(self) -> Sequence[str]:
        return [path for _, rows in self.data["queries"] for path, _ in rows]

    def asked(self) -> Sequence[str]:
        """Returns the paths of the images that are no rows of the table."""
        return [query.name for query in self.shown if query.is_image and not query.own]

    def attach(self, thumbnails: Thumbnails) -> None:
        for value, query in zip(self.data["queries"], self.shown, strict=True):
            value.append(thumbnails.of(query.name) if query.is_image else None)
            for row in value[1]:
                row.append(thumbnails.of(row[0]))

    def facts(self) -> dict[str, Any]:
        queries = self._queries
        return {
            "queries": len(queries.found),
            "shown": len(self.shown),
            "compared": self._answers.compared,
            "whitened": self._whitened,
            "top": min(self._top, self._answers.rows.shape[1]),
            "problems": [[one_line(text) for text in one] for one in queries.problems[:_PROBLEMS]],
            "problem_count": len(queries.problems),
        }


def write_search_page(
    part: SearchPart,
    reader: TableReader,
    target: str,
    options: ReportOptions,
    *,
    overwrite: bool,
    progress: Callable[[int, int], object] = lambda images, failed: None,
) -> Thumbnails:
    """Writes the page of a search, whole or not at all, and returns the thumbnails in it.

    Args:
        part: what the page shows.
        reader: of the table that was searched, for its provenance.
        progress: see `make_thumbnails`.

    Raises:
        OutputError: the page cannot be written.
    """
    with published(target, overwrite) as file:
        # Images that were given as queries are where they are; those of the table may have been moved.
        asked = dict.fromkeys(part.asked())
        rows = dict.fromkeys(query.name for query in part.shown if query.own)
        rows |= {path: None for path in part.paths() if path not in asked}
        room = thumbnail_room(options.max_size, _MARKUP_BYTES, [part], len(asked) + len(rows))
        thumbnails = make_thumbnails([*asked], room, None, options.workers, progress)
        room -= sum(map(len, thumbnails.made.values()))
        others = make_thumbnails([*rows], room, options.images, options.workers, progress)
        thumbnails = Thumbnails(
            thumbnails.made | others.made, thumbnails.missing | others.missing, thumbnails.left_out + others.left_out
        )
        part.attach(thumbnails)
        facts = {"max_size": options.max_size, **source_facts(reader)}
        file.stream.write(page([part], thumbnails, facts))
    return thumbnails
