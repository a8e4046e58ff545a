"""One part of a directory: `part-00000.parquet` has the rows, its sidecar `_part-00000.arrow` the state of each input,
and the checksum of the part.

Any process that knows the folder and a number can write a part: a run on one machine (`xcli.outputs.dataset`), or many
workers at the same time.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError
from xcli.core.records import STATUS_COLUMNS, FileState
from xcli.core.text import one_line
from xcli.outputs.checked_file import CheckedReader, CheckedWriter, Part
from xcli.outputs.resume import state_columns, state_fields
from xcli.storage import disk
from xcli.storage.checksums import Checksum, ChecksumWriter, checksum_of
from xcli.storage.streams import CheckedStream, read_errors, write_errors
from xcli.storage.temporary import unique_name
from xcli.tables.parquet import ParquetWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from xcli.storage.directories import Folder

NEXT = ".next"
"""What the name of a sidecar ends with until the part that it describes has replaced an older one."""

_FOOTER = 1 << 16
"""Bytes to read from the end of a Parquet file at first; most footers are shorter."""


def part_name(number: int) -> str:
    """Returns the name of the part with this number, from 0."""
    return f"part-{number:05d}.parquet"


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
        self._file: ChecksumWriter | None = None
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
            self._file = ChecksumWriter(disk.create(self._scratch))
        self._sink = ParquetWriter(CheckedStream(self._file, self._scratch), schema, self._metadata)

    def finish(
        self, schema: pa.Schema | None = None, note: Mapping[str, str] | None = None, *, replace: bool = False
    ) -> Part | None:
        """Makes the part appear, after its sidecar, so that a part always has one.

        Args:
            schema: columns of a part without rows; without it, no part is written if there are no rows.
            note: text by key, kept in the sidecar.
            replace: there is a part of this number. The new sidecar has another name until the new part is there; a
                process that finds both sidecars takes the one with the checksum of the part (`finish_replacing`).

        Returns:
            The part; None if none was written.
        """
        import pyarrow as pa

        if self._sink is None:
            if schema is None:
                return None
            self._open(schema)
            empty = pa.RecordBatch.from_pylist([], pa.schema([schema.field(name) for name in STATUS_COLUMNS]))
            self._sidecar.append(_sidecar_rows(empty, [], []))
        assert self._sink is not None
        assert self._file is not None
        name = sidecar_name(self.number)
        first = name + NEXT if replace else name
        try:
            self._sink.close()
            with write_errors(self._folder.name):
                self._file.close()
                checksum = self._file.checksum
                digest = self._write_sidecar({"table": checksum, "note": dict(note or {})})
            self._folder.publish(self._sidecar_scratch, first, keep=self._keep)
            self._folder.publish(self._scratch, part_name(self.number))
            if replace:
                self._folder.rename(first, name)
        except BaseException:
            self.abandon()
            raise
        rows = sum(batch.num_rows for batch in self._sidecar)
        return Part(part_name(self.number), rows, digest, checksum)

    def _write_sidecar(self, trailer: dict[str, Any]) -> str:
        """Returns its digest."""
        writer = CheckedWriter(self._sidecar_scratch)
        try:
            for batch in self._sidecar:
                writer.write(batch)
            return writer.close(self.number, trailer)
        except BaseException:
            writer.abandon()
            raise

    def abandon(self) -> None:
        """Discards the part."""
        if self._sink is not None:
            self._sink.abandon()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        for scratch in (self._scratch, self._sidecar_scratch):
            with suppress(OSError):
                disk.unlink(scratch)


def _sidecar_rows(rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> pa.RecordBatch:
    import pyarrow as pa

    statuses = rows.select(list(STATUS_COLUMNS))
    schema = pa.schema([*statuses.schema, *state_fields()])
    return pa.RecordBatch.from_arrays([*statuses.columns, *state_columns(keys, states)], schema=schema)


def open_sidecar(folder: Folder, number: int, name: str | None = None, *, copy: bool = False) -> CheckedReader:
    """Opens the sidecar of a part.

    Args:
        folder, number: of the part.
        name: of the sidecar, if it has another than usual.
        copy: take the local copy of an object, and leave it there.

    Raises:
        CheckError: it is damaged.
        OSError, OutputError: it is missing, or cannot be read.
    """
    name = name or sidecar_name(number)
    if copy or not folder.remote:
        return CheckedReader(disk.open_file(folder.local(name)), number)
    content = folder.read(name)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return CheckedReader(BytesIO(content), number)


def part_of(number: int, sidecar: CheckedReader) -> Part:
    """Returns the part that a sidecar describes; raises CheckError where its trailer does not."""
    try:
        checksum = Checksum(*sidecar.trailer["table"])
    except (KeyError, TypeError):
        raise CheckError("its trailer does not describe a part") from None
    return Part(part_name(number), sidecar.rows, sidecar.digest, checksum)


def check_part(folder: Folder, part: Part) -> None:
    """Reads a part and compares it with its sidecar.

    Raises:
        CheckError: it has another checksum.
        OSError, OutputError: it is missing, or cannot be read.
    """
    try:
        found = checksum_of(folder.local(part.name))
    finally:
        folder.forget(part.name)
    if found != part.checksum:
        raise CheckError("its digest is not the one in its sidecar")


def remove_part(folder: Folder, number: int) -> None:
    """Removes a part, and only when it is gone its sidecar, without which it would be taken for damaged."""
    folder.unlink(part_name(number))
    folder.unlink(sidecar_name(number))


def finish_replacing(folder: Folder, number: int) -> None:
    """Decides which of two sidecars of a part is right, when the process that replaced it was killed.

    Raises:
        OSError, OutputError: the part cannot be read.
    """
    name = sidecar_name(number)
    try:
        with open_sidecar(folder, number, name + NEXT) as sidecar:
            check_part(folder, part_of(number, sidecar))
    except (CheckError, FileNotFoundError):
        folder.unlink(name + NEXT)
    else:
        folder.rename(name + NEXT, name)


def read_sidecar(folder: Folder, number: int, *, check: bool = True) -> tuple[pa.Table, dict[str, str], Part] | None:
    """Reads the sidecar of a part into memory, and checks the part.

    Args:
        folder, number: of the part.
        check: read the part too, and compare its checksum.

    Returns:
        A table of path, status, error, key, size and time of modification (`xcli.outputs.resume`), one row for each
        input; the note that the `PartWriter` was given; and the part. None if the part or its sidecar is missing.

    Raises:
        CheckError: one of them is damaged.
        OutputError: one of them cannot be read.
    """
    import pyarrow as pa

    with read_errors(os.path.join(folder.name, part_name(number))), suppress(FileNotFoundError):
        with open_sidecar(folder, number) as sidecar:
            part, note = part_of(number, sidecar), sidecar.trailer.get("note", {})
            table = pa.Table.from_batches(sidecar.batches())
        if check:
            check_part(folder, part)
        return table, note, part
    return None


def count_rows(folder: Folder, name: str) -> int:
    """Returns the number of rows of a Parquet file; only its footer is read.

    Raises:
        CheckError: it is no Parquet file.
        OSError, OutputError: it is missing, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail = folder.tail(name, _FOOTER)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = folder.tail(name, length)
    try:
        return int(pq.read_metadata(pa.BufferReader(tail)).num_rows)
    except (OSError, pa.ArrowInvalid) as error:  # of Arrow, about the bytes in memory
        raise CheckError(one_line(str(error))) from None
