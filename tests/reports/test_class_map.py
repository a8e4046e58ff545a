"""`xception report --features`: the map of the images of a table of classify; what is on it, and in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from tests.analysis.test_feature_map import blobs
from tests.cli.conftest import Invoke, invoke  # noqa: F401 - a fixture
from tests.reports.conftest import MakeTable, save_image, violations, wait_until
from tests.reports.test_browser import HOSTILE, Open, names, opened  # noqa: F401 - a fixture
from tests.reports.test_report import data_of
from xcli.analysis import feature_sample

CLASSES = ("cat", "dog", "bird")


@pytest.fixture
def tables(make_table: MakeTable, tmp_path: Path) -> tuple[str, str]:
    """A table of classify and one of features, in another order, each with rows that the other does not have."""
    points, labels = blobs((20, 10, 6))
    by_class = np.argsort(labels, kind="stable")
    points, labels = points[by_class], labels[by_class]
    paths = [f"{CLASSES[label]}/{row:02}.png" for row, label in enumerate(labels)]
    paths[0] = save_image(tmp_path / paths[0])
    rows: list[Any] = [
        (path, [(CLASSES[label], round(0.5 + row / 100, 2)), ("fish", 0.1)])
        for row, (path, label) in enumerate(zip(paths, labels, strict=True))
    ]
    rows[3] = (paths[3], [])  # below --min-score
    rows[4] = (paths[4], "empty: the file has zero bytes")
    order = [row for row in np.random.default_rng(1).permutation(len(paths)).tolist() if row != 5]
    features = write_features(
        tmp_path / "f.parquet",
        np.concatenate([points[order], points[:2]]),
        [*(paths[row] for row in order), "elsewhere.png", "failed.png"],
        failed=[len(order) + 1, order.index(6)],
    )
    return make_table(rows), features


def test_points_have_the_classes_of_their_paths(
    invoke: Invoke,  # noqa: F811
    tables: tuple[str, str],
    tmp_path: Path,
) -> None:
    table, features = tables
    page = tmp_path / "report.html"
    result = invoke("report", table, "--features", features, "-o", page)
    assert result.code == 0, result
    data = data_of(page)
    assert (data["map"]["kind"], data["map"]["groups"][0]) == ("class", ["cat", 18])
    groups = [label for label, _ in data["map"]["groups"]]
    assert sorted(groups) == ["", "bird", "cat", "dog"]
    found = {
        Path(path).parent.name + path[-7:]: (groups[group], value)
        for path, _, _, group, value, _ in data["map"]["points"]
    }
    assert len(found) == 33  # of 36: an error here, an error there, one that has no features
    assert found["cat/03.png"] == ("", None)
    assert found["dog/21.png"] == ("dog", 0.71)
    assert not {"cat/04.png", "cat/05.png", "cat/06.png"} & {*found}
    text = page.read_text()
    assert "All 33 rows with features are on it." in text
    assert "2 images of this table have no features there." in text
    assert "4 rows of <bdi>f.parquet</bdi> are not on it" in text


def test_a_sample_is_of_the_rows_that_both_have(
    invoke: Invoke,  # noqa: F811
    make_table: MakeTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_sample, "MAX_SAMPLE", 25)
    points, labels = blobs((300, 500))
    features = write_features(tmp_path / "f.parquet", points)
    rows = [(f"{row:04}.jpg", [(CLASSES[label], 0.5)]) for row, label in enumerate(labels) if row % 8 == 0]
    page = tmp_path / "report.html"
    assert invoke("report", make_table(rows), "--features", features, "-o", page).code == 0
    found = [int(point[0][:4]) for point in data_of(page)["map"]["points"]]
    assert len({*found}) == 25
    assert all(row % 8 == 0 for row in found)
    assert "The map has 25 of the 100 rows with features, drawn at" in page.read_text()


def test_refusals(invoke: Invoke, make_table: MakeTable, tables: tuple[str, str], tmp_path: Path) -> None:  # noqa: F811
    table, features = tables
    page = tmp_path / "report.html"
    for one, other, message in (
        (features, features, "--features goes with a table of classify"),
        (table, table, "is one of classify"),
        (table, write_features(tmp_path / "m.parquet", np.ones((3, 2, 2, 2), np.float32)), "not vectors"),
    ):
        result = invoke("report", one, "--features", other, "-o", page)
        assert (result.code, message in result.err, page.exists()) == (2, True, False), result
    other = write_features(tmp_path / "o.parquet", np.eye(3, dtype=np.float32))
    result = invoke("report", table, "--features", other, "-o", page)
    assert (result.code, "their paths must be written alike" in result.err, page.exists()) == (2, True, False), result


def chosen(page: Any) -> str:
    return page.locator("#map-status").inner_text()  # type: ignore[no-any-return]


def test_filters_of_the_page_apply(opened: Open, tables: tuple[str, str]) -> None:  # noqa: F811
    page = opened(tables[0], "#class=dog", features=tables[1])
    assert chosen(page) == "10 of 33 images on the map match the filter."
    assert page.locator("#map-legend a[aria-current]").inner_text().split()[0] == "dog"
    page.fill("#min", "0.75")
    assert chosen(page) == "5 of 33 images on the map match the filter."
    page.fill("#path", "29")
    assert chosen(page) == "1 of 33 images on the map match the filter."
    page.locator("#map-frame").focus()
    page.keyboard.press("Home")
    assert chosen(page) == "dog: dog/29.png"
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] #detail-more").inner_text().endswith("dog, 0.790")
    page.keyboard.press("Escape")
    page.click("#filter >> text=Clear")
    assert chosen(page) == ""
    page.click("#map-legend a:has-text('bird')")
    wait_until(page, "document.getElementById('class').value === 'class:bird'")
    assert len(names(page)) == 6


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_accessibility(opened: Open, tables: tuple[str, str], scheme: str, width: int) -> None:  # noqa: F811
    page = opened(tables[0], features=tables[1])
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("#map-frame").focus()
    page.keyboard.press("ArrowRight")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_texts(opened: Open, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    features = write_features(tmp_path / "f.parquet", np.random.default_rng(0).random((len(HOSTILE), 6)), HOSTILE)
    table = make_table([(text, [(text, 0.9)]) for text in HOSTILE], "labels.parquet")
    page = opened(table, features=features)
    page.locator("#map-frame").focus()
    for key in ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"] * 5:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.title() == "labels.parquet - xception report"
    assert page.locator("script").count() == 2
    assert page.locator("img, style:not(head style), iframe, object").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
