"""A finished directory over a cluster: compared with its sources, and brought up to date."""

from __future__ import annotations

import json
import os
import tarfile
from collections import deque
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster.conftest import Fake, StubWorker
from tests.outputs.test_update import NAMES, plant, rows_of, trees
from tests.thorough import WHOLE
from xcli.checks.findings import Findings
from xcli.checks.verify import verify
from xcli.cluster import remote_run
from xcli.cluster.driver import ClusterRun
from xcli.core.errors import OutputError, XcliError
from xcli.inference.options import RunOptions
from xcli.inference.tasks import FeaturesTask
from xcli.models.spec import ModelSpec
from xcli.outputs.comparison import StaleOutputError
from xcli.outputs.dataset import Dataset
from xcli.outputs.options import Output, SaveOptions, TableRequest
from xcli.outputs.target import Directory
from xcli.sources.archives.listing import WholeArchives
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import open_table


class Killed(BaseException):
    pass


@pytest.fixture
def source(tmp_path: Path, fake: Fake) -> Path:
    fake.worker = StubWorker
    StubWorker.computed.clear()
    plant(tmp_path / "in", {f"{n:02}.jpg": n % 5 for n in range(30)}, 10**18)
    return tmp_path / "in"


def run(
    source: Path, target: Path, *, more: tuple[str, ...] = (), shard: Any = None, batch_size: int = 2, **options: Any
) -> list[str]:
    """Runs into a directory; returns the names of the images that were computed."""
    StubWorker.computed.clear()
    listing = list_images(SourceOptions((str(source), *more), shard=shard, archives=True), archives=WholeArchives)
    request = TableRequest(
        listing.options,
        ModelSpec(weights="none", include_top=False, image_size=71),
        FeaturesTask().for_model,
        {},
        RunOptions(batch_size=batch_size, device="cpu"),
        Output("features", Directory(f"{target}/"), "parquet"),
        SaveOptions(**{"part_rows": 2, **options}),
    )
    ClusterRun(listing, request).run()
    return sorted(StubWorker.computed)


def change(source: Path) -> list[str]:
    """Adds, replaces and removes images; returns the names of those that are to be computed."""
    (source / "new.jpg").write_bytes(b"x")
    (source / "x").mkdir()
    (source / "x" / "y.jpg").write_bytes(b"xy")
    (source / "06.jpg").write_bytes(b"other than before")
    for name in ("03.jpg", "20.jpg", "21.jpg"):  # 20 and 21 are a whole part
        (source / name).unlink()
    return ["06.jpg", "new.jpg", "y.jpg"]


def files_of(target: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in target.iterdir()}


def check(source: Path, target: Path, tmp_path: Path, **options: Any) -> None:
    """The rows are those of a fresh run, the directory is sound, and the plain command has nothing to say."""
    assert run(source, target, **options) == []
    assert verify(open_table(f"{target}/"), None, Findings()).passed
    run(source, tmp_path / "fresh", **options)
    assert rows_of(target) == rows_of(tmp_path / "fresh")


@pytest.mark.parametrize("kills", [(), (1, 2)])
def test_only_new_and_changed_images_are_computed(source: Path, tmp_path: Path, fake: Fake, kills: Any) -> None:
    target = tmp_path / "out"
    run(source, target)
    before = files_of(target)
    assert run(source, target, update=True) == []
    assert files_of(target) == before
    expected, computed = change(source), []
    with pytest.raises(StaleOutputError, match="2 images are new, 1 has changed, 3 are gone: --update brings it"):
        run(source, target)
    for fake.dies_after in kills:
        with pytest.raises(XcliError, match="the cluster is gone"):
            run(source, target, update=True)
        computed += StubWorker.computed
        assert files_of(target) == before
    fake.dies_after = None
    computed += run(source, target, update=True)
    assert set(computed) == set(expected)
    if not kills:
        assert computed == expected
    assert not (tmp_path / "out.partial").exists()
    after = {path.name: path.stat().st_ino for path in target.glob("part-*")}
    changed = {name for name, (inode, _) in before.items() if name.startswith("part-") and after.get(name) != inode}
    assert changed == {"part-00001.parquet", "part-00003.parquet", "part-00010.parquet"}
    check(source, target, tmp_path)


@settings(
    max_examples=200 if WHOLE else 8,
    deadline=None,
    derandomize=not WHOLE,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    before=trees,
    added=trees,
    touched=st.sets(st.sampled_from(NAMES), max_size=4),
    removed=st.sets(st.sampled_from(NAMES), max_size=6),
    kills=st.lists(st.integers(1, 4), max_size=3),
)
def test_any_changes_give_the_rows_of_a_fresh_run(
    fake: Fake,
    before: dict[str, int],
    added: dict[str, int],
    touched: set[str],
    removed: set[str],
    kills: list[int],
) -> None:
    fake.worker = StubWorker
    with TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "in", folder / "out"
        source.mkdir()
        plant(source, before, 10**18)
        run(source, target)
        parts = {
            path.name: ({os.path.relpath(one, source) for one in pq.read_table(path)["path"].to_pylist()}, path.stat())
            for path in target.glob("part-*")
        }
        plant(source, added, 2 * 10**18)
        for one in touched:
            with suppress(FileNotFoundError):
                os.utime(source / one, ns=(0, 3 * 10**18))
        for one in removed - added.keys():
            with suppress(FileNotFoundError):
                (source / one).unlink()
        for fake.dies_after in kills:
            with suppress(XcliError):
                run(source, target, update=True, drop_missing=True)
        fake.dies_after = None
        computed = run(source, target, update=True, drop_missing=True)
        there = {os.path.relpath(path, source) for path in source.rglob("*.jpg")}
        changed = (added.keys() | (touched & before.keys())) & there
        if not kills:
            assert computed == sorted(os.path.basename(one) for one in changed)
        for part, (paths, state) in parts.items():
            if paths and not paths & changed and paths <= there:
                assert (target / part).stat().st_ino == state.st_ino
        check(source, target, folder)


def test_rows_that_a_killed_update_has_kept_are_not_computed_again(source: Path, tmp_path: Path, fake: Fake) -> None:
    target = tmp_path / "out"
    run(source, target)
    plant(source, {f"new{n}.jpg": n for n in range(8)}, 10**18)
    (source / "09.jpg").write_bytes(b"other than before")

    class InOrder(Fake):
        def run_blocks(self, waiting: Any, *others: Any) -> Any:
            backwards: deque[Any] = deque()
            inner = super().run_blocks(backwards, *others)
            while waiting:
                backwards.append(waiting.popleft())
                yield next(inner)

    with pytest.MonkeyPatch.context() as patch:
        orderly = InOrder()
        orderly.worker, orderly.dies_after = StubWorker, 3  # a question about the settings, two blocks
        patch.setattr("xcli.cluster.driver.run_blocks", orderly.run_blocks)
        with pytest.raises((XcliError, RuntimeError)):
            run(source, target, update=True)
    first = list(StubWorker.computed)
    assert len(first) == 4
    second = run(source, target, update=True)
    assert sorted(first + second) == sorted({*first, *second}), "each once"
    assert len(first + second) == 9
    check(source, target, tmp_path)


def test_rows_wait_for_those_of_blocks_before_theirs(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    target = tmp_path / "out"
    run(source, target)
    plant(source, {f"new{n:02}.jpg": n for n in range(40)}, 10**18)
    monkeypatch.setattr(remote_run, "_AHEAD", 2)  # of 20 blocks the last of four is first
    assert len(run(source, target, update=True)) == 40
    added = [Path(path).name for path in rows_of(target) if "new" in path]
    assert added == [f"new{n:02}.jpg'" for n in range(40)]


def test_the_same_command_completes_a_directory_that_was_being_changed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    run(source, target)
    change(source)

    def die(self: Dataset, order: Any) -> int:
        raise Killed

    for update in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "drop_stale_rows", die)
            with pytest.raises(Killed):
                run(source, target, update=True)
        assert not (target / "_SUCCESS").exists()
        assert (tmp_path / "out.partial").exists()
        assert run(source, target, update=update) == [], "the new rows are there"
        assert not (tmp_path / "out.partial").exists()
        (source / "later.jpg").write_bytes(b"x")
    (source / "later.jpg").unlink()
    run(source, target, update=True)
    check(source, target, tmp_path)


def test_error_rows_are_tried_again(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    assert run(source, target, update=True) == []
    failed = [f"{n:02}.jpg" for n in range(0, 30, 5)]
    assert run(source, target, update=True, retry_errors=True) == failed
    check(source, target, tmp_path)


def test_rows_are_not_dropped_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    for n in range(11):
        (source / f"{n:02}.jpg").unlink()
    before = files_of(target)
    with pytest.raises(OutputError, match="11 of its 30 rows are of images that are gone"):
        run(source, target, update=True)
    assert files_of(target) == before
    assert run(source, target, update=True, drop_missing=True) == []
    check(source, target, tmp_path)


def test_an_older_output_needs_trust(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    meta = json.loads((target / "_meta.json").read_text())
    (target / "_states").unlink()
    for name in ("states", "digest"):
        meta.pop(name, None)
    (target / "_meta.json").write_text(json.dumps(meta))
    (source / "new.jpg").write_bytes(b"x")
    with pytest.raises(OutputError, match="without the states of its files"):
        run(source, target, update=True)
    assert run(source, target, update=True, trust_existing=True) == ["new.jpg"]
    check(source, target, tmp_path)


def test_other_settings_are_named(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    with pytest.raises(OutputError, match=r"with --batch-size 2, but this run has --batch-size 3"):
        run(source, target, update=True, batch_size=3)
    with pytest.raises(OutputError, match="pass --overwrite"):
        run(source, target, batch_size=3)


def test_two_updates_at_once(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(source, target)
    with Dataset(Directory(f"{target}/")), pytest.raises(OutputError, match="is being written by"):
        run(source, target, update=True)


@pytest.mark.parametrize("shard", [None, (1, 2)])
def test_members_of_archives(source: Path, tmp_path: Path, shard: Any) -> None:
    target, archive = tmp_path / "out", source / "a.tar"

    def pack(*names: str) -> None:
        with tarfile.open(archive, "w") as packed:
            for name in names:
                packed.add(source / "01.jpg", name)

    pack("m1.jpg", "m2.jpg")
    run(source, target, shard=shard)
    assert run(source, target, shard=shard) == []
    pack("m1.jpg", "m2.jpg", "m3.jpg", "m4.jpg", "m5.jpg")
    os.utime(archive, ns=(1, 1))
    (source / "new1.jpg").write_bytes(b"x")
    (source / "new2.jpg").write_bytes(b"x")
    computed = run(source, target, shard=shard, update=True)
    if shard is None:
        assert computed == [*(f"a.tar::m{n}.jpg" for n in range(1, 6)), "new1.jpg", "new2.jpg"]
    assert all("m" in name or "new" in name for name in computed)
    check(source, target, tmp_path, shard=shard)


def test_workers_enter_the_directory_for_relative_paths_that_come_late(
    source: Path, tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("xcli.cluster.blocks.MAX_BATCH", 1)
    (tmp_path / "more").mkdir()
    plant(tmp_path / "more", {"a.jpg": 1}, 10**18)
    run(source / "01.jpg", target, more=("more",))
    (tmp_path / "more" / "b.jpg").write_bytes(b"x")
    assert run(source / "01.jpg", target, more=("more",), update=True) == ["b.jpg"]
    assert [job.directory for job in fake.jobs] == [str(tmp_path), None, str(tmp_path)]
