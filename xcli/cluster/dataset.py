"""A directory of parts that other processes write, on any machine that can reach it, as the driver sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.dataset import Dataset
from xcli.outputs.part_files import count_rows, part_name, read_sidecar, remove_part
from xcli.tables.parquet import part_number
from xcli.tables.provenance import DATASET_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from xcli.outputs.checked_file import Part

_NOT_SHARED = "workers and the process that started them need storage that they share"


class SharedDataset(Dataset):
    """A `Dataset` for the driver, which holds the lock and checks the parts, but writes none."""

    def __exit__(self, *error: object) -> None:
        failed = error[0] is not None and self.fingerprint is None and not self._finished
        if failed and self._folder.read(DATASET_RUN) is not None:
            self.fingerprint = {}  # so that parts that workers have finished are kept
        super().__exit__(*error)

    def _open_parts(self) -> list[Part]:
        """Opens no parts: the workers find out which are still valid."""
        return []

    def shared_fingerprint(self) -> dict[str, Any]:
        """Returns the fingerprint that the workers have written.

        Raises:
            OutputError: there is none.
        """
        self.fingerprint = self._read_fingerprint()
        if self.fingerprint is None:
            raise OutputError(f"the parts in {one_line(self._target)} cannot be seen from here: {_NOT_SHARED}")
        return self.fingerprint

    def verify_parts(self, parts: Iterable[Part]) -> int:
        """Checks that all parts are there, and deletes those that only earlier runs had.

        Only the end of each is read. The workers have read the parts of earlier runs as a whole.

        Args:
            parts: those of the run, as the workers describe them.

        Returns:
            Number of rows in all parts, as counted in the files.

        Raises:
            OutputError: a part is missing, damaged, or has another number of rows.
        """
        expected = {part.name: part for part in parts}
        there = self._part_names()
        missing = [name for name in expected if name not in set(there)]
        if missing:
            raise OutputError(
                f"{one_line(self._target)} has no {missing[0]}, which a worker has finished: {_NOT_SHARED}. Run the "
                "same command again to continue"
            )
        for name in there:
            if name not in expected:
                remove_part(self._folder, part_number(name))

        def check(name: str) -> None:
            with self._intact(name):
                found, right = count_rows(self._folder, name), expected[name].rows
                if found != right:
                    raise CheckError(f"it has {found} rows, not the {right} that were written")

        for _ in self._folder.each(check, expected):
            pass
        self._parts = list(expected.values())
        return self.rows

    def statuses(self, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        """Yields path, status and error of the rows of these parts."""
        for rows in self._read_sidecars(numbers):
            yield rows.select(list(STATUS_COLUMNS))

    def _sidecars(self) -> Iterator[pa.RecordBatch]:
        return self._read_sidecars(part_number(part.name) for part in self._opened())

    def _read_sidecars(self, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        def read(name: str) -> tuple[pa.Table, dict[str, str], Part] | None:
            with self._intact(name):
                return read_sidecar(self._folder, part_number(name), check=False)

        for found in self._folder.each(read, map(part_name, numbers)):
            if found is None:
                raise OutputError(
                    f"{one_line(self._target)} was damaged during the run. Run the same command again to repair it"
                )
            yield from found[0].to_batches()
