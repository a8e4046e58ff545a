"""`xception report --compare`: what the page has of two tables; without a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.test_compare import random_table
from tests.cli.conftest import Invoke, invoke  # noqa: F401 - a fixture
from tests.reports.conftest import MakeTable, save_image
from tests.reports.test_report import data_of
from xcli.analysis.compare import compare
from xcli.reports.changes_part import ABSENT, choose, count_kinds
from xcli.tables.formats import open_table


def changes_of(page: Path) -> dict[str, Any]:
    data: dict[str, Any] = data_of(page)["changes"]
    return data


def named(data: dict[str, Any], outcome: Any) -> Any:
    return [(data["labels"][place], score) for place, score in outcome] if isinstance(outcome, list) else outcome


def test_what_has_changed(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    image = save_image(tmp_path / "a.png")
    older = make_table(
        [
            (image, [("cat", 0.75), ("dog", 0.25)]),
            ("same.png", [("cat", 0.5), ("dog", 0.25)]),
            ("drift.png", [("dog", 0.5), ("cat", 0.25)]),
            ("breaks.png", [("dog", 0.5), ("cat", 0.25)]),
            ("heals.png", "empty: no bytes"),
            ("gone.png", [("cat", 0.5), ("dog", 0.25)]),
        ],
        "older.csv",
    )
    newer = make_table(
        [
            ("new.png", [("owl", 0.5), ("cat", 0.25)]),
            ("heals.png", [("cat", 0.5), ("dog", 0.25)]),
            ("breaks.png", "truncated: the data ends early"),
            ("drift.png", [("dog", 0.75), ("cat", 0.125)]),
            ("same.png", [("cat", 0.5), ("dog", 0.25)]),
            (image, [("owl", 0.5), ("cat", 0.25)]),
        ],
        "newer.parquet",
    )
    page = tmp_path / "page.html"
    result = invoke("report", older, "--compare", newer, "-o", page)
    assert result.code == 0, result
    data = changes_of(page)
    kinds = {"class": 1, "ok-to-error": 1, "error-to-ok": 1, "only-a": 1, "only-b": 1, "score": 1}
    assert data["counts"] == kinds
    assert [(data["labels"][a], data["labels"][b], count) for a, b, count in data["pairs"]] == [("cat", "owl", 1)]
    assert sum(data["change"]["counts"]) == 2  # of the two whose class is the same
    assert [sum(one["counts"]) for one in data["scores"]] == [5, 5]
    rows = {row[0]: [row[1], named(data, row[2]), named(data, row[3]), row[4]] for row in data["rows"]}
    assert rows == {
        "class": [image, [("cat", 0.75), ("dog", 0.25)], [("owl", 0.5), ("cat", 0.25)], 1.25],
        "score": ["drift.png", [("dog", 0.5), ("cat", 0.25)], [("dog", 0.75), ("cat", 0.125)], 0.25],
        "ok-to-error": ["breaks.png", [("dog", 0.5), ("cat", 0.25)], "truncated: the data ends early", None],
        "error-to-ok": ["heals.png", "empty: no bytes", [("cat", 0.5), ("dog", 0.25)], None],
        "only-a": ["gone.png", [("cat", 0.5), ("dog", 0.25)], None, None],
        "only-b": ["new.png", None, [("owl", 0.5), ("cat", 0.25)], None],
    }
    assert [row[5] for row in data["rows"] if row[1] == image] == [0]  # its thumbnail
    assert data_of(page)["classify"]["rows"], "the page has what it has without --compare"


@pytest.mark.parametrize("seed", range(6))
def test_the_images_of_a_pair_are_those_that_changed_most(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    readers = [open_table(random_table(random, tmp_path / f"{key}.csv", 400)) for key in "ab"]
    result = compare(*readers)
    counts = count_kinds(result)
    status = result.summary["status"]
    assert counts["class"] == result.summary["changed"]
    assert (counts["ok-to-error"], counts["error-to-ok"]) == (status["ok_to_error"], status["error_to_ok"])
    assert (counts["only-a"], counts["only-b"]) == (result.summary["only_a"], result.summary["only_b"])
    chosen = choose(result, 2)
    assert all((a == ABSENT) == (kind == "only-b") for (a, _), kind in chosen.items())
    assert all((b == ABSENT) == (kind == "only-a") for (_, b), kind in chosen.items())
    by_pair: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for row in np.flatnonzero(result.is_other).tolist():
        pair = int(result.a.labels[row]), int(result.b.labels[result.partner[row]])
        by_pair.setdefault(pair, []).append((-float(result.distance[row]), row))
    for rows in by_pair.values():
        assert {row for _, row in sorted(rows)[:2]} <= {a for a, _ in chosen}
    for kind, count in counts.items():  # none of these tables reaches a limit
        assert kind == "class" or list(chosen.values()).count(kind) == count


def test_the_page_keeps_to_its_size(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    long = "x" * 2000
    tables = [
        make_table([(f"{n}.png", [(f"{key}{n}{long}", 0.5), (f"{n}", 0.2)]) for n in range(20)], f"{key}.parquet")
        for key in "ab"
    ]
    page = tmp_path / "page.html"
    assert invoke("report", tables[0], "--compare", tables[1], "-o", page, "--max-size", "0.3").code == 0
    assert page.stat().st_size <= 300_000
    data = changes_of(page)
    assert data["counts"]["class"] == data["pair_count"] == 20
    assert 0 < len(data["pairs"]) < 20
    assert f"The page has the {len(data['pairs'])} most frequent of\n20 pairs" in page.read_text()


def test_features(invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    random = np.random.default_rng(2)
    tables = [random_table(random, tmp_path / f"{key}.{form}", 300, 3) for key, form in (("a", "npy"), ("b", "csv"))]
    page = tmp_path / "page.html"
    result = invoke("report", tables[0], "--compare", tables[1], "-o", page)
    assert result.code == 0, result
    data, found = changes_of(page), compare(*map(open_table, tables))
    assert data["of"] == "features"
    cosines = found.change[~np.isnan(found.change)]
    assert sum(data["change"]["counts"]) == len(cosines)
    shown = [row[4] for row in data["rows"] if row[0] == "cosine"]
    assert shown[:5] == pytest.approx(np.sort(cosines)[:5], abs=1e-6)
    assert "scores" not in data


def test_no_two_elements_of_a_page_with_all_parts_have_one_id(
    invoke: Invoke,  # noqa: F811
    make_table: MakeTable,
    tmp_path: Path,
) -> None:
    first = make_table([("a.png", [("cat", 0.5)]), ("b.png", [("dog", 0.4)]), ("c.png", "empty: zero bytes")], "a.csv")
    second = make_table([("a.png", [("dog", 0.5)]), ("b.png", [("dog", 0.4)]), ("c.png", [("cat", 0.9)])], "b.csv")
    truth, page = tmp_path / "truth.csv", tmp_path / "page.html"
    truth.write_text("path,label\na.png,cat\nb.png,cat\nc.png,dog\n")
    result = invoke("report", first, "--compare", second, "--truth", truth, "-o", page)
    assert result.code == 0, result
    assert {"changes", "classify", "labelled", "errors"} <= data_of(page).keys()
    ids = re.findall(r'<[^>]* id="([^"]+)"', page.read_text())
    assert len(ids) == len(set(ids)), sorted(one for one in set(ids) if ids.count(one) > 1)


def test_progress_and_refusals(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    table = make_table([("a.png", [("cat", 0.5)]), ("b.png", [])], "a.parquet")
    page = tmp_path / "page.html"
    result = invoke("report", table, "--compare", table, "-o", page, "--progress", "json", "-q")
    told = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    assert [(one["event"], one["done"], one["total"]) for one in told] == [
        ("start", 0, 8),
        ("end", 8, 8),  # each row twice, also where it need not be read once more to be shown
        ("start", 0, 2),
        ("end", 2, 2),
    ]
    assert changes_of(page)["rows"] == []
    features = random_table(np.random.default_rng(0), tmp_path / "f.parquet", 3, 2)
    result = invoke("report", table, "--compare", features, "-o", page, "--overwrite")
    assert (result.code, bool(re.search("is of classify.* of features", result.err))) == (2, True)
    assert invoke("report", table, "--compare", tmp_path / "none.csv", "-o", page, "--overwrite").code == 2
