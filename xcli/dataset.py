"""`-o DIR/`: a directory of Parquet parts that readers take for one table, each in its place as soon as it is finished.

    part-00000.parquet   rows
    _part-00000.arrow    what became of each of its inputs, with size and modification time; while the run lasts
    _run.json, _lock     as in `xcli.journal`; while the run lasts
    _meta.json           what made the rows, as beside a file
    _SUCCESS             empty; there once every source has its row

Arrow, DuckDB, Polars and Spark pass over what begins with `_`. Rows are in the order of the sources, across the parts
by name, as long as no input changes between the starts of a run; those of inputs that did change come last.
"""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xcli.encoders import METADATA_KEY, ParquetSink
from xcli.errors import CheckError, OutputError, UsageError
from xcli.output import CheckedStream, is_direct, sync_directory
from xcli.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts, publish
from xcli.provenance import DATASET_META, SUCCESS
from xcli.readers import ParquetReader
from xcli.records import ERROR, PATH, STATUS
from xcli.resuming import stamp_columns, stamp_fields
from xcli.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.resuming import Layout, Stamp

log = logging.getLogger("xcli")

_PART = re.compile(r"part-([0-9]{5,})\.parquet")
_NOTES = re.compile(r"_part-([0-9]{5,})\.arrow")
_OURS = re.compile(
    r"part-[0-9]{5,}\.parquet|_part(-[0-9]{5,})?\.(arrow|parquet)(\.tmp)?|_(run|meta)\.json(\.tmp)?|_SUCCESS(\.tmp)?|_lock"
)


def is_dataset(target: str | None) -> bool:
    """Whether the output is a directory: its name ends in a slash, or it is one already."""
    return target is not None and not is_direct(target) and (target.endswith("/") or os.path.isdir(target))


def is_finished(folder: str) -> bool:
    """Whether a directory holds a dataset whose run has come to its end."""
    return os.path.isfile(os.path.join(folder, SUCCESS))


def check_dataset(format: str, target: str) -> None:
    """Finds out whether a dataset can be written there, before a model is loaded for nothing.

    Raises:
        UsageError: the format is another one than Parquet.
        OutputError: the directory holds other files, or cannot be written to.
    """
    if format != "parquet":
        raise UsageError(
            f"{target!r} is a directory, which gets parts in Parquet; for {format} give the name of a file"
        )
    folder = target.rstrip("/") or "/"
    if os.path.lexists(folder):
        if not os.path.isdir(folder):
            raise OutputError(f"cannot write {one_line(target)}: it is a file; give the name of a directory")
        _check_content(folder)
    else:
        parent = os.path.dirname(folder) or os.curdir
        if not os.path.isdir(parent):
            raise OutputError(
                f"cannot write {one_line(target)}: no such directory: {one_line(parent)}, create it first"
            )
        folder = parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {one_line(target)}: {one_line(folder)} cannot be written to")


def _check_content(folder: str) -> None:
    """Refuses a directory with anything in it that no run of this program has made."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise OutputError(f"cannot write {one_line(folder)}: {error.strerror}") from None
    foreign = [name for name in names if not _OURS.fullmatch(name)]
    parts = [name for name in names if _PART.fullmatch(name)]
    if not foreign and parts and not {"_run.json", DATASET_META}.intersection(names):
        foreign = parts
    if foreign:
        raise OutputError(
            f"{one_line(folder)} holds {one_line(sorted(foreign)[0])}, which no unfinished run has left there; "
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
        target: str,
        *,
        overwrite: bool = False,
        restart: bool = False,
        part_rows: int = DEFAULT_PART_ROWS,
        part_seconds: float = DEFAULT_PART_SECONDS,
    ) -> None:
        folder = target.rstrip("/") or "/"
        self._made = not os.path.isdir(folder)
        super().__init__(target, folder, part_rows, part_seconds)
        self._sink: ParquetSink | None = None
        self._stream: CheckedStream | None = None
        self._notes: list[pa.RecordBatch] = []
        self._part_names: list[str] = []
        try:
            _check_content(folder)
        except BaseException:
            os.close(self._lock)
            raise
        self._recall(restart or (overwrite and is_finished(folder)))

    def _is_ours(self, name: str) -> bool:
        return _OURS.fullmatch(name) is not None and name != DATASET_META

    def _drop(self) -> None:
        # First what says that all is well, last what says whose parts they are.
        self._unlink(SUCCESS)
        super()._drop()
        self._unlink(DATASET_META)

    def _recall(self, restart: bool) -> None:
        super()._recall(restart)
        if self.fingerprint is None and not is_finished(self._folder):
            self._drop()  # what a run that was dropping everything did not come to

    def _clear_away(self) -> None:
        names = self._names()
        self._unlink(*(name for name in names if _NOTES.fullmatch(name) or name.endswith(".tmp")), "_run.json", "_lock")
        if self._made and names == ["_lock"]:
            with suppress(OSError):
                os.rmdir(self._folder)

    def _open_parts(self) -> list[pa.Table]:
        """Of each part its notes, which are on the disk before it."""
        import pyarrow as pa

        tables, self._part_names = [], []
        for name in filter(_PART.fullmatch, self._names()):
            notes = _notes_of(name)
            try:
                table = pa.ipc.open_file(pa.memory_map(os.path.join(self._folder, notes))).read_all()
                rows = ParquetReader(os.path.join(self._folder, name)).rows
                if rows != table.num_rows:
                    raise CheckError(f"{rows} rows, of which {table.num_rows} are accounted for")
            except (OSError, pa.ArrowInvalid, CheckError) as error:
                shown = one_line(os.path.join(self._folder, name))
                log.warning("%s is damaged (%s): its rows are computed again", shown, one_line(str(error)))
                self._unlink(name, notes)
                continue
            tables.append(table)
            self._part_names.append(name)
        return tables

    # Writing

    def _next_part(self) -> str:
        numbers = [
            int(match[1]) for name in self._names() if (match := _PART.fullmatch(name) or _NOTES.fullmatch(name))
        ]
        return f"part-{max(numbers, default=-1) + 1:05d}.parquet"

    def _metadata(self) -> dict[str, str]:
        assert self.fingerprint is not None, "begin() comes first"
        return {METADATA_KEY: json.dumps(self.fingerprint["provenance"], sort_keys=True, ensure_ascii=False)}

    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], stamps: Sequence[Stamp | None]) -> None:
        import pyarrow as pa

        lead = rows.select([PATH, STATUS, ERROR])
        schema = pa.schema([*lead.schema, *stamp_fields()])
        notes = pa.RecordBatch.from_arrays([*lead.columns, *stamp_columns(keys, stamps)], schema=schema)
        self._take(rows, notes)

    def _take(self, rows: pa.RecordBatch, notes: pa.RecordBatch) -> None:
        if self._sink is None:
            temporary = os.path.join(self._folder, "_part.parquet.tmp")
            self._stream = CheckedStream(open(temporary, "wb"), temporary)  # noqa: SIM115 - closed with the part
            self._sink = ParquetSink(self._stream, rows.schema, self._metadata())
        self._sink.write(rows)
        self._notes.append(notes)

    def _finish_part(self) -> None:
        import pyarrow as pa

        sink, stream, notes = self._sink, self._stream, self._notes
        self._sink, self._stream, self._notes = None, None, []
        assert sink is not None
        assert stream is not None
        name = self._next_part()
        path = os.path.join(self._folder, _notes_of(name))
        try:
            sink.close()
            stream.close()
            with pa.ipc.new_file(path + ".tmp", notes[0].schema) as writer:
                for batch in notes:
                    writer.write_batch(batch)
            publish(path + ".tmp", path)
            publish(os.path.join(self._folder, "_part.parquet.tmp"), os.path.join(self._folder, name))
        except BaseException:
            sink.abandon()
            stream.drop()
            raise

    # The end

    def read(self, layout: Layout, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Path, status and error in the order of the layout."""
        import pyarrow as pa

        self._reopen(layout)
        lead = pa.concat_tables(table.select([PATH, STATUS, ERROR]) for table in self._tables)
        for start, stop in layout.ranges():
            yield from lead.slice(start, stop - start).select(schema.names).to_batches()

    def settle(self, layout: Layout) -> int:
        """Takes out of the parts what the layout does not have: rows of inputs that have changed or gone.

        A row that the layout has more than once, since its path is listed more than once, is there as often.

        Returns:
            Number of rows in all the parts.
        """
        import numpy as np

        self._reopen(layout)
        times = np.zeros(layout.rows, np.int32)
        for start, stop in layout.ranges():
            times[start:stop] += 1
        begin = 0
        for name, notes in zip(list(self._part_names), list(self._tables), strict=True):
            wanted = times[begin : begin + notes.num_rows]
            begin += notes.num_rows
            if (wanted != 1).any():
                # First the new part, then the old one goes: dying in between leaves rows twice; the newer ones count.
                self._rewrite(name, notes, np.repeat(np.arange(len(wanted)), wanted))
                self._unlink(name, _notes_of(name))
        return int(times.sum())

    def _rewrite(self, name: str, notes: pa.Table, numbers: Any) -> None:
        import pyarrow as pa

        if not len(numbers):
            return
        reader = ParquetReader(os.path.join(self._folder, name))
        rows = pa.concat_batches(list(reader.batches())).take(pa.array(numbers))
        kept = notes.take(pa.array(numbers)).combine_chunks().to_batches()
        self._take(rows, kept[0])
        self._rows = rows.num_rows
        self.cut()

    def succeed(self, meta: dict[str, Any], schema: pa.Schema) -> None:
        """Says of what made the rows, and that all are there; a dataset without images gets one part without rows."""
        if not self._part_names and not any(_PART.fullmatch(name) for name in self._names()):
            self._write_empty(schema)
        text = json.dumps(meta, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        self._write(DATASET_META, text.encode("utf-8", "backslashreplace"))
        self._write(SUCCESS, b"")
        sync_directory(self._folder)
        self.remove()

    def _write_empty(self, schema: pa.Schema) -> None:
        temporary = os.path.join(self._folder, "_part.parquet.tmp")
        with open(temporary, "wb") as stream:
            sink = ParquetSink(stream, schema, self._metadata())
            sink.close()
        publish(temporary, os.path.join(self._folder, "part-00000.parquet"))


def _notes_of(part: str) -> str:
    return "_" + part.removesuffix(".parquet") + ".arrow"
