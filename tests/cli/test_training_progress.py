"""The progress of a training on standard error."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from xcli.cli import training_progress as module
from xcli.cli.progress import AUTO, JSON, mode_of
from xcli.cli.training_progress import TrainingDisplay
from xcli.training.activation_cache import ActivationCache
from xcli.training.callbacks import EpochMetrics
from xcli.training.recipe import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PHASE = Phase("head", 3, 1e-3, 1.0, 5, 32)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def row(epoch: int, val: float | None = 0.75) -> EpochMetrics:
    return EpochMetrics("head", epoch, 1e-3, 1.25, 0.5, None if val is None else 2 * val, val, 4.2)


def follow(display: TrainingDisplay, cache: ActivationCache, val: float | None) -> None:
    with display:
        display.on_extraction_begin(12)
        display.on_images_extracted(12)
        display.on_extraction_end(0, 2, 3_000_000, cache)
        display.on_phase_begin(PHASE, 1)
        for epoch in (2, 3):
            display.on_step_end(1, 2)
            display.on_epoch_end(row(epoch, val), PHASE)
        display.on_evaluation_begin()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[io.StringIO, bool, float | None], str]:
    def show(stream: io.StringIO, enabled: bool, val: float | None = 0.75) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            patch.setattr(module.log, "disabled", True)  # other tests of the process may have left its handlers
            follow(TrainingDisplay(mode_of(AUTO, quiet=not enabled)), ActivationCache(tmp_path, 1), val)
        return stream.getvalue()

    return show


def test_plain_lines_on_a_pipe(shown: Callable[..., str]) -> None:
    lines = shown(io.StringIO(), True).splitlines()
    assert lines[0].split() == ["epoch", "loss", "accuracy", "val", "loss", "val", "accuracy", "seconds"]
    cells = [line.split(",")[0].split() for line in lines[1:]]
    assert cells == [
        ["head", "2/3", "1.2500", "0.5000", "1.5000", "0.7500", "4.2"],
        ["head", "3/3", "1.2500", "0.5000", "1.5000", "0.7500", "4.2"],
    ]
    assert lines[1].endswith("left at most")
    assert "\x1b" not in "".join(lines)


def test_a_live_table_on_a_terminal(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    text = shown(Terminal(), True)
    assert "step 1 of 2" in text
    assert "evaluating the finished model" in text
    last = text.rsplit("epoch", 1)[1]
    assert "head 2/3" in last
    assert "head 3/3" in last
    assert "evaluating" not in last


def test_a_narrow_terminal_has_the_columns_that_fit(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    text = shown(Terminal(), True)
    assert "head 2/3    0.5000        0.7500" in text
    assert "…" not in text


def test_long_computations_are_reported_on_a_pipe_too(
    shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    assert shown(io.StringIO(), True).splitlines()[0] == "12 of 12 views"
    assert "12 of 12 views" not in shown(Terminal(), True)


def test_no_validation_leaves_its_columns_empty(shown: Callable[..., str]) -> None:
    line = shown(io.StringIO(), True, None).splitlines()[1]
    assert line.split(",")[0].split() == ["head", "2/3", "1.2500", "0.5000", "4.2"]


def test_quiet_says_nothing(shown: Callable[..., str]) -> None:
    assert shown(io.StringIO(), False) == ""
    assert shown(Terminal(), False) == ""


def test_json_for_a_scheduler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    monkeypatch.setattr(module.log, "disabled", True)
    follow(TrainingDisplay(JSON), ActivationCache(tmp_path, 1), None)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    events = ["start", "views", "steps", "epoch", "steps", "epoch", "evaluation", "end"]
    assert [line["event"] for line in lines] == events
    assert (lines[1]["done"], lines[1]["total"]) == (12, 12)
    assert lines[3] | {"seconds": 0} == {
        "event": "epoch",
        "seconds": 0,
        "phase": "head",
        "epoch": 2,
        "epochs": 3,
        "learning_rate": 1e-3,
        "loss": 1.25,
        "accuracy": 0.5,
        "val_loss": None,
        "val_accuracy": None,
        "epoch_seconds": 4.2,
    }
