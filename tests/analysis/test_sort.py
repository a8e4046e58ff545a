"""`sort`: where files go, what is refused, and a process that dies at any call that changes a name."""

from __future__ import annotations

import errno
import os
import tarfile
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tables.tablerows import encode, refs
from xcli.analysis.folder_names import Template, candidates, file_name, folder_of, label_of
from xcli.analysis.sort import Sorted, sort_files, undo
from xcli.analysis.sort_plan import IN_PLACE, MODES, SortOptions, plan_sort
from xcli.core.errors import CheckError, ImageError, OutputError, UsageError
from xcli.core.text import escape_path
from xcli.storage import disk
from xcli.tables.csv import CsvWriter
from xcli.tables.formats import open_table
from xcli.tables.rows import classify_batch
from xcli.tables.schema import classify_schema

LABELS = ("cat", "dog", "../../evil", "a/b", "_unsure", "CON", "", "100%", ".hidden")


def write_table(target: Path, rows: list[tuple[str, int, float]], errors: tuple[str, ...] = ()) -> Path:
    """Writes a table of rows: path, class of `LABELS`, score."""
    scores = np.zeros((len(rows) + len(errors), len(LABELS)), np.float32)
    for number, (_, index, score) in enumerate(rows):
        scores[number, index] = score
    schema = classify_schema(1, "name", [])
    paths = [*(path for path, _, _ in rows), *errors]
    problems = [None] * len(rows) + [ImageError("empty", "no bytes")] * len(errors)
    batch = classify_batch(schema, refs([escape_path(path) for path in paths]), problems, scores, LABELS)
    target.write_bytes(encode(CsvWriter, schema, [batch]))
    return target


def make_files(root: Path, count: int) -> Path:
    """Makes files of which every two have the same name, and their table."""
    rows = []
    for number in range(count):
        path = root / "in" / f"d{number % 2}" / f"{number // 2:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"content {number}".encode())
        rows.append((str(path), number // 2 % 2, 0.9))
    return write_table(root / "table.csv", rows)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def sort(table: Path, dest: Path, mode: str = "copy", **more: Any) -> Sorted:
    options = SortOptions(mode=mode, **more)
    return sort_files(plan_sort(open_table(str(table)), options), str(dest), options)


@pytest.mark.parametrize("label", [*LABELS, "x" * 190, "ä ", "tab\t", "\udce4", "nul.txt", "a\\b", "%2F", "%"])
def test_a_label_becomes_a_folder_and_a_label_again(label: str) -> None:
    folder = folder_of(label)
    assert label_of(folder) == label
    assert "/" not in folder
    assert folder.strip(" .") == folder
    assert not folder.startswith("_")


def test_long_labels_stay_apart() -> None:
    first, second = folder_of("ä" * 4000), folder_of("ä" * 4001)
    assert first != second
    assert len(first.encode()) <= 255


def test_names_that_collide_depend_on_the_path_alone() -> None:
    names = [name for name, _ in zip(candidates("a.jpg", "x/a.jpg"), range(3), strict=False)]
    assert names[0] == "a.jpg"
    assert names[1].startswith("a~")
    assert names[2] == names[1].replace(".jpg", "-2.jpg")
    assert all(
        len(os.fsencode(name)) <= 255 for name, _ in zip(candidates("é" * 300 + ".jpg", "p"), "ab", strict=False)
    )
    assert file_name("..") == "%2E%2E"


@pytest.mark.parametrize("text", ["{nothing}", "{", "{name.__class__}", "{name!r}", "{row:{ext}}"])
def test_a_template_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--rename"):
        Template(text, ["path"])


def test_files_are_sorted_and_taken_back(tmp_path: Path) -> None:
    rows = []
    for number, label in enumerate(LABELS):
        path = tmp_path / "in" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(label.encode())
        rows.append((str(path), number, 0.2 if number == 1 else 0.9))
    bad = tmp_path / "in" / os.fsdecode(b"b\xe4d.jpg")
    bad.write_bytes(b"")
    table = write_table(tmp_path / "t.csv", rows, (str(bad), str(tmp_path / "gone.jpg")))
    before = content(tmp_path / "in")
    result = sort(table, tmp_path / "out", "move", min_score=0.5, errors=True, rename="{class}-{stem}-{score_1:.1f}")
    assert (result.done, [reason.reason for _, reason in result.problems]) == (10, ["missing"])
    assert content(tmp_path / "in") == {}
    found = {name: data for name, data in content(tmp_path / "out").items() if not name.startswith("_sort")}
    assert found["cat/cat-0-0.9.jpg"] == b"cat"
    assert found["_unsure/_unsure-1-0.2.jpg"] == b"dog"
    assert found[f"{folder_of('../../evil')}/{folder_of('../../evil')}-2-0.9.jpg"]
    assert len(found) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "t.csv"]
    again = undo(result.log)
    assert [reason.reason for _, reason in again.problems] == ["missing"]
    assert content(tmp_path / "in") == before


def test_nothing_is_overwritten_and_links_are_not_followed(tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 4), tmp_path / "out"
    (out / "cat").mkdir(parents=True)
    (out / "cat" / "0000.jpg").write_bytes(b"of somebody else")
    (out / "cat" / "0001.jpg").symlink_to(tmp_path / "victim")
    (out / "dog").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="link"):
        sort(table, out)
    (out / "dog").unlink()
    result = sort(table, out)
    assert result.done == 4
    assert (out / "cat" / "0000.jpg").read_bytes() == b"of somebody else"
    assert not (tmp_path / "victim").exists()
    undo(result.log)
    assert sorted(content(out)) == ["cat/0000.jpg"]


@pytest.mark.parametrize("mode", MODES)
def test_the_same_command_again_changes_nothing(mode: str, tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 6), tmp_path / "out"
    first = sort(table, out, mode)
    before = content(out)
    assert sort(table, out, mode).done == first.done == 6
    assert content(out) == before


def test_a_table_with_more_rows_does_not_copy_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sort(make_files(tmp_path, 4), out)
    result = sort(make_files(tmp_path, 6), out)
    assert (result.done, result.passed_over) == (2, {IN_PLACE: 4})


def test_a_place_that_is_taken_after_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, out = make_files(tmp_path, 4), tmp_path / "out"

    def taken(system: disk.System, *args: Any) -> None:
        raise FileExistsError(errno.EEXIST, "File exists")

    with monkeypatch.context() as patch:
        patch.setattr(disk.System, "rename_new", taken)
        result = sort(table, out, "move")
    assert len(result.problems) == 4
    assert len(content(tmp_path / "in")) == 4


def test_members_of_archives(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"inside")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "1.jpg", "x/../1.jpg")
    table = write_table(tmp_path / "t.csv", [(f"{tmp_path}/a.tar::x/../1.jpg", 0, 0.9)])
    with pytest.raises(UsageError, match="member of an archive"):
        sort(table, tmp_path / "out", "move")
    result = sort(table, tmp_path / "out")
    assert (tmp_path / "out" / "cat" / "1.jpg").read_bytes() == b"inside"
    undo(result.log)
    assert not (tmp_path / "out").exists()
    table = write_table(tmp_path / "t.csv", [("s3://bucket/a.jpg", 0, 0.9)])
    with pytest.raises(UsageError, match="object of a store"):
        sort(table, tmp_path / "out", "hardlink")


def test_a_changed_copy_stays(tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 2), tmp_path / "out"
    result = sort(table, out)
    (out / "cat" / "0000.jpg").write_bytes(b"edited")
    assert len(undo(result.log).problems) == 1
    assert (out / "cat" / "0000.jpg").read_bytes() == b"edited"
    (out / "evil.jsonl").write_text('{"xception sort": 1, "mode": "copy", "folders": [], "made": true}\n{"to": "../a"}')
    with pytest.raises(CheckError):
        undo(str(out / "evil.jsonl"))


def test_a_destination_in_use(tmp_path: Path) -> None:
    table, out = make_files(tmp_path, 2), tmp_path / "out"
    out.mkdir()
    descriptor = disk.open_directory(str(out))
    assert disk.lock(descriptor)
    with pytest.raises(OutputError, match="another process"):
        sort(table, out)
    os.close(descriptor)


class Killed(BaseException):
    """The end of the process."""


class Mortal(disk.System):
    """Dies after so many calls that have changed a name; nothing that is tried later changes anything.

    `across` lets the sources be on another file system.
    """

    def __init__(self, calls: int, *, across: bool = False) -> None:
        self.left, self.across = calls, across

    def __getattribute__(self, name: str) -> Any:
        call = super().__getattribute__(name)
        changing = (
            "open",
            "rename",
            "link",
            "unlink",
            "mkdir",
            "rmdir",
            "create_in",
            "mkdir_in",
            "rmdir_in",
            "link_in",
        )
        if name not in (*changing, "symlink_in", "unlink_in", "rename_new", "write", "set_status"):
            return call

        def counted(*args: Any) -> Any:
            if self.left == 0:
                raise Killed
            if name == "rename_new" and self.across and None in (args[0], args[2]):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            result = call(*args)
            is_name = name not in ("write", "set_status") and (name != "open" or bool(args[1] & os.O_CREAT))
            self.left -= is_name
            if self.left == 0:
                raise Killed
            return result

        return counted


WAYS = [*MODES, "across"]


def die(monkeypatch: pytest.MonkeyPatch, calls: int, way: str, act: Any) -> bool:
    """Runs something that may change so many names; says whether it has died of it."""
    with monkeypatch.context() as patch:
        patch.setattr(disk, "system", Mortal(calls, across=way == "across"))
        try:
            act()
        except Killed:
            return True
    return False


def check(root: Path, before: dict[str, bytes], way: str) -> None:
    """Every file is in one of its two places (of a move), or intact at its source."""
    # A move back to another file system has its copy there until it is whole.
    here = {name: data for name, data in content(root / "in").items() if not name.endswith(".part")}
    if way not in ("move", "across"):
        assert here == before
        return
    there = [data for name, data in content(root / "out").items() if "/" in name] if (root / "out").exists() else []
    found = sorted([*here.values(), *there])
    if way == "across":  # a copy that is compared is removed at its source in a second step
        found = sorted(set(found))
    assert found == sorted(before.values())


def kill_often(monkeypatch: pytest.MonkeyPatch, root: Path, way: str, lives: list[int]) -> None:
    """Sorts with a process that dies again and again, and takes everything back in the same way."""
    table = root / "table.csv"
    before, mode = content(root / "in"), "move" if way == "across" else way
    numbers = cycle(lives)
    while die(monkeypatch, next(numbers), way, lambda: sort(table, root / "out", mode)):
        check(root, before, way)
    log = next((root / "out").glob("_sort-*.jsonl"))
    names = [str(path) for path in (root / "out").rglob("*") if path.is_file()]
    assert len(names) == len(before) + 1
    numbers = cycle(lives)
    while log.exists() and die(monkeypatch, next(numbers), way, lambda: undo(str(log))):
        check(root, before, way)
    assert content(root / "in") == before
    left = [path.name for path in root.iterdir()]
    assert sorted(set(left) - {"out"}) == ["in", "table.csv"]
    assert not (root / "out").exists() or not any((root / "out").iterdir())


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_every_change_of_a_name(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for calls in range(1, 25):
        root = tmp_path / str(calls)
        make_files(root, 3)
        kill_often(monkeypatch, root, way, [calls, 1000])
    root = tmp_path / "again"
    make_files(root, 8)
    kill_often(monkeypatch, root, way, [1, 2, 3, 4, 5])
