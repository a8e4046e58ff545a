"""Tables of `classify` and evaluations without a run, and a browser for their reports."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.writtentables import provenance, write
from xcli.core.records import ImageRef
from xcli.evaluation.evaluate import Evaluation
from xcli.evaluation.metrics import Metrics
from xcli.evaluation.report import write_report
from xcli.sources.labelled import Sample
from xcli.storage.local import LocalFile
from xcli.tables.formats import write_csv
from xcli.tables.schema import classify_schema

MakeTable = Callable[..., str]
MakeEvaluation = Callable[..., Metrics]

Prediction = tuple[str, float]


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    """Writes a table of rows: a path, then predictions, or the text of an error; returns its name."""

    def make(
        rows: Sequence[tuple[str, Sequence[Prediction] | str]], name: str = "labels.csv", top: int = 2, **changes: Any
    ) -> str:
        schema = classify_schema(top, "name", ())
        columns: dict[str, list[Any]] = {field.name: [] for field in schema}
        for path, outcome in rows:
            error = outcome if isinstance(outcome, str) else None
            found = [] if isinstance(outcome, str) else list(outcome)
            columns["path"].append(path)
            columns["status"].append("ok" if error is None else "error")
            columns["error"].append(error)
            for k in range(top):
                label, score = found[k] if k < len(found) else (None, None)
                columns[f"label_{k + 1}"].append(label)
                columns[f"index_{k + 1}"].append(None if label is None else k)
                columns[f"score_{k + 1}"].append(score)
        return write(tmp_path / name, pa.RecordBatch.from_pydict(columns, schema), provenance("classify", **changes))

    return make


@pytest.fixture
def make_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeEvaluation:
    """Writes what `evaluate -o` writes of images: a path, the number of the true class, and scores or an error."""
    for name in ("confusion_matrix_png", "mistakes_png"):  # which nothing here looks at
        monkeypatch.setattr(f"xcli.evaluation.plots.{name}", lambda *_: b"")

    def make(
        rows: Sequence[tuple[str, int, Sequence[float] | str]],
        labels: Sequence[str],
        name: str = "report",
        **options: Any,
    ) -> Metrics:
        refs = [ImageRef(path, LocalFile(path), os.fsencode(path)) for path, _, _ in rows]
        evaluation = Evaluation(
            tuple(Sample(ref, labels[true]) for ref, (_, true, _) in zip(refs, rows, strict=True)),
            np.array([true for _, true, _ in rows], np.int64),
            np.array([[0.0] * len(labels) if isinstance(one, str) else one for _, _, one in rows], np.float32),
            tuple(one if isinstance(one, str) else None for _, _, one in rows),
            tuple(labels),
        )
        metrics = evaluation.metrics()
        extra = {"split": "test", "provenance": provenance("evaluate")}
        write_report(str(tmp_path / name), metrics, evaluation.predictions(), extra=extra, **options)
        return metrics

    return make


def make_run(folder: Path, phases: Sequence[str] = ("head", "blocks")) -> None:
    """Makes an evaluation the directory of a run: two epochs of each phase, of which the first of the last is kept."""
    epochs = [(phase, epoch) for phase in phases for epoch in (1, 2)]
    columns: dict[str, list[Any]] = {"phase": [one[0] for one in epochs], "epoch": [one[1] for one in epochs]}
    for name in ("learning_rate", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"):
        columns[name] = [0.5 / (number + 1) for number in range(len(epochs))]
    columns["val_loss"][0] = None
    write_csv(folder, "history.csv", columns)
    run = {
        "tool": {"version": "1"},
        "settings": {"model": {"name": "base"}},
        "images": {"train": 3},
        "temperature": 1.5,
    }
    kept = {"phase": phases[-1], "epoch": 1}
    (folder / "run.json").write_text(json.dumps(run | {"kept": kept}))


def save_image(path: Path, colour: tuple[int, int, int] = (200, 60, 20)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), colour).save(path, "PNG")
    return str(path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, the one of the system.

    No longer than the tests of a file: Playwright keeps an event loop running in this thread.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium is installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # Its sandbox needs rights that containers do not have; the pages are ours.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


def wait_until(page: Any, condition: str, argument: Any = None, seconds: float = 20) -> None:
    """Waits until JavaScript, an expression or a function of the argument, is true.

    It is asked for from here: where Playwright waits, it evaluates text in the page, which the policy forbids.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def wait_for_texts(page: Any, selector: str, expected: list[str]) -> None:
    """Waits until the elements have these texts: a new address is taken up after the browser has returned."""
    wait_until(
        page,
        "([selector, texts]) => [...document.querySelectorAll(selector)].map((one) => one.innerText).join() "
        "=== texts.join()",
        [selector, expected],
    )


def violations(page: Any) -> list[tuple[str, str]]:
    """Returns what axe-core finds on a page: the rule, and the first element that breaks it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    return [(one["id"], one["nodes"][0]["html"]) for one in axe.run(page).response["violations"]]
