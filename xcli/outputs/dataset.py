"""`-o DIR/`: a directory of Parquet parts, each of which appears as soon as it is finished.

    part-00000.parquet   rows
    _part-00000.arrow    its sidecar: for each of its inputs status, size and modification time; during the run
    _run.json, _lock     as in `xcli.outputs.partial_file`; during the run
    _meta.json           what `FILE.meta.json` says of a file; and rows and digest of each part
    _states              the state of the image of each row (`xcli.tables.states`)
    _SUCCESS             empty; present once every source has its row

Arrow, DuckDB, Polars and Spark read such a directory as one table, and ignore names that begin with `_`. If no input
changes before an interrupted run is continued, the parts in the order of their names have the rows in the order of the
sources; rows of changed inputs, of parts that were damaged, and of an update come last. A damaged part is set aside as
`_part-00000.parquet.damaged`, with its sidecar. A finished directory is not changed any more, but by an update: that
keeps its rows beside the directory until all are computed (`DIR.partial/`), and then makes it an unfinished run again.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, UsageError
from xcli.core.records import PATH
from xcli.core.text import one_line
from xcli.outputs.part_files import (
    PartWriter,
    check_part,
    count_rows,
    finish_replacing,
    open_sidecar,
    part_of,
    remove_part,
    sidecar_name,
)
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts
from xcli.outputs.resume import KEY, MTIME, SIZE
from xcli.storage import disk
from xcli.storage.directories import DAMAGED, Folder, open_folder
from xcli.storage.streams import CheckedStream, write_errors
from xcli.storage.temporary import unique_name
from xcli.tables.parquet import PART, ParquetReader, describe_part, part_number
from xcli.tables.provenance import DATASET_META, DATASET_RUN, PARTS, SUCCESS, meta_text, provenance_metadata
from xcli.tables.states import DATASET_STATES, StatesWriter

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.outputs.checked_file import CheckedReader, Part
    from xcli.outputs.resume import RowOrder
    from xcli.outputs.target import Directory

    Further = Callable[[pa.Array], tuple[list[int] | None, list[int] | None]]

log = logging.getLogger("xcli")

_REPLACED = re.compile(r"_part-([0-9]{5,})\.arrow\.next")
_DURING_RUN = re.compile(r"_part-[0-9]{5,}\.arrow(\.next)?|.*\.tmp")


def check_directory(target: Directory, format: str) -> None:
    """Checks that a directory of parts can be written, before a model is loaded.

    Raises:
        UsageError: the format is not Parquet.
        OutputError: the directory has other files, or cannot be written to.
    """
    if format != "parquet":
        raise UsageError(
            f"{target.name!r} is a directory, and directories are written in Parquet; for {format} give a file name"
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
            raise OutputError(f"cannot write {shown}: the directory '{one_line(folder)}' does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {shown}: no permission to write to {one_line(folder)}")


def _check_content(folder: Folder) -> None:
    """Raises OutputError if the folder has files that this program has not written."""
    names = folder.names()
    foreign = [name for name in names if not Dataset.own_files.fullmatch(name)]
    parts = list(filter(PART.fullmatch, names))
    if not foreign and parts and not {DATASET_RUN, DATASET_META}.intersection(names):
        foreign = parts
    if foreign:
        raise OutputError(
            f"{one_line(folder.name)} contains {one_line(foreign[0])}, which is not from an unfinished run. Use a new "
            "or an empty directory"
        )


class Dataset(Parts):
    """The parts in a directory.

    Args:
        target: the directory.
        overwrite: discard a finished dataset.
        restart: discard what earlier runs left.
        part_rows, part_seconds: see `Parts`.

    Raises:
        OutputError: another process writes to the directory, or it has other files or cannot be made.
    """

    prefix = "_"
    own_files = re.compile(
        r"part-[0-9]{5,}\.parquet|_part(-[0-9]{5,})?\.(arrow|parquet)(\.next)?(\.[0-9]+-[0-9a-f]+)?(\.tmp)?"
        rf"|_part-[0-9]{{5,}}\.(arrow|parquet)(\.next)?{DAMAGED}"
        r"|_(run\.json|meta\.json|states|SUCCESS)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?|_lock"
    )
    part_files = PART

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
        try:
            _check_content(folder)
            finished = target.is_finished()
            # Without its journal, what is there is the rest of a finished dataset that was being overwritten.
            restart = restart or (overwrite and (finished or folder.read(DATASET_RUN) is None))
            self._finished = finished and not restart
            if self._finished and target.recorded_run() is None:
                raise OutputError(
                    f"{one_line(target.name)} is finished, but has no {DATASET_META}, which records its settings, or a "
                    "damaged one. Use --overwrite to replace it, or another -o"
                )
        except BaseException:
            folder.close()
            raise
        self._load(restart)

    def __exit__(self, *error: object) -> None:
        if self._part is not None:
            self._part.abandon()
        super().__exit__(*error)

    def _clean_up(self) -> None:
        try:
            names = self._folder.names()
            self._folder.unlink(*filter(_DURING_RUN.fullmatch, names))
            self._folder.unlink(DATASET_RUN, "_lock")
        except OutputError as error:
            log.warning("%s; it is not needed any more", error)
        else:
            if self._made and names == ["_lock"]:
                self._folder.remove()

    # Rows of earlier runs

    def _open_parts(self) -> list[Part]:
        for name in self._folder.names():
            if match := _REPLACED.fullmatch(name):
                with self._reading(name):
                    finish_replacing(self._folder, int(match[1]))
        return super()._open_parts()

    def _open(self, name: str) -> CheckedReader:
        try:
            return open_sidecar(self._folder, part_number(name), copy=True)
        except FileNotFoundError:
            raise CheckError("its sidecar is missing") from None

    def _part_of(self, name: str, reader: CheckedReader) -> Part:
        part = part_of(part_number(name), reader)
        # At the start the whole of an object is not read: that would take as long as its upload.
        if not self._folder.remote:
            self._check_table(part)
        elif count_rows(self._folder, name) != part.rows:
            raise CheckError("it does not have the rows of its sidecar")
        return part

    def _check_table(self, part: Part) -> None:
        try:
            check_part(self._folder, part)
        except FileNotFoundError:
            raise CheckError("it is missing") from None

    def _files_of(self, name: str) -> tuple[str, ...]:
        return sidecar_name(part_number(name)), name

    # Writing

    def _begin_part(self, number: int | None = None) -> PartWriter:
        assert self.fingerprint is not None, "begin() comes first"
        metadata = provenance_metadata(self.fingerprint["provenance"])
        return PartWriter(self._folder, self._next_number() if number is None else number, metadata)

    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        if self._part is None:
            self._part = self._begin_part()
        self._part.add(rows, keys, states)

    def _close_part(self) -> Part:
        writer, self._part = self._part, None
        assert writer is not None
        part = writer.finish()
        assert part is not None
        return part

    # The end of a run

    def drop_stale_rows(self, order: RowOrder) -> int:
        """Removes rows that the order does not have, because their inputs have changed or are gone, from the parts.

        A row that the order has more than once, because its path is listed more than once, is repeated. Before and
        after that, everything is read again and checked.

        Returns:
            Number of rows in all the parts.
        """
        import numpy as np
        import pyarrow as pa

        for _ in self.read(order, pa.schema([])):
            pass
        times = np.zeros(order.rows, np.int32)
        for start, stop in order.ranges():
            times[start:stop] += 1
        begin, parts = 0, []
        for part in self._opened():
            wanted = times[begin : begin + part.rows]
            begin += part.rows
            if (wanted == 1).all():
                parts.append(part)
            elif wanted.any():
                parts.append(self._rewrite(part, np.repeat(np.arange(len(wanted)), wanted)))
            else:
                remove_part(self._folder, part_number(part.name))
        self._parts = parts
        by_name = {part.name: part for part in parts}

        def check(name: str) -> None:
            with self._intact(name):
                self._check_table(by_name[name])

        for _ in self._folder.each(check, by_name):
            pass
        return self.rows

    def _rewrite(self, part: Part, rows: Any) -> Part:
        """Replaces a part by one with the rows that have these indices."""
        import pyarrow as pa

        with self._intact(part.name):
            self._check_table(part)
            table = list(ParquetReader(self._folder.local(part.name)).batches())
            with self._open(part.name) as reader:
                sidecar = list(reader.batches())
        writer = self._begin_part(part_number(part.name))
        try:
            writer.add_with_sidecar(*(pa.concat_batches(one).take(pa.array(rows)) for one in (table, sidecar)))
        except BaseException:
            writer.abandon()
            raise
        written = writer.finish(replace=True)
        assert written is not None
        return written

    def mark_complete(
        self, meta: dict[str, Any], schema: pa.Schema, further: Further | None = None, *, states: bool = True
    ) -> None:
        """Writes `_states`, `_meta.json` and `_SUCCESS`; a dataset without images first gets one part without rows.

        Args:
            meta: content of `_meta.json`.
            schema: of a part without rows.
            further: returns, for the paths of the next rows of the parts, their keys without carried values, and their
                positions in the whole listing; None for either where there is none.
            states: whether the keys are known, so that `_states` can be written.
        """
        parts = self._opened()
        if not parts:
            written = self._begin_part().finish(schema)
            assert written is not None
            parts.append(written)
        meta = meta | {PARTS: {part.name: describe_part(part.rows, part.checksum) for part in parts if part.checksum}}
        if states:
            meta |= self._write_states(further)
        self._folder.write(DATASET_META, meta_text(meta))
        self._folder.write(SUCCESS, b"")
        self.remove()

    def _write_states(self, further: Further | None) -> dict[str, str]:
        """Writes `_states`; returns its member of `_meta.json`."""
        scratch = self._folder.scratch(unique_name(DATASET_STATES))
        with write_errors(self._folder.name):
            file = disk.create(scratch)
        writer = StatesWriter(CheckedStream(file, scratch), self.fingerprint)
        try:
            for rows in self._sidecars():
                keys, carried = rows.column(KEY), None
                plain_keys, positions = (None, None) if further is None else further(rows.column(PATH))
                if plain_keys is not None:
                    keys, carried = plain_keys, keys
                writer.write(rows, keys, [rows.column(SIZE), rows.column(MTIME)], carried, positions)
            member = writer.close()
            with write_errors(self._folder.name):
                file.close()
        except BaseException:
            writer.abandon()
            with suppress(OSError):
                file.close()
                disk.unlink(scratch)
            raise
        self._folder.publish(scratch, DATASET_STATES)
        return member

    def _sidecars(self) -> Iterator[pa.RecordBatch]:
        """Yields the rows of all sidecars, in the order of the parts."""
        for part in self._opened():
            with self._intact(part.name), self._open(part.name) as sidecar:
                yield from sidecar.batches()


def further_of(order: RowOrder) -> Further:
    """Returns what `Dataset.mark_complete` takes, for the rows of an order, which the parts have by their numbers."""
    import numpy as np

    numbers = np.concatenate([np.empty(0, np.int64), *(np.arange(*one) for one in order.ranges())])
    places = np.argsort(numbers, kind="stable")

    def in_parts(values: array[int] | None, kind: str) -> Iterator[int] | None:
        return None if values is None else iter(np.frombuffer(values, kind)[places].tolist())

    keys = in_parts(order.other_keys, "uint64")
    positions = in_parts(None if order.whole is None else order.whole.positions, "int64")

    def further(paths: pa.Array) -> tuple[list[int] | None, list[int] | None]:
        found = [None if values is None else list(islice(values, len(paths))) for values in (keys, positions)]
        return found[0], found[1]

    return further
