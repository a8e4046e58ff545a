"""The command of a finished output looks, says what it finds, and writes nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.stubrun import StubRun
from tests.tables.test_states import photos, written  # noqa: F401 - a fixture
from xcli.core.errors import OutputError, UsageError
from xcli.outputs.comparison import Comparison, StaleOutputError
from xcli.outputs.options import Output, SaveOptions, check_output_options
from xcli.outputs.save import save
from xcli.outputs.target import parse_target

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.core.records import RunCounts


def look(source: Path, target: str, **sources: Any) -> tuple[RunCounts, list[Comparison]]:
    run: Any = StubRun([str(source)], "features", **sources)
    found: list[Comparison] = []
    form = os.path.splitext(target)[1][1:] or "parquet"
    save(run, Output("features", parse_target(target), form), on_comparison=found.append)
    return run.report, found


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(params=["t.csv", "t.npy", "out/"])
def target(request: pytest.FixtureRequest, photos: Path, tmp_path: Path) -> str:  # noqa: F811
    name = f"{tmp_path}/{request.param}"
    written(photos, name)
    return name


def test_what_is_new_changed_and_gone(photos: Path, target: str, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    caplog.set_level("INFO", "xcli")
    before = content(photos.parent)
    report, (found,) = look(photos, target)
    assert (report.rows, report.listed, report.errors) == (8, 8, {"empty": 1})
    assert (found.stale, found.rows, found.errors, found.retryable) == (False, 8, {"empty": 1}, 0)
    assert "is finished and up to date; 1 error row remains" in caplog.text
    assert content(photos.parent) == before
    (photos / "new.jpg").write_bytes(b"new")
    (photos / "3.jpg").write_bytes(b"other than before")
    (photos / "empty.jpg").write_bytes(b"not empty any more")
    os.utime(photos / "5.jpg")
    (photos / "0.jpg").unlink()
    before = content(photos.parent)
    with pytest.raises(StaleOutputError, match="since then 1 image is new, 3 have changed, 1 is gone: ") as caught:
        look(photos, target)
    assert caught.value.exit_code == 5
    assert json.loads(json.dumps(caught.value.comparison.as_dict())) == {
        "up_to_date": False,
        "rows": 8,
        "new": 1,
        "changed": 3,
        "gone": 1,
        "carried": 0,
        "reordered": False,
        "known": True,
        "errors": {},
        "retryable": 0,
    }
    assert content(photos.parent) == before


def test_an_empty_folder_is_no_reason_to_lose_anything(photos: Path, target: str) -> None:  # noqa: F811
    before = content(photos.parent)
    photos.rename(photos.parent / "elsewhere")
    photos.mkdir()
    with pytest.raises(StaleOutputError, match="8 images are gone"):
        look(photos, target)
    photos.rmdir()
    (photos.parent / "elsewhere").rename(photos)
    assert content(photos.parent) == before


def test_without_states_paths_are_compared(photos: Path, target: str, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    os.unlink(f"{target}_states" if target.endswith("/") else f"{target}.states")
    os.utime(photos / "5.jpg")
    _, (found,) = look(photos, target)
    assert (found.stale, found.known) == (False, False)
    assert "does not record the states of its files" in caplog.text
    (photos / "new.jpg").write_bytes(b"new")
    with pytest.raises(StaleOutputError, match="1 image is new"):
        look(photos, target)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_source_that_cannot_be_listed_is_not_empty(photos: Path, target: str) -> None:  # noqa: F811
    (photos / "5.jpg").unlink()
    photos.chmod(0)
    try:
        with pytest.raises(OutputError, match="could not be read"):
            look(photos, target)
    finally:
        photos.chmod(0o700)


def test_restart_does_not_discard_what_is_finished(photos: Path, target: str) -> None:  # noqa: F811
    form = os.path.splitext(target)[1][1:] or "parquet"
    output = Output("features", parse_target(target), form)
    with pytest.raises(UsageError, match="is finished, and --restart discards unfinished runs only; pass --overwrite"):
        check_output_options(output, SaveOptions(restart=True))
    check_output_options(Output("features", parse_target(target), form, overwrite=True), SaveOptions(restart=True))
