"""Which rows of earlier runs are still valid, and the order of the rows in the output."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from xcli.core.errors import reason_of
from xcli.core.records import ERROR, ERROR_STATUS, STATUS, FileState, ImageRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

KEY, SIZE, MTIME = "xception:key", "xception:size", "xception:mtime"
"""Columns that a part has in addition to those of the output: of the image, `key_of`, and the state of its file."""


def state_fields() -> list[pa.Field]:
    """Returns the fields of the columns `KEY`, `SIZE` and `MTIME`."""
    import pyarrow as pa

    return [pa.field(KEY, pa.uint64()), pa.field(SIZE, pa.int64()), pa.field(MTIME, pa.int64())]


def state_columns(keys: Sequence[int], states: Sequence[FileState | None]) -> list[pa.Array]:
    """Returns the columns of `state_fields` for rows with these keys and states."""
    import pyarrow as pa

    return [
        pa.array(keys, pa.uint64()),
        pa.array([None if state is None else state.size for state in states], pa.int64()),
        pa.array([None if state is None else state.mtime for state in states], pa.int64()),
    ]


def key_of(ref: ImageRef) -> int:
    """Returns a 64-bit hash of the path, the values copied from a manifest, and the offset in an archive."""
    parts = [ref.path, repr(ref.extra) if ref.extra else ""]
    if ref.location.offset is not None:
        parts.append(str(ref.location.offset))
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


class FinishedRows:
    """An index of the rows of earlier runs by key; it takes 33 bytes of memory for each row.

    Args:
        tables: one a part, in the order in which they were written.
        retry_errors: error rows are not valid, so that they are computed again.
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
        # The sort is stable, so the last of several rows with one key is the newest.
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._errors = pa.chunked_array(errors, pa.string()) if errors else None

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ref: ImageRef) -> int | None:
        """Returns the number of the valid row of an image; None if it has no row, or its file has changed."""
        row = self._newest(ref)
        if row is None or (self._failed[row] and self._retry_errors):
            return None
        state = ref.location.state()
        if self._size[row] < 0:
            # The file could not be accessed then; the row is valid as long as it still cannot be.
            return row if state is None or ref.error is not None else None
        return row if state == (int(self._size[row]), int(self._mtime[row])) else None

    def _newest(self, ref: ImageRef) -> int | None:
        import numpy as np

        key = key_of(ref)
        place = int(np.searchsorted(self._keys, np.uint64(key), side="right")) - 1
        return int(self._order[place]) if place >= 0 and int(self._keys[place]) == key else None

    def has(self, ref: ImageRef) -> bool:
        """Returns whether an image has a row, valid or not."""
        return self._newest(ref) is not None

    def reason(self, row: int) -> str | None:
        """Returns the reason of an error row (`ImageError.reason`); None for other rows."""
        if not self._failed[row] or self._errors is None:
            return None
        return reason_of(self._errors[row].as_py())


class RowOrder:
    """The order of the rows in the output, by their numbers; it is recorded while the sources are listed.

    Args:
        kept: rows of earlier runs, numbered from 0; the rows of this run are numbered after them.

    Attributes:
        ok: number of valid rows of earlier runs that are not errors.
        errors: number of valid error rows of earlier runs by reason.
        rows: number of all rows of earlier runs, valid or not, and of this run.
    """

    def __init__(self, kept: FinishedRows) -> None:
        self._kept = kept
        self._ranges: list[list[int]] = []
        self.rows = len(kept)
        self.ok = 0
        self.errors: dict[str, int] = {}

    def rest(self, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """Takes all the images, and yields those without a valid row."""
        if len(self._kept):
            from xcli.inference.prefetch import with_states

            refs = with_states(refs, self._kept.has)
        return (ref for ref in refs if not self.keep(ref))

    def keep(self, ref: ImageRef) -> bool:
        """Takes the next image; returns whether it has a valid row."""
        row = self._kept.find(ref) if len(self._kept) else None
        if row is None:
            self._add(self.rows)
            self.rows += 1
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

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yields the numbers of the rows in order, as ranges (first, last + 1)."""
        return ((start, stop) for start, stop in self._ranges)
