"""`FILE.partial/`: the finished rows of a run, until FILE is written as a whole at the end.

    lock               held by the process that writes FILE, which it names
    run.json           the fingerprint of the run: everything that its rows depend on
    part-00000.arrow   rows (`xcli.outputs.checked_file`), each with size and modification time of its input

A part that was found damaged is `part-00000.arrow.damaged` from then on, also after the end of the run.

In an object store `s3://bucket/FILE.partial/` is the same, without the lock. Finished parts never change: a `RowOrder`
determines the order in which FILE gets their rows.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError, OutputError
from xcli.outputs.checked_file import CheckedReader, CheckedWriter, Part
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Parts
from xcli.outputs.resume import state_columns, state_fields
from xcli.outputs.target import File
from xcli.storage import disk
from xcli.storage.directories import open_folder
from xcli.storage.ownership import FILES, SUFFIX
from xcli.storage.staging import PrivateFolder
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from xcli.core.records import FileState

log = logging.getLogger("xcli")


class PartialFile(Parts):
    """The parts of a file, beside it.

    Args:
        target: the file.
        restart: discard what earlier runs left.
        part_rows, part_seconds: see `Parts`.

    Raises:
        OutputError: another process writes the file, or the folder cannot be made or has other files.
    """

    own_files = FILES
    part_files = re.compile(r"part-([0-9]{5,})\.arrow")

    def __init__(
        self,
        target: str,
        *,
        restart: bool = False,
        part_rows: int = DEFAULT_PART_ROWS,
        part_seconds: float = DEFAULT_PART_SECONDS,
    ) -> None:
        folder = open_folder(target + SUFFIX) if is_url(target) else PrivateFolder(target)
        super().__init__(target, folder, part_rows, part_seconds)
        self._writer: CheckedWriter | None = None
        self._part = self._scratch = ""
        self._load(restart)

    def _clean_up(self) -> None:
        try:
            self._delete_parts()
            self._folder.unlink("lock")
        except OutputError as error:
            log.warning("%s; it is not needed any more", error)
        self._folder.remove()

    def _has_output(self) -> bool:
        return File(self._target).finished_run() is not None

    def _open(self, name: str) -> CheckedReader:
        try:
            return CheckedReader(disk.open_file(self._folder.local(name)), self._number(name))
        except FileNotFoundError:
            raise CheckError("it is missing") from None

    def _part_of(self, name: str, reader: CheckedReader) -> Part:
        return Part(name, reader.rows, reader.digest)

    # Writing

    def _add(self, rows: pa.RecordBatch, keys: Sequence[int], states: Sequence[FileState | None]) -> None:
        import pyarrow as pa

        if self._writer is None:
            self._part = f"part-{self._next_number():05d}.arrow"
            self._scratch = self._folder.scratch(self._part)
            self._writer = CheckedWriter(self._scratch)
        schema = pa.schema([*rows.schema, *state_fields()])
        self._writer.write(pa.RecordBatch.from_arrays([*rows.columns, *state_columns(keys, states)], schema=schema))

    def _close_part(self) -> Part:
        writer, self._writer = self._writer, None
        assert writer is not None
        try:
            part = Part(self._part, writer.rows, writer.close(self._number(self._part)))
            self._folder.publish(self._scratch, self._part, keep=True)
        except BaseException:
            with suppress(OSError):
                writer.abandon()
            raise
        return part
