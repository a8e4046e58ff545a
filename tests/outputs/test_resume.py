"""Which rows hold, and the order of the output."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from xcli.core.errors import ImageError
from xcli.core.records import FileState, ImageRef
from xcli.outputs.base_rows import BaseRows, OutputRows
from xcli.outputs.resume import KEY, MTIME, SIZE, STATE_COLUMNS, FinishedRows, RowOrder, key_of, plain_key, state_fields
from xcli.sources.archives.tar_stream import TarMember
from xcli.storage.local import LocalFile
from xcli.storage.readers import FileIdentity

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = pa.schema([pa.field("path", pa.string()), pa.field("status", pa.string()), pa.field("error", pa.string())])


def table_of(*rows: tuple[ImageRef, FileState | None, str | None]) -> pa.Table:
    columns = [
        pa.array([ref.path for ref, _, _ in rows], pa.string()),
        pa.array(["ok" if error is None else "error" for _, _, error in rows], pa.string()),
        pa.array([error for _, _, error in rows], pa.string()),
        pa.array([key_of(ref) for ref, _, _ in rows], pa.uint64()),
        pa.array([stamp and stamp.size for _, stamp, _ in rows], pa.int64()),
        pa.array([stamp and stamp.mtime for _, stamp, _ in rows], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema([*SCHEMA, *state_fields()]))


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    found = []
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * (number + 1))
        found.append(ImageRef(f"{number}.jpg", LocalFile(str(tmp_path / f"{number}.jpg")), b""))
    return found


def test_a_row_holds_while_its_file_is_as_it_was(refs: list[ImageRef]) -> None:
    kept = FinishedRows([table_of(*((ref, ref.location.state(), None) for ref in refs))], retry_errors=False)
    assert [kept.find(ref) for ref in refs] == [0, 1, 2, 3, 4]
    os.utime(refs[1].location, ns=(1, 1))
    assert os.path.getsize(refs[2].location) == 3
    with open(refs[2].location, "ab") as file:
        file.write(b"more")
    os.unlink(refs[3].location)
    assert [kept.find(ref) for ref in refs] == [0, None, None, None, 4]
    assert kept.find(ImageRef("new.jpg", LocalFile("new.jpg"), b"")) is None


@pytest.mark.parametrize("year", [1500, 1677, 1969, 2300, 9999])
def test_a_time_that_64_bits_cannot_hold_is_kept_as_the_nearest(
    refs: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    """Whatever the clock of a camera or a restored backup has written: file systems hold other ranges than this test's
    may, so the result of `stat` is replaced."""
    real = os.stat
    found = SimpleNamespace(st_size=3, st_mtime_ns=(year - 1970) * 31_556_952 * 10**9)
    monkeypatch.setattr(os, "stat", lambda path, **more: found if path == refs[0].location.file else real(path, **more))
    member = TarMember("x.tar", 0, 1, FileIdentity(0, 0, 3, found.st_mtime_ns))
    monkeypatch.setattr("xcli.sources.archives.members.is_url", lambda path: path == "x.tar")
    state = refs[0].location.state()
    assert state is not None
    assert state == member.state()
    kept = FinishedRows([table_of((refs[0], state, None))], retry_errors=False)
    assert kept.find(refs[0]) == 0


def test_the_newest_of_several_rows_counts(refs: list[ImageRef]) -> None:
    stamp = refs[0].location.state()
    old, new = (
        table_of((refs[0], FileState(9, 9), None), (refs[1], refs[1].location.state(), None)),
        table_of((refs[0], stamp, None)),
    )
    assert FinishedRows([old, new], retry_errors=False).find(refs[0]) == 2
    assert FinishedRows([new, old], retry_errors=False).find(refs[0]) is None


def test_error_rows_are_tried_again_only_when_asked(refs: list[ImageRef]) -> None:
    table = table_of(
        (refs[0], refs[0].location.state(), None), (refs[1], refs[1].location.state(), "truncated: ends early")
    )
    assert [FinishedRows([table], retry_errors=False).find(ref) for ref in refs[:2]] == [0, 1]
    assert [FinishedRows([table], retry_errors=True).find(ref) for ref in refs[:2]] == [0, None]


def test_what_could_not_be_looked_at_holds_until_it_can_be(refs: list[ImageRef], tmp_path: Path) -> None:
    gone = ImageRef("gone.jpg", LocalFile(str(tmp_path / "gone.jpg")), b"")
    listed_as_error = ImageRef("2.jpg", refs[2].location, b"", ImageError("unreadable", "x"))
    table = table_of((gone, None, "missing: no such file"), (listed_as_error, None, "unreadable: x"))
    kept = FinishedRows([table], retry_errors=False)
    assert [kept.find(gone), kept.find(listed_as_error), kept.find(refs[2])] == [0, 1, None]
    (tmp_path / "gone.jpg").write_bytes(b"back")
    assert kept.find(gone) is None


def test_keys_tell_carried_values_and_places_in_archives_apart(refs: list[ImageRef]) -> None:
    def member(offset: int) -> TarMember:
        return TarMember(refs[0].location.path, offset, 1, FileIdentity(0, 0, 0, 0))

    same = [ImageRef("a", LocalFile("/a"), b"", None, extra) for extra in ((), (1,), ("1",), (None,))]
    same += [ImageRef("a", member(offset), b"") for offset in (0, 512)]
    assert len({key_of(ref) for ref in same}) == 6
    assert same[-1].location.state() == refs[0].location.state()
    assert key_of(same[0]) == key_of(ImageRef("a", LocalFile("/elsewhere"), b"other"))


def test_a_layout_orders_old_and_new_rows(refs: list[ImageRef]) -> None:
    bad = ImageRef("3.jpg", refs[3].location, b"")
    table = table_of(
        (refs[4], refs[4].location.state(), None),
        (refs[0], refs[0].location.state(), None),
        (refs[1], refs[1].location.state(), None),
        (bad, bad.location.state(), "corrupt: broken"),
    )
    layout = RowOrder(FinishedRows([table], retry_errors=False))
    assert [layout.keep(ref) for ref in refs] == [True, True, False, True, True]
    assert not layout.keep(ImageRef("new", LocalFile("new"), b""))
    assert list(layout.ranges()) == [(1, 3), (4, 5), (3, 4), (0, 1), (5, 6)]
    assert (layout.ok, layout.errors, layout.rows) == (3, {"corrupt": 1}, 6)


def test_a_run_without_a_past_is_one_range(refs: list[ImageRef]) -> None:
    layout = RowOrder(FinishedRows([], retry_errors=False))
    assert not any(layout.keep(ref) for ref in refs)
    assert list(layout.ranges()) == [(0, 5)]


def test_a_path_that_is_listed_many_times_takes_as_many_steps(refs: list[ImageRef]) -> None:
    """In seconds, and not in hours, as when every row looked at all the rows before it."""
    rows, ref = 50_000, refs[0]
    key, state = plain_key(ref.path), ref.location.state()
    assert state is not None
    numbers = {KEY: [key] * rows, SIZE: [state.size] * rows, MTIME: [state.mtime] * rows}
    columns = [pa.array(numbers[field.name], field.type) for field in state_fields()]
    table = pa.table([pa.repeat("ok", rows), pa.nulls(rows, pa.string()), *columns], names=STATE_COLUMNS)
    kept = OutputRows(BaseRows(table))
    assert [kept.find(ref, key) for _ in range(rows)] == list(range(rows))
    assert (kept.find(ref, key), kept.gone()) == (rows - 1, 0)
