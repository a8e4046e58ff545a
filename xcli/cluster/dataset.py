"""A directory of parts that other processes write, on any machine that can reach it, as the driver sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.dataset import Dataset
from xcli.outputs.part_files import count_rows, part_name, part_number, read_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

_NOT_SHARED = "workers and the process that started them need storage that they share"


class SharedDataset(Dataset):
    """A `Dataset` for the driver, which holds the lock and checks the parts, but writes none."""

    def __exit__(self, *error: object) -> None:
        if error[0] is not None and self.fingerprint is None and not self._finished:
            self.fingerprint = self._read_fingerprint()  # so that parts that workers have finished are kept
        super().__exit__(*error)

    def _open_parts(self) -> None:
        """Opens no parts: the workers find out which are still valid."""

    def shared_fingerprint(self) -> dict[str, Any]:
        """Returns the fingerprint that the workers have written.

        Raises:
            OutputError: there is none.
        """
        self.fingerprint = self._read_fingerprint()
        if self.fingerprint is None:
            raise OutputError(f"the parts in {one_line(self._target)} cannot be seen from here: {_NOT_SHARED}")
        return self.fingerprint

    def verify_parts(self, rows: Mapping[int, int]) -> int:
        """Checks that all parts are there, and deletes those that only earlier runs had.

        Args:
            rows: the expected number of rows of each part, by its number.

        Returns:
            Number of rows in all parts, as counted in the files.

        Raises:
            OutputError: a part is missing, damaged, or has another number of rows.
        """
        import pyarrow as pa

        def count(name: str) -> int | None:
            try:
                return count_rows(self._folder, name)
            except (OSError, pa.ArrowInvalid):
                return None

        expected = {part_name(number): rows[number] for number in sorted(rows)}
        there = self._part_names()
        missing = [name for name in expected if name not in set(there)]
        if missing:
            raise OutputError(
                f"{one_line(self._target)} has no {missing[0]}, which a worker has finished: {_NOT_SHARED}. Run the "
                "same command again to continue"
            )
        for name in there:
            if name not in expected:
                self._delete_part(name)
        counts = list(self._folder.each(count, expected))
        wrong = [name for name, found in zip(expected, counts, strict=True) if found != expected[name]]
        for name in wrong:
            self._delete_part(name)
        if wrong:
            raise OutputError(
                f"{one_line(self._target)}: {wrong[0]} does not have the {expected[wrong[0]]} rows that were written. "
                "Run the same command again to repair it"
            )
        return sum(rows.values())

    def statuses(self, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        """Yields path, status and error of the rows of these parts."""

        def read(name: str) -> tuple[pa.Table, dict[str, str]] | None:
            return read_sidecar(self._folder, part_number(name))

        for found in self._folder.each(read, map(part_name, numbers)):
            if found is None:
                raise OutputError(
                    f"{one_line(self._target)} was damaged during the run. Run the same command again to repair it"
                )
            yield from found[0].select(list(STATUS_COLUMNS)).to_batches()
