"""The finished rows of a run that has not ended, in a folder; a killed run loses at most the part it was writing.

`FILE.partial/` (`xcli.outputs.partial_file`) and `DIR/` (`xcli.outputs.dataset`) both have a lock, which names the
process that writes the output; `run.json`, the fingerprint of the run; and parts, each of which appears whole or not at
all.
"""

from __future__ import annotations

import json
import logging
import os
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xcli.core.errors import CheckError, OutputError
from xcli.core.records import STATUS_COLUMNS, FileState
from xcli.core.text import one_line
from xcli.outputs.resume import FinishedRows, RowOrder
from xcli.storage.streams import write_errors
from xcli.tables.provenance import DATASET_META, SUCCESS, differences

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.storage.directories import Folder

log = logging.getLogger("xcli")

DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS = 1000, 30.0

_MAX_BATCH_ROWS = 1000

_OPTIONS = frozenset(
    "batch_size bit_depth crop_pct csv_safe device dtype features_out format input_range interpolation "
    "label_type layer limit manifest max_pixels min_score normalize part_rows path_column precision "
    "raw_scores resize strict top".split()
)
"""Members of a fingerprint that have the name of an option."""


class Parts(ABC):
    """The parts of one output, locked against other processes; a context manager.

    Args:
        target: the output, as the user named it.
        folder: where the parts are; made if it is not there, and closed at the end.
        part_rows: rows after which a part is finished.
        part_seconds: seconds after which a part is finished.

    Attributes:
        fingerprint: that of the run whose parts are kept; None while there is none.

    Raises:
        OutputError: another process writes the output, or the folder cannot be made.
    """

    prefix: ClassVar[str] = ""
    """The beginning of the names of files in the folder that are not parts."""

    own_files: ClassVar[re.Pattern[str]]
    """Matches the names of all files that this program writes into the folder."""

    part_files: ClassVar[re.Pattern[str]]
    """Matches the names of parts; its group is the number."""

    def __init__(self, target: str, folder: Folder, part_rows: int, part_seconds: float) -> None:
        self._target, self._folder = target, folder
        self._part_rows, self._part_seconds = part_rows, part_seconds
        self._unfinished_rows = 0
        self._begun = 0.0
        self._next: int | None = None
        self._tables: dict[str, pa.Table] = {}
        self._finished = False
        self.fingerprint: dict[str, Any] | None = None
        folder.lock(self.prefix + "lock", target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tables.clear()
        try:
            if self.fingerprint is None:
                self._clean_up()
        finally:
            self._folder.close()

    @abstractmethod
    def _clean_up(self) -> None:
        """Removes everything that is not part of the output, the lock last; for the end of a run without rows too."""

    # Rows of earlier runs

    def _load(self, restart: bool) -> None:
        """Reads the parts of an earlier run, or removes them; every constructor ends with this."""
        try:
            # A finished output is not continued. Its run may have been killed while it removed its files.
            self.fingerprint = None if restart or self._finished else self._read_fingerprint()
            if self.fingerprint is not None:
                self._open_parts()
            elif not self._finished:
                self._delete_parts()
            self._folder.unlink(*(name for name in self._own_names() if name.endswith(".tmp")))
        except BaseException:
            self._folder.close()
            raise

    def _own_names(self) -> list[str]:
        return list(filter(self.own_files.fullmatch, self._folder.names()))

    def _delete_parts(self) -> None:
        """Deletes everything but the lock.

        `_SUCCESS` goes first, so that no reader takes the remaining parts for a finished output. What shows that the
        files are this program's goes last.
        """
        names = [name for name in self._own_names() if name != self.prefix + "lock"]
        last = [name for name in (self.prefix + "run.json", DATASET_META) if name in names]
        if SUCCESS in names:
            self._folder.unlink(SUCCESS)
        self._folder.unlink(*(name for name in names if name not in (SUCCESS, *last)))
        for name in last:
            self._folder.unlink(name)

    def _read_fingerprint(self) -> dict[str, Any] | None:
        text = self._folder.read(self.prefix + "run.json")
        if text is None:
            return None
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{one_line(self._folder.name)} cannot be continued: {self.prefix}run.json is damaged "
                f"({one_line(str(error))}). Use --restart to discard the unfinished run"
            ) from error

    def _part_names(self) -> list[str]:
        return list(filter(self.part_files.fullmatch, self._folder.names()))

    def _open_parts(self) -> None:
        """Opens all parts, in the order in which they were written; removes the damaged ones."""
        import pyarrow as pa

        def read(name: str) -> pa.Table | Exception:
            try:
                return self._read_part(name)
            except (OSError, pa.ArrowInvalid, CheckError) as error:
                return error

        self._tables = {}
        names = self._part_names()
        for name, table in zip(names, self._folder.each(read, names), strict=True):
            if isinstance(table, Exception):
                shown = one_line(os.path.join(self._folder.name, name))
                log.warning("%s is damaged (%s): its rows are computed again", shown, one_line(str(table)))
                self._delete_part(name)
            else:
                self._tables[name] = table

    @abstractmethod
    def _read_part(self, name: str) -> pa.Table:
        """Returns a table with at least the columns of `FinishedRows`."""

    def _delete_part(self, name: str) -> None:
        self._folder.unlink(name)

    def _reopen(self, order: RowOrder) -> None:
        """Opens the parts at the end of the run, when they have all rows."""
        self._open_parts()
        if self.rows != order.rows:
            raise OutputError(
                f"{one_line(self._folder.name)} was damaged during the run. Run the same command again to repair it"
            )

    @property
    def rows(self) -> int:
        """Number of rows in the parts that were opened."""
        return sum(table.num_rows for table in self._tables.values())

    def begin(self, fingerprint: dict[str, Any]) -> None:
        """Checks that the rows of the earlier run, if there is one, have the same fingerprint as those to come.

        Raises:
            OutputError: they have not; the message names the settings that differ.
        """
        text = json.dumps(fingerprint, indent=2, sort_keys=True)
        fingerprint = json.loads(text)
        if self.fingerprint is None:
            self._folder.write(self.prefix + "run.json", text.encode())
            self.fingerprint = fingerprint
        earlier = f"an unfinished run ({self.rows:,} rows)"
        refuse_other_settings(self._target, self.fingerprint, fingerprint, earlier)

    def finished_rows(self, retry_errors: bool) -> FinishedRows:
        """Returns an index of the rows of earlier runs."""
        return FinishedRows(list(self._tables.values()), retry_errors)

    # Writing

    def append(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Appends rows, and finishes the part if it has enough rows or is old enough.

        Args:
            rows: b rows.
            keys, states: of their inputs; see `xcli.outputs.resume`.
        """
        if not self._unfinished_rows:
            self._begun = time.monotonic()
        with write_errors(self._folder.name):
            self._add(rows, keys, states)
        self._unfinished_rows += rows.num_rows
        if self._unfinished_rows >= self._part_rows or time.monotonic() - self._begun >= self._part_seconds:
            self.finish_part()

    @abstractmethod
    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Adds rows to the current part; begins one if there is none."""

    def finish_part(self) -> None:
        """Writes the current part, if there is one, to the disk, and then gives it its name."""
        if self._unfinished_rows:
            self._unfinished_rows = 0
            with write_errors(self._folder.name):
                self._close_part()

    @abstractmethod
    def _close_part(self) -> None:
        """Ends the current part, even if that fails."""

    def _next_number(self) -> int:
        if self._next is None:
            numbers = [int(match[1]) for match in map(self.part_files.fullmatch, self._folder.names()) if match]
            self._next = max(numbers, default=-1) + 1
        number, self._next = self._next, self._next + 1
        return number

    def read(self, order: RowOrder, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yields the rows in this order, a limited number at a time; `schema` has some of the parts' columns.

        Raises:
            OutputError: rows are missing.
        """
        import pyarrow as pa

        self._reopen(order)
        tables = list(self._tables.values())
        starts = [0]
        for table in tables:
            starts.append(starts[-1] + table.num_rows)
        part = 0
        for start, stop in order.ranges():
            while start < stop:
                while not starts[part] <= start < starts[part + 1]:
                    part = part + 1 if start >= starts[part + 1] else 0
                end = min(stop, starts[part + 1])
                piece = tables[part].slice(start - starts[part], end - start).select(schema.names)
                for batch in piece.to_batches(max_chunksize=_MAX_BATCH_ROWS):
                    yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
                start = end

    def finished_statuses(self, order: RowOrder) -> Iterator[pa.RecordBatch]:
        """Yields path, status and error of the finished rows of this order, in the order in which they were written."""
        import numpy as np
        import pyarrow as pa

        self._open_parts()
        wanted = np.zeros(self.rows, bool)
        for start, stop in order.ranges():
            wanted[start:stop] = True
        begin = 0
        for table in self._tables.values():
            mask = pa.array(wanted[begin : begin + table.num_rows])
            begin += table.num_rows
            yield from table.select(list(STATUS_COLUMNS)).filter(mask).to_batches()

    def remove(self) -> None:
        """Declares the output finished: what belongs to the unfinished run is removed when the context ends."""
        self._tables.clear()
        self.fingerprint = None


def refuse_other_settings(
    target: str, earlier: dict[str, Any], fingerprint: dict[str, Any], run: str, this: str = "this run"
) -> None:
    """Checks that two fingerprints are the same.

    Args:
        target: the output.
        earlier: fingerprint of the run that began the output.
        fingerprint: that of the run that continues it.
        run: what the message calls the first.
        this: what the message calls the second.

    Raises:
        OutputError: they are not; the message names the settings that differ.
    """
    changes = differences(earlier, fingerprint)
    # The columns follow from other settings.
    changes = [change for change in changes if change[0] != "schema"] or changes
    if changes:
        before = ", ".join(_setting(name, value) for name, value, _ in changes)
        now = ", ".join(_setting(name, value) for name, _, value in changes)
        same = before if all(_is_option(name) for name, _, _ in changes) else "the same settings"
        raise OutputError(
            f"{one_line(target)} has {run} with {before}, but {this} has {now}. "
            f"Use {same}, another -o, or --restart to discard that run"
        )


def _is_option(name: str) -> bool:
    return name.rpartition(".")[2] in _OPTIONS


def _setting(name: str, value: Any) -> str:
    """Returns a member of a fingerprint as a user would write it: `--top 5`, `no --normalize`."""
    if not _is_option(name):
        return one_line(f"{name.removeprefix('provenance.')} {json.dumps(value)}")
    option = "--" + name.rpartition(".")[2].replace("_", "-")
    if value is None or value is False:
        return f"no {option}"
    return option if value is True else one_line(f"{option} {value}")
