"""The parts of a page that show a table of `features`: a map of the images, and their clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.analysis.feature_map import Clusters, cluster_count, draw_map, find_centres, fit_components, spread_order
from xcli.analysis.feature_sample import MAX_SAMPLE, FeatureSample, read_sample, vectors
from xcli.reports.page import embedded_json
from xcli.reports.parts import seconds_and_rate
from xcli.reports.summary import MAX_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.reports.thumbnails import Thumbnails
    from xcli.tables.base import TableReader

SIDE = 9999
"""Places on the map are whole numbers from 0 to this."""


class Point(NamedTuple):
    """An image on the map.

    Attributes:
        path: as the table has it.
        x, y: from 0 to `SIDE`; y grows downwards.
        group: number of its cluster, or of its class.
        value: the distance to the centre of the cluster, or the score of the class.
    """

    path: str
    x: int
    y: int
    group: int
    value: float | None


@dataclass(frozen=True)
class FeatureMap:
    """What is shown of a table of features.

    Attributes:
        sample: what was read.
        sizes: number of rows in each cluster.
        points: those that deserve a thumbnail most come first: the most typical ones of each cluster, then some from
            all over the map.
        typical: of each cluster the places in `points` of its most typical images.
        height: of the map, by its width.
    """

    sample: FeatureSample
    sizes: list[int]
    points: list[Point]
    typical: list[list[int]]
    height: float


def read_map(reader: TableReader, clusters: int | None, top_images: int) -> FeatureMap:
    """Reads a table of features, a second time where it does not fit into the sample.

    Args:
        clusters: number of clusters; None is that of `cluster_count`.
        top_images: rows that are kept of each cluster for being typical.

    Raises:
        UsageError: its rows are maps, not vectors.
        CheckError: it is damaged.
    """
    import numpy as np

    sample = read_sample(reader, max_errors=MAX_ERRORS)
    if not sample.ok:
        return FeatureMap(sample, [], [], [], 1.0)
    components = fit_components(sample.values)
    values = components.of(sample.values)
    found = Clusters(find_centres(values, clusters or cluster_count(sample.ok)), top_images)
    if sample.ok == len(sample.paths):
        found.add(sample.numbers, sample.paths, values)
    else:
        for rows in vectors(reader):
            found.add(rows.numbers, rows.paths, components.of(rows.values))
    known = dict(zip(sample.numbers.tolist(), range(len(sample.paths)), strict=True))
    paths, further = list(sample.paths), []
    typical: list[list[int]] = []
    for kept in found.typical:
        typical.append([])
        for row in kept:
            if row.number not in known:
                known[row.number] = len(paths)
                paths.append(row.path)
                further.append(row.point)
            typical[-1].append(known[row.number])
    values = np.concatenate([values, np.asarray(further, np.float32).reshape(-1, values.shape[1])])
    return FeatureMap(sample, found.sizes.tolist(), *_ordered(paths, values, found, typical))


def _ordered(
    paths: list[str], values: NDArray[np.float32], clusters: Clusters, typical: list[list[int]]
) -> tuple[list[Point], list[list[int]], float]:
    """Returns the last three attributes of a `FeatureMap`."""
    import numpy as np

    places, height = draw_map(values)
    groups, distances = clusters.nearest(values)
    most = max(map(len, typical))
    first = [rows[k] for k in range(most) for rows in typical if k < len(rows)]
    order = spread_order(places, first)
    cells = np.rint(places * SIDE).astype(int)
    points = [
        Point(paths[row], int(cells[row, 0]), SIDE - int(cells[row, 1]), int(groups[row]), float(distances[row]))
        for row in order.tolist()
    ]
    rank = np.argsort(order, kind="stable")
    return points, [rank[rows].tolist() for rows in typical], height


class MapPart:
    """Images on a map.

    Args:
        points: those that have room come first.
        groups: name and number of images of each group.
        kind: what the groups are: `cluster` or `class`.
        height: of the map, by its width.
        facts: what the template shows beside.
        room: bytes that the data may take, nearly.

    Attributes:
        points: those that the page shows.
    """

    name = "map"

    def __init__(
        self,
        points: Sequence[Point],
        groups: Sequence[tuple[str, int]],
        kind: str,
        height: float,
        facts: dict[str, Any],
        room: int,
    ) -> None:
        self.points: list[Point] = []
        self._facts = facts
        room -= len(embedded_json(groups))
        for point in points:
            room -= len(embedded_json(_data_of(point))) + 1
            if room < 0:
                break
            self.points.append(point)
        self.data: dict[str, Any] = {"kind": kind, "height": round(height, 4), "groups": groups}
        self.data["points"] = [*map(_data_of, self.points)]

    def paths(self) -> Sequence[str]:
        return [point.path for point in self.points]

    def attach(self, thumbnails: Thumbnails) -> None:
        for value, point in zip(self.data["points"], self.points, strict=True):
            value.append(thumbnails.of(point.path))

    def facts(self) -> dict[str, Any]:
        return {"shown": len(self.points), **self._facts}


def _data_of(point: Point) -> list[Any]:
    return [point.path, point.x, point.y, point.group, None if point.value is None else round(point.value, 5)]


class ClustersPart:
    """The clusters of the images on a map, and these images by cluster and path.

    Args:
        typical: of each cluster the places of its most typical images in the points of the map.
        shown: number of points on the map.
    """

    name = "clusters"

    def __init__(self, typical: Sequence[Sequence[int]], shown: int, facts: dict[str, Any]) -> None:
        self._facts = facts
        self.data: dict[str, Any] = {"typical": [[place for place in one if place < shown] for one in typical]}

    def paths(self) -> Sequence[str]:
        return ()

    def attach(self, thumbnails: Thumbnails) -> None:
        """The map has the thumbnails."""

    def facts(self) -> dict[str, Any]:
        return self._facts


def features_parts(reader: TableReader, found: FeatureMap, top_images: int, room: int) -> tuple[MapPart, ClustersPart]:
    """Returns the parts of the page of a table of features; the data of the first may take `room` bytes, nearly."""
    sample = found.sample
    seconds, rate = seconds_and_rate(reader, sample.rows)
    groups = [(str(number + 1), size) for number, size in enumerate(found.sizes)]
    facts = {
        "overview": True,
        "rows": sample.rows,
        "ok": sample.ok,
        "errors": sample.rows - sample.ok,
        "clusters": len(groups),
        "width": sample.values.shape[1],
        "seconds": seconds,
        "rate": rate,
        "sample_limit": MAX_SAMPLE,
        "top_images": top_images,
    }
    drawn = MapPart(found.points, groups, "cluster", found.height, facts, room)
    return drawn, ClustersPart(found.typical, len(drawn.points), facts)
