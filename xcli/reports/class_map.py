"""The map of a page of `classify`: images of a table of `features`, coloured by their best class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xcli.analysis.feature_map import draw_map, fit_components, spread_order
from xcli.analysis.feature_sample import read_sample
from xcli.analysis.pairing import NO_LABEL, read_rows
from xcli.checks.row_index import hash_places, path_hashes
from xcli.core.errors import SourceError
from xcli.core.text import one_line
from xcli.reports.features_part import SIDE, MapPart, Point

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader


class _Predictions:
    """The rows of a table of `classify` that have a result, by their paths; of a path that comes twice, the first.

    Attributes:
        labels: the different best classes; the empty one is none (`--min-score`).
        matched: bool[n], of each whether the other table has its path.
    """

    def __init__(self, reader: TableReader) -> None:
        import numpy as np

        names: dict[str, int] = {}
        rows = read_rows(reader, names)
        self.labels = [*names, ""]
        self._hashes, first = np.unique(rows.hashes[rows.ok], return_index=True)
        numbers, self._scores = rows.labels[rows.ok][first], rows.scores[rows.ok][first]
        # As everywhere in reports: a score that is no number is none.
        self._numbers = np.where((numbers == NO_LABEL) | ~np.isfinite(self._scores), len(names), numbers)
        self.matched = np.zeros(len(self._hashes), bool)

    def match(self, paths: Iterable[str]) -> NDArray[np.bool_]:
        """Says which paths have a row, and notes these rows in `matched`."""
        places = self._places(paths)
        found: NDArray[np.bool_] = places >= 0
        self.matched[places[found]] = True
        return found

    def of(self, paths: Iterable[str]) -> list[tuple[int, float | None]]:
        """Returns of paths that have a row the places of their best classes in `labels`, and the scores."""
        import numpy as np

        places = self._places(paths)
        scores = [float(score) if np.isfinite(score) else None for score in self._scores[places]]
        return [*zip(self._numbers[places].tolist(), scores, strict=True)]

    def _places(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Returns the place of each path, int64[n]; -1 where it has no row."""
        return hash_places(self._hashes, path_hashes(paths))


def class_map(reader: TableReader, features: TableReader, classes: list[tuple[str, int]], room: int) -> MapPart:
    """Returns the map of the images that have both predictions and features; the two tables are read once.

    Args:
        reader: of the table of `classify`.
        features: of the table of features.
        classes: its best classes with the numbers of their rows, in the order in which they get their colours.
        room: bytes that the data may take, nearly.

    Raises:
        SourceError: no row of one table is in the other.
        CheckError: a table is damaged.
    """
    predictions = _Predictions(reader)
    sample = read_sample(features, max_errors=0, wanted=predictions.match)
    if not sample.ok:
        raise SourceError(
            f"no image of {one_line(reader.name)} has features in {one_line(features.name)}: their paths must be "
            "written alike, and both rows must be ok"
        )
    places, height = draw_map(fit_components(sample.values).of(sample.values))
    numbers = {label: number for number, (label, _) in enumerate(classes)}
    found = predictions.of(sample.paths)
    points = []
    for row in spread_order(places, []).tolist():
        (label, score), (x, y) = found[row], places[row]
        group = numbers[predictions.labels[label]]
        points.append(Point(sample.paths[row], round(float(x) * SIDE), SIDE - round(float(y) * SIDE), group, score))
    facts = {
        "overview": False,
        "within": True,
        "ok": sample.ok,
        "others": sample.rows - sample.ok,
        "without": int((~predictions.matched).sum()),
        "table": os.path.basename(features.name.rstrip("/")) or features.name,
    }
    return MapPart(points, classes, "class", height, facts, room)
