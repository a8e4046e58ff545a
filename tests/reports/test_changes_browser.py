"""The page of `xception report --compare` in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.test_compare import random_table
from tests.reports.conftest import MakeTable, save_image, violations, wait_for_texts, wait_until
from tests.reports.test_browser import HOSTILE, Open, opened  # noqa: F401 - a fixture

Tables = tuple[str, str]


@pytest.fixture
def tables(make_table: MakeTable, tmp_path: Path) -> Tables:
    """Two cats that become dogs, a dog that becomes a cat, a drift, and a row of each other kind."""
    image = save_image(tmp_path / "a.png")
    older: list[Any] = [
        (image, [("cat", 0.9), ("dog", 0.1)]),
        ("b.png", [("cat", 0.4), ("dog", 0.35)]),
        ("c.png", [("dog", 0.6), ("cat", 0.2)]),
        ("d.png", [("dog", 0.8), ("cat", 0.1)]),
        ("e.png", [("dog", 0.7), ("cat", 0.1)]),
        ("f.png", "empty: the file has zero bytes"),
        ("g.png", []),
    ]
    newer: list[Any] = [
        (image, [("dog", 0.8), ("cat", 0.2)]),
        ("b.png", [("dog", 0.45), ("cat", 0.4)]),
        ("c.png", [("cat", 0.5), ("dog", 0.4)]),
        ("d.png", [("dog", 0.75), ("cat", 0.1)]),
        ("e.png", "truncated: the data ends early"),
        ("f.png", [("dog", 0.7), ("cat", 0.1)]),
        ("h.png", [("dog", 0.7), ("cat", 0.1)]),
    ]
    return make_table(older, "older.csv"), make_table(newer, "newer.csv")


def names(page: Any) -> list[str]:
    return page.locator("#change-sheet .where").all_inner_texts()  # type: ignore[no-any-return]


def wait_for_names(page: Any, expected: list[str]) -> None:
    wait_for_texts(page, "#change-sheet .where", expected)


def test_pairs_and_addresses(opened: Open, tables: Tables) -> None:  # noqa: F811
    page = opened(tables[0], other=tables[1])
    # What cannot be measured is last, in the order of the data.
    assert names(page) == ["a.png", "c.png", "b.png", "d.png", "e.png", "f.png", "g.png", "h.png"]
    assert page.locator("#pair-list a .count").all_inner_texts() == ["2", "1"]
    page.click("#pair-list a:has-text('cat') >> nth=0")
    wait_for_names(page, ["a.png", "b.png"])
    assert page.evaluate("location.hash") == "#from=cat&to=dog"
    assert page.locator("#pair-list a[aria-current]").count() == 1
    assert (
        page.locator("#change-status").inner_text() == "2 images on this page match; 2 images changed so in the tables."
    )
    page.reload()
    assert names(page) == ["a.png", "b.png"]
    page.select_option("#to", label="any")
    page.select_option("#from", label="dog")
    assert names(page) == ["c.png"]
    page.go_back()
    wait_for_names(page, ["a.png", "c.png", "b.png", "d.png", "e.png", "f.png", "g.png", "h.png"])
    page.select_option("#change", label="now an error (1)")
    assert names(page) == ["e.png"]
    page.click("#change-filter button")
    page.click(".tiles a:has-text('in B only')")
    wait_for_names(page, ["h.png"])
    page.fill("#pair-search", "no such")
    assert page.locator("#pair-list a").count() == 0


def test_a_link_to_a_pair_and_both_sets_of_candidates(opened: Open, tables: Tables) -> None:  # noqa: F811
    page = opened(tables[0], "#from=cat&to=dog", other=tables[1])
    assert names(page) == ["a.png", "b.png"]
    wait_until(page, "() => document.getElementById('changed').getBoundingClientRect().top < 200")
    # A filter of another part of the page leaves this one, in the page and in its address.
    page.fill("#path", "d.png")
    assert page.evaluate("location.hash") == "#from=cat&to=dog&path=d.png"
    assert names(page) == ["a.png", "b.png"]
    page.locator("#change-sheet button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] h4").all_inner_texts() == ["A", "B"]
    found = page.locator("dialog[open] #detail-more li").all_inner_texts()
    assert found == ["cat\n0.400", "dog\n0.350", "dog\n0.450", "cat\n0.400"]
    page.keyboard.press("Escape")
    assert "b.png" in page.evaluate("document.activeElement.textContent")


def test_a_pair_is_reached_by_the_keyboard(opened: Open, tables: Tables) -> None:  # noqa: F811
    page = opened(tables[0], other=tables[1])
    page.focus("#pair-search")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_names(page, ["a.png", "b.png"])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
@pytest.mark.parametrize("of_features", [False, True])
def test_accessibility(
    opened: Open,  # noqa: F811
    tables: Tables,
    tmp_path: Path,
    scheme: str,
    width: int,
    of_features: bool,
) -> None:
    if of_features:
        random = np.random.default_rng(0)
        tables = (random_table(random, tmp_path / "a.npy", 30, 3), random_table(random, tmp_path / "b.npy", 30, 3))
    page = opened(tables[0], other=tables[1])
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#change-sheet button").first.click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "changed"


@pytest.mark.slow
def test_hostile_texts(opened: Open, make_table: MakeTable) -> None:  # noqa: F811
    older: list[Any] = [(text, [(text, 0.5), (f"{text} 2", 0.2)]) for text in HOSTILE]
    newer: list[Any] = [(text, [(f"{text} 2", 0.5), (text, 0.2)]) for text in HOSTILE]
    older += [(f"{text}/", [(text, 0.5)]) for text in HOSTILE]
    newer += [(f"{text}/", f"missing: {text}") for text in HOSTILE]
    tables = [
        make_table(rows, f"<img src=x>{key}.csv", model__name=HOSTILE[1]) for key, rows in (("a", older), ("b", newer))
    ]
    page = opened(tables[0], other=tables[1])
    assert page.locator("#change-sheet button").count() == 2 * len(HOSTILE)
    page.evaluate("document.querySelectorAll('.sheet button').forEach((one) => { one.click(); detail.close(); })")
    for place in range(page.locator("#pair-list a").count()):
        page.locator("#pair-list a").nth(place).click()
        wait_until(page, "() => document.querySelectorAll('#change-sheet button').length === 1")
    assert page.title() == "<img src=x>a.csv - xception report"
    assert page.locator("script").count() == 2
    assert page.locator("img, style:not(head style), iframe, object").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_print(opened: Open, tables: Tables) -> None:  # noqa: F811
    page = opened(tables[0], other=tables[1])
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#change-section h3:visible").count() >= 2
    assert page.locator("#change-sheet li:visible").count() == 8
    assert page.locator("input:visible, select:visible, #more-changed-pairs:visible, #more-pairs:visible").count() == 0
