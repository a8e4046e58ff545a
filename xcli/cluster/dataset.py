"""A dataset whose parts are written by other processes, on any machine that can reach its directory.

What is here belongs to the one process that watches over them: the lock, what earlier runs left, the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.dataset import Dataset
from xcli.outputs.part_files import count_rows, notes_name, part_name, part_number, read_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    import pyarrow as pa


class SharedDataset(Dataset):
    """The parts of a dataset, seen from the process that watches over those who write them."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.fingerprint is None:
            self.fingerprint = self._read_fingerprint()  # of those who have finished parts by now
        super().__exit__(kind, error, trace)

    def _open_parts(self) -> list[pa.Table]:
        """None: whether a part still holds is found out by those who would have to write it again."""
        return []

    def shared_fingerprint(self) -> dict[str, Any]:
        """The fingerprint that the writers of the parts have left.

        Raises:
            OutputError: they have left none.
        """
        found = self._read_fingerprint()
        if found is None:
            raise OutputError(
                f"the parts in {one_line(self._target)} are not to be seen from here: workers and the process that "
                "started them need storage that they share"
            )
        self.fingerprint = found
        return found

    def verify_parts(self, rows: Mapping[int, int]) -> int:
        """Makes sure that the parts are those that they should be; takes away what earlier runs had more.

        Args:
            rows: number of rows that every part should have, by its number.

        Returns:
            Number of rows in all of them, counted in the parts.

        Raises:
            OutputError: a part is missing, damaged, or has another number of rows.
        """
        there = {number for number in map(part_number, self._names()) if number is not None}
        missing = sorted(rows.keys() - there)
        if missing:
            raise OutputError(
                f"{one_line(self._target)} has no {part_name(missing[0])}, which a worker has finished: workers and "
                "the process that started them need storage that they share; the same command goes on from there"
            )
        surplus = sorted(there - rows.keys())
        self._unlink(*map(part_name, surplus), *map(notes_name, surplus))
        numbers = sorted(rows)
        counted = list(self._folder.each(self._count, map(part_name, numbers)))
        wrong = [number for number, found in zip(numbers, counted, strict=True) if found != rows[number]]
        if wrong:
            self._unlink(*map(part_name, wrong), *map(notes_name, wrong))
            raise OutputError(
                f"{one_line(self._target)}: {part_name(wrong[0])} has not the {rows[wrong[0]]} rows that were written; "
                "the same command makes it again"
            )
        return sum(filter(None, counted))

    def _count(self, name: str) -> int | None:
        """Rows of a part; None where it cannot be read."""
        import pyarrow as pa

        try:
            return count_rows(self._folder, name)
        except (OSError, pa.ArrowInvalid):
            return None

    def finish(self, meta: dict[str, Any]) -> None:
        """Says of what made the rows, and that all are there."""
        import pyarrow as pa

        self.mark_complete(meta, pa.schema([]))  # there is at least one part, even of no images

    def statuses(self, numbers: Iterable[int]) -> Iterator[pa.RecordBatch]:
        """Path, status and error of the rows of some parts."""

        def read(name: str) -> tuple[pa.Table, dict[str, str]] | None:
            number = part_number(name)
            assert number is not None
            return read_notes(self._folder, number)

        for found in self._folder.each(read, map(part_name, numbers)):
            if found is None:
                raise OutputError(f"{one_line(self._target)} has been damaged meanwhile; the same command mends it")
            yield from found[0].select(list(STATUS_COLUMNS)).to_batches()
