"""Runs that end early and are continued: every row once, and the file of an undisturbed run, byte for byte."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import save_photos
from xcli.errors import OutputError, TooManyErrors
from xcli.inference import ClassifyTable, FeaturesTable, Run, RunOptions, preprocessing_for
from xcli.model import LoadedModel, load_model
from xcli.recording import RecordOptions, finished, record
from xcli.sources import SourceOptions, list_images

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.records import ImageBatch, Report


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def models() -> dict[str, LoadedModel]:
    return {
        "classify": load_model(weights="none", classes=7),
        "features": load_model(weights="none", include_top=False, image_size=71),
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    save_photos(folder, [f"{n:02}.jpg" for n in range(11)])
    (folder / "04x.jpg").write_bytes(b"")
    (folder / "07x.jpg").write_bytes(b"no image")
    return folder


class Recorder:
    """Runs a command into a file, as often as asked."""

    def __init__(self, models: dict[str, LoadedModel], command: str, photos: Path, target: Path) -> None:
        self.model, self.command, self.photos, self.target = models[command], command, photos, target
        self.computed: list[str] = []

    def __call__(self, die_after: int | None = None, overwrite: bool = False, **options: Any) -> Report:
        table: Any = FeaturesTable() if self.command == "features" else ClassifyTable(self.model, top=3)
        listing = list_images(SourceOptions(sources=(str(self.photos),)))
        batch_size = options.pop("batch_size", 2)
        run = Run(listing, self.model, table, preprocessing_for(self.model), RunOptions(batch_size=batch_size))
        self.computed = []

        def on_batch(batch: ImageBatch) -> None:
            self.computed += [os.path.basename(ref.path) for ref in batch.refs]
            if die_after is not None and len(self.computed) >= die_after:
                raise Killed

        form = self.target.suffix[1:]
        recording = RecordOptions(**{"part_rows": 3, **options})
        record(run, self.command, form, str(self.target), overwrite=overwrite, options=recording, on_batch=on_batch)
        return run.report


FORMATS = [
    ("classify", "csv"),
    ("classify", "parquet"),
    ("classify", "jsonl"),
    ("features", "csv"),
    ("features", "parquet"),
    ("features", "npy"),
]


@pytest.mark.parametrize(("command", "form"), FORMATS)
def test_after_any_deaths_the_file_is_that_of_an_undisturbed_run(
    models: dict[str, LoadedModel], photos: Path, tmp_path: Path, command: str, form: str
) -> None:
    undisturbed = Recorder(models, command, photos, tmp_path / f"a.{form}")
    assert undisturbed().as_dict()["resumed"] == 0
    disturbed = Recorder(models, command, photos, tmp_path / f"b.{form}")
    for after in (4, 2, 4):
        with pytest.raises(Killed):
            disturbed(die_after=after)
        assert not disturbed.target.exists()
    report = disturbed()
    assert (report.listed, report.ok, report.failed) == (13, 11, 2)
    assert 0 < len(disturbed.computed) < 13
    assert report.resumed == 13 - len(disturbed.computed)
    for suffix in ["", ".csv"] if form == "npy" else [""]:
        found = (tmp_path / f"b.{form}{suffix}").read_bytes()
        assert found == (tmp_path / f"a.{form}{suffix}").read_bytes()
    assert not os.path.exists(f"{disturbed.target}.partial")


@pytest.fixture
def recorder(models: dict[str, LoadedModel], photos: Path, tmp_path: Path) -> Recorder:
    return Recorder(models, "features", photos, tmp_path / "out.csv")


def rows(target: Path) -> list[list[str]]:
    return [line.split(",")[:3] for line in target.read_text().splitlines()[1:]]


def test_changed_and_new_and_vanished_inputs(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=12)
    os.utime(recorder.photos / "01.jpg", (1, 1))
    os.unlink(recorder.photos / "03.jpg")
    save_photos(recorder.photos, ["00a.jpg"])
    report = recorder()
    names = sorted(os.listdir(recorder.photos))
    assert [os.path.basename(path) for path, *_ in rows(recorder.target)] == names
    assert {"01.jpg", "00a.jpg"} <= set(recorder.computed)
    assert not {"00.jpg", "02.jpg"} & set(recorder.computed)
    assert (report.listed, report.rows, report.resumed) == (13, 13, 13 - len(recorder.computed))


def test_errors_are_tried_again_only_when_asked(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=12)
    with pytest.raises(Killed):
        recorder(die_after=1)
    assert not {"04x.jpg", "07x.jpg"} & set(recorder.computed)
    report = recorder(retry_errors=True)
    assert {"04x.jpg", "07x.jpg"} <= set(recorder.computed)
    assert report.errors == {"empty": 1, "not-an-image": 1}
    assert [row[1] for row in rows(recorder.target)].count("error") == 2


def test_other_settings_are_refused_and_restart_starts_over(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=6)
    with pytest.raises(OutputError, match=r"provenance\.batch_size was 2, is 3"):
        recorder(batch_size=3)
    assert recorder(batch_size=3, restart=True).resumed == 0


def test_an_automatic_batch_size_is_that_of_the_run_that_is_continued(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=13, batch_size=None)
    save_photos(recorder.photos, ["99.jpg"])
    assert recorder(batch_size=None).resumed > 0
    assert json.loads((recorder.target.parent / "out.csv.meta.json").read_text())["batch_size"] == 13


def test_a_finished_file_is_recognised(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    recorder()
    before = os.stat(recorder.target)
    assert recorder().listed == 0
    assert "finished already" in caplog.text
    assert os.stat(recorder.target).st_ino == before.st_ino
    with pytest.raises(OutputError, match="exists, with other settings"):
        recorder(batch_size=3)
    assert recorder(batch_size=3, overwrite=True).rows == 13
    assert not os.path.exists(f"{recorder.target}.partial")


def test_a_file_of_somebody_else_is_not_taken_for_finished(recorder: Recorder) -> None:
    recorder.target.write_text("mine")
    assert finished(str(recorder.target)) is None
    with pytest.raises(OutputError, match="pass --overwrite"):
        recorder()
    assert recorder.target.read_text() == "mine"


def test_too_many_errors_stop_the_run_and_keep_what_is_done(recorder: Recorder) -> None:
    with pytest.raises(TooManyErrors, match="1 images failed, more than --max-errors 0"):
        recorder(max_errors=0, part_rows=1)
    assert not recorder.target.exists()
    report = recorder(max_errors=2)
    assert report.resumed >= 4
    assert report.rows == 13


def test_the_shard_is_on_record(models: dict[str, LoadedModel], photos: Path, tmp_path: Path) -> None:
    model = models["features"]
    for shard, expected in ((None, None), ((2, 3), "2/3")):
        listing = list_images(SourceOptions(sources=(str(photos),), shard=shard))
        run = Run(listing, model, FeaturesTable(), preprocessing_for(model))
        record(run, "features", "csv", str(tmp_path / "out.csv"), overwrite=True)
        assert json.loads((tmp_path / "out.csv.meta.json").read_text())["shard"] == expected


def test_the_list_of_errors_can_be_read_back(recorder: Recorder, tmp_path: Path) -> None:
    hostile = os.fsdecode(b"new\nline \xff\\.jpg")
    (recorder.photos / hostile).write_bytes(b"")
    recorder(errors_out=str(tmp_path / "failed"))
    listed = (tmp_path / "failed").read_bytes()
    expected = [os.fsencode(recorder.photos / name) + b"\0" for name in ("04x.jpg", "07x.jpg", hostile)]
    assert listed == b"".join(expected)
    (tmp_path / "failed").write_bytes(b"older")
    with pytest.raises(Killed):
        recorder(overwrite=True, errors_out=str(tmp_path / "failed"), die_after=3)
    assert (tmp_path / "failed").read_bytes() == b"older"
