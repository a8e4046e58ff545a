"""The finished rows of a run that is under way, in a folder: what no death takes away.

`FILE.partial/` (`xcli.outputs.partial_file`) and `DIR/` (`xcli.outputs.dataset`) have in common: a lock, held by the
process that works on the output and naming it; `run.json`, the fingerprint of the run (everything that its rows depend
on); parts, each of which appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from xcli.core.errors import OutputError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.resume import FinishedRows
from xcli.storage.streams import write_errors
from xcli.tables.provenance import differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import pyarrow as pa

    from xcli.core.records import FileState
    from xcli.outputs.resume import RowOrder
    from xcli.storage.directories import Folder

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
        fingerprint: of the earlier run whose parts are kept, or None.

    Raises:
        OutputError: another process works on the output, or the folder cannot be made.
    """

    prefix: ClassVar[str] = ""
    """Of the names of everything in the folder that is no part."""

    def __init__(self, target: str, folder: Folder, part_rows: int, part_seconds: float) -> None:
        self._target, self._folder = target, folder
        self._part_rows, self._part_seconds = part_rows, part_seconds
        self._rows = 0
        self._begun = 0.0
        self._tables: list[pa.Table] = []
        self.fingerprint: dict[str, Any] | None = None
        folder.lock(self.prefix + "lock", target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tables.clear()
        try:
            if self.fingerprint is None:
                # Nothing is kept: leave no trace of a run that did not come as far as to have rows.
                self._clear_away()
        finally:
            self._folder.close()

    @abstractmethod
    def _clear_away(self) -> None:
        """Removes what has no use any more, the lock last."""

    # What earlier runs left

    def _recall(self, restart: bool) -> None:
        """Reads what is there, or drops it; for the end of the construction."""
        try:
            if restart:
                self._drop()
            self.fingerprint = self._read_fingerprint()
            self._tables = [] if self.fingerprint is None else self._open_parts()
            self._tidy()
        except BaseException:
            self._folder.close()
            raise

    @abstractmethod
    def _tidy(self) -> None:
        """Removes what an earlier run that died has left and that is of no use; parts without a fingerprint, say."""

    def _names(self) -> list[str]:
        return self._folder.names()

    def _unlink(self, *names: str) -> None:
        self._folder.unlink(*names)

    def _drop(self) -> None:
        # The fingerprint last: while it is there, what is left can be told from somebody else's files.
        names = [name for name in self._names() if self._is_ours(name)]
        run = self.prefix + "run.json"
        self._unlink(*(name for name in names if name not in (run, self.prefix + "lock")))
        self._unlink(run)

    @abstractmethod
    def _is_ours(self, name: str) -> bool:
        """Whether a file of this name is of this run's making."""

    def _read_fingerprint(self) -> dict[str, Any] | None:
        text = self._folder.read(self.prefix + "run.json")
        if text is None:
            return None
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{one_line(self._folder.name)} cannot be continued ({self.prefix}run.json: {one_line(str(error))}); "
                "pass --restart to start over"
            ) from error

    @abstractmethod
    def _open_parts(self) -> list[pa.Table]:
        """One table a part, with at least the columns of `FinishedRows`, in the order in which they were written."""

    def _reopen(self, order: RowOrder) -> None:
        """Opens the parts once more, at the end, when they hold all the rows of a order.

        Raises:
            OutputError: they do not.
        """
        self._tables = self._open_parts()
        if self.rows != order.rows:
            raise OutputError(f"{one_line(self._folder.name)} has been damaged meanwhile; the same command mends it")

    @property
    def rows(self) -> int:
        """Number of rows that are kept."""
        return sum(table.num_rows for table in self._tables)

    def begin(self, fingerprint: dict[str, Any]) -> None:
        """Makes sure that the rows kept and the rows to come are of one kind.

        Raises:
            OutputError: they are not; the message names the differences.
        """
        text = json.dumps(fingerprint, indent=2, sort_keys=True)
        fingerprint = json.loads(text)
        if self.fingerprint is None:
            self._folder.write(self.prefix + "run.json", text.encode())
            self.fingerprint = fingerprint
        refuse_other_settings(self._folder.name, self.fingerprint, fingerprint)

    def finished_rows(self, retry_errors: bool) -> FinishedRows:
        """The rows of earlier runs, to be looked up."""
        return FinishedRows(self._tables, retry_errors)

    # Writing

    def append(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Adds rows behind all others, and finishes the part if it is long or old enough.

        Args:
            rows: b rows.
            keys, states: of their inputs; see `xcli.outputs.resume`.
        """
        if not self._rows:
            self._begun = time.monotonic()
        with write_errors(self._folder.name):
            self._add(rows, keys, states)
        self._rows += rows.num_rows
        if self._rows >= self._part_rows or time.monotonic() - self._begun >= self._part_seconds:
            self.finish_part()

    @abstractmethod
    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        """Adds rows to the part in hand, beginning one where there is none."""

    def finish_part(self) -> None:
        """Finishes the part in hand, if any: on the disk, and then under its name."""
        if self._rows:
            self._rows = 0
            with write_errors(self._folder.name):
                self._close_part()

    @abstractmethod
    def _close_part(self) -> None:
        """Ends the part in hand, whether or not that works."""

    @abstractmethod
    def read(self, order: RowOrder, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows in the order of a order, a bounded number at a time; `schema` has some of the columns."""

    def finished_statuses(self, order: RowOrder) -> Iterator[pa.RecordBatch]:
        """Path, status and error of the rows that a order has and that are finished, in the order they were made."""
        import numpy as np
        import pyarrow as pa

        self._tables = self._open_parts()
        wanted = np.zeros(self.rows, bool)
        for start, stop in order.ranges():
            wanted[start:stop] = True
        begin = 0
        for table in self._tables:
            mask = pa.array(wanted[begin : begin + table.num_rows])
            begin += table.num_rows
            yield from table.select(list(STATUS_COLUMNS)).filter(mask).to_batches()

    def remove(self) -> None:
        """Says that the output is whole: nothing needs to be kept."""
        self._tables.clear()
        self.fingerprint = None


def refuse_other_settings(place: str, earlier: dict[str, Any], fingerprint: dict[str, Any], hint: str = "") -> None:
    """Makes sure that two fingerprints are the same.

    Args:
        place: where the rows are.
        earlier: of the run that has made them.
        fingerprint: of the run that would go on.
        hint: what else a difference may come of.

    Raises:
        OutputError: they are not; the message names the differences.
    """
    changes = [
        f"{name} was {json.dumps(before)}, is {json.dumps(after)}"
        for name, before, after in differences(earlier, fingerprint)
    ]
    if changes:
        raise OutputError(
            f"{one_line(place)} holds rows of a run with other settings{hint} ({one_line('; '.join(changes))}); "
            "run it with those, give another -o, or pass --restart to start over"
        )
