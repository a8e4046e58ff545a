"""`FILE.partial/`: parts that appear whole, a lock, a fingerprint."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.outputs.test_resume import SCHEMA
from xcli.core.errors import OutputError
from xcli.core.records import FileState, ImageRef
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import RowOrder, key_of
from xcli.storage import disk
from xcli.storage.disk import System
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from pathlib import Path

FINGERPRINT = {"provenance": {"precision": "float32"}, "format": "csv"}


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "out.csv")


def rows_of(*names: str) -> pa.RecordBatch:
    columns = [pa.array(names), pa.array(["ok"] * len(names)), pa.array([None] * len(names), pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def ref_of(name: str) -> ImageRef:
    return ImageRef(name, LocalFile("/nowhere/" + name), b"")


def append(journal: PartialFile, *names: str) -> None:
    journal.append(rows_of(*names), [key_of(ref_of(name)) for name in names], [None] * len(names))


def paths(journal: PartialFile, layout: RowOrder) -> list[str]:
    return [path for batch in journal.read(layout, SCHEMA) for path in batch.column("path").to_pylist()]


def parts(target: str) -> list[str]:
    return sorted(name for name in os.listdir(target + ".partial") if name.startswith("part"))


def test_rows_come_back_in_the_order_of_the_layout(target: str) -> None:
    with PartialFile(target, part_rows=2) as journal:
        journal.begin(FINGERPRINT)
        for name in "abcd":
            append(journal, name)
        append(journal, "e")
        assert parts(target) == ["part-00000.arrow", "part-00001.arrow", "part-00002.arrow.tmp"]
        # It dies here: the part in hand was never finished.
        journal._writer = None
    with PartialFile(target, part_rows=2) as journal:
        assert journal.fingerprint == FINGERPRINT
        assert journal.rows == 4
        journal.begin(FINGERPRINT)
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        kept = [layout.keep(ref_of(name)) for name in ("new", "d", "a", "b", "newer", "c", "d")]
        assert kept == [False, True, True, True, False, True, True]
        append(journal, "new", "newer")
        journal.finish_part()
        assert parts(target)[-1] == "part-00002.arrow"
        assert paths(journal, layout) == ["new", "d", "a", "b", "newer", "c", "d"]
        journal.remove()
    assert not os.path.exists(target + ".partial")


def test_a_part_is_finished_after_so_many_seconds(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("xcli.outputs.parts.time.monotonic", lambda: now[0])
    with PartialFile(target, part_rows=1000, part_seconds=30) as journal:
        journal.begin(FINGERPRINT)
        append(journal, "a")
        now[0] = 29.9
        append(journal, "b")
        assert parts(target) == ["part-00000.arrow.tmp"]
        now[0] = 30
        append(journal, "c")
        assert parts(target) == ["part-00000.arrow"]


def test_states_survive(target: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    ref = ImageRef("a", LocalFile(str(tmp_path / "a")), b"")
    with PartialFile(target) as journal:
        journal.begin(FINGERPRINT)
        journal.append(rows_of("a"), [key_of(ref)], [FileState(5, os.stat(tmp_path / "a").st_mtime_ns)])
        journal.finish_part()
    with PartialFile(target) as journal:
        assert journal.finished_rows(retry_errors=False).find(ref) == 0
        os.utime(tmp_path / "a", (1, 1))
        assert journal.finished_rows(retry_errors=False).find(ref) is None


def test_nothing_done_leaves_no_trace(target: str) -> None:
    with pytest.raises(OutputError, match="no room"), PartialFile(target):
        raise OutputError("no room")
    assert not os.path.exists(target + ".partial")


def test_restart_drops_what_is_there(target: str) -> None:
    with PartialFile(target) as journal:
        journal.begin(FINGERPRINT)
        append(journal, "a")
        journal.finish_part()
    with PartialFile(target, restart=True) as journal:
        assert (journal.fingerprint, journal.rows) == (None, 0)


def test_parts_that_nobody_vouches_for_are_not_dropped_unasked(target: str, tmp_path: Path) -> None:
    with PartialFile(target, part_rows=1) as journal:
        journal.begin(FINGERPRINT)
        append(journal, "a")
        append(journal, "b")
    os.unlink(target + ".partial/run.json")
    before = holding(tmp_path)
    with pytest.raises(OutputError, match=r"run\.json cannot be used, it is missing, and part-00000.*Use --restart"):
        PartialFile(target)
    assert holding(tmp_path) == before
    with PartialFile(target, restart=True) as journal:
        assert (journal.rows, parts(target)) == (0, [])
        journal.begin(FINGERPRINT)
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        assert not layout.keep(ref_of("c"))
        append(journal, "c")
        journal.finish_part()
        assert paths(journal, layout) == ["c"]


def test_other_settings_are_refused_by_name(target: str) -> None:
    with PartialFile(target) as journal:
        journal.begin(FINGERPRINT)
    other: dict[str, Any] = {"provenance": {"precision": "bfloat16"}, "format": "csv"}
    message = r"an unfinished run \(0 rows\) with --precision float32, but this run has --precision bfloat16\. "
    message += r"Use --precision float32, another -o, or --restart"
    with PartialFile(target) as journal, pytest.raises(OutputError, match=message):
        journal.begin(other)
    assert os.path.exists(target + ".partial")


def test_a_second_process_is_told_who_has_the_file(target: str) -> None:
    holder = rf"is being written by process {os.getpid()} on {socket.gethostname()}; wait for it"
    with PartialFile(target) as journal:
        journal.begin(FINGERPRINT)
        with pytest.raises(OutputError, match=holder):
            PartialFile(target)
    # The lock goes with its holder, whatever the file says.
    with PartialFile(target) as journal:
        assert journal.fingerprint == FINGERPRINT


def test_a_damaged_part_is_computed_again(target: str, caplog: pytest.LogCaptureFixture) -> None:
    with PartialFile(target, part_rows=1) as journal:
        journal.begin(FINGERPRINT)
        append(journal, "a")
        append(journal, "b")
    path = os.path.join(target + ".partial", "part-00000.arrow")
    with open(path, "r+b") as file:
        file.truncate(100)
    with PartialFile(target, part_rows=1) as journal:
        assert journal.rows == 1
        assert "part-00000.arrow is damaged" in caplog.text
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        assert [layout.keep(ref_of(name)) for name in "ab"] == [False, True]
        append(journal, "a")
        assert paths(journal, layout) == ["a", "b"]


def test_a_part_that_goes_missing_during_the_run_is_noticed(target: str) -> None:
    with PartialFile(target, part_rows=1) as journal:
        journal.begin(FINGERPRINT)
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        assert not layout.keep(ref_of("a"))
        append(journal, "a")
        os.unlink(os.path.join(target + ".partial", "part-00000.arrow"))
        with pytest.raises(OutputError, match="was damaged during the run"):
            paths(journal, layout)


def test_a_part_that_shrinks_while_it_is_read_is_set_aside(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file would end the process with SIGBUS."""
    monkeypatch.setattr("xcli.outputs.checked_file._FRAME_BYTES", 100_000)
    monkeypatch.setattr("xcli.outputs.parts.rows_per_group", lambda schema: 200)
    names = [f"{n:02000}" for n in range(1500)]  # more than a buffer holds
    with PartialFile(target, part_rows=len(names)) as journal:
        journal.begin(FINGERPRINT)
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        for name in names:
            assert not layout.keep(ref_of(name))
        for begin in range(0, len(names), 50):
            append(journal, *names[begin : begin + 50])
        rows = journal.read(layout, SCHEMA)
        next(rows)
        os.truncate(os.path.join(target + ".partial", "part-00000.arrow"), 20_000)
        with pytest.raises(OutputError, match=r"was damaged during the run: .*part-00000\.arrow is damaged"):
            list(rows)
    assert parts(target) == ["part-00000.arrow.damaged"]


class Counting(System):
    """Counts the files that are open at once."""

    def __init__(self) -> None:
        self.now: set[int] = set()
        self.most = 0

    def open(self, path: Any, flags: int, mode: int = 0o666) -> int:
        descriptor = super().open(path, flags, mode)
        self.now.add(descriptor)
        self.most = max(self.most, len(self.now))
        return descriptor

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self.now.discard(descriptor)


def test_many_parts_take_few_descriptors_and_no_mappings(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{n:03}" for n in range(200)]
    with PartialFile(target, part_rows=1) as journal:
        journal.begin(FINGERPRINT)
        for name in names:
            append(journal, name)
    counting = Counting()
    monkeypatch.setattr(disk, "system", counting)
    with PartialFile(target) as journal:
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        assert all(layout.keep(ref_of(name)) for name in names)
        found = []
        for batch in journal.read(layout, SCHEMA):
            found += batch.column("path").to_pylist()
            assert ".partial/part" not in Path("/proc/self/maps").read_text()
        assert found == names
    assert counting.most < 15
    assert not counting.now


def test_from_part_100_000_on_the_order_is_that_of_numbers(target: str) -> None:
    with PartialFile(target, part_rows=1) as journal:
        journal.begin(FINGERPRINT)
        journal._next = 99_998
        for name in "abcd":
            append(journal, name)
    assert parts(target)[:2] == ["part-100000.arrow", "part-100001.arrow"]
    with PartialFile(target, part_rows=1) as journal:
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        assert [layout.keep(ref_of(name)) for name in "abxcd"] == [True, True, False, True, True]
        append(journal, "x")
        assert "part-100002.arrow" in parts(target)
        assert paths(journal, layout) == ["a", "b", "x", "c", "d"]


def test_rows_of_other_images_are_noticed_even_if_their_number_is_right(target: str) -> None:
    with PartialFile(target, part_rows=1) as journal:
        journal.begin(FINGERPRINT)
        layout = RowOrder(journal.finished_rows(retry_errors=False))
        for name in "ab":
            assert not layout.keep(ref_of(name))
        append(journal, "a")
        append(journal, "a")
        with pytest.raises(OutputError, match="does not have the rows of the sources, each once and in order"):
            paths(journal, layout)


def test_an_unreadable_journal_is_refused(target: str) -> None:
    os.mkdir(target + ".partial")
    Path(target + ".partial/lock").write_text("process 1 on here\n")
    with open(target + ".partial/run.json", "w") as file:
        file.write('{"provenance"')
    with pytest.raises(OutputError, match=r"cannot be continued.*--restart"):
        PartialFile(target)
    with PartialFile(target, restart=True) as journal:
        assert journal.fingerprint is None


def test_the_fingerprint_is_what_json_gives_back(target: str) -> None:
    with PartialFile(target) as journal:
        journal.begin({"schema": ("a", "b\\udcff")})
    with PartialFile(target) as journal:
        journal.begin({"schema": ("a", "b\\udcff")})
        with open(target + ".partial/run.json", encoding="utf-8") as file:
            assert json.load(file)["schema"] == ["a", "b\\udcff"]


def holding(folder: Path) -> list[tuple[str, bytes | None]]:
    return sorted((str(path), path.read_bytes() if path.is_file() else None) for path in folder.rglob("*"))


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "lock", "photos/a.jpg", "part-1.arrow"])
def test_a_directory_of_the_user_is_left_alone(name: str, restart: bool, target: str, tmp_path: Path) -> None:
    path = tmp_path / "out.csv.partial" / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    (tmp_path / "out.csv.partial" / "run.json").write_text("{}")
    before = holding(tmp_path)
    with pytest.raises(OutputError, match=r"partial contains .*, which is not from an unfinished run\. Move it"):
        PartialFile(target, restart=restart)
    assert holding(tmp_path) == before


def test_a_link_in_place_of_the_parts_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.csv.partial").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"out\.csv\.partial is a symbolic link"):
        PartialFile(target)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_others_put_there_meanwhile_stays(target: str, tmp_path: Path) -> None:
    with PartialFile(target) as journal:
        journal.begin(FINGERPRINT)
        append(journal, "a")
        journal.finish_part()
        (tmp_path / "out.csv.partial" / "note.txt").write_text("theirs")
        journal.remove()
    assert os.listdir(tmp_path / "out.csv.partial") == ["note.txt"]
