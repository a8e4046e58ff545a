"""Runs over a cluster, without one: the workers are called in this process, with a real engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import save_photos
from tests.thorough import slow
from xcli.cluster import driver as distributed
from xcli.cluster.blocks import Block, machine_independent
from xcli.cluster.driver import ClusterRun
from xcli.cluster.ray_backend import ClusterOptions, WorkerResources, divide
from xcli.cluster.remote_run import RemoteRun
from xcli.cluster.worker import MAX_ATTEMPTS, RunFingerprint, Worker
from xcli.core.errors import ImageError, ModelError, OutputError, TooManyErrors, UsageError, XcliError
from xcli.core.process import has_int8
from xcli.inference.options import RunOptions
from xcli.inference.quantization.calibration import Calibrator
from xcli.inference.tasks import FeaturesTask
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.spec import ModelSpec
from xcli.outputs.options import Output, SaveOptions, TableRequest
from xcli.outputs.part_files import read_sidecar
from xcli.outputs.target import Directory
from xcli.sources.archives.listing import WholeArchives
from xcli.sources.archives.tar_stream import TarMember
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage.directories import LocalFolder
from xcli.storage.readers import UNKNOWN_DEVICE

if TYPE_CHECKING:
    from tests.cluster.conftest import Fake
    from xcli.cluster.worker import Job

SPEC = ModelSpec(weights="none", include_top=False, image_size=71)


class StartedOnce(Worker):
    """A worker whose engine is shared by all tests: tracing is what takes the time here."""

    engines: ClassVar[dict[Any, Any]] = {}

    def _ready(self) -> None:
        request = self._job.request
        task = request.make_task
        key = (task.func if isinstance(task, partial) else str(task), request.spec)
        if self._predictor is None and key in self.engines and self.engines[key][0] == request.run:
            self._predictor, self._schema = self.engines[key][1:]
            mine = self._fingerprint_of(self._predictor, self._schema)
            agreed = self._run_fingerprint.offer(mine)
            assert agreed is not None
            self._check(agreed, mine)
            self._fingerprint = mine
            return
        super()._ready()
        self.engines[key] = (request.run, self._predictor, self._schema)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save_photos(folder, [f"{number}.jpg" for number in range(7)], (80, 71))
    (folder / "3.jpg").write_bytes(b"")
    (folder / ".hidden.jpg").write_bytes(b"x")
    return folder


def make(
    target: Path,
    *sources: Path,
    table: Any = None,
    overwrite: bool = False,
    engine: str = "auto",
    machine: RunOptions | None = None,
    **options: Any,
) -> ClusterRun:
    names = ("shard", "limit", "archives", "exclude_from")
    chosen = {name: options.pop(name) for name in names if name in options}
    listing = list_images(SourceOptions(tuple(map(str, sources)), **chosen), archives=WholeArchives)
    recording = SaveOptions(**{"part_rows": 2} | options)
    table = table or FeaturesTask().for_model
    output = Output("features", Directory(f"{target}/"), "parquet", overwrite)
    run = machine or RunOptions(batch_size=2, device="cpu", engine=engine)
    return ClusterRun(
        listing, TableRequest(listing.options, SPEC, table, {}, run, output, recording), worker=StartedOnce
    )


def rows(target: Path) -> list[dict[str, Any]]:
    return comparable([row for part in sorted(target.glob("part-*")) for row in pq.read_table(part).to_pylist()])


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The features as text, in which an error row has NaN before it is written as Parquet, too."""
    return [{**row, "features": repr(row["features"]).replace("None", "nan")} for row in rows]


def names(target: Path) -> list[str]:
    return sorted(entry.name for entry in target.iterdir())


def test_every_image_has_its_row_in_the_order_of_the_sources(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run = make(target, photos, errors_out=str(tmp_path / "bad"))
    assert run.run() is not None
    assert [Path(row["path"]).name for row in rows(target)] == [f"{number}.jpg" for number in range(7)]
    assert names(target) == ["_SUCCESS", "_meta.json", "_states", *(f"part-{number:05}.parquet" for number in range(4))]
    assert run.report.as_dict() == {
        "listed": 7,
        "ok": 6,
        "errors": {"empty": 1},
        "skipped": {"hidden": 1},
        "resumed": 0,
    }
    assert (tmp_path / "bad").read_bytes() == os.fsencode(photos / "3.jpg") + b"\0"
    meta = json.loads((target / "_meta.json").read_text())
    assert meta["images"]["listed"] == 7
    assert meta["workers"] == {"workers": 2, "cpus": 1, "gpus": 0}
    assert meta["device"] == "CPU"
    # Parts come from the last to the first, and the rows are those of a run on one machine.
    assert fake.computed == [3, 2, 1, 0]
    assert rows(target) == local_rows(photos, tmp_path)


def local_rows(
    source: Path, tmp_path: Path, engine: str = "auto", machine: RunOptions | None = None
) -> list[dict[str, Any]]:
    from xcli.inference.run import Run

    model = load_model(SPEC)
    listing = list_images(SourceOptions((str(source),)))
    run = Run(
        listing,
        model,
        FeaturesTask(),
        preprocessing_for(model),
        machine or RunOptions(batch_size=2, device="cpu", engine=engine),
    )
    run.start()
    return comparable([row for _, batch in run.batches() for row in batch.to_pylist()])


@slow
def test_with_openvino_the_rows_are_those_of_one_machine(fake: Fake, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    target = tmp_path / "out"
    make(target, photos, engine="openvino").run()
    meta = json.loads((target / "_meta.json").read_text())
    assert (meta["engine"], meta["versions"]["openvino"]) == ("openvino", version("openvino"))
    assert rows(target) == local_rows(photos, tmp_path, "openvino")
    assert rows(target) != local_rows(photos, tmp_path)


@slow
@pytest.mark.skipif(not has_int8(), reason="this processor has no instructions for int8")
def test_int8_is_that_of_a_file_on_all_machines(fake: Fake, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    machine = RunOptions(
        batch_size=2,
        device="cpu",
        engine="openvino",
        precision="int8",
        calibration_model=str(tmp_path / "photos.int8"),
        min_agreement=0.0,
    )
    with pytest.raises(UsageError, match="a cluster do not give: give --calibration-model FILE, made by a run"):
        make(tmp_path / "without", photos, machine=machine).run()
    many, model = tmp_path / "many", load_model(SPEC)
    save_photos(many, [f"{number}.jpg" for number in range(64)], (80, 71))
    found = Calibrator(model, preprocessing_for(model), machine).get(
        lambda: iter(list_images(SourceOptions((str(many),))))
    )
    target = tmp_path / "out"
    make(target, photos, machine=machine).run()
    assert json.loads((target / "_meta.json").read_text())["calibration"] == found.record()
    assert rows(target) == local_rows(photos, tmp_path, machine=machine)


@pytest.mark.parametrize("found", ["2020.1", None])
def test_a_worker_with_another_openvino_or_none_is_refused(
    found: str | None, fake: Fake, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    started: list[Worker] = []

    class Elsewhere(StartedOnce):
        """The first worker is on a machine like this, the second on another."""

        engines: ClassVar[dict[Any, Any]] = {}

        def _ready(self) -> None:
            if self not in started:
                started.append(self)
            with monkeypatch.context() as patch:
                if self is not started[0]:
                    self.engines.clear()
                    elsewhere = {"openvino": found}
                    patch.setattr("importlib.metadata.version", lambda name: elsewhere.get(name) or version(name))
                    patch.setattr("xcli.core.openvino.find_spec", lambda name: found)
                super()._ready()

    fake.worker = Elsewhere
    here, error = version("openvino"), (OutputError if found else UsageError)
    refused = (
        rf'with versions\.openvino "{re.escape(here)}", but the worker on .* has versions\.openvino "2020\.1"'
        if found
        else r"pip install 'xception-cli\[openvino\]'"
    )
    with pytest.raises(error, match=refused):
        make(tmp_path / "out", photos, engine="openvino").run()
    assert len(started) == 2
    assert "_SUCCESS" not in names(tmp_path / "out")


def test_the_same_command_goes_on_where_the_cluster_was_lost(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    fake.dies_after = 2
    with pytest.raises(XcliError, match="the cluster is gone"):
        make(target, photos).run()
    assert "_SUCCESS" not in names(target)
    assert [name for name in names(target) if name.startswith("part")] == ["part-00002.parquet", "part-00003.parquet"]
    fake.dies_after = None
    again = make(target, photos)
    assert again.run() is not None
    assert fake.computed == [3, 2, 1, 0]
    assert (again.report.resumed, again.report.listed, again.report.ok) == (3, 7, 6)
    assert len(rows(target)) == 7
    finished = make(target, photos)
    assert finished.run() is None
    assert fake.computed == [3, 2, 1, 0]


def test_a_part_of_changed_images_is_made_again(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    fake.dies_after = 3
    with pytest.raises(XcliError):
        make(target, photos).run()
    fake.computed.clear()
    shutil.copy(photos / "0.jpg", photos / "3.jpg")
    os.utime(photos / "3.jpg", ns=(1, 1))
    fake.dies_after = None
    run = make(target, photos)
    run.run()
    assert sorted(fake.computed) == [0, 1]
    assert run.report.errors == {}
    assert len(rows(target)) == 7


def test_errors_are_tried_again_when_that_is_asked_for(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    fake.dies_after = 3
    for retry, expected in ((False, [3, 2, 1]), (True, [1, 0])):
        if retry:
            fake.dies_after = None
        try:
            make(target, photos, retry_errors=retry).run()
        except XcliError:
            assert not retry
        assert fake.computed == expected
        fake.computed.clear()


def test_parts_beyond_the_last_go(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    fake.dies_after = 3
    with pytest.raises(XcliError):
        make(target, photos).run()
    for number in range(4, 7):
        (photos / f"{number}.jpg").unlink()
    fake.dies_after = None
    run = make(target, photos)
    run.run()
    assert [Path(row["path"]).name for row in rows(target)] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


@slow
def test_a_death_between_the_sidecar_of_changed_images_and_their_part(
    fake: Fake, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecar would agree with the images, and the part be of the old ones."""
    target = tmp_path / "out"
    fake.dies_after = 3
    with pytest.raises(XcliError):
        make(target, photos).run()
    save_photos(photos, ["5.jpg"], (90, 90))
    os.utime(photos / "5.jpg", ns=(1, 1))
    publish = LocalFolder.publish

    def die(self: LocalFolder, scratch: str, name: str, *, keep: bool = False) -> None:
        if name == "part-00002.parquet":
            raise OutputError("the machine is gone")
        publish(self, scratch, name, keep=keep)

    fake.dies_after = None
    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "publish", die)
        with pytest.raises(OutputError, match="the machine is gone"):
            make(target, photos).run()
    make(target, photos).run()
    assert rows(target) == local_rows(photos, tmp_path)


@slow
def test_a_part_of_another_run_is_not_taken(fake: Fake, photos: Path, tmp_path: Path) -> None:
    """Workers may outlive the driver, and write once more when the next run has begun."""
    target = tmp_path / "out"
    make(tmp_path / "other", photos, table=FeaturesTask(normalize=True).for_model).run()
    fake.dies_after = 2
    with pytest.raises(XcliError):
        make(tmp_path / "late", photos, table=FeaturesTask(normalize=True).for_model).run()

    class Late(StartedOnce):
        def _work(self, block: Block) -> dict[str, Any]:
            for name in ("part-00003.parquet", "_part-00003.arrow"):
                if block.number == 3 and not (target / name).exists():
                    shutil.copy(tmp_path / "late" / name, target / name)
            return super()._work(block)

    fake.dies_after = None
    fake.computed.clear()
    run = make(target, photos)
    run.worker = Late
    run.run()
    assert fake.computed == [3, 2, 1, 0]
    assert rows(target) == local_rows(photos, tmp_path)


@slow
@pytest.mark.parametrize("skipped", ["[", '{"a": "b"}'])
def test_a_note_that_no_worker_has_written_counts_for_nothing(
    fake: Fake, photos: Path, tmp_path: Path, skipped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    fake.dies_after = 2
    with pytest.raises(XcliError):
        make(target, photos).run()

    def poisoned(folder: Any, number: int) -> Any:
        found = read_sidecar(folder, number)
        return found and (found[0], {**found[1], "skipped": skipped}, found[2])

    monkeypatch.setattr("xcli.cluster.worker.read_sidecar", poisoned)
    fake.dies_after = None
    make(target, photos).run()
    assert sorted(fake.computed) == [0, 1, 2, 2, 3, 3]
    assert len(rows(target)) == 7


def test_a_part_that_is_damaged_after_it_was_written_is_noticed(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"

    class Disk(StartedOnce):
        def _work(self, block: Block) -> dict[str, Any]:
            if block.number == 0:
                (target / "part-00003.parquet").write_bytes(b"PAR1")
            return super()._work(block)

    run = make(target, photos)
    run.worker = Disk
    with pytest.raises(OutputError, match=r"part-00003\.parquet is damaged .* kept as _part-00003\.parquet\.damaged"):
        run.run()
    assert (target / "_part-00003.parquet.damaged").read_bytes() == b"PAR1"
    make(target, photos).run()
    assert rows(target) == local_rows(photos, tmp_path)


def test_another_batch_size_is_refused(fake: Fake, photos: Path, tmp_path: Path) -> None:
    fake.dies_after = 2
    with pytest.raises(XcliError):
        make(tmp_path / "out", photos).run()
    fake.dies_after = None
    run = make(tmp_path / "out", photos)
    run.request = replace(run.request, run=RunOptions(batch_size=3, device="cpu"))
    with pytest.raises(OutputError, match=r"with --batch-size 2, but the worker on .* has --batch-size 3"):
        run.run()


def test_other_settings_are_refused(fake: Fake, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    fake.dies_after = 2
    with pytest.raises(XcliError):
        make(target, photos).run()
    fake.dies_after = None
    with pytest.raises(OutputError, match=r"with no --normalize, but the worker on .* has --normalize"):
        make(target, photos, table=FeaturesTask(normalize=True).for_model).run()
    make(target, photos).run()
    with pytest.raises(OutputError, match="exists, from a run with other settings or sources; pass --overwrite"):
        make(target, photos, part_rows=3).run()
    assert len(rows(target)) == 7
    make(target, photos, part_rows=3, overwrite=True).run()
    assert [len(pq.read_table(part)) for part in sorted(target.glob("part-*"))] == [3, 3, 1]


def test_a_part_per_archive(fake: Fake, photos: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for name, members in (("a.tar", "012"), ("b.tar", "45"), ("c.tar", "")):
        with tarfile.open(shards / name, "w") as archive:
            for member in members:
                archive.add(photos / f"{member}.jpg", f"{member}.jpg")
            archive.add(photos / ".hidden.jpg", ".x.jpg")
    target = tmp_path / "out"
    run = make(target, shards, archives=True)
    run.run()
    found = [
        [Path(path).name for path in pq.read_table(part)["path"].to_pylist()] for part in sorted(target.glob("p*"))
    ]
    assert found == [["a.tar::0.jpg", "a.tar::1.jpg", "a.tar::2.jpg"], ["b.tar::4.jpg", "b.tar::5.jpg"], []]
    assert run.report.listed == 5
    assert run.report.skipped == {"hidden": 3}
    fake.computed.clear()
    (target / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="--limit"):
        make(tmp_path / "limited", shards, archives=True, limit=2).run()


def test_shards_divide_members_of_archives_as_one_machine_does(fake: Fake, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for member in range(7):
            archive.add(photos / f"{member}.jpg", f"{member}.jpg")
    for shard in (1, 2):
        target = tmp_path / f"out{shard}"
        make(target, tmp_path / "all.tar", shard=(shard, 2)).run()
        options = SourceOptions((str(tmp_path / "all.tar"),), shard=(shard, 2))
        assert [row["path"] for row in rows(target)] == [ref.path for ref in list_images(options)]


def test_excluded_images_are_left_out_also_of_archives(
    fake: Fake, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers list the members of archives; they are told what to leave out."""
    with tarfile.open(photos / "z.tar", "w") as archive:
        for member in range(2):
            archive.add(photos / f"{member}.jpg", f"{member}.jpg")
    excluded, target = tmp_path / "f.csv", tmp_path / "out"
    excluded.write_text(f"path\n{photos}/1.jpg\n{photos}/z.tar::0.jpg\n")
    options = {"archives": True, "exclude_from": str(excluded)}
    run = make(target, photos, **options)
    run.run()
    left = ["0.jpg", *(f"{number}.jpg" for number in range(2, 7)), "z.tar::1.jpg"]
    assert [Path(row["path"]).name for row in rows(target)] == left
    assert run.report.skipped == {"hidden": 1, "excluded by findings": 2}
    # The finished directory is compared with what is listed on this machine.
    assert make(target, photos, **options).run() is None
    excluded.write_text(f"path\n{photos}/z.tar::0.jpg\n")
    assert "is among the data" not in caplog.text
    with pytest.raises(OutputError, match="other settings"):
        make(target, photos, **options).run()


@pytest.mark.parametrize("relative", [True, False])
def test_workers_enter_the_directory_only_for_relative_paths(
    fake: Fake, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "out", Path("photos") if relative else photos).run()
    assert fake.jobs[0].directory == (str(tmp_path) if relative else None)


def test_no_images_give_an_empty_part(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    run = make(tmp_path / "out", tmp_path / "none")
    assert run.run() is not None
    assert rows(tmp_path / "out") == []
    assert (tmp_path / "out" / "part-00000.parquet").exists()


def test_what_a_worker_cannot_do_ends_the_run_by_its_own_error(fake: Fake, photos: Path, tmp_path: Path) -> None:
    run = make(tmp_path / "out", photos, table=FeaturesTask(layer="no_such_layer").for_model)
    with pytest.raises((ModelError, UsageError), match="no_such_layer"):
        run.run()
    assert "_run.json" not in names(tmp_path / "out") if (tmp_path / "out").exists() else True


def test_too_many_errors_end_the_run(fake: Fake, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TooManyErrors, match="1 images failed"):
        make(tmp_path / "out", photos, max_errors=0, errors_out=str(tmp_path / "bad")).run()
    assert (tmp_path / "bad").read_bytes() == os.fsencode(photos / "3.jpg") + b"\0"
    # Those of before do not count again.
    assert make(tmp_path / "out", photos, max_errors=0).run() is not None


def test_a_finished_output_is_compared_without_the_cluster(
    photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    foresee = RemoteRun.foresee
    fake: Fake = request.getfixturevalue("fake")
    target = tmp_path / "out"
    make(target, photos).run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteRun, "foresee", foresee)
        assert make(target, photos).run() is None
        (photos / "0.jpg").unlink()
        with pytest.raises(OutputError, match="1 image is gone"):
            make(target, photos).run()
        assert len(fake.jobs) == 1
        with pytest.raises(OutputError, match="other settings"):
            make(target, photos, part_rows=3).run()
        assert len(fake.jobs) == 2, "only the workers know whether the settings are others"
        assert make(target, photos, update=True).run() is not None


def test_the_list_of_errors_of_a_finished_output(fake: Fake, photos: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", photos).run()
    assert make(tmp_path / "out", photos, errors_out=str(tmp_path / "bad")).run() is None
    assert (tmp_path / "bad").read_bytes() == os.fsencode(photos / "3.jpg") + b"\0"


def test_a_run_with_too_many_parts_is_refused(
    fake: Fake, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "MAX_BLOCKS", 3)
    with pytest.raises(UsageError, match="larger --part-rows"):
        make(tmp_path / "out", photos).run()
    assert fake.computed == []


def test_the_first_worker_that_is_ready_decides_the_batch() -> None:
    agreement = RunFingerprint(None)
    assert agreement.offer(None) is None
    assert agreement.offer({"a": 1}) == {"a": 1}
    assert agreement.offer({"a": 2}) == {"a": 1}


def test_a_block_that_workers_die_of_is_named(fake: Fake, photos: Path, tmp_path: Path) -> None:
    class Deadly(StartedOnce):
        def __init__(self, job: Job, agreement: RunFingerprint) -> None:
            super().__init__(job, agreement)
            for _ in range(MAX_ATTEMPTS):
                agreement.begin(2)

    run = make(tmp_path / "out", photos)
    run.worker = Deadly
    with pytest.raises(XcliError, match=rf"killed a worker {MAX_ATTEMPTS} times .*4.jpg to .*5.jpg"):
        run.run()


def test_other_versions_and_places_are_refused(tmp_path: Path, fake: Fake, photos: Path) -> None:
    make(tmp_path / "out", photos).run()
    job = fake.jobs[0]
    for change, message in (({"version": "0"}, "has version"), ({"directory": "/no/such/place"}, "cannot enter")):
        values = {name: getattr(job, name) for name in job.__slots__} | change
        result = Worker(type(job)(**values), RunFingerprint(None)).compute(Block(0, ()))
        assert isinstance(result.failure, UsageError)
        assert message in str(result.failure)


# What each worker gets


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([(2, 0)], {}, WorkerResources(1, 2, 0)),
        ([(16, 0), (16, 0), (8, 0)], {}, WorkerResources(5, 8, 0)),
        ([(16, 0), (16, 0)], {"cpus": 4}, WorkerResources(8, 4, 0)),
        ([(16, 0), (16, 0)], {"cpus": 4, "workers": 3}, WorkerResources(3, 4, 0)),
        ([(16, 4), (8, 0)], {}, WorkerResources(4, 4, 1)),
        ([(16, 4), (8, 0)], {"gpus": 0}, WorkerResources(3, 8, 0)),
        ([(0, 0), (2, 0)], {}, WorkerResources(1, 2, 0)),
        ([(2, 0), (64, 0), (64, 0)], {}, WorkerResources(2, 64, 0)),
        ([(4, 1), (96, 12)], {}, WorkerResources(12, 8, 1)),
    ],
)
def test_shares(nodes: list[tuple[int, int]], options: dict[str, int], expected: WorkerResources) -> None:
    machines = [{"CPU": float(cpu), "GPU": float(gpu)} for cpu, gpu in nodes]
    assert divide(machines, ClusterOptions(**options), use_gpus=True) == expected


def test_workers_without_gpus_compute_on_processors(fake: Fake, photos: Path, tmp_path: Path) -> None:
    run = make(tmp_path / "out", photos)
    run.request = replace(run.request, run=RunOptions(batch_size=2))
    run.run()
    assert fake.jobs[0].request.run.device == "cpu"
    run = make(tmp_path / "other", photos)
    run.request = replace(run.request, run=RunOptions(batch_size=2, device="gpu"))
    with pytest.raises(UsageError, match="workers have no GPU"):
        run.run()


def test_members_of_archives_are_read_on_other_machines(fake: Fake, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(photos / "0.jpg", "0.jpg")
    (ref,) = list_images(SourceOptions((f"{tmp_path}/a.tar::0.jpg",)), archives=WholeArchives)
    elsewhere = machine_independent(ref)
    assert isinstance(elsewhere.location, TarMember)
    assert elsewhere.location.identity.device == UNKNOWN_DEVICE
    assert elsewhere.location.read(1 << 20) == (photos / "0.jpg").read_bytes()
    os.utime(tmp_path / "a.tar", ns=(1, 1))
    with pytest.raises(ImageError, match="has changed"):
        elsewhere.location.read(1 << 20)


def test_a_cluster_without_room_is_an_error() -> None:
    for options in ({"cpus": 4}, {"gpus": 1}):
        with pytest.raises(UsageError, match="no machine of the cluster has"):
            divide([{"CPU": 2.0}], ClusterOptions(**options), use_gpus=True)
