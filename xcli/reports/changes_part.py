"""The part of a page for two tables of the same images: what is in one only, and what has changed from A to B."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.records import ERROR, OK_STATUS, PATH, STATUS, STATUS_COLUMNS
from xcli.reports.page import embedded_json
from xcli.reports.parts import Names, source_facts
from xcli.reports.summary import chart_data, histogram, predictions
from xcli.tables.schema import prediction_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.compare import Comparison
    from xcli.reports.thumbnails import Thumbnails
    from xcli.tables.base import TableReader

MOST_CHANGED = 60
"""Images that a page shows for having changed most, whatever has changed."""

MAX_PAIRS = 1000
"""Pairs of classes that a page lists; all are counted."""

MAX_OF_PAIRS = 2000
"""Images of the pairs of classes, all pairs together."""

MAX_OF_KIND = 250
"""Images of every other kind of change."""

ABSENT = -1
"""Number of the row of an image in the table that does not have it."""

_DRIFT_BINS = 21  # odd, so that those that have not changed are in the middle one

Outcome = str | tuple[tuple[str, float], ...] | None  # an error, or classes with their scores; None of features
Place = tuple[int, int]  # rows in A and in B


class ChangesPart:
    """What a page shows of a comparison.

    Args:
        result: of `compare`.
        first, second: the tables A and B; both are read once more.
        top_images: rows of each pair of classes that are shown, those that have changed most.
        room: bytes that the data may take, nearly.

    Raises:
        CheckError: a table is damaged.
    """

    name = "changes"

    def __init__(self, result: Comparison, first: TableReader, second: TableReader, top_images: int, room: int) -> None:
        names = Names()
        pairs = result.summary.get("changed_classes", [])
        self.data: dict[str, Any] = {
            "of": result.command,
            "counts": count_kinds(result),
            **_distributions(result),
            "pairs": _pairs(pairs, names, room // 3),
            "pair_count": len(pairs),
            "labels": names.all,
        }
        room -= len(embedded_json(self.data))
        self.data["rows"] = _rows(result, (first, second), choose(result, top_images), names, room)
        self._facts = {
            "skip": "changed",
            "summary": result.summary,
            "spread": result.summary.get("score_drift") or result.summary.get("cosine"),
            "names": [source_facts(table)["title"] for table in (first, second)],
            "models": [source_facts(table)["model"] for table in (first, second)],
            "counts": self.data["counts"],
            "pairs": len(self.data["pairs"]),
            "pair_count": len(pairs),
            "top_images": top_images,
            "most_of_kind": MAX_OF_KIND,
        }

    def paths(self) -> Sequence[str]:
        return [row[1] for row in self.data["rows"]]

    def attach(self, thumbnails: Thumbnails) -> None:
        for row in self.data["rows"]:
            row.append(thumbnails.of(row[1]))

    def facts(self) -> dict[str, Any]:
        return self._facts


def kinds_of(command: str) -> tuple[str, ...]:
    """Returns the kinds of changes, of which an image has one; the last one is a slight one."""
    own = ("class", "score") if command == "classify" else ("cosine",)
    return (*own[:-1], "ok-to-error", "error-to-ok", "only-a", "only-b", own[-1])


def _rows_by_kind(result: Comparison) -> dict[str, NDArray[np.int64]]:
    """Returns for each kind its rows: of A, of `only-b` those of B; in the order of the tables."""
    import numpy as np

    status = result.status_changed
    was_ok = result.a.ok[status]
    found = {
        "ok-to-error": status[was_ok],
        "error-to-ok": status[~was_ok],
        "only-a": result.only_a,
        "only-b": result.only_b,
    }
    found |= {"class": np.flatnonzero(result.is_other)} if result.command == "classify" else {}
    found["score" if result.command == "classify" else "cosine"] = result.slightly_changed
    return {kind: found[kind] for kind in kinds_of(result.command)}


def count_kinds(result: Comparison) -> dict[str, int]:
    """Returns how many images have changed in each way."""
    return {kind: len(rows) for kind, rows in _rows_by_kind(result).items()}


def choose(result: Comparison, top_images: int) -> dict[Place, str]:
    """Returns the rows that a page shows, with their kinds of change, those first that deserve a thumbnail most.

    First come the images that have changed most, then for each pair of classes the one that has changed most, the
    second one of each, and so on; then the first ones whose status has changed, or that are in one table only; at last
    those whose scores or features have changed most.
    """
    import numpy as np

    distance = np.nan_to_num(result.distance)
    kinds = _rows_by_kind(result)
    slight = kinds_of(result.command)[-1]
    kinds[slight] = _furthest(kinds[slight], distance, MAX_OF_KIND)
    changed = kinds.get("class", kinds[slight][:0])
    most = _furthest(np.concatenate([changed, kinds[slight]]), distance, MOST_CHANGED)
    found: dict[Place, str] = {}

    def add(rows: NDArray[np.int64], kind: str | None = None) -> None:
        for row in rows.tolist():
            place = (ABSENT, row) if kind == "only-b" else (row, int(result.partner[row]))
            found.setdefault(place, kind or ("class" if result.is_other[row] else slight))

    add(most)
    if "class" in kinds:
        add(_of_pairs(result, changed, distance, top_images)[:MAX_OF_PAIRS])
    for kind in ("ok-to-error", "error-to-ok", "only-a", "only-b", slight):
        add(kinds[kind][:MAX_OF_KIND], kind)
    return found


def _furthest(rows: NDArray[np.int64], distance: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Returns the rows that have changed most; of equal ones the first."""
    import numpy as np

    rows = np.sort(rows)
    return rows[np.argsort(-distance[rows], kind="stable")[:most]]


def _of_pairs(
    result: Comparison, rows: NDArray[np.int64], distance: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Returns rows whose class is another one: of each pair at most `most`, in turn, the most frequent pair first."""
    import numpy as np

    classes = len(result.names) + 1
    pairs = (result.a.labels[rows] + 1).astype(np.int64) * classes + result.b.labels[result.partner[rows]] + 1
    _, pair, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, -distance[rows], pair))
    begin = np.cumsum(counts) - counts
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(begin, counts)
    kept = np.flatnonzero(rank < most)
    return rows[kept[np.lexsort((pair[kept], -counts[pair[kept]], rank[kept]))]]


def _pairs(pairs: Sequence[dict[str, Any]], names: Names, room: int) -> list[list[int]]:
    """Returns the most frequent pairs of classes, by number, with their counts: as many as have room."""
    found = []
    for pair in pairs[:MAX_PAIRS]:
        known = len(names.all)
        value = [names.of(pair["a"]), names.of(pair["b"]), pair["count"]]
        room -= len(embedded_json([value, names.all[known:]]))
        if room < 0:
            break
        found.append(value)
    return found


def _rows(
    result: Comparison, tables: Sequence[TableReader], chosen: dict[Place, str], names: Names, room: int
) -> list[list[Any]]:
    """Returns the chosen rows, as many as have room, with their classes by number."""
    before, after = (_outcomes(table, sorted({place[side] for place in chosen})) for side, table in enumerate(tables))
    found = []
    for (a, b), kind in chosen.items():
        known = len(names.all)
        path, was = before.get(a, (None, None))
        other, now = after.get(b, (None, None))
        sides = [
            [[names.of(label), round(score, 5)] for label, score in side] if isinstance(side, tuple) else side
            for side in (was, now)
        ]
        value = [kind, other if path is None else path, *sides, _change(result, a)]
        room -= len(embedded_json([value, names.all[known:]]))
        if room < 0:
            break
        found.append(value)
    return found


def _distributions(result: Comparison) -> dict[str, Any]:
    """Returns the distributions that a page draws, by name."""
    import numpy as np

    change = result.change[~result.is_other]
    change = change[~np.isnan(change)]
    if result.command == "features":
        low = float(change.min()) if len(change) else 0.0
        return {"change": chart_data(histogram(change, min(low, 1 - 1e-6), 1.0))}
    furthest = max(0.01, float(np.abs(change).max())) if len(change) else 1.0
    return {
        "change": chart_data(histogram(change, -furthest, furthest, _DRIFT_BINS)),
        "scores": [chart_data(histogram(side.scores)) for side in (result.a, result.b)],
    }


def _change(result: Comparison, row: int) -> float | None:
    """Returns how much a row of A has changed; None where it cannot be said."""
    value = float("nan") if row == ABSENT else float(result.change[row])
    return None if value != value else round(value, 7)


def _outcomes(table: TableReader, rows: list[int]) -> dict[int, tuple[str, Outcome]]:
    """Returns of some rows, sorted by their numbers, the path and what the table says of the image."""
    wanted = [row for row in rows if row != ABSENT]
    is_classify = table.command == "classify"
    width = prediction_count(table.schema) if is_classify else 0
    found: dict[int, tuple[str, Outcome]] = {}
    for numbers, batch in table.rows(wanted, None if is_classify else STATUS_COLUMNS):
        columns = [(batch[f"label_{k}"], batch[f"score_{k}"]) for k in range(1, width + 1)]
        facts = (batch[name].to_pylist() for name in (PATH, STATUS, ERROR))
        for place, (number, path, status, error) in enumerate(zip(numbers, *facts, strict=True)):
            outcome: Outcome = error or "error"
            if status == OK_STATUS:
                outcome = predictions(columns, place) if is_classify else None
            found[number] = (path or "", outcome)
    return found
