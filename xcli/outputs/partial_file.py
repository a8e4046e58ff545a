"""`FILE.partial/`: the finished rows of a run, kept until FILE is whole, so that no death costs more than a part.

    lock               held by the process that works on FILE; names it
    run.json           the fingerprint of the run: everything that its rows depend on
    part-00000.arrow   rows as Arrow IPC, each with size and modification time of its input

In an object store `s3://bucket/FILE.partial/` is the same, without the lock. Rows of a part are final: the order of
FILE is told by a `RowOrder` when FILE is put together, so that rows of earlier runs are never written again.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError
from xcli.core.text import one_line
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts
from xcli.outputs.resume import state_columns, state_fields
from xcli.storage.directories import open_folder
from xcli.storage.locks import HOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.outputs.resume import RowOrder
    from xcli.storage.directories import Folder

log = logging.getLogger("xcli")

SUFFIX = ".partial"

_PART = re.compile(r"part-([0-9]{5,})\.arrow")
_OURS = re.compile(r"(run\.json|part-[0-9]{5,}\.arrow)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?|lock")
_COPIED_ROWS = 1000


def _check_content(folder: Folder) -> None:
    """Refuses a folder that is a link, or that no run of this program has made.

    Raises:
        OutputError: there is such a folder in place of the parts; nothing in it was touched.
    """
    if not folder.remote and not os.path.lexists(folder.name):
        return
    foreign = "" if folder.remote or not os.path.islink(folder.name) else "is a symbolic link"
    if not foreign:
        names = folder.names()
        other = [name for name in names if not _OURS.fullmatch(name)]
        holder = folder.read("lock") if "lock" in names else None
        if other:
            foreign = f"holds {one_line(other[0])}"
        elif holder and not holder.startswith(HOLDER):
            foreign = "holds a file called lock"
    if foreign:
        raise OutputError(
            f"{one_line(folder.name)} {foreign}, which no unfinished run has left there; move it away, or give another "
            "-o (unfinished rows are kept under that name)"
        )


class PartialFile(Parts):
    """The parts of a file, beside it.

    Args:
        target: the file.
        restart: drop what earlier runs left.
        part_rows, part_seconds: see `Parts`.

    Raises:
        OutputError: another process works on the file, the folder cannot be made, or it is not of this program's
            making.
    """

    def __init__(
        self,
        target: str,
        *,
        restart: bool = False,
        part_rows: int = DEFAULT_PART_ROWS,
        part_seconds: float = DEFAULT_PART_SECONDS,
    ) -> None:
        folder = open_folder(target + SUFFIX)
        _check_content(folder)
        super().__init__(target, folder, part_rows, part_seconds)
        self._writer: Any = None
        self._part = self._scratch = ""
        self._next: int | None = None
        self._recall(restart)

    def _is_ours(self, name: str) -> bool:
        return _OURS.fullmatch(name) is not None

    def _clear_away(self) -> None:
        try:
            self._drop()
            self._unlink("lock")
        except OutputError as error:
            log.warning("%s; it is of no use any more", error)
        self._folder.remove()

    def _tidy(self) -> None:
        if self.fingerprint is None:
            self._unlink(*filter(_PART.fullmatch, self._names()))

    def _open_parts(self) -> list[pa.Table]:
        import pyarrow as pa

        def read(name: str) -> pa.Table | Exception:
            try:
                return pa.ipc.open_file(pa.memory_map(self._folder.local(name))).read_all()
            except (OSError, pa.ArrowInvalid) as error:
                return error

        tables = []
        names = list(filter(_PART.fullmatch, self._names()))
        for name, table in zip(names, self._folder.each(read, names), strict=True):
            if isinstance(table, Exception):
                shown = one_line(os.path.join(self._folder.name, name))
                log.warning("%s is damaged (%s): its rows are computed again", shown, one_line(str(table)))
                self._unlink(name)
            else:
                tables.append(table)
        return tables

    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        import pyarrow as pa

        schema = pa.schema([*rows.schema, *state_fields()])
        if self._writer is None:
            self._part = f"part-{self._next_number():05d}.arrow"
            self._scratch = self._folder.scratch(self._part)
            self._writer = pa.ipc.new_file(self._scratch, schema)
        columns = [*rows.columns, *state_columns(keys, states)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _next_number(self) -> int:
        if self._next is None:
            numbers = [int(match[1]) for match in map(_PART.fullmatch, self._names()) if match]
            self._next = max(numbers, default=-1) + 1
        number, self._next = self._next, self._next + 1
        return number

    def _close_part(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()
        self._folder.publish(self._scratch, self._part, keep=True)

    def read(self, order: RowOrder, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows in the order of the order, at most so many at a time; memory stays flat, the files are mapped."""
        import pyarrow as pa

        self._reopen(order)
        starts = [0]
        for table in self._tables:
            starts.append(starts[-1] + table.num_rows)
        part = 0
        for start, stop in order.ranges():
            while start < stop:
                while not starts[part] <= start < starts[part + 1]:
                    part = part + 1 if start >= starts[part + 1] else 0
                end = min(stop, starts[part + 1])
                piece = self._tables[part].slice(start - starts[part], end - start).select(schema.names)
                for batch in piece.to_batches(max_chunksize=_COPIED_ROWS):
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
                start = end
