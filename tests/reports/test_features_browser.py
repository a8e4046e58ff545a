"""The page of a table of features in a real browser: map, clusters, addresses, keyboard, accessibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from tests.analysis.test_feature_map import blobs
from tests.reports.conftest import save_image, violations, wait_until
from tests.reports.test_browser import HOSTILE, Open, names, opened  # noqa: F401 - a fixture

SIZES = (30, 20, 10)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Three clusters, half of whose images are there, and an error."""
    points, labels = blobs(SIZES)
    paths = [f"{'abc'[label]}/{row:02}.png" for row, label in enumerate(labels)]
    for row in range(0, len(paths), 2):
        paths[row] = save_image(tmp_path / paths[row], (4 * row, 100, 80))
    return write_features(tmp_path / "features.parquet", points, paths, failed=[7])


def count(page: Any) -> int:
    return int(page.locator(".sheet li:has(.caption)").count())


def chosen(page: Any) -> str:
    return page.locator("#map-status").inner_text()  # type: ignore[no-any-return]


def test_filters_and_addresses(opened: Open, table: str) -> None:  # noqa: F811
    page = opened(table, clusters=3, top_images=4)
    assert page.locator("#cluster-list li").count() == 3
    assert count(page) == 59
    page.click("#cluster-list a:has-text('Cluster 3')")
    wait_until(page, "location.hash === '#cluster=3'")
    assert page.locator("#sheets h3").all_inner_texts() == ["Most typical", "Others on this page"]
    assert count(page) == 10
    assert {name for name in page.locator(".caption .name").all_inner_texts() if "3" not in name} <= {
        "Cluster 1",
        "Cluster 2",
    }  # of the cards
    assert "10 of 59 images on the map match" in chosen(page)
    assert page.locator("#map-legend a[aria-current]").inner_text().split()[0] == "3"
    page.fill("#path", "C/")
    assert page.evaluate("location.hash") == "#cluster=3&path=C%2F"
    page.reload()
    assert count(page) == 10
    page.fill("#path", "A/")
    assert count(page) == 0
    page.click("text=Clear")
    page.select_option("#sort", "path")
    assert names(page) == sorted(names(page), key=lambda name: int(name[:2])) or len(names(page)) == 59
    page.evaluate("location.hash = 'cluster=99'")
    wait_until(page, "document.getElementById('status').textContent === 'There is no cluster 99.'")


def test_the_map_by_keyboard(opened: Open, table: str) -> None:  # noqa: F811
    page = opened(table, clusters=3)
    page.locator("#map-frame").focus()
    page.keyboard.press("Home")
    seen = {chosen(page)}
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        for _ in range(6):  # one of each in turns could end where it began, wherever the map has its images
            page.keyboard.press(key)
            seen.add(chosen(page))
    assert len(seen) > 4
    assert all(text.startswith("Cluster ") and text.endswith(".png") for text in seen)
    assert page.locator("#map-tip").is_visible()
    before = chosen(page)
    page.keyboard.press("+")
    assert page.locator("#zoom-all").is_enabled()
    page.keyboard.press("Enter")
    assert before.endswith(page.locator("dialog[open] #detail-path").inner_text())
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.id") == "map-frame"
    page.keyboard.press("0")
    assert page.locator("#zoom-all").is_disabled()
    page.keyboard.press("Escape")
    page.locator("#map-tip").wait_for(state="hidden")  # with the next frame
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#map-frame')") is None


def test_arrows_reach_every_image_that_matches_and_no_other(opened: Open, table: str) -> None:  # noqa: F811
    page = opened(table, "#cluster=3", clusters=3)
    page.locator("#map-frame").focus()
    reached: set[str] = set()
    for key in ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowLeft"] * 12:
        page.keyboard.press(key)
        reached.add(chosen(page))
    assert len(reached) > 4
    assert {text.partition(":")[0] for text in reached} == {"Cluster 3"}


def test_the_map_by_mouse(opened: Open, table: str) -> None:  # noqa: F811
    page = opened(table, clusters=3)
    page.emulate_media(reduced_motion="reduce")  # else the page goes on scrolling while the pointer moves
    page.locator("#map-frame").focus()
    page.keyboard.press("Home")
    wait_until(page, "!document.getElementById('map-tip').hidden")
    x, y, path = page.evaluate(
        """() => {
          const frame = document.getElementById("map-frame");
          frame.scrollIntoView({ behavior: "instant", block: "center" });
          const box = frame.getBoundingClientRect();
          const { points, at } = page.map, places = points.map((one) => at(one));
          const far = (one, other) => (one === other ? Infinity : Math.hypot(one.x - other.x, one.y - other.y));
          const room = places.map((one) => Math.min(...places.map((other) => far(one, other))));
          const alone = room.indexOf(Math.max(...room));  // no other point is on top of it
          return [box.left + places[alone].x, box.top + places[alone].y, points[alone].path];
        }"""
    )
    page.keyboard.press("Escape")
    page.locator("#map-tip").wait_for(state="hidden")
    page.mouse.move(x, y)
    wait_until(page, "!document.getElementById('map-tip').hidden")
    assert page.locator("#map-tip .where").inner_text() == path
    page.mouse.click(x, y)
    assert page.locator("dialog[open] #detail-path").inner_text() == path
    page.click("dialog .close")
    page.click("#zoom-in")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 60, steps=4)
    page.mouse.up()
    assert page.locator("dialog[open]").count() == 0
    page.uncheck("#map-pictures")
    page.click("#zoom-all")
    assert page.locator("#zoom-out").is_disabled()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_accessibility(opened: Open, table: str, scheme: str, width: int) -> None:  # noqa: F811
    page = opened(table, "#cluster=2", clusters=3)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    page.locator("#map-frame").focus()
    page.keyboard.press("ArrowRight")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Enter")
    assert violations(page) == []


def test_hostile_texts(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    count = len(HOSTILE)
    points = np.random.default_rng(0).random((2 * count, 6)).astype(np.float32)
    failed = range(count, 2 * count)
    table = write_features(tmp_path / "features.parquet", points, [*HOSTILE, *HOSTILE], failed=failed)
    page = opened(table, clusters=2)
    page.locator("#map-frame").focus()
    for key in ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"] * 5:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.evaluate("document.querySelectorAll('.sheet button').forEach((one) => { one.click(); detail.close(); })")
    assert page.title() == "features.parquet - xception report"
    assert page.locator("script").count() == 2
    assert page.locator("img, style:not(head style), iframe, object").count() == 0
    assert page.locator("#error-rows tr").count() == count
    assert r"right \u202e to left \u200f" in page.locator("#error-rows").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_pages_without_a_vector(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    page = opened(write_features(tmp_path / "features.parquet", np.ones((3, 4), np.float32), failed=[0, 1, 2]))
    assert "No row has features" in page.locator("#map-section").inner_text()
    assert page.locator("#error-rows tr").count() == 3


def test_print(opened: Open, table: str) -> None:  # noqa: F811
    page = opened(table, clusters=3)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#map-help").is_hidden()
    assert page.locator("#map-canvas").is_visible()
    assert page.locator("footer .keys").is_hidden()
    assert page.pdf()[:5] == b"%PDF-"
