"""`-o DIR/`: a directory of Parquet parts, each of which appears as soon as it is finished.

    part-00000.parquet   rows
    _part-00000.arrow    its sidecar: for each of its inputs status, size and modification time; during the run
    _run.json, _lock     as in `xcli.outputs.partial_file`; during the run
    _meta.json           what `FILE.meta.json` says of a file
    _SUCCESS             empty; present once every source has its row

Arrow, DuckDB, Polars and Spark read such a directory as one table, and ignore names that begin with `_`. If no input
changes before an interrupted run is continued, the parts in the order of their names have the rows in the order of the
sources; rows of changed inputs come last.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.outputs.part_files import PART, PartWriter, map_sidecar, part_name, part_number, sidecar_name
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts
from xcli.storage.directories import Folder, open_folder
from xcli.tables.parquet import ParquetReader
from xcli.tables.provenance import DATASET_META, DATASET_RUN, SUCCESS, provenance_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.outputs.resume import RowOrder
    from xcli.outputs.target import Directory

_DURING_RUN = re.compile(r"_part-[0-9]{5,}\.arrow|.*\.tmp")


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
        r"part-[0-9]{5,}\.parquet|_part(-[0-9]{5,})?\.(arrow|parquet)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?"
        r"|_(run\.json|meta\.json|SUCCESS)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?|_lock"
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
        self._intact: set[str] = set()
        try:
            _check_content(folder)
            finished = target.is_finished()
            restart = restart or (overwrite and finished)
            self._finished = finished and not restart
            if self._finished and not folder.read(DATASET_META):
                raise OutputError(
                    f"{one_line(target.name)} is finished, but has no {DATASET_META}, which records its settings. Use "
                    "--overwrite to replace it, or another -o"
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
        names = self._folder.names()
        self._folder.unlink(*filter(_DURING_RUN.fullmatch, names))
        self._folder.unlink(DATASET_RUN, "_lock")
        if self._made and names == ["_lock"]:
            self._folder.remove()

    def _read_part(self, name: str) -> pa.Table:
        # Every access to an object store is a request, so an intact part is not checked a second time.
        table = map_sidecar(self._folder, part_number(name), counted=self._folder.remote and name in self._intact)
        self._intact.add(name)
        return table

    def _delete_part(self, name: str) -> None:
        self._folder.unlink(name, sidecar_name(part_number(name)))

    # Writing

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
        self._intact.add(part_name(part.number))

    # The end of a run

    def drop_stale_rows(self, order: RowOrder) -> int:
        """Removes rows that the order does not have, because their inputs have changed or are gone, from the parts.

        A row that the order has more than once, because its path is listed more than once, is repeated.

        Returns:
            Number of rows in all the parts.
        """
        import numpy as np

        self._reopen(order)
        times = np.zeros(order.rows, np.int32)
        for start, stop in order.ranges():
            times[start:stop] += 1
        begin = 0
        for name, sidecar in self._tables.items():
            wanted = times[begin : begin + sidecar.num_rows]
            begin += sidecar.num_rows
            if (wanted != 1).any():
                # The new part is written before the old one is deleted. If the run is killed in between, rows are there
                # twice; the newer ones count.
                self._rewrite(name, sidecar, np.repeat(np.arange(len(wanted)), wanted))
                self._delete_part(name)
        return int(times.sum())

    def _rewrite(self, name: str, sidecar: pa.Table, rows: Any) -> None:
        """Writes the rows of a part that have these indices as a new part."""
        import pyarrow as pa

        if not len(rows):
            return
        chosen = pa.array(rows)
        reader = ParquetReader(self._folder.local(name))
        part = self._begin_part()
        try:
            part.add_with_sidecar(
                pa.concat_batches(list(reader.batches())).take(chosen),
                sidecar.take(chosen).combine_chunks().to_batches()[0],
            )
        except BaseException:
            part.abandon()
            raise
        part.finish()

    def mark_complete(self, meta: dict[str, Any], schema: pa.Schema) -> None:
        """Writes `_meta.json` and `_SUCCESS`; a dataset without images first gets one part without rows."""
        if not self._part_names():
            self._begin_part().finish(schema)
        text = json.dumps(meta, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        self._folder.write(DATASET_META, text.encode("utf-8", "backslashreplace"))
        self._folder.write(SUCCESS, b"")
        self.remove()
