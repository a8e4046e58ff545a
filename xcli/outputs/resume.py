"""Which rows of earlier runs still hold, and in what order rows make up the output."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from xcli.core.errors import reason_of
from xcli.core.records import ERROR, ERROR_STATUS, STATUS, FileState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.core.records import ImageRef

KEY, SIZE, MTIME = "xception:key", "xception:size", "xception:mtime"
"""Columns of a part beside those of the output."""


def state_fields() -> list[pa.Field]:
    """Fields of the columns that a part has beside those of the output."""
    import pyarrow as pa

    return [pa.field(KEY, pa.uint64()), pa.field(SIZE, pa.int64()), pa.field(MTIME, pa.int64())]


def state_columns(keys: Sequence[int], states: Sequence[FileState | None]) -> list[pa.Array]:
    """The columns of `state_fields`, for rows with these keys and states."""
    import pyarrow as pa

    return [
        pa.array(keys, pa.uint64()),
        pa.array([None if stamp is None else stamp.size for stamp in states], pa.int64()),
        pa.array([None if stamp is None else stamp.mtime for stamp in states], pa.int64()),
    ]


def key_of(ref: ImageRef) -> int:
    """64 bits that stand for what a row is about: path, values carried from a manifest, place in an archive."""
    parts = [ref.path, repr(ref.extra) if ref.extra else ""]
    if ref.location.offset is not None:
        parts.append(str(ref.location.offset))
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class FinishedRows:
    """Rows of earlier runs, by key; 33 bytes a row.

    Args:
        tables: one a part, in the order in which they were written.
        retry_errors: rows that are errors do not count.
    """

    def __init__(self, tables: Sequence[pa.Table], retry_errors: bool) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        def column(name: str, missing: int, kind: str) -> NDArray[Any]:
            chunks = [chunk for table in tables for chunk in table.column(name).chunks]
            arrays = [pc.fill_null(chunk, missing).to_numpy(zero_copy_only=False) for chunk in chunks]
            return np.concatenate([np.empty(0, kind), *arrays]).astype(kind)

        keys = column(KEY, 0, "uint64")
        self._size, self._mtime = column(SIZE, -1, "int64"), column(MTIME, 0, "int64")
        failed = [pc.equal(table.column(STATUS), ERROR_STATUS).to_numpy() for table in tables]
        self._failed = np.concatenate([np.empty(0, bool), *failed])
        errors = [chunk for table in tables for chunk in table.column(ERROR).chunks]
        self._retry_errors = retry_errors
        # Stable: of several rows with one key, the last is the newest.
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._errors = pa.chunked_array(errors, pa.string()) if errors else None

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ref: ImageRef) -> int | None:
        """The number of the row that still holds for a reference, or None: it is new, or has changed."""
        row = self._newest(ref)
        if row is None:
            return None
        if self._failed[row] and self._retry_errors:
            return None
        size, mtime = int(self._size[row]), int(self._mtime[row])
        stamp = ref.location.state()
        if size < 0:
            # It could not be looked at then; if it still cannot, the row still holds.
            return row if stamp is None or ref.error is not None else None
        return row if stamp == (size, mtime) else None

    def _newest(self, ref: ImageRef) -> int | None:
        import numpy as np

        key = key_of(ref)
        place = int(np.searchsorted(self._keys, np.uint64(key), side="right")) - 1
        return int(self._order[place]) if place >= 0 and int(self._keys[place]) == key else None

    def has(self, ref: ImageRef) -> bool:
        """Whether there is a row for a reference, that holds or not."""
        return self._newest(ref) is not None

    def reason(self, row: int) -> str | None:
        """Why a row is an error (`ImageError.reason`), or None."""
        if not self._failed[row] or self._errors is None:
            return None
        return reason_of(self._errors[row].as_py())


class RowOrder:
    """The order of the output, told by the numbers of its rows; written down while the sources are listed.

    Args:
        kept: rows of earlier runs, numbered from 0; the rows of this run follow them.

    Attributes:
        ok: rows of earlier runs that hold and are no errors.
        errors: number of those that are, by reason.
    """

    def __init__(self, kept: FinishedRows) -> None:
        self._kept = kept
        self._next = len(kept)
        self._ranges: list[list[int]] = []
        self.ok = 0
        self.errors: dict[str, int] = {}

    def rest(self, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """Takes all the references; gives those whose rows are not there yet."""
        if len(self._kept):
            from xcli.inference.prefetch import with_states

            refs = with_states(refs, self._kept.has)
        return (ref for ref in refs if not self.keep(ref))

    def keep(self, ref: ImageRef) -> bool:
        """Takes the next reference; says whether its row is there already."""
        row = self._kept.find(ref) if len(self._kept) else None
        if row is None:
            self._add(self._next)
            self._next += 1
            return False
        self._add(row)
        reason = self._kept.reason(row)
        if reason is None:
            self.ok += 1
        else:
            self.errors[reason] = self.errors.get(reason, 0) + 1
        return True

    def _add(self, row: int) -> None:
        if self._ranges and self._ranges[-1][1] == row:
            self._ranges[-1][1] += 1
        else:
            self._ranges.append([row, row + 1])

    @property
    def rows(self) -> int:
        """Number of rows, of earlier runs (whether they hold or not) and of this one."""
        return self._next

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The rows in order, as (first, beyond the last)."""
        return ((start, stop) for start, stop in self._ranges)
