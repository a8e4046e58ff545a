"""Messages that name files: whatever the name, one line that drives no terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.cli.conftest import save_photos
from tests.imagefiles import encode, gradient
from tests.test_security import HOSTILE, NOT_SHOWN

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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
    assert "owned" in text
    assert len(text.splitlines()) == 1
    assert not NOT_SHOWN.search(text.rstrip("\n"))
