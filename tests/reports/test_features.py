"""`xception report` of a table of features: what is in the page, and what is said of it; without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from tests.analysis.test_feature_map import blobs
from tests.cli.conftest import Invoke, invoke  # noqa: F401 - a fixture
from tests.reports.conftest import MakeTable, save_image
from tests.reports.test_report import data_of
from xcli.analysis import feature_sample
from xcli.reports.features_part import SIDE


@pytest.mark.parametrize("name", ["f.parquet", "f.npy", "f.csv"])
def test_points_and_clusters(invoke: Invoke, tmp_path: Path, name: str) -> None:  # noqa: F811
    points, labels = blobs((12, 20))
    points[5] = np.nan
    paths = [f"{label}/{row:02}.png" for row, label in enumerate(labels)]
    paths[0] = save_image(tmp_path / "a.png")
    table = write_features(tmp_path / name, points, paths, failed=[9])
    page = tmp_path / "report.html"
    result = invoke("report", table, "-o", page, "--clusters", "2", "--top-images", "3")
    assert result.code == 0, result
    assert "32 rows, 30 of them shown, 1 thumbnails, 29 images not found" in result.err
    data = data_of(page)
    assert data["map"]["kind"] == "cluster"
    sizes = [size for _, size in data["map"]["groups"]]
    assert [title for title, _ in data["map"]["groups"]] == ["1", "2"]
    assert sum(sizes) == 30
    assert sizes[0] > sizes[1]
    by_path = {point[0]: point for point in data["map"]["points"]}
    assert sorted(by_path) == sorted(path for row, path in enumerate(paths) if row not in (5, 9))
    assert by_path[paths[0]][5] == 0
    assert by_path[paths[1]][5] == "missing"
    large = {path for path, point in by_path.items() if point[3] == 0 and path != paths[0]}
    assert {path[0] for path in large} == {"1"}
    assert all(0 <= place <= SIDE for point in by_path.values() for place in point[1:3])
    assert [[len(one), {data["map"]["points"][place][3] for place in one}] for one in data["clusters"]["typical"]] == [
        [3, {0}],
        [3, {1}],
    ]
    # Those that are looked at first come first.
    assert sorted(place for one in data["clusters"]["typical"] for place in one) == list(range(6))
    assert sorted(row[0] for row in data["errors"]["rows"]) == sorted([paths[5], paths[9]])


def test_a_large_table_is_a_sample_with_exact_sizes_and_the_most_typical_of_all(
    invoke: Invoke,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_sample, "MAX_SAMPLE", 60)
    points, labels = blobs((300, 500))
    points[77] = np.eye(12)[labels[77]]  # nearest to its centre
    table, page = write_features(tmp_path / "f.parquet", points), tmp_path / "report.html"
    assert invoke("report", table, "-o", page, "--clusters", "2", "--top-images", "4").code == 0
    data = data_of(page)
    assert [size for _, size in data["map"]["groups"]] == [500, 300]
    shown = [point[0] for point in data["map"]["points"]]
    assert 60 <= len(shown) == len(set(shown)) <= 68
    typical = [[shown[place] for place in one] for one in data["clusters"]["typical"]]
    assert "0077.jpg" in [path for one in typical for path in one[:2]]
    assert [len(one) for one in typical] == [4, 4]
    assert "of the 800 rows with features" in page.read_text()


def test_the_same_table_gives_the_same_page(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    table = write_features(tmp_path / "f.parquet", blobs((40, 30))[0])
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        assert invoke("report", table, "-o", page).code == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_lengths_of_vectors_change_nothing(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    points = blobs((40, 30))[0]
    scales = np.exp2(np.arange(len(points)) % 5).astype(np.float32)[:, None]
    found = []
    for name, values in (("a", points), ("b", points * scales)):
        table, page = write_features(tmp_path / f"{name}.parquet", values), tmp_path / f"{name}.html"
        assert invoke("report", table, "-o", page).code == 0
        found.append(data_of(page)["map"])
    assert found[0] == found[1]


def test_the_page_keeps_to_its_size(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    image = save_image(tmp_path / "a.png")
    links = [tmp_path / f"{number:03}{'x' * 150}.png" for number in range(500)]
    for link in links:
        link.symlink_to(image)
    table, page = write_features(tmp_path / "f.npy", blobs((500,))[0], [*map(str, links)]), tmp_path / "report.html"
    result = invoke("report", table, "-o", page, "--max-size", "0.2")
    assert result.code == 0
    assert page.stat().st_size <= 200_000
    assert "left out for --max-size" in result.err
    places = [place for one in data_of(page)["clusters"]["typical"] for place in one]
    assert max(places) < len(data_of(page)["map"]["points"])


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(invoke: Invoke, tmp_path: Path, rows: int) -> None:  # noqa: F811
    table, page = write_features(tmp_path / "f.csv", np.ones((rows, 4), np.float32)), tmp_path / "report.html"
    assert invoke("report", table, "-o", page).code == 0
    assert [size for _, size in data_of(page)["map"]["groups"]] == ([rows] if rows else [])


def test_refusals(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "report.html"
    maps = write_features(tmp_path / "maps.parquet", np.ones((2, 3, 3, 8), np.float32))
    result = invoke("report", maps, "-o", page)
    assert (result.code, page.exists()) == (2, False)
    assert "maps.parquet holds maps of 3x3x8 values, not vectors: use features --pooling avg" in result.err
    features = write_features(tmp_path / "f.parquet", np.ones((2, 8), np.float32))
    assert invoke("report", features, "-o", page, "--truth", tmp_path).code == 2
    labels = make_table([("a.png", [("cat", 0.5)])])
    result = invoke("report", labels, "-o", page, "--clusters", "3")
    assert (result.code, "--clusters goes with a table of features" in result.err) == (2, True)
