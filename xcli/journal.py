"""`FILE.partial/`: the finished rows of a run, kept until FILE is whole, so that no death costs more than a part.

    lock               held by the process that works on FILE; names it
    run.json           the fingerprint of the run: everything that its rows depend on
    part-00000.arrow   rows as Arrow IPC, each with size and modification time of its input

Rows of a part are final: the order of FILE is told by a `Layout` when FILE is put together, so that rows of earlier
runs are never written again.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

from xcli.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts, publish
from xcli.resuming import stamp_columns, stamp_fields
from xcli.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.resuming import Layout, Stamp

log = logging.getLogger("xcli")

SUFFIX = ".partial"

_PART = re.compile(r"part-([0-9]{5,})\.arrow")
_COPIED_ROWS = 1000


class Journal(Parts):
    """The parts of a file, beside it.

    Args:
        target: the file.
        restart: drop what earlier runs left.
        part_rows, part_seconds: see `Parts`.

    Raises:
        OutputError: another process works on the file, or the directory cannot be made.
    """

    def __init__(
        self,
        target: str,
        *,
        restart: bool = False,
        part_rows: int = DEFAULT_PART_ROWS,
        part_seconds: float = DEFAULT_PART_SECONDS,
    ) -> None:
        super().__init__(target, target + SUFFIX, part_rows, part_seconds)
        self._writer: Any = None
        self._part = ""
        self._recall(restart)

    def _is_ours(self, name: str) -> bool:
        return True

    def _clear_away(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open_parts(self) -> list[pa.Table]:
        import pyarrow as pa

        tables = []
        for name in filter(_PART.fullmatch, self._names()):
            path = os.path.join(self._folder, name)
            try:
                tables.append(pa.ipc.open_file(pa.memory_map(path)).read_all())
            except (OSError, pa.ArrowInvalid) as error:
                log.warning("%s is damaged (%s): its rows are computed again", one_line(path), one_line(str(error)))
                self._unlink(name)
        return tables

    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], stamps: Sequence[Stamp | None]) -> None:
        import pyarrow as pa

        schema = pa.schema([*rows.schema, *stamp_fields()])
        if self._writer is None:
            numbers = [int(match[1]) for match in map(_PART.fullmatch, self._names()) if match]
            self._part = f"part-{max(numbers, default=-1) + 1:05d}.arrow"
            self._writer = pa.ipc.new_file(os.path.join(self._folder, self._part + ".tmp"), schema)
        columns = [*rows.columns, *stamp_columns(keys, stamps)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    def _finish_part(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()
        publish(os.path.join(self._folder, self._part + ".tmp"), os.path.join(self._folder, self._part))

    def read(self, layout: Layout, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows in the order of the layout, at most so many at a time; memory stays flat, the files are mapped."""
        import pyarrow as pa

        self._reopen(layout)
        starts = [0]
        for table in self._tables:
            starts.append(starts[-1] + table.num_rows)
        part = 0
        for start, stop in layout.ranges():
            while start < stop:
                while not starts[part] <= start < starts[part + 1]:
                    part = part + 1 if start >= starts[part + 1] else 0
                end = min(stop, starts[part + 1])
                piece = self._tables[part].slice(start - starts[part], end - start).select(schema.names)
                for batch in piece.to_batches(max_chunksize=_COPIED_ROWS):
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
                start = end
