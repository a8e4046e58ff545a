"""`-o DIR/`: a folder of Parquet parts that readers take for one table, each in its place as soon as it is finished.

    part-00000.parquet   rows
    _part-00000.arrow    what became of each of its inputs, with size and modification time; while the run lasts
    _run.json, _lock     as in `xcli.outputs.partial_file`; while the run lasts
    _meta.json           what made the rows, as beside a file
    _SUCCESS             empty; there once every source has its row

Arrow, DuckDB, Polars and Spark pass over what begins with `_`. Rows are in the order of the sources, across the parts
by name, as long as no input changes between the starts of a run; those of inputs that did change come last. A part and
its notes are made by a `PartWriter`; `Dataset` is the run of one process, which numbers them as they come.
"""

from __future__ import annotations

import json
import logging
import os
import re
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, UsageError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.part_files import PartWriter, notes_name, open_notes, part_name, part_number
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts
from xcli.storage.directories import open_folder
from xcli.tables.parquet import ParquetReader
from xcli.tables.provenance import DATASET_META, SUCCESS, provenance_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.outputs.resume import RowOrder
    from xcli.outputs.target import Directory
    from xcli.storage.directories import Folder

log = logging.getLogger("xcli")

_NOTES = re.compile(r"_part-[0-9]{5,}\.arrow")
_NUMBERED = re.compile(r"_?part-([0-9]{5,})\.(?:parquet|arrow)")
_OURS = re.compile(
    r"part-[0-9]{5,}\.parquet|_part(-[0-9]{5,})?\.(arrow|parquet)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?"
    r"|_(run\.json|meta\.json|SUCCESS)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?|_lock"
)
_UNFINISHED = re.compile(r"_.*\.tmp")


def check_directory(target: Directory, format: str) -> None:
    """Finds out whether a dataset can be written there, before a model is loaded for nothing.

    Raises:
        UsageError: the format is not Parquet.
        OutputError: the directory holds other files, or cannot be written to.
    """
    if format != "parquet":
        raise UsageError(
            f"{target.name!r} is a directory, which gets parts in Parquet; for {format} give the name of a file"
        )
    if target.remote:
        _check_content(open_folder(target.name))
        return
    shown, folder = one_line(target.name), target.name.rstrip("/") or "/"
    if os.path.lexists(folder):
        if not os.path.isdir(folder):
            raise OutputError(f"cannot write {shown}: it is a file; give the name of a directory")
        _check_content(open_folder(folder))
    else:
        folder = os.path.dirname(folder) or os.curdir
        if not os.path.isdir(folder):
            raise OutputError(f"cannot write {shown}: no such directory: {one_line(folder)}, create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {shown}: {one_line(folder)} cannot be written to")


def _check_content(folder: Folder) -> None:
    """Refuses a folder with anything in it that no run of this program has made."""
    names = folder.names()
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    parts = [name for name in names if part_number(name) is not None]
    if not foreign and parts and not {"_run.json", DATASET_META}.intersection(names):
        foreign = parts
    if foreign:
        raise OutputError(
            f"{one_line(folder.name)} holds {one_line(foreign[0])}, which no unfinished run has left there; "
            "give a new directory, or an empty one"
        )


class Dataset(Parts):
    """The parts of a dataset, in its directory.

    Args:
        target: the directory.
        overwrite: drop a dataset that is finished.
        restart: drop what earlier runs left.
        part_rows, part_seconds: see `Parts`.

    Raises:
        OutputError: another process works on it, the directory holds other files, or cannot be made.
    """

    prefix = "_"

    def __init__(
        self,
        target: Directory,
        *,
        overwrite: bool = False,
        restart: bool = False,
        part_rows: int = DEFAULT_PART_ROWS,
        part_seconds: float = DEFAULT_PART_SECONDS,
    ) -> None:
        folder = open_folder(target.name)
        self._made = folder.make()
        super().__init__(target.name, folder, part_rows, part_seconds)
        self._part: PartWriter | None = None
        self._numbers: list[int] = []
        self._whole: set[int] = set()
        self._next: int | None = None
        try:
            _check_content(folder)
        except BaseException:
            folder.close()
            raise
        finished = target.is_finished()
        drop = restart or (overwrite and finished)
        self._finished = finished and not drop
        try:
            if self._finished and not self._folder.read(DATASET_META):
                raise OutputError(
                    f"{one_line(target.name)} is finished, but has no {DATASET_META} that says what made it; pass "
                    "--overwrite to replace it, or give another -o"
                )
        except BaseException:
            folder.close()
            raise
        self._recall(drop)

    def _read_fingerprint(self) -> dict[str, Any] | None:
        # Of a finished dataset nothing is continued: notes that a run left which died while it cleared them away vouch
        # for nothing, and parts without notes are not damaged.
        return None if self._finished else super()._read_fingerprint()

    def _is_ours(self, name: str) -> bool:
        return _OURS.fullmatch(name) is not None and name != DATASET_META

    def _drop(self) -> None:
        # First what says that all is well, last what says whose parts they are.
        self._unlink(SUCCESS)
        super()._drop()
        self._unlink(DATASET_META)

    def _tidy(self) -> None:
        if self.fingerprint is None and not self._finished:
            self._drop()  # what a run that was dropping everything did not come to
        self._unlink(*filter(_UNFINISHED.fullmatch, self._names()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._part is not None:
            self._part.abandon()
        super().__exit__(kind, error, trace)

    def _clear_away(self) -> None:
        names = self._names()
        self._unlink(*(name for name in names if _NOTES.fullmatch(name) or name.endswith(".tmp")))
        self._unlink("_run.json", "_lock")
        if self._made and names == ["_lock"]:
            self._folder.remove()

    def _open_parts(self) -> list[pa.Table]:
        """Of each part its notes, which are there before it."""
        import pyarrow as pa

        def read(name: str) -> pa.Table | Exception:
            number = part_number(name)
            assert number is not None
            try:
                # Of an object store, what was found whole once is not asked about again.
                return open_notes(self._folder, number, counted=self._folder.remote and number in self._whole)
            except (OSError, pa.ArrowInvalid, CheckError) as error:
                return error

        tables, self._numbers = [], []
        names = [name for name in self._names() if part_number(name) is not None]
        for name, table in zip(names, self._folder.each(read, names), strict=True):
            number = part_number(name)
            assert number is not None
            if isinstance(table, Exception):
                shown = one_line(os.path.join(self._folder.name, name))
                log.warning("%s is damaged (%s): its rows are computed again", shown, one_line(str(table)))
                self._unlink(name, notes_name(number))
            else:
                tables.append(table)
                self._numbers.append(number)
        self._whole.update(self._numbers)
        return tables

    # Writing

    def _next_number(self) -> int:
        if self._next is None:
            numbers = [int(match[1]) for match in map(_NUMBERED.fullmatch, self._names()) if match]
            self._next = max(numbers, default=-1) + 1
        number, self._next = self._next, self._next + 1
        return number

    def _begin_part(self) -> PartWriter:
        assert self.fingerprint is not None, "begin() comes first"
        metadata = provenance_metadata(self.fingerprint["provenance"])
        return PartWriter(self._folder, self._next_number(), metadata)

    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        if self._part is None:
            self._part = self._begin_part()
        self._part.add(rows, keys, states)

    def _close_part(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        part.finish()
        self._whole.add(part.number)

    # The end

    def read(self, order: RowOrder, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Path, status and error in the order of the order."""
        import pyarrow as pa

        self._reopen(order)
        lead = pa.concat_tables(table.select(list(STATUS_COLUMNS)) for table in self._tables)
        for start, stop in order.ranges():
            yield from lead.slice(start, stop - start).select(schema.names).to_batches()

    def drop_stale_rows(self, order: RowOrder) -> int:
        """Takes out of the parts what the order does not have: rows of inputs that have changed or gone.

        A row that the order has more than once, since its path is listed more than once, is there as often.

        Returns:
            Number of rows in all the parts.
        """
        import numpy as np

        self._reopen(order)
        times = np.zeros(order.rows, np.int32)
        for start, stop in order.ranges():
            times[start:stop] += 1
        begin = 0
        for number, notes in zip(list(self._numbers), list(self._tables), strict=True):
            wanted = times[begin : begin + notes.num_rows]
            begin += notes.num_rows
            if (wanted != 1).any():
                # First the new part, then the old one goes: dying in between leaves rows twice; the newer ones count.
                self._rewrite(number, notes, np.repeat(np.arange(len(wanted)), wanted))
                self._unlink(part_name(number), notes_name(number))
        return int(times.sum())

    def _rewrite(self, number: int, notes: pa.Table, rows: Any) -> None:
        """Writes the rows of those places in a part once more, as a part of their own."""
        import pyarrow as pa

        if not len(rows):
            return
        chosen = pa.array(rows)
        reader = ParquetReader(self._folder.local(part_name(number)))
        part = self._begin_part()
        try:
            part.add_noted(
                pa.concat_batches(list(reader.batches())).take(chosen),
                notes.take(chosen).combine_chunks().to_batches()[0],
            )
        except BaseException:
            part.abandon()
            raise
        part.finish()

    def mark_complete(self, meta: dict[str, Any], schema: pa.Schema) -> None:
        """Says of what made the rows, and that all are there; a dataset without images gets one part without rows."""
        if all(part_number(name) is None for name in self._names()):
            self._begin_part().finish(schema)
        text = json.dumps(meta, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        self._folder.write(DATASET_META, text.encode("utf-8", "backslashreplace"))
        self._folder.write(SUCCESS, b"")
        self.remove()
