"""One part of a directory and its sidecar, on a disk and in an object store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.outputs.test_partial_file import ref_of, rows_of
from tests.outputs.test_resume import SCHEMA
from xcli.core.errors import CheckError
from xcli.core.records import FileState
from xcli.outputs.part_files import PartWriter, count_rows, part_name, read_sidecar, sidecar_name
from xcli.outputs.resume import key_of
from xcli.storage.directories import Folder, open_folder
from xcli.tables.parquet import part_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.objectstore import ObjectStore


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    target = f"{tmp_path}/out"
    if request.param == "store":
        store: ObjectStore = request.getfixturevalue("s3")
        target = store.url(store.prefix())
    folder = open_folder(target)
    folder.make()
    yield folder
    folder.close()


def writer_of(folder: Folder, number: int, *names: str) -> PartWriter:
    writer = PartWriter(folder, number, {"xception": "{}"})
    for name in names:
        writer.add(rows_of(name), [key_of(ref_of(name))], [FileState(5, 7)])
    return writer


def test_a_part_and_what_is_known_of_it(folder: Folder) -> None:
    writer = writer_of(folder, 12, "a", "b")
    assert not {part_name(12), sidecar_name(12)} & set(folder.names())
    assert read_sidecar(folder, 12) is None
    writer.finish(note={"block": "x\u00e9"})
    assert folder.names() == ["_part-00012.arrow", "part-00012.parquet"]
    rows = pq.read_table(folder.local(part_name(12)))
    assert rows.column("path").to_pylist() == ["a", "b"]
    assert rows.schema.metadata[b"xception"] == b"{}"
    found = read_sidecar(folder, 12)
    assert found is not None
    table, note, part = found
    assert part.rows == 2
    assert note == {"block": "x\u00e9"}
    assert table.to_pydict() == {
        "path": ["a", "b"],
        "status": ["ok", "ok"],
        "error": [None, None],
        "xception:key": [key_of(ref_of("a")), key_of(ref_of("b"))],
        "xception:size": [5, 5],
        "xception:mtime": [7, 7],
    }


def test_another_process_finds_it_too(folder: Folder) -> None:
    writer_of(folder, 0, "a").finish()
    other = open_folder(folder.name)
    found = read_sidecar(other, 0)
    other.close()
    assert found is not None
    assert found[1] == {}


def test_a_part_that_is_not_whole_does_not_count(folder: Folder) -> None:
    for number, names in enumerate(["ab", "cd", "ef", "g"]):
        writer_of(folder, number, *names).finish()
    folder.unlink(sidecar_name(0))
    folder.unlink(part_name(1))
    folder.write(part_name(2), (folder.read(part_name(2)) or b"")[:-20])
    folder.write(part_name(3), folder.read(part_name(2)) or b"")
    folder.write(sidecar_name(3), b"")
    other = open_folder(folder.name)
    assert [read_sidecar(other, number) for number in (0, 1, 4)] == [None] * 3, "missing is not damaged"
    for number, message in ((2, "its digest is not the one in its sidecar"), (3, "it is no whole part")):
        with pytest.raises(CheckError, match=message):
            read_sidecar(other, number)
    other.close()


def test_another_part_than_the_sidecar_describes(folder: Folder) -> None:
    writer_of(folder, 0, "a", "b").finish()
    writer_of(folder, 1, "a").finish()
    folder.write(part_name(0), folder.read(part_name(1)) or b"")
    with pytest.raises(CheckError, match="its digest"):
        read_sidecar(folder, 0)
    assert read_sidecar(folder, 1) is not None
    folder.write(sidecar_name(0), folder.read(sidecar_name(1)) or b"")
    with pytest.raises(CheckError, match="it is part 1"):
        read_sidecar(folder, 0)


@pytest.mark.parametrize("trailer", [{}, {"table": []}, {"table": 7}, {"table": [1, "x"], "note": ["x"]}])
def test_a_sidecar_that_no_run_has_written_is_damage(
    folder: Folder, trailer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = PartWriter._write_sidecar
    monkeypatch.setattr(PartWriter, "_write_sidecar", lambda writer, _: write(writer, trailer))
    writer_of(folder, 12, "a").finish()
    with pytest.raises(CheckError, match="trailer"):
        read_sidecar(folder, 12, check=False)


def test_a_part_without_rows(folder: Folder) -> None:
    writer_of(folder, 0).finish()
    assert folder.names() == []
    writer_of(folder, 0).finish(SCHEMA, {"a": "b"})
    assert pq.read_table(folder.local(part_name(0))).schema.names == SCHEMA.names
    found = read_sidecar(folder, 0)
    assert found is not None
    assert (found[0].num_rows, found[1]) == (0, {"a": "b"})


def test_giving_up_leaves_nothing(folder: Folder) -> None:
    writer = writer_of(folder, 0, "a")
    scratch = writer._scratch
    assert os.path.exists(scratch)
    writer.abandon()
    writer.abandon()
    assert folder.names() == []
    assert not os.path.exists(scratch)


def test_a_part_that_cannot_be_finished_leaves_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(folder, 0, "a")
    publish = type(folder).publish

    def fail(self: Folder, scratch: str, name: str, *, keep: bool = False) -> None:
        if name == part_name(0):
            raise KeyboardInterrupt
        publish(self, scratch, name, keep=keep)

    monkeypatch.setattr(type(folder), "publish", fail)
    with pytest.raises(KeyboardInterrupt):
        writer.finish()
    assert folder.names() == [sidecar_name(0)], "a sidecar without a part means nothing"
    assert read_sidecar(folder, 0) is None


def test_two_at_one_part_leave_one(folder: Folder) -> None:
    one, other = writer_of(folder, 3, "a"), writer_of(folder, 3, "a")
    one.finish()
    other.finish()
    assert folder.names() == [sidecar_name(3), part_name(3)]
    assert read_sidecar(folder, 3) is not None


def test_a_long_footer(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcli.outputs.part_files._FOOTER", 16)
    writer_of(folder, 0, "a", "b").finish()
    assert count_rows(folder, part_name(0)) == 2


def test_names() -> None:
    assert (part_name(7), sidecar_name(123456)) == ("part-00007.parquet", "_part-123456.arrow")
    assert [part_number(name) for name in ("part-00007.parquet", "part-123456.parquet")] == [7, 123456]


def test_columns_that_are_carried_along(folder: Folder) -> None:
    schema = pa.schema([*SCHEMA, pa.field("features", pa.list_(pa.float32(), 2)), pa.field("class", pa.string())])
    row = {"path": "a", "status": "ok", "error": None, "features": [1.0, 2.0], "class": "x"}
    writer = PartWriter(folder, 0, {})
    writer.add(pa.RecordBatch.from_pylist([row], schema), [1], [None])
    writer.finish()
    assert pq.read_table(folder.local(part_name(0))).to_pylist() == [row]
