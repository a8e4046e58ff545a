"""Tables of `classify` without a run, and a browser for their reports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from tests.writtentables import provenance, write
from xcli.tables.schema import classify_schema

MakeTable = Callable[..., str]

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
