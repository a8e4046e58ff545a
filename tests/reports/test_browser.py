"""The page in a real browser: filters, addresses, keyboard, accessibility, and hostile texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reports.conftest import MakeTable, save_image
from xcli.reports.options import ReportOptions
from xcli.reports.report import open_input, write_report

Open = Callable[..., Any]

HOSTILE = [
    "<script>document.title='run'</script>",
    '"><img src=x onerror="document.title=\'run\'">',
    "</style><script>document.title='run'</script>",
    "</script><script>document.title='run'</script>",
    "<!--<script>",
    "javascript:document.title='run'//http://127.0.0.1:9/",
    "{{ 7 * 7 }}",
    "right \u202e to left \u200f",
    "new\nline\r\u2028",
    "x" * 4000,
    "'&amp;\"`=",
]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the report of a table; at the end, nothing may have gone wrong in it, and nothing been requested."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    noise: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("dialog", lambda dialog: noise.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))

    def open_report(table: str, address: str = "", **options: Any) -> Any:
        target = tmp_path / "report.html"
        told = ReportOptions(**options)
        write_report(open_input(table, told), str(target), told, overwrite=True)
        page.goto(target.as_uri() + address)
        return page

    yield open_report
    context.close()
    assert noise == []
    assert [url[:60] for url in requests if not url.startswith(("file://", "data:image/webp"))] == []
    assert {url.partition("#")[0] for url in requests if url.startswith("file://")} == {
        (tmp_path / "report.html").as_uri()
    }


@pytest.fixture
def table(make_table: MakeTable, tmp_path: Path) -> str:
    """Three cats, a dog, and an error."""
    image = save_image(tmp_path / "a.png")
    rows: list[Any] = [
        (image, [("cat", 0.9), ("dog", 0.1)]),
        ("b.png", [("cat", 0.4), ("dog", 0.35)]),
        ("c.png", [("cat", 0.6), ("dog", 0.2)]),
        ("d.png", [("dog", 0.8), ("cat", 0.1)]),
        ("bad.png", "empty: the file has zero bytes"),
    ]
    return make_table(rows)


def names(page: Any) -> list[str]:
    return page.locator(".sheet .where").all_inner_texts()  # type: ignore[no-any-return]


def wait_for_names(page: Any, expected: list[str]) -> None:
    """Waits until the sheets show these images: a new address is taken up after the browser has returned."""
    page.wait_for_function(
        "names => [...document.querySelectorAll('.sheet .where')].map((one) => one.innerText).join() === names.join()",
        arg=expected,
        timeout=10_000,
    )


def test_filters_and_addresses(opened: Open, table: str) -> None:
    page = opened(table)
    assert names(page) == ["a.png", "b.png", "c.png", "d.png"]
    assert page.locator(".picture.none").first.inner_text() == "not shown: missing"
    page.select_option("#sort", "margin")
    assert names(page) == ["b.png", "c.png", "d.png", "a.png"]
    page.fill("#path", "C.PNG")
    assert names(page) == ["c.png"]
    assert page.evaluate("location.hash") == "#path=C.PNG&sort=margin"
    page.click("text=Clear")
    page.fill("#min", "0.5")
    page.fill("#max", "0.85")
    assert names(page) == ["c.png", "d.png"]
    page.reload()
    assert names(page) == ["c.png", "d.png"]
    page.click("#class-list a:has-text('cat')")
    wait_for_names(page, ["a.png", "c.png", "b.png"])
    assert page.locator("#sheets h3").all_inner_texts() == ["Surest"]
    assert page.evaluate("location.hash") == "#class=cat"
    page.go_back()
    wait_for_names(page, ["c.png", "d.png"])
    page.select_option("#class", label="dog (1)")
    page.fill("#error-search", "zero")
    assert page.locator("#error-rows tr").count() == 1
    page.fill("#error-search", "nothing")
    assert page.locator("#error-rows tr").count() == 0


def test_a_class_has_its_surest_and_least_sure(opened: Open, table: str) -> None:
    page = opened(table, "#class=cat", top_images=1)
    assert page.locator("#sheets h3").all_inner_texts() == ["Surest", "Least sure", "Others on this page"]
    assert names(page) == ["a.png", "b.png", "c.png"]
    page.evaluate("location.hash = 'class=no%20such'")
    page.wait_for_function("document.getElementById('status').textContent.includes('No image has the class')")


def test_keyboard(opened: Open, table: str) -> None:
    page = opened(table)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "path"
    page.locator(".sheet button").first.focus()
    page.keyboard.press("ArrowRight")
    assert "b.png" in page.evaluate("document.activeElement.textContent")
    assert (
        page.locator(".sheet button:focus + .others").evaluate("one => getComputedStyle(one).visibility") == "visible"
    )
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] #detail-more li").all_inner_texts() == ["dog\n0.800", "cat\n0.100"]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert "d.png" in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.sheet')") is None


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_accessibility(opened: Open, table: str, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(table, "#class=cat")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    # The audit is a script of ours, which the policy of the page lets a debugger run.
    assert [(one["id"], one["nodes"][0]["html"]) for one in axe.run(page).response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".sheet button").first.click()
    assert [(one["id"], one["nodes"][0]["html"]) for one in axe.run(page).response["violations"]] == []


def test_hostile_texts(opened: Open, make_table: MakeTable) -> None:
    rows: list[Any] = [(text, [(text, 0.5), (f"{text} 2", 0.2)]) for text in HOSTILE]
    rows += [(text, f"missing: {text}") for text in HOSTILE]
    table = make_table(rows, model__name=HOSTILE[1])
    page = opened(table)
    open_each = "document.querySelectorAll('.sheet button').forEach((one) => { one.click(); detail.close(); })"
    page.evaluate(open_each)
    page.locator("#class-list a").first.click()
    assert page.title() == "labels.csv - xception report"
    assert page.locator("script").count() == 2
    assert page.locator("img, style:not(head style), iframe, object").count() == 0
    assert page.locator("#error-rows tr").count() == len(HOSTILE)
    assert r"right \u202e to left \u200f" in page.locator("#error-rows").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
