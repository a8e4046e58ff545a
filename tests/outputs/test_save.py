"""Runs that end early and are continued: every row once, and the file of an undisturbed run, byte for byte."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.cli.conftest import save_photos
from tests.stubrun import StubRun
from tests.thorough import slow, thorough
from xcli.core.errors import CheckError, OutputError, TooManyErrors, UsageError, XcliError
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.inference.tasks import ClassifyTask, FeaturesTask
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.network import LoadedModel
from xcli.outputs.options import Output, SaveOptions, check_options
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.save import save
from xcli.outputs.target import parse_target
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage import disk
from xcli.storage.disk import System
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from xcli.core.records import ImageBatch, RunCounts
    from xcli.outputs.resume import RowOrder


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def models() -> dict[str, LoadedModel]:
    return {
        "classify": replace(load_model(weights="none", classes=7), size=71),  # with its top it takes any size
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
        self.sources: tuple[str, ...] = (str(photos),)

    def __call__(self, die_after: int | None = None, overwrite: bool = False, **options: Any) -> RunCounts:
        second = "features_out" in options
        table: Any = FeaturesTask()
        if self.command == "classify":
            table = ClassifyTask(self.model, top=3, with_features=second)
        listing = list_images(SourceOptions(sources=self.sources))
        batch_size = options.pop("batch_size", 2)
        run = Run(listing, self.model, table, preprocessing_for(self.model), RunOptions(batch_size=batch_size))
        self.computed = []

        def on_batch(batch: ImageBatch) -> None:
            self.computed += [os.path.basename(ref.path) for ref in batch.refs]
            if die_after is not None and len(self.computed) >= die_after:
                raise Killed

        form = self.target.suffix[1:] or "parquet"
        target = str(self.target) if self.target.suffix else f"{self.target}/"
        recording = SaveOptions(**{"part_rows": 3, **options})
        save(run, Output(self.command, parse_target(target), form, overwrite), recording, on_batch=on_batch)
        return run.report


FORMATS = [
    ("classify", "csv"),
    pytest.param("classify", "jsonl", marks=thorough),
    pytest.param("features", "csv", marks=thorough),
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
    for after in (4, 2, 4) if command == "features" else (4,):
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


def test_a_directory_that_cannot_be_listed_now_does_not_cost_the_rows_of_its_images(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unmounted(System):
        def scandir(self, path: Any) -> Any:
            if os.fsdecode(path) == str(recorder.photos):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().scandir(path)

    with pytest.raises(Killed):
        recorder(die_after=8)
    monkeypatch.setattr(disk, "system", Unmounted())
    with pytest.raises(
        OutputError, match=r"/in could not be read \(.*Input/output error\), and 8 finished rows .* kept"
    ):
        recorder()
    assert not recorder.target.exists()
    monkeypatch.undo()
    report = recorder()
    assert (report.listed, report.ok, report.resumed) == (13, 11, 8)
    assert [os.path.basename(path) for path, *_ in rows(recorder.target)] == sorted(os.listdir(recorder.photos))
    monkeypatch.setattr(disk, "system", Unmounted())
    report = recorder(restart=True, overwrite=True)
    assert (report.listed, report.failed) == (1, 1), "without rows of an earlier run it is an error row"


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
    with pytest.raises(
        OutputError,
        match=r"out.csv has an unfinished run \(\d rows\) with --batch-size 2, but this run has --batch-size 3\. Use",
    ):
        recorder(batch_size=3)
    assert recorder(batch_size=3, restart=True).resumed == 0


def test_an_automatic_batch_size_is_that_of_the_run_that_is_continued(recorder: Recorder) -> None:
    with pytest.raises(Killed):
        recorder(die_after=13, batch_size=None)
    save_photos(recorder.photos, ["99.jpg"])
    assert recorder(batch_size=None).resumed > 0
    assert json.loads((recorder.target.parent / "out.csv.meta.json").read_text())["batch_size"] == 13


def test_a_finished_file_is_recognised(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "xcli")
    recorder()
    before = os.stat(recorder.target)
    report = recorder()
    assert (report.listed, report.failed, recorder.computed) == (13, 2, [])
    assert "out.csv is finished and up to date; 2 error rows remain" in caplog.text
    assert os.stat(recorder.target).st_ino == before.st_ino
    recorder(errors_out=f"{recorder.target}.failed", retry_errors=True)
    assert (recorder.target.parent / "out.csv.failed").read_bytes().count(b"\0") == 2
    with pytest.raises(OutputError, match="exists, from a run with other settings"):
        recorder(batch_size=3)
    assert recorder(batch_size=3, overwrite=True).rows == 13
    assert not os.path.exists(f"{recorder.target}.partial")


def test_a_file_of_somebody_else_is_not_taken_for_finished(recorder: Recorder) -> None:
    recorder.target.write_text("mine")
    assert parse_target(str(recorder.target)).finished_run() is None
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
        run = Run(listing, model, FeaturesTask(), preprocessing_for(model))
        save(run, Output("features", parse_target(str(tmp_path / "out.csv")), "csv", overwrite=True))
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


@pytest.fixture
def few(tmp_path: Path) -> Path:
    folder = tmp_path / "few"
    save_photos(folder, [f"{n}.jpg" for n in range(4)])
    (folder / "1x.jpg").write_bytes(b"")
    return folder


@pytest.mark.parametrize(("form", "second"), [("csv", "npy"), pytest.param("jsonl", "parquet", marks=thorough)])
def test_two_tables_of_one_pass(
    models: dict[str, LoadedModel], few: Path, tmp_path: Path, form: str, second: str
) -> None:
    photos = few
    undisturbed = Recorder(models, "classify", photos, tmp_path / f"a.{form}")
    undisturbed(features_out=str(tmp_path / f"a2.{second}"))
    disturbed = Recorder(models, "classify", photos, tmp_path / f"b.{form}")
    features = tmp_path / f"b2.{second}"
    with pytest.raises(Killed):
        disturbed(die_after=2, part_rows=1, features_out=str(features))
    assert not disturbed.target.exists()
    assert not features.exists()
    assert disturbed(features_out=str(features)).resumed > 0
    assert disturbed.target.read_bytes() == undisturbed.target.read_bytes()
    assert features.read_bytes() == (tmp_path / f"a2.{second}").read_bytes()
    rows = list(paths_in(disturbed.target))
    assert len(rows) == 5
    assert list(paths_in(features)) == rows
    assert (disturbed(features_out=str(features)).listed, disturbed.computed) == (5, []), "both are finished"


def paths_in(path: Path) -> Iterator[str]:
    for batch in open_table(str(path)).batches(["path"]):
        yield from batch.column(0).to_pylist()


@slow
def test_the_tables_of_one_pass_are_those_of_two(models: dict[str, LoadedModel], few: Path, tmp_path: Path) -> None:
    """A classifier beside the same network without its top."""
    alone = Recorder({"classify": models["classify"]}, "classify", few, tmp_path / "alone.csv")
    alone()
    both = Recorder(models, "classify", few, tmp_path / "both.csv")
    both(features_out=str(tmp_path / "features.npy"))
    assert [row[:3] for row in rows(both.target)] == [row[:3] for row in rows(alone.target)]
    features = np.load(tmp_path / "features.npy")
    bare = Recorder({"features": models["classify"]}, "features", few, tmp_path / "bare.npy")
    bare()
    np.testing.assert_allclose(features, np.load(tmp_path / "bare.npy"), rtol=1e-5, atol=1e-6)


def test_the_second_file_is_not_written_over_another(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "mine.npy").write_text("mine")
    recorder.command = "classify"
    recorder.model = load_model(weights="none", classes=3)
    with pytest.raises(OutputError, match=r"mine\.npy exists"):
        recorder(features_out=str(tmp_path / "mine.npy"))
    assert recorder.computed == []
    assert (tmp_path / "mine.npy").read_text() == "mine"


def test_a_guarded_file_says_so(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recorder.photos)
    os.rename("00.jpg", "=cmd().jpg")
    recorder.sources = ("=cmd().jpg", "01.jpg")
    recorder(csv_safe=True)
    assert [row[0] for row in rows(recorder.target)] == ["'=cmd().jpg", "01.jpg"]
    assert json.loads((tmp_path / "out.csv.meta.json").read_text())["csv_safe"] is True
    with pytest.raises(CheckError, match="--csv-safe"):
        open_table(str(recorder.target))


def test_a_table_with_a_mark_is_another_output(recorder: Recorder, tmp_path: Path) -> None:
    recorder(csv_bom=True)
    assert recorder.target.read_bytes().startswith(b"\xef\xbb\xbfpath,")
    recorder(csv_bom=True)
    with pytest.raises(OutputError, match="other settings"):
        recorder()


@pytest.mark.parametrize(
    ("format", "target", "options", "message"),
    [
        ("csv", None, {"restart": True}, "--restart needs -o FILE"),
        ("csv", "-", {"retry_errors": True}, "--retry-errors needs -o FILE"),
        ("csv", None, {"features_out": "a.npy"}, "--features-out needs -o FILE"),
        ("parquet", "a/", {"features_out": "a.npy"}, "is a directory"),
        ("csv", "a.csv", {"features_out": "-"}, "takes the name of a file"),
        ("csv", "a.csv", {"features_out": "./a.csv"}, "would be both tables"),
        ("parquet", "a.parquet", {"csv_safe": True}, "--csv-safe is for CSV"),
        ("parquet", "a/", {"csv_safe": True}, "--csv-safe is for CSV"),
        ("parquet", "a/", {"csv_bom": True}, "--csv-bom is for CSV"),
    ],
)
def test_options_that_would_do_nothing(format: str, target: str | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(Output("features", parse_target(target), format), SaveOptions(**options))


def test_a_row_that_gets_lost_on_the_way_to_the_file_is_a_bug_said_loudly(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PartialFile.read

    def lossy(self: PartialFile, layout: RowOrder, schema: pa.Schema, states: Any) -> Iterator[pa.RecordBatch]:
        batches = read(self, layout, schema, states)
        yield next(batches).slice(1)
        yield from batches

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "read", lossy)
        with pytest.raises(XcliError, match="13 images were listed, 13 counted and 12 rows written") as caught:
            recorder()
    assert caught.value.exit_code == 1
    assert not recorder.target.exists()
    assert recorder().resumed == 13


def test_an_error_says_that_rows_are_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever ends the run: the disk, the machine, or a bug."""
    caplog.set_level("INFO", "xcli")
    target = tmp_path / "a.csv"

    def fail(*_: object) -> None:
        raise OutputError("cannot write: No space left on device")

    monkeypatch.setattr("xcli.outputs.save._Saver._publish", fail)
    for _ in range(2):
        run: Any = StubRun([str(photos)], "features")
        with pytest.raises(OutputError):
            save(run, Output("features", parse_target(str(target)), "csv"), SaveOptions(part_rows=3))
        assert caplog.messages[-1] == "stopped after 13 images; the same command goes on from there"
    assert "continuing: 13 rows are kept from before" in caplog.messages
