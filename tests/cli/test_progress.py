"""How far a run is, on standard error."""

from __future__ import annotations

import io
import json
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.writtentables import make_files, provenance, rows_of, write
from xcli.cli import progress
from xcli.cli.progress import ROWS, Progress, Readings, RecentRate, TwoStages
from xcli.cli.verbosity import Messages
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass
class FakeRun:
    """A clock, and what a run knows."""

    now: float = 100.0
    total: int | None = None
    kept: int = 0

    def progress(self, mode: str, *, quiet: bool = False) -> Progress:
        return Progress(mode, quiet=quiet, total=lambda: self.total, kept=lambda: self.kept, clock=lambda: self.now)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    Messages().apply()
    return lambda: capsys.readouterr().err.splitlines()


def test_lines_say_the_rate_of_the_last_minute_and_the_time_left(lines: Callable[[], list[str]]) -> None:
    run = FakeRun(kept=1000)
    with run.progress("auto") as shown:
        assert lines() == []
        shown.begin()
        assert lines() == ["xception: started; progress is reported every 60 s"]
        run.now += 60
        shown.count(600, 1)
        shown.tell("progress")
        assert lines() == ["xception: 1,600 images, total not known yet, 10.0 images/s, 1 error"]
        run.total = 100_000
        run.now += 60
        shown.count(1200, 1)
        shown.tell("progress")
        assert lines() == ["xception: 2,800 of 100,000 images (2 %), 20.0 images/s, 2 errors, 1:21:00 left"]
    assert lines() == []


def test_json_has_one_object_a_line_and_an_end(lines: Callable[[], list[str]]) -> None:
    run = FakeRun(total=400)
    shown = run.progress("json", quiet=True).__enter__()
    shown.begin()
    run.now += 50
    shown.count(100, 0)
    shown.tell("progress")
    shown.__exit__(KeyboardInterrupt)
    first, second, last = map(json.loads, lines())
    assert first == {
        "event": "start",
        "seconds": 0.0,
        "done": 0,
        "total": 400,
        "errors": 0,
        "images_per_second": 0.0,
        "seconds_left": None,
    }
    assert second == first | {
        "event": "progress",
        "seconds": 50.0,
        "done": 100,
        "images_per_second": 2.0,
        "seconds_left": 150,
    }
    assert last == second | {"event": "stopped"}


def test_a_line_comes_while_nothing_is_counted(monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[str]]) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    shown = FakeRun().progress("json")
    with shown:
        shown._end.wait(0.1)
    assert [json.loads(line)["event"] for line in lines()][:2] == ["progress", "progress"]


@pytest.mark.parametrize(("mode", "quiet"), [("none", False), ("lines", True), ("bar", True)])
def test_nothing_is_shown_where_nothing_is_wanted(mode: str, quiet: bool, lines: Callable[[], list[str]]) -> None:
    with FakeRun().progress(mode, quiet=quiet) as shown:
        shown.begin()
        shown.count(10, 1)
    assert lines() == []


def test_the_rate_is_that_of_the_last_minute() -> None:
    rate = RecentRate(0.0)
    assert rate.per_second(0.0) == 0
    for second in range(1, 301):
        rate.add(second, second if second <= 200 else 200 + 3 * (second - 200))
    assert rate.per_second(300.0) == pytest.approx(3)
    assert rate.per_second(330.0) == pytest.approx(1.5)
    assert rate.per_second(400.0) == 0


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (80, "500000/1000000 [00:00<1:23:20, 100.00 images/s, 1 error]"),
        (40, "500k/1.00M [1:23:20, 100/s, 1 error] "),
    ],
)
def test_the_bar_keeps_to_the_width_of_the_terminal(
    columns: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (columns, 24))
    Messages().apply()
    run = FakeRun(total=1_000_000, kept=499_000)
    with run.progress("bar") as shown:
        run.now += 10
        shown.count(1000, 1)
        logging.getLogger("xcli").info("a message")
    drawn = capsys.readouterr().err
    assert expected in drawn
    assert "\rxception: a message\n" in drawn
    assert max(map(len, drawn.splitlines())) <= columns
    assert drawn.endswith(" \r")


def test_rows_that_are_read(lines: Callable[[], list[str]]) -> None:
    run = FakeRun(now=0.0)
    for mode in ("lines", "json"):
        with Progress(mode, total=lambda: 4000, clock=lambda: run.now, unit=ROWS) as shown:
            shown.begin()
            run.now += 10
            shown.count(1000)
            shown.tell("progress")
            shown.count(5000)
            shown.tell("progress")
    _, line, over, start, between, _, end = lines()
    assert line == "xception: 1,000 of 4,000 rows (25 %), 100.0 rows/s, 0:00:30 left"
    assert over == "xception: 6,000 rows, total not known yet, 600.0 rows/s"
    expected = {"event": "progress", "seconds": 10.0, "done": 1000, "total": 4000, "rows_per_second": 100.0}
    assert json.loads(between) == expected | {"seconds_left": 30}
    assert [json.loads(one)["event"] for one in (start, end)] == ["start", "end"]


def test_messages_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        Messages().apply()
        with FakeRun(total=100).progress("bar") as shown:
            shown.begin()
            shown.count(10, 0)
            logging.getLogger("xcli").warning("something happened")
    before, message, after = stream.getvalue().partition("xception: something happened\n")
    assert message
    assert before.endswith("\r")
    assert "images" in after, "the bar is drawn again"


def test_two_stages(lines: Callable[[], list[str]], tmp_path: Path) -> None:
    names = [b"a.jpg", b"b.jpg"]
    with list_images(SourceOptions((str(make_files(tmp_path, names)),))) as listing:
        table = write(tmp_path / "t.parquet", rows_of("classify", list(listing)), provenance("classify"), meta=False)
    for mode in ("json", "lines"):
        reader = open_table(table)
        with TwoStages(mode, Readings([reader], lambda: 1), quiet=False) as stages:
            assert sum(batch.num_rows for batch in reader.batches()) == 2
            stages.begin_second(5)
            stages.count(4, 1)
    *found, only = lines()
    assert only == "xception: started; progress is reported every 60 s"
    told = [json.loads(line) for line in found]
    assert [one["event"] for one in told] == ["start", "end", "start", "end"]
    assert [(one["done"], one["total"], "rows_per_second" in one) for one in told] == [
        (0, 2, True),
        (2, 2, True),
        (0, 5, False),
        (4, 5, False),
    ]
