"""The finished rows of a run that has not ended, in a folder; a killed run loses at most the part it was writing.

`FILE.partial/` (`xcli.outputs.partial_file`) and `DIR/` (`xcli.outputs.dataset`) both have a lock, which names the
process that writes the output; `run.json`, the fingerprint of the run; and parts, each of which appears whole or not at
all. Before a row of an earlier run is believed, the digest of its part is checked (`xcli.outputs.checked_file`). A
damaged part is set aside, and its rows are computed again; whatever else goes wrong ends the run and changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xcli.core.errors import CheckError, OutputError
from xcli.core.levels import DETAIL
from xcli.core.records import ERROR, PATH, STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.base_rows import OutputRows
from xcli.outputs.damage import set_aside
from xcli.outputs.journal import decode, encode, refuse_other_settings
from xcli.outputs.ordered_rows import RowReader, ordered_rows
from xcli.outputs.resume import KEY, MTIME, SIZE, STATE_COLUMNS, FinishedRows, RowOrder, write_states
from xcli.storage.streams import read_errors, write_errors
from xcli.tables.base import rows_per_group
from xcli.tables.provenance import DATASET_META, SUCCESS

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.outputs.base_table import BaseTable
    from xcli.outputs.checked_file import CheckedReader, Part
    from xcli.storage.directories import Folder
    from xcli.tables.states import StatesWriter

log = logging.getLogger("xcli")

DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS = 1000, 30.0


class Parts(ABC):
    """The parts of one output, locked against other processes; a context manager.

    Args:
        target: the output, as the user named it.
        folder: where the parts are; made if it is not there, and closed at the end.
        part_rows: rows after which a part is finished.
        part_seconds: seconds after which a part is finished.

    Attributes:
        fingerprint: that of the run whose parts are kept; None while there is none.
        base: the rows of the finished output that is updated, which come before those of the parts; set it before
            anything is asked of the rows.

    Raises:
        OutputError: another process writes the output, the folder cannot be made, or the run in it cannot be continued.
            From every method: the disk or the server fails, or parts were damaged while this run used them.
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
        self._parts: list[Part] | None = None  # in the order in which their rows are numbered
        self._kept = FinishedRows((), retry_errors=False)
        self._finished = False
        self._unusable: OutputError | None = None  # if the parts cannot be continued
        self.fingerprint: dict[str, Any] | None = None
        self.base: BaseTable | None = None
        folder.lock(self.prefix + "lock", target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.fingerprint is None and self._unusable is None:
                self._clean_up()
        finally:
            self._folder.close()

    @abstractmethod
    def _clean_up(self) -> None:
        """Removes everything that is not part of the output, the lock last; for the end of a run without rows too."""

    # Rows of earlier runs

    def _load(self, restart: bool) -> None:
        """Reads the fingerprint of an earlier run, or removes its parts; every constructor ends with this."""
        try:
            # A finished output is not continued. Its run may have been killed while it removed its files.
            if restart:
                self._delete_parts()
            elif not self._finished:
                self.fingerprint = self._read_fingerprint()
                if self.fingerprint is None and self._unusable is None:
                    self._delete_parts()
        except BaseException:
            self._folder.close()
            raise

    def _own_names(self) -> list[str]:
        return list(filter(self.own_files.fullmatch, self._folder.names()))

    def _delete_parts(self) -> None:
        """Deletes everything but the lock and what is damaged.

        `_SUCCESS` goes first, so that no reader takes the remaining parts for a finished output, and a part before its
        sidecar. What shows that the files are this program's goes last.
        """
        names = [name for name in self._own_names() if name != self.prefix + "lock" and ".damaged" not in name]
        parts = list(filter(self.part_files.fullmatch, names))
        last = [name for name in (self.prefix + "run.json", DATASET_META) if name in names]
        others = [name for name in names if name not in (SUCCESS, *parts, *last)]
        for step in ([SUCCESS] if SUCCESS in names else [], parts, others, last[:1], last[1:]):
            self._folder.unlink(*step)

    def _read_fingerprint(self) -> dict[str, Any] | None:
        name = self.prefix + "run.json"
        content = self._folder.read(name)
        try:
            if content is not None:
                return decode(content)
            parts = self._part_names()
            if not parts:
                return None
            raise CheckError(f"it is missing, and {parts[0]} is there")
        except CheckError as error:
            self._unusable = OutputError(
                f"{one_line(self._folder.name)} cannot be continued: {name} cannot be used, {error}. Use --restart to "
                "discard the unfinished run"
            )
        if not self._has_output():
            raise self._unusable
        return None

    def _has_output(self) -> bool:
        """Returns whether a run has finished the output, so that its parts may be the rest of a removal."""
        return False

    def _part_names(self) -> list[str]:
        """Returns the names of the parts, in the order of their numbers."""
        return sorted(filter(self.part_files.fullmatch, self._folder.names()), key=self._number)

    def _number(self, name: str) -> int:
        match = self.part_files.fullmatch(name)
        assert match is not None
        return int(match[1])

    def _opened(self) -> list[Part]:
        """Returns the parts; the first call checks those of an earlier run, and sets damaged ones aside."""
        if self._parts is None:
            self._parts = self._open_parts() if self.fingerprint is not None else []
        return self._parts

    def _open_parts(self) -> list[Part]:
        self._folder.unlink(*(name for name in self._own_names() if name.endswith(".tmp")))
        parts: list[Part] = []
        damaged: dict[str, CheckError] = {}

        def good() -> Iterator[pa.Table]:
            names = self._part_names()
            for name, found in zip(names, self._folder.each(self._check, names), strict=True):
                if isinstance(found, CheckError):
                    damaged[name] = found
                else:
                    parts.append(found[0])
                    yield found[1]

        if self.base is None:
            self._kept = FinishedRows(good(), retry_errors=False)
        else:
            self._kept = OutputRows(self.base.rows, good(), update=True)
        for name, error in damaged.items():
            log.warning("%s", self._set_aside(name, error))
        return parts

    def _check(self, name: str) -> tuple[Part, pa.Table] | CheckError:
        """Checks a part of an earlier run; returns it with the columns for `FinishedRows`, or what is damaged."""
        import numpy as np
        import pyarrow as pa

        try:
            with self._reading(name), self._open(name) as reader:
                # Copied, so that the rows themselves do not stay in memory.
                states = [
                    batch.select(STATE_COLUMNS).take(pa.array(np.arange(batch.num_rows))) for batch in reader.batches()
                ]
                return self._part_of(name, reader), pa.Table.from_batches(states)
        except CheckError as error:
            return error

    @abstractmethod
    def _open(self, name: str) -> CheckedReader:
        """Opens the checked file of a part."""

    @abstractmethod
    def _part_of(self, name: str, reader: CheckedReader) -> Part:
        """Returns the part of a checked file; raises CheckError if what the file describes is damaged."""

    def _reading(self, name: str) -> Any:
        return read_errors(os.path.join(self._folder.name, name))

    def _files_of(self, name: str) -> tuple[str, ...]:
        """Returns the names of the files of a part."""
        return (name,)

    def _set_aside(self, name: str, error: CheckError) -> str:
        """Renames the files of a damaged part; returns what the user must know."""
        return set_aside(self._folder, self._files_of(name), self.prefix, error)

    @contextmanager
    def _intact(self, name: str) -> Iterator[None]:
        """A context for reading a part that was intact before: if it is not any more, it is set aside."""
        try:
            with self._reading(name):
                yield
        except CheckError as error:
            raise OutputError(
                f"{one_line(self._folder.name)} was damaged during the run: {self._set_aside(name, error)}. Run the "
                "same command again"
            ) from error

    @property
    def rows(self) -> int:
        """Number of rows in the finished parts."""
        return sum(part.rows for part in self._opened())

    def begin(self, fingerprint: dict[str, Any]) -> None:
        """Checks that the rows of the earlier run, if there is one, have the same fingerprint as those to come.

        Raises:
            OutputError: they have not; the message names the settings that differ.
        """
        if self._unusable is not None:
            raise self._unusable
        if self._finished:
            raise OutputError(f"{one_line(self._target)} was finished by another process. Run the same command again")
        fingerprint = json.loads(json.dumps(fingerprint))
        if self.fingerprint is None:
            self._folder.write(self.prefix + "run.json", encode(fingerprint))
            self.fingerprint = fingerprint
        elif self.fingerprint != fingerprint:
            earlier = f"an unfinished run ({sum(map(self._rows_in, self._part_names())):,} rows)"
            refuse_other_settings(self._target, self.fingerprint, fingerprint, earlier)

    def _rows_in(self, name: str) -> int:
        """Returns the number of rows of a part, for a message; 0 if it cannot be read."""
        rows = 0
        with suppress(CheckError, OutputError), self._reading(name), self._open(name) as reader:
            rows = reader.rows
        return rows

    def finished_rows(self, retry_errors: bool) -> FinishedRows:
        """Returns an index of the rows of earlier runs."""
        self._opened()
        self._kept.retry_errors = retry_errors
        return self._kept

    # Writing

    def append(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Appends rows, and finishes the part if it has enough rows or is old enough.

        Args:
            rows: b rows.
            keys, states: of their inputs; see `xcli.outputs.resume`.
        """
        self._opened()
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
                part = self._close_part()
                self._opened().append(part)
            log.log(DETAIL, "%s: a part of %s rows is saved", one_line(self._folder.name), f"{part.rows:,}")

    @abstractmethod
    def _close_part(self) -> Part:
        """Ends the current part, even if that fails."""

    def _next_number(self) -> int:
        if self._next is None:
            self._next = max(map(self._number, self._part_names()), default=-1) + 1
        number, self._next = self._next, self._next + 1
        return number

    # The end of a run

    def read(self, order: RowOrder, schema: pa.Schema, states: Sequence[StatesWriter] = ()) -> Iterator[pa.RecordBatch]:
        """Yields the rows in this order, a limited number at a time; `schema` has some of the parts' columns.

        Each of `states` gets the states of the images. At the end it checks, by the keys, that each row was that of its
        image.

        Raises:
            OutputError: rows are missing, or belong to other images.
        """
        import pyarrow as pa
        from xxhash import xxh3_128

        if self._base_rows + self.rows != order.rows:
            raise self._other_rows()
        own = [PATH, ERROR, KEY, SIZE, MTIME] if states else [KEY]
        columns = [*schema.names, *(name for name in own if name not in schema.names)]
        keys, window, begin = xxh3_128(), max(1, rows_per_group(schema) // 4), 0
        base_parts = [] if self.base is None else self.base.parts(order, window, self.new_scratch)
        parts = [*base_parts, *self._opened()]
        with RowReader(parts, self._open_any, self._intact_any) as reader:
            for rows in ordered_rows(order, reader, columns, window, self.new_scratch):
                keys.update(rows.column(KEY).to_numpy().astype("<u8").tobytes())
                for one in states:
                    write_states(one, rows, order, begin)
                begin += rows.num_rows
                yield pa.RecordBatch.from_arrays(rows.columns[: len(schema)], schema=schema)
        if keys.digest() != order.keys.digest():
            raise self._other_rows()
        if self.base is not None:
            self.base.check()

    @property
    def _base_rows(self) -> int:
        return 0 if self.base is None else len(self.base.rows.table)

    def _open_any(self, name: str) -> CheckedReader:
        return self.base.open(name) if self.base and self.base.opens(name) else self._open(name)

    def _intact_any(self, name: str) -> AbstractContextManager[None]:
        return self.base.intact() if self.base and self.base.opens(name) else self._intact(name)

    def new_scratch(self) -> str:
        """Returns the path of a new temporary file, which goes with what belongs to the run."""
        return self._folder.scratch(f"{self.prefix}part-{self._next_number():05d}.arrow")

    def _other_rows(self) -> OutputError:
        return OutputError(
            f"{one_line(self._folder.name)} was damaged during the run: it does not have the rows of the sources, each "
            "once and in order. Run the same command again to repair it"
        )

    def finished_statuses(self, order: RowOrder) -> Iterator[pa.RecordBatch]:
        """Yields path, status and error of the finished rows of this order, in the order in which they were written."""
        import numpy as np
        import pyarrow as pa

        wanted = np.zeros(max(self._base_rows + self.rows, order.rows), bool)
        for start, stop in order.ranges():
            wanted[start:stop] = True
        begin = self._base_rows
        for batch in self.own_rows():
            yield batch.select(STATUS_COLUMNS).filter(pa.array(wanted[begin : begin + batch.num_rows]))
            begin += batch.num_rows

    def discard(self) -> None:
        """Deletes what belongs to the unfinished run."""
        self._delete_parts()
        self.remove()

    def own_rows(self) -> Iterator[pa.RecordBatch]:
        """Yields all rows of the parts, with all their columns, in the order of their numbers."""
        for part in self._opened():
            with self._intact(part.name), self._open(part.name) as reader:
                yield from reader.batches()

    def remove(self) -> None:
        """Declares the output finished: what belongs to the unfinished run is removed when the context ends."""
        self.fingerprint = self._unusable = None
