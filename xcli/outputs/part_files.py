"""One part of a dataset: `part-00000.parquet` with rows, `_part-00000.arrow` with what became of each of its inputs.

Whoever has a folder and a number can write one: the run of one process (`xcli.outputs.dataset`), or many at once.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.resume import state_columns, state_fields
from xcli.storage.streams import CheckedStream, write_errors
from xcli.storage.temporary import unique_name
from xcli.tables.parquet import ParquetWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.storage.directories import Folder

log = logging.getLogger("xcli")

_PART = re.compile(r"part-([0-9]{5,})\.parquet")
_FOOTER = 1 << 16  # most are shorter


def part_name(number: int) -> str:
    """Name of the part of that number, from 0."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int | None:
    """The number of a part by its name; None for any other name."""
    match = _PART.fullmatch(name)
    return None if match is None else int(match[1])


def notes_name(number: int) -> str:
    """Name of the file that says what became of each of its inputs."""
    return f"_part-{number:05d}.arrow"


class PartWriter:
    """One part of a dataset: its rows, and the notes on its inputs. Nothing of it shows before `finish`.

    It needs neither lock nor numbering: any number of processes may write parts of different numbers at once, and two
    that write the same rows under one number leave one part.

    Args:
        folder: where the parts are; made already.
        number: of this part, from 0.
        metadata: of the Parquet file, text by key.
        keep: the notes will be asked for in this process, so that a copy of them on this machine is of use.

    Raises:
        OutputError: when the part cannot be written; after `add`, `abandon` it.
    """

    def __init__(
        self,
        folder: Folder,
        number: int,
        metadata: Mapping[str, str],
        *,
        keep: bool = True,
    ) -> None:
        self._keep = keep
        self._folder, self.number, self._metadata = folder, number, metadata
        # Whoever died at this number, or works at it in another process, has files of other names.
        self._scratch = folder.scratch(unique_name(f"_{part_name(number)}"))
        self._notes_scratch = folder.scratch(unique_name(notes_name(number)))
        self._sink: ParquetWriter | None = None
        self._stream: CheckedStream | None = None
        self._notes: list[pa.RecordBatch] = []

    def add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Adds rows behind all others.

        Args:
            rows: b rows.
            keys, states: of their inputs; see `xcli.outputs.resume`.
        """
        self.add_noted(rows, _notes_on(rows, keys, states))

    def add_noted(self, rows: pa.RecordBatch, notes: pa.RecordBatch) -> None:
        """Adds rows with notes that were read back."""
        if self._sink is None:
            self._open(rows.schema)
        assert self._sink is not None
        self._sink.write(rows)
        self._notes.append(notes)

    def _open(self, schema: pa.Schema) -> None:
        with write_errors(self._folder.name):
            self._stream = CheckedStream(open(self._scratch, "wb"), self._scratch)  # noqa: SIM115 - closed by finish
        self._sink = ParquetWriter(self._stream, schema, self._metadata)

    def finish(self, schema: pa.Schema | None = None, note: Mapping[str, str] | None = None) -> None:
        """Makes the part appear: its notes first, so that no part is ever without them.

        Args:
            schema: that of the rows, for a part without any; None makes none then.
            note: text by key, kept with the notes.
        """
        import pyarrow as pa

        if self._sink is None:
            if schema is None:
                return
            self._open(schema)
            lead = pa.schema([schema.field(name) for name in STATUS_COLUMNS])
            empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in lead], schema=lead)
            self._notes.append(_notes_on(empty, [], []))
        assert self._sink is not None
        assert self._stream is not None
        try:
            self._sink.close()
            self._stream.close()
            with write_errors(self._folder.name):
                self._write_notes(note)
            self._folder.publish(self._notes_scratch, notes_name(self.number), keep=self._keep)
            self._folder.publish(self._scratch, part_name(self.number))
        except BaseException:
            self.abandon()
            raise

    def _write_notes(self, note: Mapping[str, str] | None) -> None:
        import pyarrow as pa

        schema = self._notes[0].schema.with_metadata(None if note is None else dict(note))
        with pa.ipc.new_file(self._notes_scratch, schema) as writer:
            for batch in self._notes:
                writer.write_batch(batch)

    def abandon(self) -> None:
        """Gives up: the part does not appear, and nothing is left of it."""
        if self._sink is not None:
            self._sink.abandon()
        if self._stream is not None:
            self._stream.drop()
        for scratch in (self._scratch, self._notes_scratch):
            with suppress(OSError):
                os.unlink(scratch)


def _notes_on(rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> pa.RecordBatch:
    import pyarrow as pa

    lead = rows.select(list(STATUS_COLUMNS))
    schema = pa.schema([*lead.schema, *state_fields()])
    return pa.RecordBatch.from_arrays([*lead.columns, *state_columns(keys, states)], schema=schema)


def read_notes(folder: Folder, number: int) -> tuple[pa.Table, dict[str, str]] | None:
    """What became of the inputs of a part, read into memory.

    Args:
        folder: where the part is.
        number: of the part.

    Returns:
        A table of path, status, error, key, size and time of modification (`xcli.outputs.resume`), one row an input,
        and the note that the `PartWriter` was given. None where the part is not there, or is not whole: damaged,
        without notes, or with another number of rows than they have.

    Raises:
        OutputError: the object store cannot be asked.
    """
    import pyarrow as pa

    try:
        content = folder.read(notes_name(number))
        if content is None:
            raise CheckError("it is not there")
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        _check_rows(folder, number, table)
    except (OSError, pa.ArrowInvalid, CheckError) as error:
        log.info("%s has no whole part %d: %s", one_line(folder.name), number, one_line(str(error)))
        return None
    return table, {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def open_notes(folder: Folder, number: int, *, counted: bool = False) -> pa.Table:
    """The notes of a part.

    Args:
        folder, number: of the part.
        counted: it is known to have as many rows as its notes.

    Raises:
        OSError, ArrowInvalid, CheckError: it is not there, or not whole.
        OutputError: the object store cannot be asked.
    """
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(folder.local(notes_name(number)))).read_all()
    if not counted:
        _check_rows(folder, number, table)
    return table


def _check_rows(folder: Folder, number: int, notes: pa.Table) -> None:
    rows = count_rows(folder, part_name(number))
    if rows != notes.num_rows:
        raise CheckError(f"{rows} rows, of which {notes.num_rows} are accounted for")


def count_rows(folder: Folder, name: str) -> int:
    """Rows of a Parquet file by its footer, which is all that is read.

    Raises:
        OSError, ArrowInvalid: it is not there, or no such file.
        OutputError: the object store cannot be asked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail = folder.tail(name, _FOOTER)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = folder.tail(name, length)
    return int(pq.read_metadata(pa.BufferReader(tail)).num_rows)
