"""`xception report`: what is in the page, and what is said of it; without a browser."""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.archivefiles import tar_bytes, zip_bytes
from tests.cli.conftest import Invoke, invoke, run_process  # noqa: F401 - a fixture
from tests.objectstore import ObjectStore
from tests.reports.conftest import MakeTable, save_image
from tests.writtentables import provenance, rows_of, write
from xcli.reports.summary import MAX_SAMPLE, Summary
from xcli.tables.formats import open_table


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.mark.parametrize("extension", ["csv", "parquet", "jsonl"])
def test_counts_and_rows(invoke: Invoke, make_table: MakeTable, tmp_path: Path, extension: str) -> None:  # noqa: F811
    image = save_image(tmp_path / "a.png")
    table = make_table(
        [
            (image, [("cat", 0.75), ("dog", 0.25)]),
            (str(tmp_path / "gone.png"), [("dog", 0.5), ("cat", 0.25)]),
            ("x.png", "truncated: the data ends early"),
            ("y.png", []),
        ],
        f"labels.{extension}",
    )
    page = tmp_path / "report.html"
    result = invoke("report", table, "-o", page)
    assert result.code == 0, result
    assert "4 rows, 3 of them shown, 1 thumbnails, 2 images not found" in result.err
    data = data_of(page)
    classes = data["classify"]
    assert sorted(classes["classes"]) == [["", 1, 0.0], ["cat", 1, 0.75], ["dog", 1, 0.5]]
    assert data["errors"] == {"rows": [["x.png", "truncated: the data ends early"]], "total": 1}
    assert sum(classes["score"]["counts"]) == 2
    assert sum(classes["margin"]["counts"]) == 2
    by_path = {row[1]: row for row in classes["rows"]}
    assert by_path[image][4] == 0
    assert by_path[str(tmp_path / "gone.png")][4] == "missing"
    assert len(data["thumbnails"]) == 1


@pytest.mark.parametrize("extension", ["csv", "parquet"])
def test_scores_that_are_no_numbers(invoke: Invoke, make_table: MakeTable, tmp_path: Path, extension: str) -> None:  # noqa: F811
    infinite, missing = float("inf"), float("nan")
    table = make_table(
        [
            ("a.png", [("dog", 0.5), ("cat", -infinite)]),  # as a head with one output has raw scores
            ("b.png", [("dog", infinite), ("cat", 0.5)]),
            ("c.png", [("dog", missing), ("cat", missing)]),
        ],
        f"labels.{extension}",
    )
    page = tmp_path / "report.html"
    result = invoke("report", table, "-o", page)
    assert result.code == 0, result
    data = data_of(page)
    classes = data["classify"]
    assert sorted(classes["classes"]) == [["", 2, 0.0], ["dog", 1, 0.5]]
    assert sum(classes["score"]["counts"]) == 1


def test_moved_images_and_members_of_archives(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    save_image(tmp_path / "new" / "sub" / "a.png")
    save_image(tmp_path / "outside.png")
    with tarfile.open(tmp_path / "new" / "b.tar", "w") as archive:
        archive.add(save_image(tmp_path / "in.png"), "in.png")
    paths = ["/old/sub/a.png", "old/b.tar::in.png", "../outside.png"]
    table = make_table([(path, [("cat", 0.5)]) for path in paths])
    page = tmp_path / "report.html"
    assert invoke("report", table, "-o", page, "--images", tmp_path / "new").code == 0
    found = {row[1]: row[4] for row in data_of(page)["classify"]["rows"]}
    assert [isinstance(found[path], int) for path in paths] == [True, True, False]


def test_images_of_an_object_store_and_of_archives(
    invoke: Invoke,  # noqa: F811
    make_table: MakeTable,
    tmp_path: Path,
    s3: ObjectStore,
) -> None:
    content, prefix = Path(save_image(tmp_path / "a.png")).read_bytes(), s3.prefix()
    tarred, zipped = tar_bytes([("in/a.png", content)]), zip_bytes([("in/a.png", content)])
    local = [str(tmp_path / name) for name in ("b.tar.gz", "b.zip")]
    for name, data in zip(local, (gzip.compress(tarred), zipped), strict=True):
        Path(name).write_bytes(data)
    remote = [s3.put(f"{prefix}/{name}", data) for name, data in (("b.tar", tarred), ("b.zip", zipped))]
    paths = [s3.put(f"{prefix}/a b.png", content), *(f"{name}::in/a.png" for name in local + remote)]
    missing = [s3.url(f"{prefix}/none.png"), f"{local[0]}::none.png", f"{remote[1]}::none.png"]
    page = tmp_path / "report.html"
    assert invoke("report", make_table([(one, [("cat", 0.5)]) for one in paths + missing]), "-o", page).code == 0
    found = {row[1]: row[4] for row in data_of(page)["classify"]["rows"]}
    assert [found[path] for path in paths if not isinstance(found[path], int)] == []
    assert [found[path] for path in missing] == ["missing"] * 3
    assert len(data_of(page)["thumbnails"]) == len(paths)


def test_the_page_keeps_to_its_size_and_says_what_is_left_out(
    invoke: Invoke,  # noqa: F811
    make_table: MakeTable,
    tmp_path: Path,
) -> None:
    image = save_image(tmp_path / "a.png")
    links = [tmp_path / f"{number:03}{'x' * 150}.png" for number in range(400)]
    for link in links:
        link.symlink_to(image)
    table = make_table([(str(link), [("cat", 0.5)]) for link in links])
    page = tmp_path / "report.html"
    result = invoke("report", table, "-o", page, "--max-size", "0.2")
    assert page.stat().st_size <= 200_000
    left_out = re.search(r"(\d+) left out for --max-size", result.err)
    assert left_out is not None
    assert f"{left_out[1]} images have no thumbnail" in page.read_text()


def test_a_sample_of_a_large_table() -> None:
    summary = Summary(2)
    table = [(f"{number}.png", "abc"[number % 3], number / 20_000) for number in range(20_000)]
    import pyarrow as pa

    columns = {"path": [row[0] for row in table], "status": ["ok"] * len(table), "error": [None] * len(table)}
    columns |= {"label_1": [row[1] for row in table], "score_1": [row[2] for row in table]}
    summary._add(pa.RecordBatch.from_pydict(columns), 1)
    assert (summary.rows, len(summary.sample)) == (20_000, MAX_SAMPLE)
    assert {label: kept.count for label, kept in summary.classes.items()} == {"a": 6667, "b": 6667, "c": 6666}
    numbers = [row.number for row in summary.shown_rows()]
    assert numbers[:6] == [19_998, 19_999, 19_997, 0, 1, 2]
    assert len(numbers) == len(set(numbers))
    assert 9_000 < sum(row.number for row in summary.sample) / MAX_SAMPLE < 11_000


def test_refusals(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    table, page = make_table([("a.png", [("cat", 0.5)])]), tmp_path / "report.html"
    page.write_text("mine")
    assert invoke("report", table, "-o", page).code == 5
    assert page.read_text() == "mine"
    assert invoke("report", table, "-o", page, "--images", tmp_path / "none").code == 2
    assert invoke("report", table, "-o", "-", "--open").code == 2
    maps = write(tmp_path / "maps.parquet", rows_of("features", [], shape=(2, 2, 8)), provenance("features"))
    result = invoke("report", maps, "-o", page, "--overwrite")
    assert (result.code, page.read_text()) == (2, "mine")
    assert "maps.parquet holds maps of 2x2x8 values, not vectors: use features --pooling avg" in result.err
    assert invoke("report", table, "-o", page, "--overwrite").code == 0
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("there", [True, False])
def test_the_page_is_opened(make_table: MakeTable, tmp_path: Path, there: bool) -> None:
    table, page, browser = make_table([("a.png", [("cat", 0.5)])]), tmp_path / "a report.html", tmp_path / "browser"
    if there:
        browser.write_text('#!/bin/sh\necho "$1" > "$0.opened"\n')
        browser.chmod(0o700)
    result = run_process("report", table, "-o", page, "--open", BROWSER=str(browser), DISPLAY="", WAYLAND_DISPLAY="")
    assert (result.code, page.is_file()) == (0, True)
    assert ("no browser was found" in result.err) == (not there)
    if there:
        assert (tmp_path / "browser.opened").read_text() == page.as_uri() + "\n"


def test_a_table_without_rows(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    table, page = make_table([]), tmp_path / "report.html"
    assert invoke("report", table, "-o", page).code == 0
    assert data_of(page)["classify"]["score"] is None
    assert open_table(table).meta is not None
