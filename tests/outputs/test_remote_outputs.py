"""Runs whose output is in an object store: what they leave is byte for byte what they leave on a disk."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import save_photos
from tests.stubrun import StubRun
from tests.thorough import thorough
from xcli.core.errors import CheckError, OutputError, SourceError, TooManyErrors, UsageError
from xcli.outputs.dataset import check_directory
from xcli.outputs.options import Output, SaveOptions, check_output_options
from xcli.outputs.save import save
from xcli.outputs.target import Directory, parse_target
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.objectstore import ObjectStore
    from xcli.core.records import ImageBatch, RunCounts


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    save_photos(folder, [f"{n:02}.jpg" for n in range(7)])
    (folder / "04x.jpg").write_bytes(b"")
    return folder


class Killed(BaseException):
    pass


class Recorder:
    """Runs a command into a file, a directory, an object or a prefix, as often as asked."""

    def __init__(self, photos: Path, target: str, command: str = "features") -> None:
        self.photos, self.target, self.command = photos, target, command
        self.computed: list[str] = []

    def __call__(
        self, die_after: int | None = None, overwrite: bool = False, batch_size: int = 2, **options: Any
    ) -> RunCounts:
        run = StubRun([str(self.photos)], self.command, batch_size, "features_out" in options)
        self.computed = []

        def on_batch(batch: ImageBatch) -> None:
            self.computed += [os.path.basename(ref.path) for ref in batch.refs]
            if die_after is not None and len(self.computed) >= die_after:
                raise Killed

        form = os.path.splitext(self.target)[1][1:] or "parquet"
        recording = SaveOptions(**{"part_rows": 3, **options})
        stub: Any = run
        output = Output(self.command, parse_target(self.target), form, overwrite)
        save(stub, output, recording, on_batch=on_batch)
        return run.report


class Remote(Recorder):
    """Runs a command into an object store, where nothing else is."""

    def __init__(self, photos: Path, store: ObjectStore, output: str, command: str = "features") -> None:
        self.store, self.prefix = store, store.prefix()
        super().__init__(photos, store.url(f"{self.prefix}/{output}"), command)

    def objects(self, *, meta: bool = False) -> dict[str, bytes]:
        """What is there, by name; what differs from run to run only when asked for."""
        of_one_run = ("meta.json", ".states")  # the latter names the second table, if there is one
        keys = [key for key in self.store.keys(self.prefix) if meta or not key.endswith(of_one_run)]
        return {key.removeprefix(f"{self.prefix}/"): self.store.get(key) for key in keys}

    def finals(self) -> dict[str, bytes]:
        """What is there under a name of its own, and not of a run that is under way."""
        parts = {name: data for name, data in self.objects().items() if ".partial/" not in name}
        return {name: data for name, data in parts.items() if not name.rpartition("/")[2].startswith("_")}


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(("meta.json", ".states"))}


@pytest.mark.parametrize("output", ["out.npy", "out/"])
def test_after_deaths_it_is_what_a_disk_would_hold(
    photos: Path, s3: ObjectStore, tmp_path: Path, temporary: Path, output: str
) -> None:
    (tmp_path / "local").mkdir()
    Recorder(photos, f"{tmp_path}/local/{output}")()
    remote = Remote(photos, s3, output)
    for after in (4, 2):
        with pytest.raises(Killed):
            remote(die_after=after)
        if output.endswith("/"):
            for data in remote.finals().values():
                assert pq.read_table(io.BytesIO(data)).num_rows
        else:
            assert remote.finals() == {}
            assert f"{output}.partial/run.json" in remote.objects()
    report = remote()
    assert (report.listed, report.ok, report.failed) == (8, 7, 1)
    assert report.resumed == 8 - len(remote.computed) > 0
    if output.endswith("/"):
        # Where parts are cut depends on the deaths; so a whole run once more.
        assert names_in(remote) == sorted(os.listdir(photos))
        remote(overwrite=True)
    assert remote.objects() == files(tmp_path / "local")
    meta = json.loads(remote.objects(meta=True)["out/_meta.json" if output == "out/" else f"{output}.meta.json"])
    assert meta["images"]["listed"] == 8
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("output", "parts"), [("out.parquet", 4), pytest.param("out/", 2, marks=thorough)])
def test_killed_and_started_again(photos: Path, s3: ObjectStore, tmp_path: Path, output: str, parts: int) -> None:
    for name in range(20):
        (photos / f"1{name:02}.jpg").write_bytes(b"x")
    (tmp_path / "local").mkdir()
    Recorder(photos, f"{tmp_path}/local/{output}")()
    remote = Remote(photos, s3, output)
    command = [sys.executable, "-m", "tests.stubrun", str(photos), remote.target]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            for data in remote.finals().values():
                assert pq.read_table(io.BytesIO(data)).num_rows, "whatever can be seen can be read"
            if sum("/part-" in key for key in s3.keys(remote.prefix)) >= parts:
                process.kill()
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert "out/_SUCCESS" not in remote.objects()
    report = remote()
    assert report.resumed >= 3 * parts - 3
    assert names_in(remote) == sorted(os.listdir(photos))
    if output == "out.parquet":
        assert remote.objects() == files(tmp_path / "local")


def names_in(remote: Remote) -> list[str]:
    paths = [batch.column("path").to_pylist() for batch in open_table(remote.target).batches(["path"])]
    return [os.path.basename(path) for piece in paths for path in piece]


@pytest.fixture
def remote(photos: Path, s3: ObjectStore) -> Remote:
    return Remote(photos, s3, "out.csv")


@pytest.fixture
def dataset(photos: Path, s3: ObjectStore) -> Remote:
    return Remote(photos, s3, "out/")


def test_inputs_that_change_between_two_starts(dataset: Remote) -> None:
    with pytest.raises(Killed):
        dataset(die_after=6)
    os.utime(dataset.photos / "01.jpg", (1, 1))
    os.unlink(dataset.photos / "03.jpg")
    save_photos(dataset.photos, ["00a.jpg"])
    report = dataset()
    assert sorted(names_in(dataset)) == sorted(os.listdir(dataset.photos))
    assert (report.listed, report.resumed) == (8, 8 - len(dataset.computed))


def test_a_part_that_was_damaged_is_computed_again(dataset: Remote, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Killed):
        dataset(die_after=6)
    dataset.store.put(f"{dataset.prefix}/out/part-00000.parquet", b"PAR1")
    dataset()
    assert "part-00000.parquet is damaged" in caplog.text
    assert sorted(names_in(dataset)) == sorted(os.listdir(dataset.photos))


@pytest.mark.parametrize("output", ["out.csv", "out/"])
def test_a_finished_output_is_recognised(
    photos: Path, s3: ObjectStore, caplog: pytest.LogCaptureFixture, output: str
) -> None:
    caplog.set_level("INFO", "xcli")
    remote = Remote(photos, s3, output)
    remote()
    before = remote.objects(meta=True)
    errors = s3.url(f"{s3.prefix()}/failed")
    assert remote(errors_out=errors).listed == 8
    assert "finished and up to date" in caplog.text
    assert s3.get(errors.removeprefix(s3.url())) == os.fsencode(photos / "04x.jpg") + b"\0"
    with pytest.raises(OutputError, match="exists, from a run with other settings"):
        remote(batch_size=3)
    assert remote.objects(meta=True) == before
    with pytest.raises(Killed):
        remote(batch_size=3, overwrite=True, die_after=3)
    assert parse_target(remote.target).finished_run() is None or output == "out.csv", (
        "until it is replaced, a file stays what it is"
    )
    remote(batch_size=3, overwrite=True)
    meta = remote.objects(meta=True)["out/_meta.json" if output == "out/" else "out.csv.meta.json"]
    assert json.loads(meta)["batch_size"] == 3
    assert parse_target(remote.target).finished_run() is not None


def test_a_run_that_died_as_its_output_appeared_goes_on(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "xcli")
    remote()
    whole = remote.objects()
    remote.store.delete(f"{remote.prefix}/out.csv")
    assert remote().listed == 8
    assert remote.objects() == whole
    remote.store.put(f"{remote.prefix}/out.csv.partial/part-00000.arrow", b"of a journal whose removal was cut short")
    remote()
    assert "finished and up to date" in caplog.text
    assert remote.objects() == whole


def test_an_object_of_somebody_else_is_not_replaced(remote: Remote, dataset: Remote) -> None:
    remote.store.put(f"{remote.prefix}/out.csv", b"theirs")
    with pytest.raises(OutputError, match=r"out\.csv exists; pass --overwrite"):
        remote()
    assert remote.objects() == {"out.csv": b"theirs"}
    remote(overwrite=True)
    dataset.store.put(f"{dataset.prefix}/out/notes.txt", b"theirs")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"contains notes\.txt"):
            dataset(overwrite=overwrite)
    assert dataset.objects() == {"out/notes.txt": b"theirs"}


def test_too_many_errors(remote: Remote) -> None:
    errors = remote.store.url(f"{remote.store.prefix()}/failed")
    with pytest.raises(TooManyErrors):
        remote(max_errors=0, errors_out=errors, part_rows=1)
    assert remote.store.get(errors.removeprefix(remote.store.url())).endswith(b"04x.jpg\0")
    assert remote.finals() == {}
    assert remote().resumed > 0


def test_two_tables_of_one_pass(photos: Path, s3: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    Recorder(photos, f"{tmp_path}/local/a.jsonl", "classify")(features_out=f"{tmp_path}/local/b.npy")
    remote = Remote(photos, s3, "a.jsonl", "classify")
    second = s3.url(f"{remote.prefix}/b.npy")
    with pytest.raises(Killed):
        remote(die_after=2, part_rows=1, features_out=second)
    assert remote.finals() == {}
    remote(features_out=second)
    assert remote.objects() == files(tmp_path / "local")
    assert (remote(features_out=second).listed, remote.computed) == (8, [])
    s3.delete(f"{remote.prefix}/b.npy")
    remote(features_out=second)
    assert remote.objects() == files(tmp_path / "local")
    with pytest.raises(UsageError, match="would be both tables"):
        remote(features_out=remote.target)


def test_what_is_found_before_a_model_is_loaded(
    s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = r"s3://no-such-bucket/run.*: there is no such bucket$"
    for target in ("s3://no-such-bucket/run.parquet", "s3://no-such-bucket/run/"):
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=missing):
                check_output_options(Output("features", parse_target(target), "parquet", overwrite), SaveOptions())
    options = SaveOptions(features_out="s3://no-such-bucket/run.npy")
    with pytest.raises(OutputError, match=missing):
        check_output_options(Output("features", parse_target(str(tmp_path / "out.csv")), "csv", False), options)
    with pytest.raises(UsageError, match="directories are written in Parquet"):
        check_directory(Directory(s3.url("run/")), "csv")
    for target in ("https://example.org/run.parquet", "http://example.org/run/"):
        with pytest.raises(UsageError, match="web servers take no files"):
            check_output_options(Output("features", parse_target(target), "parquet", False), SaveOptions())
    check_output_options(Output("features", parse_target(s3.url("run/")), "parquet", False), SaveOptions())

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    from xcli.storage.object_store import open_writable_store

    monkeypatch.setattr(open_writable_store(s3.url("run")).fs, "call_s3", refuse)
    for target in (s3.url("run.csv"), s3.url("run/")):
        with pytest.raises(OutputError, match="access is denied"):
            check_output_options(Output("features", parse_target(target), "parquet", False), SaveOptions())


def test_what_is_a_dataset(s3: ObjectStore) -> None:
    prefix = s3.prefix()
    s3.put(f"{prefix}/parts/part-00000.parquet", b"")
    s3.put(f"{prefix}/file.csv", b"")
    found = [
        isinstance(parse_target(s3.url(f"{prefix}/{name}")), Directory)
        for name in ("new/", "parts", "part", "file.csv", "file", "new")
    ]
    assert found == [True, True, False, False, False, False]


def test_tables_that_cannot_be_opened(dataset: Remote, remote: Remote, s3: ObjectStore) -> None:
    with pytest.raises(SourceError, match=r"cannot open s3://.*out\.csv: no such object$"):
        open_table(remote.target)
    with pytest.raises(SourceError, match="there is nothing below it"):
        open_table(dataset.target)
    s3.put("photos/a.jpg", b"x")
    with pytest.raises(SourceError, match="is no table: there are no parts"):
        open_table(s3.url("photos/"))
    with pytest.raises(SourceError, match="there is no such bucket"):
        open_table("s3://no-such-bucket/out.csv")
    with pytest.raises(SourceError, match="tables are read from"):
        open_table("https://example.org/out.csv")
    for one in (dataset, remote):
        with pytest.raises(Killed):
            one(die_after=6)
    with pytest.raises(SourceError, match=r"no such object; its run has not finished \(.*\.partial exists\)"):
        open_table(remote.target)
    with pytest.raises(CheckError, match=r"s3://.*out/: its run has not finished"):
        open_table(dataset.target)


def test_without_images(s3: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    dataset = Remote(tmp_path / "none", s3, "out/")
    dataset()
    assert list(dataset.objects()) == ["out/_SUCCESS", "out/_states", "out/part-00000.parquet"]
    assert names_in(dataset) == []
