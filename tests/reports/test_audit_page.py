"""The page of an audit: what is in it, and in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from tests.reports.conftest import save_image
from tests.reports.test_browser import HOSTILE
from tests.reports.test_report import data_of
from xcli.analysis.audit import Audit
from xcli.analysis.audit_findings import KINDS, Finding
from xcli.analysis.audit_images import AuditImages
from xcli.reports import audit_part
from xcli.reports.audit_part import ABOUT, AuditPart, write_audit_page
from xcli.reports.options import ReportOptions
from xcli.tables.formats import open_table


def audited(paths: list[str], findings: list[Finding]) -> Audit:
    images = AuditImages(paths, np.zeros(len(paths), np.int64), ("cat",), np.full(len(paths), -1))
    return Audit(images, findings, [("two images are gone", ("blank", "dark"))], ["a remark"])


def make_page(audit: Audit, tmp_path: Path, **options: Any) -> Path:
    table = write_features(tmp_path / "t.parquet", np.ones((1, 4), np.float32))
    target = tmp_path / "a.html"
    write_audit_page(audit, "clothes/", open_table(table), str(target), ReportOptions(**options), overwrite=True)
    return target


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    first, second = save_image(tmp_path / "0.png"), save_image(tmp_path / "1.png")
    findings = [
        Finding(first, "cat", "wrong-label", 0.75, "it looks like a dog", "dog", second),
        Finding(second, "cat", "tiny", 0.5, "3x4 pixels"),
        Finding("gone.png", "cat", "tiny", 0.25, "3x5 pixels"),
        Finding(None, "cat", "small-class", 0.9, "2 images"),
    ]
    return audited([first, second], findings)


def test_every_kind_is_explained() -> None:
    assert tuple(ABOUT) == KINDS


def test_findings_have_their_images(audit: Audit, tmp_path: Path) -> None:
    data = data_of(make_page(audit, tmp_path))
    rows = data["audit"]["rows"]
    assert [KINDS[row[0]] for row in rows] == ["wrong-label", "tiny", "tiny", "small-class"]
    assert rows[0][3:7] == [0.75, "it looks like a dog", "dog", str(tmp_path / "1.png")]
    assert [row[7:] for row in rows] == [[0, 1], [1, None], ["missing", None], [None, None]]
    assert len(data["thumbnails"]) == 2


def test_of_many_findings_the_worst_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit_part, "MOST_SHOWN", 3)
    findings = [Finding(f"{n}.png", "cat", kind, 0.5, "x") for kind in ("tiny", "odd-shape") for n in range(5)]
    audit = audited(["0.png"], findings)
    part = AuditPart(audit, 100_000)
    assert [row[1] for row in part.data["rows"]] == ["0.png", "1.png", "2.png"] * 2
    assert 0 < len(AuditPart(audit, 200).data["rows"]) < 6
    assert "holds 6 of 10 findings" in make_page(audit, tmp_path).read_text()


def test_in_a_browser(browser: Any, audit: Audit, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto(make_page(audit, tmp_path).as_uri())
    assert page.title() == "clothes - xception report"
    assert page.locator(".of-kind h3").all_inner_texts() == ["wrong-label (1)", "tiny (2)", "small-class (1)"]
    assert page.locator(".pair").count() == 4
    assert page.locator(".pair").first.locator("img").count() == 2
    assert "cat → dog" in page.locator(".pair").first.inner_text()
    page.select_option("#kind", "tiny")
    assert page.locator(".pair").count() == 2
    assert page.locator("#status").inner_text() == "2 findings on this page match."
    page.wait_for_url("**/a.html#kind=tiny")
    page.fill("#path", "gone")
    assert page.locator(".pair").count() == 1
    page.reload()
    assert page.locator(".pair").count() == 1
    page.click("button[type=reset]")
    assert page.locator(".pair").count() == 4
    page.locator(".sheet button").first.press("Enter")
    assert page.locator("#detail-more").inner_text() == "it looks like a dog"
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
    assert noise == []


def test_hostile_texts(browser: Any, tmp_path: Path) -> None:
    findings = [Finding(text, text, kind, 0.5, text, text, text) for text in HOSTILE for kind in ("tiny", "outlier")]
    audit = audited([*HOSTILE], findings)
    audit.remarks += HOSTILE
    page = browser.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto(make_page(audit, tmp_path).as_uri())
    assert page.locator(".pair").count() == min(len(findings), 48)
    assert page.locator("script").count() == 2
    page.close()
    assert noise == []
