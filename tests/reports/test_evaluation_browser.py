"""The page of an evaluation in a real browser: cells, addresses, keyboard, accessibility, and hostile texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.reports.conftest import MakeEvaluation, MakeTable, make_run, save_image, violations, wait_until
from tests.reports.test_browser import HOSTILE, Open, names, opened  # noqa: F401 - a fixture

ROWS: list[Any] = [
    ("b.png", 0, [0.3, 0.7, 0.0]),
    ("c.png", 1, [0.8, 0.2, 0.0]),
    ("d.png", 1, [0.4, 0.6, 0.0]),
    ("e.png", 1, [0.9, 0.1, 0.0]),
    ("f.png", 2, [0.0, 0.1, 0.9]),
    ("bad.png", 1, "empty: the file has zero bytes"),
]


@pytest.fixture
def run(make_evaluation: MakeEvaluation, tmp_path: Path) -> str:
    """A run with three classes, some mistakes, and an error."""
    image = save_image(tmp_path / "a.png")
    make_evaluation([(image, 0, [0.9, 0.1, 0.0]), *ROWS], ("cat", "dog", "ferret"), "run")
    make_run(tmp_path / "run")
    return str(tmp_path / "run")


def cells(page: Any) -> list[list[str]]:
    rows = page.locator(".matrix tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def test_a_cell_opens_its_images(opened: Open, run: str) -> None:  # noqa: F811
    page = opened(run)
    assert cells(page) == [["1", "1", ""], ["2", "1", ""], ["", "", "1"]]
    assert page.locator(".outcomes-title").inner_text() == "Surest mistakes"
    assert names(page) == ["true: dog", "e.png", "true: dog", "c.png", "true: cat", "b.png"]
    page.click(".matrix tbody tr:nth-child(2) td:nth-child(2) a")
    wait_until(page, "document.activeElement.id === 'images'")
    assert page.evaluate("location.hash") == "#truth=dog&predicted=cat"
    assert page.locator(".outcomes-title").inner_text() == "dog taken for cat"
    assert names(page) == ["true: dog", "e.png", "true: dog", "c.png"]
    page.click("#pairs a:has-text('cat taken for dog')")
    wait_until(page, "document.querySelectorAll('.sheet li').length === 1")
    page.go_back()
    wait_until(page, "document.querySelectorAll('.sheet li').length === 2")
    page.click("text=Clear")
    page.select_option("#truth", "class:dog")
    page.select_option("#show", "right")
    assert names(page) == ["d.png"]
    page.fill("#path", "nothing")
    assert names(page) == []
    assert page.evaluate("location.hash") == "#truth=dog&show=right&path=nothing"


def test_addresses(opened: Open, run: str) -> None:  # noqa: F811
    page = opened(run, "#truth=dog&predicted=dog")
    page.emulate_media(reduced_motion="reduce")
    address = page.url
    page.goto("about:blank")  # where a page is only loaded again, the browser scrolls to where it was
    page.goto(address)
    wait_until(page, "scrollY > 100")
    assert page.locator(".outcomes-title").inner_text() == "dog, rightly predicted"
    assert names(page) == ["d.png"]
    assert page.locator("#truth").input_value() == "class:dog"
    page.evaluate("location.hash = 'truth=cow'")
    wait_until(page, "document.getElementById('outcome-status').textContent.includes('No image has the class cow')")
    page.evaluate("location.hash = 'sort=least&show=all'")
    wait_until(page, "document.querySelectorAll('.sheet li').length === 6")
    assert page.locator(".sheet .leaf").all_inner_texts()[0] == "d.png"


def test_figures_are_sorted(opened: Open, run: str) -> None:  # noqa: F811
    page = opened(run)
    order = "[...document.querySelectorAll('#figure-rows th')].map((one) => one.textContent)"
    assert page.evaluate(order) == ["cat", "dog", "ferret"]
    assert page.locator("#figure-heads [aria-sort]").inner_text().startswith("F1")
    page.click("#figure-heads button:has-text('Images')")
    assert page.evaluate(order) == ["dog", "cat", "ferret"]
    page.click("#figure-heads button:has-text('Images')")
    assert page.evaluate(order) == ["ferret", "cat", "dog"]
    assert page.locator("#figure-heads [aria-sort]").get_attribute("aria-sort") == "ascending"
    page.click("#figure-heads button:has-text('Class')")
    assert page.evaluate(order) == ["cat", "dog", "ferret"]
    page.click("#figure-rows a:has-text('ferret')")
    wait_until(page, "document.querySelectorAll('.sheet li').length === 1")


def test_keyboard(opened: Open, run: str) -> None:  # noqa: F811
    page = opened(run)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "path"
    page.locator(".matrix td [tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == (
        "true dog, predicted cat: 2 images, 66.7 % of the row"
    )
    assert page.locator("#matrix-info").inner_text().startswith("true dog, predicted cat")
    page.keyboard.press("End")
    assert "true dog, predicted ferret: 0 images" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    for key in ("ArrowRight", "Home", "ArrowLeft"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    wait_until(page, "document.activeElement.id === 'images'")
    assert page.evaluate("location.hash") == "#truth=dog&predicted=cat"
    page.locator(".matrix td [tabindex='0']").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.matrix')") is None


def test_many_classes(opened: Open, make_evaluation: MakeEvaluation, tmp_path: Path) -> None:  # noqa: F811
    labels = [f"class {number}" for number in range(300)]
    rows = []
    for number in range(900):
        scores = np.full(300, 0.1 / 299)
        scores[(number + (number % 5 == 0)) % 300] = 0.9
        rows.append((f"{number}.png", number % 300, scores.tolist()))
    rows += [(f"more-{number}.png", 7, rows[3][2]) for number in range(4)]
    make_evaluation(rows, labels)
    page = opened(str(tmp_path / "report"))
    assert "of 300 classes" in page.locator("#matrix-note").inner_text()
    assert 20 < page.locator(".matrix tbody tr").count() <= 25
    assert page.locator("#pairs li").first.inner_text().split("\n")[:4] == ["class 7", "taken for", "class 3", "4"]
    assert page.locator("#figure-rows tr").count() == 50
    page.select_option("#matrix-view", "blocks")
    assert page.locator(".matrix tbody tr").count() == 25
    counts = (
        "[...document.querySelectorAll('.matrix tbody button')].reduce((sum, one) => sum + Number(one.textContent), 0)"
    )
    assert page.evaluate(counts) == len(rows)
    page.locator(".matrix tbody tr").nth(0).locator("td button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".matrix tbody tr").count() == 12
    page.keyboard.press("ArrowDown")
    page.click("#matrix-back")
    assert page.locator(".matrix tbody tr").count() == 25
    page.select_option("#matrix-view", "class:7")
    assert page.locator(".matrix tbody th").first.inner_text() == "class 7"
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_accessibility(opened: Open, run: str, scheme: str, width: int) -> None:  # noqa: F811
    page = opened(run)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".sheet button").first.click()
    assert violations(page) == []


def test_both_parts_of_a_table(opened: Open, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    table = make_table([("a.png", [("cat", 0.9)]), ("b.png", [("cat", 0.6)]), ("c.png", [("dog", 0.6)]), ("d.png", [])])
    (tmp_path / "truth.csv").write_text("path,label\na.png,cat\nb.png,dog\nc.png,dog\nd.png,dog\n")
    page = opened(table, "#class=cat", truth=str(tmp_path / "truth.csv"))
    assert page.locator("#sheets .sheet .leaf").all_inner_texts() == ["a.png", "b.png"]
    page.select_option("#predicted", "class:")
    assert page.evaluate("location.hash") == "#class=cat&predicted="
    assert page.locator("#outcome-sheets .sheet .leaf").all_inner_texts() == ["d.png"]
    assert page.locator("#sheets .sheet .leaf").all_inner_texts() == ["a.png", "b.png"]
    page.fill("#path", "a.png")
    assert page.evaluate("location.hash") == "#predicted=&class=cat&path=a.png"
    assert violations(page) == []


@pytest.mark.slow
def test_hostile_texts(opened: Open, make_evaluation: MakeEvaluation, tmp_path: Path) -> None:  # noqa: F811
    wrong = np.roll(np.eye(len(HOSTILE)), 1, axis=1).tolist()
    rows: list[Any] = [(text, number, wrong[number]) for number, text in enumerate(HOSTILE)]
    rows += [(f"{text}2", 0, f"missing: {text}") for text in HOSTILE]
    make_evaluation(rows, HOSTILE, "run")
    make_run(tmp_path / "run", HOSTILE)
    page = opened(str(tmp_path / "run"))
    open_each = "document.querySelectorAll('.sheet button').forEach((one) => { one.click(); detail.close(); })"
    page.evaluate(open_each)
    for index in range(len(HOSTILE)):
        page.locator("#pairs a").nth(index).click()
    assert page.title() == "run - xception report"
    assert page.locator("script").count() == 2
    assert page.locator("img, style:not(head style), iframe, object").count() == 0
    assert r"right \u202e to left \u200f" in page.locator("#figure-rows").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
