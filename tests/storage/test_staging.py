"""Files that belong together get their names all or none, whatever fails and whenever a process dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.simulation.system import Fault, FaultySystem
from tests.thorough import slow
from xcli.core.errors import OutputError
from xcli.storage import disk
from xcli.storage.atomic import AtomicFile, commit
from xcli.storage.directories import is_of_another_user
from xcli.storage.locks import FileLock
from xcli.storage.ownership import check_ownership
from xcli.storage.staging import Staging, pending, recover, staging_path


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of directories are written; none of them has to survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


NAMES = ["other/f.npy", "out.csv.meta.json", "out.csv"]


def write(folder: Path, overwrite: bool, content: bytes = b"new") -> None:
    """A table with its record, as `create_table` writes them, in two directories."""
    (folder / "other").mkdir(exist_ok=True)
    files: list[AtomicFile] = []
    with ExitStack() as stack:
        first = Staging(str(folder / "out.csv"))
        stack.callback(first.close)
        second = Staging(str(folder / "other" / "f.npy"))
        stack.callback(second.close)
        try:
            for name, staging in zip(NAMES, (second, first, first), strict=True):
                files.append(AtomicFile(str(folder / name), overwrite, staging))
                files[-1].stream.write(content)
            commit(files)
        except BaseException:
            for file in files:
                file.discard()
            raise


def killed(parent: Path, overwrite: bool = False) -> Iterator[Path]:
    """Kills a process that writes the files at its first call, at its second, ..., each in a directory of its own."""
    for call in itertools.count():
        folder = parent / str(call)
        folder.mkdir()
        if overwrite:
            write(folder, overwrite, b"old")
        child = os.fork()
        if not child:
            disk.system = FaultySystem(str(folder), Fault(call, "SIGKILL-before"))
            write(folder, overwrite)
            os._exit(0)
        if os.WIFEXITED(os.waitpid(child, 0)[1]):
            return
        yield folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_error_at_any_call_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, kind: str
) -> None:
    for call in itertools.count():
        folder = tmp_path / str(call)
        folder.mkdir()
        if overwrite:
            write(folder, overwrite, b"old")
        before = contents(folder)
        faulty = FaultySystem(str(folder), Fault(call, kind))
        with monkeypatch.context() as patch:
            patch.setattr(disk, "system", faulty)
            try:
                write(folder, overwrite)
                failed = False
            except OutputError:
                failed = True
        if faulty.number <= call:
            break
        found = contents(folder)
        finals = {name: found[name] for name in NAMES if name in found}
        whole = dict.fromkeys(NAMES, b"new")
        assert finals == whole or (failed and finals == before), (call, failed, found)
        if finals != whole:
            write(folder, overwrite)
        write(folder, True)
        assert contents(folder) == whole, call
        assert sorted(path.name for path in folder.rglob("*") if path.is_dir()) == ["other"]
    assert call > 25


@slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_process_that_dies_at_any_call_is_completed_or_never_was(tmp_path: Path, overwrite: bool) -> None:
    calls = 0
    for folder in killed(tmp_path, overwrite):
        Staging(str(folder / "out.csv")).close()  # the next process of this output
        Staging(str(folder / "other" / "f.npy")).close()
        found = contents(folder)
        old = dict.fromkeys(NAMES, b"old") if overwrite else {}
        assert found in (old, dict.fromkeys(NAMES, b"new")), (folder.name, found)
        calls += 1
    assert calls > 25


def test_a_signal_waits_until_all_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(disk.System):
        def link(self, source: disk.Path, target: disk.Path) -> None:
            super().link(source, target)
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "system", Interrupting())
        patch.setattr("xcli.storage.staging._NO_HARD_LINKS", frozenset())
        with pytest.raises(KeyboardInterrupt):
            write_one(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"x"
    target = str(tmp_path / "out.csv")
    assert pending(staging_path(target), target)  # so that the same command knows its own output
    Staging(str(tmp_path / "out.csv")).close()
    assert contents(tmp_path) == {"out.csv": b"x"}


def write_one(path: Path) -> None:
    file = AtomicFile(str(path))
    file.stream.write(b"x")
    try:
        commit([file])
    finally:
        file.discard()


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "out.csv.partial"
    place.mkdir()
    (place / "lock").write_bytes(b"process 1 on there")
    actual = os.lstat

    def lstat(path: str) -> os.stat_result:
        found = actual(path)
        return os.stat_result((*found[:4], 4242, *found[5:10])) if path == str(place) else found

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        assert is_of_another_user(str(place))
        with pytest.raises(OutputError, match="belongs to another user, which is not from an unfinished run"):
            check_ownership(str(place))
    assert not is_of_another_user(str(place))
    assert not is_of_another_user(str(tmp_path / "gone"))


def test_the_private_directory_is_for_this_user_alone(tmp_path: Path) -> None:
    file = AtomicFile(str(tmp_path / "out.csv"))
    assert (tmp_path / "out.csv.partial").stat().st_mode & 0o777 == 0o700
    file.discard()


@pytest.mark.parametrize("name", ["lock", "publish.json.tmp", "part-00000.arrow.tmp", "run.json.tmp"])
def test_links_in_a_private_directory_are_not_followed(tmp_path: Path, name: str) -> None:
    """As another process of this user could leave them, for files of another user could not be there."""
    (tmp_path / "precious").write_bytes(b"content")
    place = tmp_path / "out.csv.partial"
    place.mkdir()
    (place / "lock").write_bytes(b"process 1 on there")
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to(tmp_path / "precious")
    with suppress(OutputError):
        write_one(tmp_path / "out.csv")
    assert (tmp_path / "precious").read_bytes() == b"content"


@pytest.mark.parametrize("what", ["file", "directory", "link", "lock"])
def test_what_a_user_made_is_refused_and_untouched(tmp_path: Path, what: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    place = tmp_path / "out.csv.partial"
    if what == "file":
        place.write_text("mine")
    elif what == "link":
        place.symlink_to("mine")
    else:
        place.mkdir()
        (place / ("lock" if what == "lock" else "thesis.txt")).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"out\.csv\.partial .*not from an unfinished run"):
        AtomicFile(str(tmp_path / "out.csv"))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [b"", bytes(20), b"proc"])
def test_a_lock_whose_content_a_power_cut_took_is_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv.partial").mkdir()
    (tmp_path / "a.csv.partial" / "lock").write_bytes(content)
    write_one(tmp_path / "a.csv")
    assert os.listdir(tmp_path) == ["a.csv"]
    (tmp_path / "lock").write_bytes(bytes(20))
    assert FileLock(tmp_path / "lock").holder() == "another process"


def test_every_output_has_its_own_lock(tmp_path: Path) -> None:
    for name in ("a.csv", "x" * 250 + "1.csv", "x" * 250 + "2.csv"):
        staging = Staging(str(tmp_path / name))
        with pytest.raises(OutputError, match="is being written by process"):
            AtomicFile(str(tmp_path / name))
        check_ownership(staging.path)
        assert len(os.path.basename(staging_path(str(tmp_path / name)))) <= 255
    assert len(os.listdir(tmp_path)) == 3


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path / "a.csv"))
    for name in ("staged-12ab-0", "staged-0-7", "old-1", "publish.json.tmp"):
        Path(staging.path, name).write_bytes(b"left")
    staging._folder.unlock()  # as the death of the process does
    write_one(tmp_path / "a.csv")
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("note", [b"", b"null", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_damaged_note_publishes_nothing(tmp_path: Path, note: bytes) -> None:
    staging = Staging(str(tmp_path / "a.csv"))
    Path(staging.path, "staged-0-0").write_bytes(b"left")
    Path(staging.path, "publish.json").write_bytes(note)
    recover(staging.path, str(tmp_path / "a.csv"))
    staging.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("staged", "final"),
    [
        ("staged-0-0", "../../home/.profile"),
        ("../../home/thesis", "../a.csv"),
        ("../../home/thesis", "../../home/thesis"),
        ("../../home/staged-0-0", "../../home/.profile"),
        ("../../home/b.csv.partial/staged-0-0", "../../home/.profile"),
        ("staged-0-0/../../../home/thesis", "../a.csv"),
        ("staged-0-0", "../link/.profile"),
        (["staged-0-0"], "../a.csv"),
    ],
)
def test_a_note_of_a_stranger_moves_and_removes_nothing(tmp_path: Path, staged: Any, final: str) -> None:
    """In a directory that was unpacked from somewhere, beside the results."""
    home, results = tmp_path / "home", tmp_path / "results"
    home.mkdir()
    results.mkdir()
    (results / "link").symlink_to(home)
    mine = {".profile", "thesis", "staged-0-0", "b.csv.partial"}
    for name in mine - {"b.csv.partial"}:
        (home / name).write_bytes(b"mine")
    (home / "b.csv.partial").mkdir()
    (home / "b.csv.partial" / "staged-0-0").write_bytes(b"mine")
    planted = Staging(str(results / "a.csv"))
    Path(planted.path, "staged-0-0").write_bytes(b"evil")
    note = [{"staged": staged, "final": final, "replace": True}]
    Path(planted.path, "publish.json").write_text(json.dumps(note))
    planted._folder.unlock()
    assert pending(planted.path, str(results / "a.csv")) == []
    write_one(results / "a.csv")
    assert (results / "a.csv").read_bytes() == b"x"
    assert set(os.listdir(home)) == mine
    assert all((home / name).read_bytes() == b"mine" for name in mine - {"b.csv.partial"})
    assert (home / "b.csv.partial" / "staged-0-0").read_bytes() == b"mine"
    assert sorted(os.listdir(results)) == ["a.csv", "link"]


def test_a_note_beside_a_link_to_the_output_is_believed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.csv").symlink_to(tmp_path / "disk" / "real.csv")
    target = str(tmp_path / "a.csv")
    staging = Staging(target)
    notes = []
    for number, final in enumerate(("../../a.csv.meta.json", "../real.csv")):
        Path(staging.path, f"staged-0-{number}").write_bytes(b"new")
        notes.append({"staged": f"staged-0-{number}", "final": final, "replace": False})
    Path(staging.path, "publish.json").write_text(json.dumps(notes))
    staging._folder.unlock()
    assert len(pending(staging.path, target)) == 2
    Staging(target).close()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "a.csv.meta.json").read_bytes() == b"new"
    assert os.listdir(tmp_path / "disk") == ["real.csv"]


@pytest.mark.parametrize("name", ["part-00000.arrow", "run.json", "staged-0-0"])
def test_a_directory_without_our_lock_is_not_ours_whatever_its_files_are_called(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.csv.partial").mkdir()
    (tmp_path / "out.csv.partial" / name).write_text("mine")
    with pytest.raises(OutputError, match=f"contains {name}, which is not from an unfinished run"):
        AtomicFile(str(tmp_path / "out.csv"))
    assert contents(tmp_path) == {f"out.csv.partial/{name}": b"mine"}


def test_an_error_takes_back_a_record_that_may_replace_an_older_one(tmp_path: Path, monkeypatch) -> None:
    files = []
    staging = Staging(str(tmp_path / "out.csv"))
    for name, overwrite in (("out.csv.meta.json", True), ("out.csv", False)):
        files.append(AtomicFile(str(tmp_path / name), overwrite, staging))
        files[-1].stream.write(b"mine")
    rename = disk.rename

    def lose_the_race(source: disk.Path, target: disk.Path) -> None:
        rename(source, target)
        if str(target).endswith(".meta.json"):
            (tmp_path / "out.csv").write_bytes(b"theirs")

    monkeypatch.setattr(disk, "rename", lose_the_race)
    with pytest.raises(OutputError, match=r"out\.csv exists"):
        commit(files)
    for file in files:
        file.discard()
    staging.close()
    assert contents(tmp_path) == {"out.csv": b"theirs"}
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_name_that_somebody_used_after_a_kill_does_not_block_the_output(tmp_path: Path) -> None:
    blocked = 0
    for folder in killed(tmp_path):
        if (folder / "out.csv").exists():
            break
        (folder / "out.csv").write_bytes(b"theirs")
        blocked += (folder / "out.csv.partial" / "publish.json").exists()
        with pytest.raises(OutputError, match=r"out\.csv exists"):
            write_one(folder / "out.csv")
        Staging(str(folder / "out.csv")).close()
        assert (folder / "out.csv").read_bytes() == b"theirs"
        assert not (folder / "out.csv.partial").exists()
    assert blocked


def test_files_of_another_process_are_not_taken_for_those_that_wait_for_their_names(tmp_path: Path) -> None:
    """A process dies while it publishes into two directories; another one then begins to write the second output."""
    met = 0
    for folder in killed(tmp_path):
        if (folder / "out.csv").exists():
            break
        met += (folder / "out.csv.partial" / "publish.json").exists() and not (folder / NAMES[0]).exists()
        other = AtomicFile(str(folder / NAMES[0]), overwrite=True)
        other.stream.write(b"half")
        other.stream.flush()
        before = contents(folder).get(NAMES[0])
        Staging(str(folder / "out.csv")).close()
        assert contents(folder).get(NAMES[0]) == before
        other.discard()
    assert met


def test_rows_that_an_older_version_kept_beside_a_link_are_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out.csv").symlink_to("real/out.csv")
    (tmp_path / "out.csv.partial").mkdir()
    (tmp_path / "out.csv.partial" / "lock").write_bytes(b"process 1 on here\n")
    with pytest.raises(
        OutputError, match=r"out.csv.partial has an unfinished run .* Rename it to .*real/out.csv.partial"
    ):
        AtomicFile(str(tmp_path / "out.csv"))


def test_a_name_that_is_too_long_for_its_record_is_found_at_once(tmp_path: Path) -> None:
    target = str(tmp_path / ("x" * 250))
    staging = Staging(target)
    with pytest.raises(OutputError, match="File name too long"):
        AtomicFile(target + ".meta.json", True, staging)
    staging.close()


def test_a_note_that_cannot_be_read_now_is_an_error_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "system", FaultySystem(str(tmp_path), Fault(0, "EMFILE")))
    with pytest.raises(OutputError, match=r"cannot read .*publish\.json: Too many open files$"):
        pending(str(tmp_path), "x.csv")
