"""What a finish and a continuation cost, by counting: frames read, files opened, bytes a row."""

from __future__ import annotations

import errno
import os
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.generated_rows import GeneratedListing, GeneratedRun, save_rows
from tests.outputs.test_partial_file import FINGERPRINT, ref_of
from tests.outputs.test_resume import SCHEMA
from xcli.core.errors import OutputError
from xcli.outputs.checked_file import CheckedReader, CheckedWriter, Part
from xcli.outputs.ordered_rows import _write_run
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import FinishedRows, RowOrder, key_of, state_fields
from xcli.tables.formats import create_table
from xcli.tables.provenance import provenance_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def batch_of(names: Sequence[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"path": name, "status": "ok", "error": None} for name in names], SCHEMA)


def append(parts: PartialFile, names: Sequence[str]) -> None:
    parts.append(batch_of(names), [key_of(ref_of(name)) for name in names], [None] * len(names))


class Reads:
    """Counts the frames that are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames = 0
        read = CheckedReader._read

        def counted(reader: CheckedReader, offset: int, length: int) -> bytes:
            self.frames += hasattr(reader, "_frames")
            return read(reader, offset, length)

        monkeypatch.setattr(CheckedReader, "_read", counted)


def test_a_part_has_one_batch_however_small_those_of_the_engine_are(tmp_path: Path) -> None:
    target = str(tmp_path / "a.csv")
    with PartialFile(target, part_rows=100) as parts:
        parts.begin(FINGERPRINT)
        for first in range(0, 100, 4):
            append(parts, [f"{number}" for number in range(first, first + 4)])
        with parts._open("part-00000.arrow") as reader:
            assert [batch.num_rows for batch in reader.batches()] == [100]


def test_a_part_of_large_rows_has_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcli.outputs.checked_file._FRAME_BYTES", 1000)
    writer = CheckedWriter(tmp_path / "part")
    for number in range(10):
        writer.write(batch_of([f"{number:>300}"]))
        assert writer.rows == number + 1
    writer.close(7)
    with CheckedReader(open(tmp_path / "part", "rb"), 7) as reader:
        assert [batch.num_rows for batch in reader.batches()] == [4, 4, 2]
        rows = pa.Table.from_batches(reader.take(np.array([0, 3, 3, 5, 9]), ["path"]))
        assert [int(path) for path in rows.column("path").to_pylist()] == [0, 3, 3, 5, 9]


@pytest.mark.parametrize("redone", ["at random", "in another order", "one path in two"])
def test_each_part_is_read_a_few_times_wherever_rows_were_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redone: str
) -> None:
    """The walk once went from range to range: ten thousand reads for these thousand rows in a hundred parts."""
    monkeypatch.setattr("xcli.outputs.parts.rows_per_group", lambda schema: 400)  # 100 rows at a time
    names = [f"{number:04}" for number in range(1000)]
    chosen = set(random.Random(1).sample(names, 100))
    if redone == "one path in two":
        chosen = set(names[::2])
    with PartialFile(str(tmp_path / "a.csv"), part_rows=10) as parts:
        parts.begin(FINGERPRINT)
        for first in range(0, 1000, 5):
            append(parts, names[first : first + 5])
    if redone == "in another order":
        names = sorted(names, key=lambda name: name[::-1])
    with PartialFile(str(tmp_path / "a.csv"), part_rows=10) as parts:
        order = RowOrder(parts.finished_rows(retry_errors=False))
        renamed = [name + "x" if name in chosen else name for name in names]
        new = [name for name in renamed if not order.keep(ref_of(name))]
        assert len(new) == len(chosen)
        for first in range(0, len(new), 5):
            append(parts, new[first : first + 5])
        parts.finish_part()
        reads = Reads(monkeypatch)
        found = [path for batch in parts.read(order, SCHEMA) for path in batch.column("path").to_pylist()]
        assert found == renamed
        assert reads.frames <= 250
    assert not temporary_files(parts)


def test_a_row_order_keeps_few_bytes_and_gives_numbers_in_pieces() -> None:
    order = RowOrder(FinishedRows([], retry_errors=False))
    for row in (*range(200_000), 7, *range(300_000, 300_010), 7, 7):
        order._add(row)
    assert len(order._firsts) == len(order._counts) == 4 + 4
    assert order._firsts.itemsize + order._counts.itemsize == 10
    pieces = list(order.numbers(150_000))
    assert [len(piece) for piece in pieces] == [150_000, 50_013]
    assert np.concatenate(pieces).tolist() == [*range(200_000), 7, *range(300_000, 300_010), 7, 7]


def test_the_index_of_finished_rows_takes_thirty_bytes_a_row() -> None:
    rows, parts = 1000, 200
    columns = [pa.array(["ok"] * rows), pa.nulls(rows, pa.string())]
    schema = pa.schema([*list(SCHEMA)[1:], *state_fields()])

    def tables() -> Any:
        for part in range(parts):
            keys = np.random.default_rng(part).integers(1 << 63, size=rows, dtype=np.uint64)
            numbers = pa.array(np.arange(rows))
            yield pa.Table.from_arrays([*columns, pa.array(keys), numbers, numbers], schema=schema)

    next(tables())
    tracemalloc.start()
    try:
        kept = FinishedRows(tables(), retry_errors=False)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == rows * parts
    assert kept.not_found() == rows * parts
    assert now < 31 * rows * parts
    assert peak < 40 * rows * parts


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "npy"])
def test_a_file_has_the_bytes_of_a_table_that_was_written_at_once(tmp_path: Path, form: str) -> None:
    """Whatever the batches, and wherever rows were redone; row groups and lines are those of one large batch."""
    width = 3 if form == "npy" else 0
    target, rows = tmp_path / f"a.{form}", 3001
    size: dict[str, Any] = {"rows": rows, "batch": 16, "width": width}
    first = tmp_path / f"first.{form}"
    save_rows(str(first), keep=f"{target}.partial", **size)
    save_rows(str(target), changed=0.1, errors_out=str(tmp_path / "errors"), **size)

    run = GeneratedRun(GeneratedListing(rows), rows, width, lambda: None)
    (_, whole), *_ = run.batches(RowOrder(FinishedRows([], retry_errors=False)))
    made = run.provenance("features" if width else "classify") | {"batch_size": 16}
    with create_table(form, str(tmp_path / f"b.{form}"), whole.schema, provenance_metadata(made), False) as table:
        table.write(whole)
    for one in tmp_path.glob(f"b.{form}*"):
        for other in (target, first):
            assert one.read_bytes() == (tmp_path / one.name.replace("b.", f"{other.stem}.", 1)).read_bytes()
    failed = [row["path"] for row in whole.select(["path", "status"]).to_pylist() if row["status"] == "error"]
    assert os.fsencode("\0".join([*failed, ""])) == (tmp_path / "errors").read_bytes()


@pytest.fixture
def reordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PartialFile, RowOrder, list[str]]]:
    """Parts of an earlier run, and another order of the same images, one of them twice."""
    monkeypatch.setattr("xcli.outputs.parts.rows_per_group", lambda schema: 400)
    monkeypatch.setattr("xcli.outputs.ordered_rows._RUN_BYTES", 1000)
    names = [f"{number:04}" for number in range(1000)]
    with PartialFile(str(tmp_path / "a.csv"), part_rows=10) as parts:
        parts.begin(FINGERPRINT)
        for first in range(0, 1000, 10):
            append(parts, names[first : first + 10])
    names = [*sorted(names, key=lambda name: name[::-1]), "0123"]
    with PartialFile(str(tmp_path / "a.csv"), part_rows=10) as parts:
        order = RowOrder(parts.finished_rows(retry_errors=False))
        assert all(order.keep(ref_of(name)) for name in names)
        yield parts, order, names


def temporary_files(parts: PartialFile) -> list[str]:
    return [os.path.join(parts._folder.name, name) for name in parts._folder.names() if name.endswith(".tmp")]


def test_a_path_listed_twice_has_two_rows_in_another_order_too(reordered: Any) -> None:
    parts, order, names = reordered
    rows = parts.read(order, SCHEMA)
    found = next(rows).column("path").to_pylist()
    assert len(temporary_files(parts)) == 5
    found += [path for batch in rows for path in batch.column("path").to_pylist()]
    assert found == names
    assert not temporary_files(parts)


@pytest.mark.parametrize("window", [400, 4_000])
def test_long_rows_are_put_in_order_a_few_at_a_time(
    reordered: Any, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """With the larger window the parts are read in place, otherwise through temporary files."""
    parts, order, names = reordered
    monkeypatch.setattr("xcli.outputs.parts.rows_per_group", lambda schema: window)
    monkeypatch.setattr("xcli.outputs.ordered_rows.GATHERED_BYTES", 500)
    batches = list(parts.read(order, SCHEMA))
    assert [path for batch in batches for path in batch.column("path").to_pylist()] == names
    assert len(batches) >= 1000 // 32
    assert max(batch.nbytes for batch in batches) <= 500


def test_a_temporary_file_that_is_damaged_is_noticed(reordered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, order, _ = reordered

    def damaged(path: str, rows: Iterator[pa.RecordBatch]) -> Part:
        run = _write_run(path, rows)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            file.write(b"damage")
        return run

    monkeypatch.setattr("xcli.outputs.ordered_rows._write_run", damaged)
    with pytest.raises(
        OutputError, match=r"arrow\.tmp was damaged during the run: .*digest.* Run the same command again"
    ):
        list(parts.read(order, SCHEMA))
    assert not temporary_files(parts)


def test_no_room_for_temporary_files_keeps_the_parts(reordered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, order, names = reordered
    write = CheckedWriter._write_frame

    def full(writer: CheckedWriter) -> None:
        if "part-00101" in writer.path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer)

    monkeypatch.setattr(CheckedWriter, "_write_frame", full)
    with pytest.raises(OutputError, match=r"cannot write .*part-00101\.arrow\.tmp: No space left on device"):
        list(parts.read(order, SCHEMA))
    assert not temporary_files(parts)
    monkeypatch.undo()
    assert sum(batch.num_rows for batch in parts.read(order, SCHEMA)) == len(names)
