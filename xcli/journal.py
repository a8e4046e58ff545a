"""`FILE.partial/`: the finished rows of a run, kept until FILE is whole, so that no death costs more than a part.

    lock               held by the process that works on FILE; names it
    run.json           the fingerprint of the run: everything that its rows depend on
    part-00000.arrow   rows as Arrow IPC, each with size and modification time of its input

A part appears whole or not at all. Its rows are final: the order of FILE is told by a `Layout` when FILE is put
together, so that rows of earlier runs are never written again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xcli.errors import OutputError
from xcli.output import reported, sync_directory
from xcli.provenance import differences
from xcli.resuming import KeptRows, Layout, Stamp, stamp_fields
from xcli.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import pyarrow as pa

log = logging.getLogger("xcli")

SUFFIX = ".partial"
DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS = 1000, 30.0

_PART = re.compile(r"part-([0-9]{5,})\.arrow")
_COPIED_ROWS = 1000
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Journal:
    """The parts of one output, locked against other processes; a context manager.

    Args:
        target: the output file.
        restart: drop what earlier runs left.
        part_rows: rows after which a part is finished.
        part_seconds: seconds after which a part is finished.

    Attributes:
        fingerprint: of the earlier run whose parts are kept, or None.

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
        self._target = target
        self._folder = target + SUFFIX
        self._part_rows, self._part_seconds = part_rows, part_seconds
        self._writer: Any = None
        self._part = ""
        self._rows = 0
        self._begun = 0.0
        self._lock = self._acquire()
        try:
            if restart:
                self._drop()
            self.fingerprint = self._read_fingerprint()
            self._tables = [] if self.fingerprint is None else self._open_parts()
        except BaseException:
            os.close(self._lock)
            raise

    # The lock

    def _acquire(self) -> int:
        while True:
            with reported(self._folder):
                with suppress(FileExistsError):
                    os.mkdir(self._folder)
                path = os.path.join(self._folder, "lock")
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip() or "another process"
                os.close(descriptor)
                raise OutputError(
                    f"{one_line(self._target)} is being written by {one_line(holder)}; wait for it, or give another -o"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(descriptor)
                    with reported(self._folder):
                        raise
                log.warning("%s: this file system has no locks; make sure that one process writes it", self._folder)
            if self._is_still(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                return descriptor
            os.close(descriptor)

    @staticmethod
    def _is_still(path: str, descriptor: int) -> bool:
        """Whether the locked file has its name yet: a run that ends takes the whole directory away."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tables.clear()
        if self.fingerprint is None:
            # Nothing was kept: leave no trace of a run that did not come as far as to have rows.
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    # What earlier runs left

    def _drop(self) -> None:
        for name in os.listdir(self._folder):
            if name != "lock":
                with reported(self._folder):
                    os.unlink(os.path.join(self._folder, name))

    def _read_fingerprint(self) -> dict[str, Any] | None:
        try:
            with open(os.path.join(self._folder, "run.json"), encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{one_line(self._folder)} cannot be continued (run.json: {one_line(str(error))}); "
                "pass --restart to start over"
            ) from error
        return dict(found)

    def _open_parts(self) -> list[pa.Table]:
        import pyarrow as pa

        tables = []
        for name in sorted(name for name in os.listdir(self._folder) if _PART.fullmatch(name)):
            path = os.path.join(self._folder, name)
            try:
                tables.append(pa.ipc.open_file(pa.memory_map(path)).read_all())
            except (OSError, pa.ArrowInvalid) as error:
                log.warning("%s is damaged (%s): its rows are computed again", one_line(path), one_line(str(error)))
                os.unlink(path)
        return tables

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
            self._write("run.json", text.encode())
            self.fingerprint = fingerprint
        changes = [
            f"{name} was {json.dumps(before)}, is {json.dumps(after)}"
            for name, before, after in differences(self.fingerprint, fingerprint)
        ]
        if changes:
            raise OutputError(
                f"{one_line(self._folder)} holds rows of a run with other settings ({one_line('; '.join(changes))}); "
                "run it with those, give another -o, or pass --restart to start over"
            )

    def kept(self, retry_errors: bool) -> KeptRows:
        """The rows of earlier runs, to be looked up."""
        return KeptRows(self._tables, retry_errors)

    # Writing

    def append(self, rows: pa.RecordBatch, keys: Sequence[int], stamps: Sequence[Stamp | None]) -> None:
        """Adds rows behind all others, and finishes the part if it is long or old enough.

        Args:
            rows: b rows.
            keys, stamps: of their inputs; see `xcli.resuming`.
        """
        import pyarrow as pa

        columns = [
            *rows.columns,
            pa.array(keys, pa.uint64()),
            pa.array([None if stamp is None else stamp.size for stamp in stamps], pa.int64()),
            pa.array([None if stamp is None else stamp.mtime for stamp in stamps], pa.int64()),
        ]
        schema = pa.schema([*rows.schema, *stamp_fields()])
        with reported(self._folder):
            if self._writer is None:
                self._part = f"part-{self._next_number():05d}.arrow"
                self._writer = pa.ipc.new_file(os.path.join(self._folder, self._part + ".tmp"), schema)
                self._begun = time.monotonic()
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        self._rows += rows.num_rows
        if self._rows >= self._part_rows or time.monotonic() - self._begun >= self._part_seconds:
            self.cut()

    def _next_number(self) -> int:
        numbers = [int(match[1]) for match in map(_PART.fullmatch, os.listdir(self._folder)) if match]
        return max(numbers, default=-1) + 1

    def cut(self) -> None:
        """Finishes the part in hand, if any: on the disk, and then under its name."""
        if self._writer is None:
            return
        writer, self._writer, self._rows = self._writer, None, 0
        temporary = os.path.join(self._folder, self._part + ".tmp")
        with reported(self._folder):
            writer.close()
            _publish(temporary, os.path.join(self._folder, self._part))

    def _write(self, name: str, content: bytes) -> None:
        temporary = os.path.join(self._folder, name + ".tmp")
        with reported(self._folder):
            with open(temporary, "wb") as file:
                file.write(content)
            _publish(temporary, os.path.join(self._folder, name))

    # Reading back

    def read(self, layout: Layout, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows in the order of the layout, at most so many at a time; memory stays flat, the files are mapped."""
        import pyarrow as pa

        self._tables = self._open_parts()
        starts = [0]
        for table in self._tables:
            starts.append(starts[-1] + table.num_rows)
        if starts[-1] != layout.rows:
            raise OutputError(f"{one_line(self._folder)} has been damaged meanwhile; the same command mends it")
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

    def remove(self) -> None:
        """Takes everything away: FILE is whole."""
        self._tables.clear()
        self.fingerprint = None


def _publish(temporary: str, final: str) -> None:
    """Gives a complete file its name, once its content is on the disk."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, final)
    sync_directory(os.path.dirname(final) or os.curdir)
