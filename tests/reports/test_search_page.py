"""The page of a search: what is in it, and in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.test_queries import VECTORS, make_table
from tests.reports.conftest import save_image
from tests.reports.test_browser import HOSTILE
from tests.reports.test_report import data_of
from xcli.analysis.queries import Queries, Query
from xcli.analysis.search import Answers, Space, most_alike
from xcli.analysis.vectors import FeatureTables, open_features
from xcli.reports.options import ReportOptions
from xcli.reports.search_part import SearchPart, write_search_page


def searched(tables: FeatureTables, queries: Queries, top: int = 3) -> Answers:
    return most_alike(tables.blocks(), queries.matrix(tables.width), top, Space(), queries.excluded())


def make_page(table: str, queries: Queries, target: Path, room: int = 1_000_000, **options: Any) -> SearchPart:
    tables = open_features([table])
    part = SearchPart(queries, searched(tables, queries), whitened=False, top_images=100, room=room)
    write_search_page(part, tables.readers[0], str(target), ReportOptions(**options), overwrite=True)
    return part


@pytest.fixture
def table(tmp_path: Path) -> str:
    names = [save_image(tmp_path / "images" / f"{row}.png") if row < 2 else f"{row}.png" for row in range(6)]
    return make_table(tmp_path / "t.parquet", [*zip(names, VECTORS, strict=True)])


def test_queries_and_answers(table: str, tmp_path: Path) -> None:
    image, other = str(tmp_path / "images" / "0.png"), save_image(tmp_path / "q.png", (0, 0, 200))
    queries = Queries(
        [Query(image, VECTORS[0], (0,)), Query(other, VECTORS[1]), Query("q.npy[0]", VECTORS[2], (), False)]
    )
    make_page(table, queries, tmp_path / "s.html")
    data = data_of(tmp_path / "s.html")
    first, second, third = data["search"]["queries"]
    assert [first[0], second[0], third[0]] == [image, other, "q.npy[0]"]
    assert [row[0] for row in first[1]] == [str(tmp_path / "images" / "1.png"), "2.png", "3.png"]
    assert [type(row[2]) for row in first[1]] == [int, str, str]
    assert first[1][1][2] == "missing"
    assert [type(one[2]) for one in (first, second, third)] == [int, int, type(None)]
    assert len(data["thumbnails"]) == 3


def test_moved_images_are_found_but_queries_are_where_they_are(table: str, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (tmp_path / "images").rename(moved)
    other = save_image(tmp_path / "q.png")
    queries = Queries([Query(str(tmp_path / "images" / "0.png"), VECTORS[0], (0,)), Query(other, VECTORS[1])])
    make_page(table, queries, tmp_path / "s.html", images=str(moved))
    first, second = data_of(tmp_path / "s.html")["search"]["queries"]
    assert [type(one) for one in (first[2], first[1][0][2], second[2])] == [int, int, int]


def test_what_has_no_room_is_said(table: str, tmp_path: Path) -> None:
    part = make_page(
        table, Queries([Query(f"q.npy[{n}]", VECTORS[0], (), False) for n in range(9)]), tmp_path / "s.html", 500
    )
    assert 0 < len(part.shown) < 9
    assert f"holds the first {len(part.shown)} queries" in (tmp_path / "s.html").read_text()


def test_in_a_browser(browser: Any, table: str, tmp_path: Path) -> None:
    queries = Queries(
        [Query(str(tmp_path / "images" / "0.png"), VECTORS[0], (0,)), Query("q.npy[0]", VECTORS[2], (), False)],
        [("bad.png", "empty: no bytes")],
    )
    make_page(table, queries, tmp_path / "s.html")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto((tmp_path / "s.html").as_uri())
    assert page.locator(".query").count() == 2
    assert page.locator(".query").first.locator(".sheet .where").all_inner_texts() == ["1.png", "2.png", "3.png"]
    assert page.locator(".query .asked .picture.none").inner_text() == "a vector"
    assert "bad.png" in page.locator("#problems + .card").inner_text()
    page.keyboard.press("/")
    page.keyboard.type("npy")
    assert page.locator(".query").count() == 1
    assert page.locator("#status").inner_text() == "1 query on this page matches."
    page.wait_for_url("**/s.html#path=npy")
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".sheet button").first.press("Enter")
    assert page.locator("#detail-path").inner_text().endswith(".png")
    page.close()
    assert noise == []


def test_hostile_texts(browser: Any, tmp_path: Path) -> None:
    table = make_table(tmp_path / "t.parquet", [(text, np.ones(3, np.float32)) for text in HOSTILE])
    queries = Queries(
        [Query(text, VECTORS[0], (row,)) for row, text in enumerate(HOSTILE)], [(text, text) for text in HOSTILE]
    )
    tables = open_features([table])
    part = SearchPart(queries, searched(tables, queries, 20), whitened=True, top_images=100, room=1_000_000)
    write_search_page(part, tables.readers[0], str(tmp_path / "s.html"), ReportOptions(), overwrite=True)
    page = browser.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto((tmp_path / "s.html").as_uri())
    assert page.title() == "t.parquet - xception report"
    assert page.locator(".query").count() == len(HOSTILE)
    assert page.locator(".query .sheet li").count() == len(HOSTILE) * (len(HOSTILE) - 1)
    assert page.locator("script").count() == 2
    page.close()
    assert noise == []
