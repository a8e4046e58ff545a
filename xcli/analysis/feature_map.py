"""Features in two dimensions, and in clusters: what `report` shows of a table of `features`.

Vectors of length one are brought to their first principal components. There k-means finds the clusters, and t-SNE the
map, which has kept more neighbours than the other projections that `python -m benchmarks maps` compares. All of it is
fitted to a sample; the clusters of the other rows, and the rows nearest to the centres, come from a second reading.

One thread computes: so the same table gives the same map whatever the number of processors, and on busy ones threads
that wait for each other take many times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

COMPONENTS = 50
"""Dimensions of the vectors of which map and clusters are made."""

_PERPLEXITY = 30
"""Of t-SNE: about how many neighbours count; the usual value."""

_STEPS = 500
"""Of t-SNE; twice as many take twice as long, and keep no more neighbours."""

MAX_CLUSTERS = 40
"""That are found unless a number is asked for: more are too many to look at."""

SEED = 0


@dataclass(frozen=True)
class Components:
    """A projection on the first principal components of a sample.

    Attributes:
        mean: float32[width].
        directions: float32[width, k].
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns float32[n, k] of float32[n, width]."""
        made: NDArray[Any] = (values - self.mean) @ self.directions
        return made


def fit_components(values: NDArray[np.float32]) -> Components:
    """Returns the first principal components of float32[n, width], as many as there are, at most `COMPONENTS`.

    n is at least 1.
    """
    import numpy as np
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    count = min(COMPONENTS, *values.shape)
    # It divides by the variance, which a single row, or equal ones, do not have.
    with threadpool_limits(1), np.errstate(invalid="ignore", divide="ignore"):
        fitted = PCA(count, random_state=SEED).fit(values)
    return Components(fitted.mean_.astype(np.float32), np.ascontiguousarray(fitted.components_.T, np.float32))


def cluster_count(rows: int) -> int:
    """Returns how many clusters so many rows are divided into: a fifth of the square root, 2 to `MAX_CLUSTERS`."""
    return min(max(round(math.sqrt(rows) / 5), 2), MAX_CLUSTERS)


def find_centres(points: NDArray[np.float32], clusters: int) -> NDArray[np.float32]:
    """Returns the centres of k-means, float32[k, d], the largest cluster first; k is smaller where points are the same.

    Args:
        points: float32[n, d], n at least 1.
        clusters: how many.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    different = len(np.unique(points, axis=0))
    with threadpool_limits(1):
        fitted = KMeans(min(clusters, different), n_init=3, random_state=SEED).fit(points)
    sizes = np.bincount(fitted.labels_, minlength=len(fitted.cluster_centers_))
    order = np.argsort(-sizes, kind="stable")
    centres: NDArray[np.float32] = fitted.cluster_centers_[order[sizes[order] > 0]].astype(np.float32)
    return centres


class Typical(NamedTuple):
    """One of the rows nearest to the centre of a cluster.

    Attributes:
        distance: to the centre.
        number: place in the table.
        path: of its image.
        point: float32[d], its components.
    """

    distance: float
    number: int
    path: str
    point: NDArray[np.float32]


class Clusters:
    """Counts the rows of clusters, and keeps the most typical ones of each.

    Args:
        centres: float32[k, d].
        most: rows that are kept of each cluster.

    Attributes:
        sizes: int64[k].
        typical: of each cluster, nearest first; of those equally near the first of the table.
    """

    def __init__(self, centres: NDArray[np.float32], most: int) -> None:
        import numpy as np

        self.centres = centres
        self.sizes = np.zeros(len(centres), np.int64)
        self.typical: list[list[Typical]] = [[] for _ in centres]
        self._most = most

    def nearest(self, points: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns for each of float32[n, d] the number of the nearest centre, and its distance."""
        import numpy as np

        far = (self.centres**2).sum(1) - 2 * points @ self.centres.T
        labels = far.argmin(1)
        return labels, np.sqrt(((points - self.centres[labels]) ** 2).sum(1))

    def add(self, numbers: NDArray[np.int64], paths: pa.StringArray | list[str], points: NDArray[np.float32]) -> None:
        """Takes further rows, in the order of the table."""
        import numpy as np

        labels, distances = self.nearest(points)
        self.sizes += np.bincount(labels, minlength=len(self.centres))
        for label in np.unique(labels).tolist():
            kept = self.typical[label]
            rows = np.flatnonzero(labels == label)
            if len(kept) == self._most:
                rows = rows[distances[rows] < kept[-1].distance]
            rows = rows[np.argsort(distances[rows], kind="stable")[: self._most]]
            for row in rows.tolist():
                kept.append(Typical(float(distances[row]), int(numbers[row]), str(paths[row]), points[row].copy()))
            kept.sort(key=lambda one: one[:2])
            del kept[self._most :]


def draw_map(points: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Returns where each of float32[n, d] is on the map, float32[n, 2], from 0 to 1, and its height by its width."""
    import numpy as np

    flat = np.zeros((len(points), 2), np.float32)
    flat[:, : points.shape[1]] = points[:, :2]
    # Of a handful of points, and of ones that are all the same, t-SNE makes nothing.
    if len(np.unique(points[:1000], axis=0)) > 5:
        flat = _embed(points)
    # Directions on the map mean nothing, and screens are wide: the longest one lies.
    flat = flat - flat.mean(0)
    flat = flat @ np.linalg.eigh(flat.T @ flat)[1][:, ::-1]
    low, size = flat.min(0), np.ptp(flat, 0)
    places = np.divide(flat - low, size, out=np.full_like(flat, 0.5), where=size > 0)
    return places, float(size[1] / size[0]) if size.min() > 0 else 1.0


def _embed(points: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    with threadpool_limits(1):
        made = TSNE(perplexity=perplexity, max_iter=_STEPS, random_state=SEED, n_jobs=1).fit_transform(points)
    return np.asarray(made, np.float32)


def spread_order(points: NDArray[np.float32], first: list[int]) -> NDArray[np.int64]:
    """Returns the rows of float32[n, 2], from 0 to 1, so that each beginning of them is spread over the map.

    Args:
        first: rows to begin with.
    """
    import numpy as np

    is_taken = np.zeros(len(points), bool)
    is_taken[first] = True
    order = [np.asarray(first, np.int64)]
    rest = np.random.default_rng(SEED).permutation(len(points))
    for level in range(1, 13):
        side = 2**level
        cells = np.minimum((points * side).astype(np.int64), side - 1) @ np.array([side, 1])
        rest = rest[~is_taken[rest]]
        _, place = np.unique(cells[rest], return_index=True)
        chosen = rest[np.sort(place)]
        chosen = chosen[~np.isin(cells[chosen], cells[is_taken])]
        is_taken[chosen] = True
        order.append(chosen)
    order.append(rest[~is_taken[rest]])
    return np.concatenate(order)
