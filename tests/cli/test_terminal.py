"""Messages that name files: whatever the name, one line that drives no terminal."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.cli.conftest import save_photos
from tests.imagefiles import encode, gradient
from tests.test_security import HOSTILE, NOT_SHOWN
from xcli.cli import display
from xcli.cli.progress import Progress
from xcli.core.errors import ImageError
from xcli.core.records import ImageRef
from xcli.tables.rows import classify_batch
from xcli.tables.schema import classify_schema

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Invoke


def test_messages_that_name_files(invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / "picture.png").write_bytes(encode(gradient(), "PNG"))
    for arguments in (
        ("classify", folder / "absent*.jpg"),
        ("classify", folder, "--model", folder / "absent.keras"),
        ("classify", folder, "--weights", folder / "absent.h5"),
        ("classify", folder, "--weights", "none", "--labels", folder / "absent.txt"),
        ("classify", "--manifest", folder / "absent.csv"),
        ("classify", folder, "--weights", "none", "-o", folder / "absent" / "out.csv"),
    ):
        result = invoke(*arguments)
        assert result.code in (2, 3, 5), result
        # TensorFlow may speak too; in this process nothing captures it. A name with a line end must not begin a line.
        assert len([line for line in result.err.splitlines() if line.startswith("xception: error: ")]) == 1, result
        assert "owned" in result.err
        assert not NOT_SHOWN.search(result.err), result


def test_options_for_errors_hold_on_a_terminal_too(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photos(tmp_path / "in", ["a.jpg", "d.jpg"])
    for name in ("b.jpg", "c.jpg"):
        (tmp_path / "in" / name).write_bytes(b"")
    arguments = ("features", tmp_path / "in", "--weights", "none", "--image-size", "71", "--batch-size", "1")
    monkeypatch.setattr("xcli.cli.table_run.sys.stdout.isatty", lambda: True, raising=False)
    result = invoke(*arguments, "--errors-out", tmp_path / "failed")
    assert result.code == 4, result
    assert "norm and first values" in result.text
    assert (tmp_path / "failed").read_bytes().count(b"\0") == 2
    result = invoke(*arguments, "--errors-out", tmp_path / "failed", "--max-errors", "0")
    assert result.code == 4, result
    assert "more than --max-errors 0 allows" in result.err
    assert (tmp_path / "failed").read_bytes() == os.fsencode(tmp_path / "in" / "b.jpg") + b"\0"
    for option, value in (("--restart", ""), ("--part-rows", "5"), ("--csv-safe", "")):
        result = invoke(*arguments, option, *filter(None, [value]))
        assert result.code == 2, result
        assert result.err.startswith(f"xception: error: {option} ")


def test_the_log_file_has_one_line_a_message(invoke: Invoke, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert invoke("features", tmp_path / f"{HOSTILE}*.jpg", "--log-file", log).code == 2
    text = log.read_text()
    lines = text.splitlines()
    assert len(lines) == 2, "the command line and the error"
    assert all("owned" in line and not NOT_SHOWN.search(line) for line in lines)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the lines of the table of two images, the second of which is an error, with `top` of seven classes."""

    def lines(width: int, top: int, name: str = "photos/1.jpg", label: str = "class") -> list[str]:
        written = io.StringIO()
        monkeypatch.setattr(display, "open_console", lambda: Console(file=written, width=width, force_terminal=False))
        schema = classify_schema(top, "name", ())
        scores = np.linspace(0.9, 0.3, 7, dtype=np.float32)[None].repeat(2, 0)
        refs = [ImageRef(name, "x", b"x"), ImageRef("photos/2.jpg", "y", b"y")]
        errors = [None, ImageError("truncated", "the file ends after 2,000 of 31,415 bytes, in the first scan")]
        labels = [f"{label} {number}" for number in range(7)]
        display.TerminalTable(schema, Progress("none")).write(classify_batch(schema, refs, errors, scores, labels))
        return written.getvalue().splitlines()

    return lines


@pytest.mark.parametrize(
    ("width", "top", "beside"), [(200, 5, True), (80, 5, False), (80, 2, True), (100, 3, True), (40, 7, False)]
)
def test_the_table_has_as_many_predictions_as_asked_for(table: Any, width: int, top: int, beside: bool) -> None:
    lines = table(width, top)
    text = "\n".join(lines)
    assert [f"{score:.3f}" in text for score in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)] == [n < top for n in range(7)]
    assert "".join(text.split()).endswith("firstscan")  # the reason is not cut
    assert max(map(cell_len, lines)) <= width
    found = [line for line in lines if "0." in line]
    assert len(found) == (1 if beside else top)
    assert [line.startswith("photos") for line in found] == [True] + [False] * (len(found) - 1)


@pytest.mark.parametrize("name", ["holiday/" + "x" * 60 + "/IMG_0001.jpg", "休日/" + "写真" * 30 + "/IMG_0001.jpg"])
def test_names_are_cut_in_the_middle(table: Any, name: str) -> None:
    first = table(80, 1, name, label="a breed of dogs from the far north of the country, class")[1]
    assert first.startswith(name[:2])
    assert "…" in first.split("IMG_0001.jpg")[0]
    assert first.endswith("country, class 0")
    assert cell_len(first) <= 80


def test_addresses_are_not_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    address = "https://example.org/" + "weights/" * 20 + "a file.h5"
    display.print_facts(display.open_console(), [("weights", f"not here yet: {address}"), ("x", "y")])
    assert capsys.readouterr().out == f"weights not here yet: {address}\nx       y\n"
