"""One part of a directory: `part-00000.parquet` has the rows, its sidecar `_part-00000.arrow` the state of each input.

Any process that knows the folder and a number can write a part: a run on one machine (`xcli.outputs.dataset`), or many
workers at the same time.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError
from xcli.core.records import STATUS_COLUMNS, FileState
from xcli.core.text import one_line
from xcli.outputs.resume import state_columns, state_fields
from xcli.storage.streams import CheckedStream, write_errors
from xcli.storage.temporary import unique_name
from xcli.tables.parquet import ParquetWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from xcli.storage.directories import Folder

log = logging.getLogger("xcli")

PART = re.compile(r"part-([0-9]{5,})\.parquet")
"""Matches the names of parts; its group is the number."""

_FOOTER = 1 << 16
"""Bytes to read from the end of a Parquet file at first; most footers are shorter."""


def part_name(number: int) -> str:
    """Returns the name of the part with this number, from 0."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int:
    """Returns the number in the name of a part."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


def sidecar_name(number: int) -> str:
    """Returns the name of the sidecar of a part."""
    return f"_part-{number:05d}.arrow"


class PartWriter:
    """Writes one part of a directory and its sidecar; neither appears before `finish`.

    It needs neither a lock nor the other parts: any number of processes may write parts with different numbers at the
    same time, and two that write the same rows under one number leave one part.

    Args:
        folder: where the parts are; it exists.
        number: of this part, from 0.
        metadata: of the Parquet file, text by key.
        keep: keep a local copy of the sidecar, because this process will read it.

    Raises:
        OutputError: the part cannot be written. After `add`, call `abandon`.
    """

    def __init__(self, folder: Folder, number: int, metadata: Mapping[str, str], *, keep: bool = True) -> None:
        self._keep = keep
        self._folder, self.number, self._metadata = folder, number, metadata
        # The names are unique: another process may be writing the same part, or was killed while it did.
        self._scratch = folder.scratch(unique_name(f"_{part_name(number)}"))
        self._sidecar_scratch = folder.scratch(unique_name(sidecar_name(number)))
        self._sink: ParquetWriter | None = None
        self._stream: CheckedStream | None = None
        self._sidecar: list[pa.RecordBatch] = []

    def add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Appends rows.

        Args:
            rows: b rows.
            keys, states: of their inputs; see `xcli.outputs.resume`.
        """
        self.add_with_sidecar(rows, _sidecar_rows(rows, keys, states))

    def add_with_sidecar(self, rows: pa.RecordBatch, sidecar: pa.RecordBatch) -> None:
        """Appends rows, and the rows of an older sidecar that belong to them."""
        if self._sink is None:
            self._open(rows.schema)
        assert self._sink is not None
        self._sink.write(rows)
        self._sidecar.append(sidecar)

    def _open(self, schema: pa.Schema) -> None:
        with write_errors(self._folder.name):
            self._stream = CheckedStream(open(self._scratch, "wb"), self._scratch)  # noqa: SIM115 - closed by finish
        self._sink = ParquetWriter(self._stream, schema, self._metadata)

    def finish(self, schema: pa.Schema | None = None, note: Mapping[str, str] | None = None) -> None:
        """Makes the part appear, after its sidecar, so that a part always has one.

        Args:
            schema: columns of a part without rows; without it, no part is written if there are no rows.
            note: text by key, kept in the sidecar.
        """
        import pyarrow as pa

        if self._sink is None:
            if schema is None:
                return
            self._open(schema)
            empty = pa.RecordBatch.from_pylist([], pa.schema([schema.field(name) for name in STATUS_COLUMNS]))
            self._sidecar.append(_sidecar_rows(empty, [], []))
        assert self._sink is not None
        assert self._stream is not None
        try:
            self._sink.close()
            self._stream.close()
            with write_errors(self._folder.name):
                schema = self._sidecar[0].schema.with_metadata(None if note is None else dict(note))
                with pa.ipc.new_file(self._sidecar_scratch, schema) as writer:
                    for batch in self._sidecar:
                        writer.write_batch(batch)
            self._folder.publish(self._sidecar_scratch, sidecar_name(self.number), keep=self._keep)
            self._folder.publish(self._scratch, part_name(self.number))
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Discards the part."""
        if self._sink is not None:
            self._sink.abandon()
        if self._stream is not None:
            self._stream.drop()
        for scratch in (self._scratch, self._sidecar_scratch):
            with suppress(OSError):
                os.unlink(scratch)


def _sidecar_rows(rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> pa.RecordBatch:
    import pyarrow as pa

    statuses = rows.select(list(STATUS_COLUMNS))
    schema = pa.schema([*statuses.schema, *state_fields()])
    return pa.RecordBatch.from_arrays([*statuses.columns, *state_columns(keys, states)], schema=schema)


def read_sidecar(folder: Folder, number: int) -> tuple[pa.Table, dict[str, str]] | None:
    """Reads the sidecar of a part into memory.

    Returns:
        A table of path, status, error, key, size and time of modification (`xcli.outputs.resume`), one row for each
        input; and the note that the `PartWriter` was given. None if the part is missing or damaged, has no sidecar, or
        another number of rows than it.

    Raises:
        OutputError: the object store cannot be asked.
    """
    import pyarrow as pa

    try:
        content = folder.read(sidecar_name(number))
        if content is None:
            raise CheckError("it is missing")
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        _check_rows(folder, number, table)
    except (OSError, pa.ArrowInvalid, CheckError) as error:
        log.info("%s has no intact part %d: %s", one_line(folder.name), number, one_line(str(error)))
        return None
    return table, {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def map_sidecar(folder: Folder, number: int, *, counted: bool) -> pa.Table:
    """Returns the table of a sidecar as `read_sidecar` does, memory-mapped.

    Args:
        folder, number: of the part.
        counted: the part is known to have as many rows as its sidecar.

    Raises:
        OSError, ArrowInvalid, CheckError: the part or its sidecar is missing or damaged.
        OutputError: the object store cannot be asked.
    """
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(folder.local(sidecar_name(number)))).read_all()
    if not counted:
        _check_rows(folder, number, table)
    return table


def _check_rows(folder: Folder, number: int, sidecar: pa.Table) -> None:
    rows = count_rows(folder, part_name(number))
    if rows != sidecar.num_rows:
        raise CheckError(f"it has {rows} rows, but its sidecar has {sidecar.num_rows}")


def count_rows(folder: Folder, name: str) -> int:
    """Returns the number of rows of a Parquet file; only its footer is read.

    Raises:
        OSError, ArrowInvalid: it is missing, or no Parquet file.
        OutputError: the object store cannot be asked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail = folder.tail(name, _FOOTER)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = folder.tail(name, length)
    return int(pq.read_metadata(pa.BufferReader(tail)).num_rows)
