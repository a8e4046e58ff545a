"""The page in a real browser: filters, addresses, keyboard, accessibility, and hostile texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.reports.conftest import MakeTable, save_image, violations, wait_for_texts, wait_until
from tests.writtentables import provenance, write
from xcli.reports.options import ReportOptions
from xcli.reports.report import open_input, open_map_table, write_report
from xcli.tables.formats import open_table
from xcli.tables.schema import classify_schema

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

    def open_report(
        table: str, address: str = "", other: str | None = None, features: str | None = None, **options: Any
    ) -> Any:
        target, second = tmp_path / "report.html", None if other is None else open_table(other)
        told = ReportOptions(**options)
        source = open_input(table, told, second)
        mapped = None if features is None else open_map_table(features, source)
        write_report(source, str(target), told, other=second, features=mapped, overwrite=True)
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
    wait_for_texts(page, ".sheet .where", expected)


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
    wait_until(page, "document.getElementById('status').textContent.includes('No image has the class')")


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
    page = opened(table, "#class=cat")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    # The audit is a script of ours, which the policy of the page lets a debugger run.
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator(".sheet button").first.click()
    assert violations(page) == []


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


def carrying_table(target: Path) -> str:
    """Writes a table with hostile columns, which a manifest may have had."""
    names = [f"{text[:200]}{number}" for number, text in enumerate(HOSTILE)]
    schema = classify_schema(1, "name", [(name, None) for name in names])
    columns: dict[str, list[Any]] = {name: [HOSTILE[1], HOSTILE[3]] for name in names}
    columns |= {"path": ["a.png", "b.png"], "status": ["ok", "error"], "error": [None, "empty: no bytes"]}
    columns |= {"label_1": ["cat", None], "index_1": [0, None], "score_1": [0.5, None]}
    return write(target, pa.RecordBatch.from_pydict(columns, schema), provenance("classify"))


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_hostile_columns_of_a_manifest(opened: Open, tmp_path: Path, extension: str) -> None:
    page = opened(carrying_table(tmp_path / f"labels.{extension}"))
    assert names(page) == ["a.png"]
    assert page.title() == f"labels.{extension} - xception report"
    assert page.locator("script").count() == 2
    assert page.locator("img, style:not(head style), iframe, object").count() == 0


@pytest.mark.parametrize("rows", [[], [("bad.png", "empty: no bytes"), ("worse.png", "missing: no such file")]])
def test_tables_without_a_result(opened: Open, make_table: MakeTable, rows: list[Any]) -> None:
    page = opened(make_table(rows))
    assert page.locator("#status").inner_text() == "0 rows on this page match."
    assert page.locator(".charts figure:visible").count() == 0
    assert page.locator("#errors").count() == bool(rows)
    assert page.locator("#error-rows tr").count() == len(rows)
    assert violations(page) == []


def test_print(opened: Open, table: str) -> None:
    page = opened(table)
    page.emulate_media(media="print", color_scheme="dark")
    headings = page.locator("h2")
    assert headings.all_inner_texts() == ["Overview", "Classes", "Images", "Errors"]
    assert all(one.is_visible() for one in headings.all())
    assert page.locator(".charts svg:visible").count() == 2
    assert page.locator(".sheet li:visible").count() == 4
    assert page.locator("input:visible, select:visible, .others:visible, kbd:visible, .skip:visible").count() == 0
    assert page.locator("button:visible:not(.sheet button)").count() == 0
    colours = page.evaluate(
        "[document.body, ...document.querySelectorAll('.card, .tiles li')].map("
        "one => getComputedStyle(one).backgroundColor)"
    )
    assert set(colours) == {"rgb(255, 255, 255)"}
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(0, 0, 0)"
    # Everything is on the paper: nothing is scrolled there.
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(one => one.scrollHeight <= one.clientHeight)")
    assert page.pdf(format="A4").startswith(b"%PDF")
