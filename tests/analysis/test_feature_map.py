"""Components, clusters and the map of features."""

from __future__ import annotations

import numpy as np
import pytest

from xcli.analysis.feature_map import (
    MAX_CLUSTERS,
    Clusters,
    cluster_count,
    draw_map,
    find_centres,
    fit_components,
    spread_order,
)


def blobs(sizes: tuple[int, ...], width: int = 12, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Points around corners that are far from each other, and which corner each is around."""
    random = np.random.default_rng(3)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    points = np.eye(width, dtype=np.float32)[labels] + spread * random.normal(size=(len(labels), width))
    order = random.permutation(len(labels))
    return points[order].astype(np.float32), labels[order]


def test_clusters_are_those_that_are_there_the_largest_first() -> None:
    points, labels = blobs((20, 50, 30))
    components = fit_components(points)
    values = components.of(points)
    clusters = Clusters(find_centres(values, 3), most=4)
    for start in range(0, 100, 7):  # in batches
        rows = np.arange(start, min(start + 7, 100))
        clusters.add(rows, [f"{row}.jpg" for row in rows], values[rows])
    assert clusters.sizes.tolist() == [50, 30, 20]
    found, distances = clusters.nearest(values)
    assert [len(np.unique(labels[found == number])) for number in range(3)] == [1, 1, 1]
    for number, kept in enumerate(clusters.typical):
        own = np.flatnonzero(found == number)
        nearest = own[np.argsort(distances[own], kind="stable")[:4]].tolist()
        assert [row.number for row in kept] == nearest
        assert [row.path for row in kept] == [f"{row}.jpg" for row in nearest]
        assert [row.distance for row in kept] == pytest.approx(distances[nearest].tolist())


@pytest.mark.parametrize(("rows", "clusters"), [(1, 2), (100, 2), (3409, 12), (10_000, 20), (10**9, MAX_CLUSTERS)])
def test_the_number_of_clusters_grows_with_the_rows(rows: int, clusters: int) -> None:
    assert cluster_count(rows) == clusters


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 40])
def test_few_or_equal_rows_have_a_map_and_clusters(rows: int) -> None:
    for points in (np.ones((rows, 3), np.float32), np.random.default_rng(0).random((rows, 3), np.float32)):
        values = fit_components(points).of(points)
        centres = find_centres(values, 8)
        assert 1 <= len(centres) <= min(rows, 8)
        places, height = draw_map(values)
        assert places.shape == (rows, 2)
        assert np.isfinite(places).all()
        assert (places.min(), places.max()) >= (0, 0)
        assert places.max() <= 1
        assert 0 < height <= 1.0001


def test_alike_rows_are_near_each_other_and_the_map_is_the_same_each_time() -> None:
    points, labels = blobs((60, 60, 60))
    places, _ = draw_map(points)
    assert bool((places == draw_map(points)[0]).all())
    far = ((places[:, None] - places[None]) ** 2).sum(2)
    np.fill_diagonal(far, np.inf)
    assert (labels[far.argmin(1)] == labels).mean() > 0.99
    assert np.ptp(places, 0) == pytest.approx([1, 1])


def test_each_beginning_of_the_order_is_spread() -> None:
    points = np.random.default_rng(0).random((2000, 2)).astype(np.float32)
    points[:1500] *= 0.05  # most are in one corner
    order = spread_order(points, first=[7, 1800])
    assert order[:2].tolist() == [7, 1800]
    assert sorted(order.tolist()) == list(range(2000))
    cells = np.unique((points[order[:80]] * 8).astype(int), axis=0)
    assert len(cells) > 55  # of 64
