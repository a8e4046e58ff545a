"""Rows matched to sources: which row belongs to which image, which image has no row, which row is surplus.

Only a 64-bit hash of each path is kept, with a key that is new in every process: nobody can choose names that collide,
and among a million paths a collision by chance occurs once in 37 million times. A row takes some 40 bytes; a source
takes none, since sources are matched as they are listed.
"""

from __future__ import annotations

import os
from array import array
from hashlib import blake2b
from itertools import chain, islice
from typing import TYPE_CHECKING

from xcli.core.records import PATH, ImageRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.tables.base import TableReader

_CHUNK = 4096
_NEAR = 64  # rows of one path among which the best is looked for; as a rule a path has one row
_KEY = os.urandom(16)


class RowIndex:
    """The rows of one or several tables, by path, numbered across all tables.

    Args:
        tables: for each table its paths, a batch at a time (`paths_of`).

    Attributes:
        rows: number of rows.
        positions: int64[rows], for each row the position of its source; -1 for rows without one, and before `match`.
    """

    def __init__(self, tables: Iterable[Iterable[Iterable[str | None]]]) -> None:
        import numpy as np

        self.rows = 0
        self._starts: set[int] = set()
        chunks = [np.zeros(0, np.uint64)]
        for table in tables:
            self._starts.add(self.rows)
            for paths in table:
                chunks.append(path_hashes(path or "" for path in paths))
                self.rows += len(chunks[-1])
        hashes = np.concatenate(chunks)
        del chunks
        self._order = np.argsort(hashes, kind="stable").astype("uint32" if self.rows < 1 << 32 else "int64")
        self._hashes = hashes[self._order]
        del hashes
        self._taken = np.zeros(self.rows, np.int32)
        self.positions = np.full(self.rows, -1, np.int64)

    def match(self, refs: Iterable[ImageRef], missing: Callable[[ImageRef], None]) -> int:
        """Gives every source its row, in order, and returns the number of sources.

        Args:
            refs: the sources, in order.
            missing: called with each source that has no row.
        """
        listed = 0
        repeated, positions = array("q"), array("q")
        iterator = iter(refs)
        while chunk := list(islice(iterator, _CHUNK)):
            self._match_chunk(chunk, listed, missing, repeated, positions)
            listed += len(chunk)
        self._match_repeated(repeated, positions)
        return listed

    def _match_chunk(
        self,
        refs: list[ImageRef],
        first: int,
        missing: Callable[[ImageRef], None],
        repeated: array[int],
        positions: array[int],
    ) -> None:
        """Matches consecutive sources, from position `first` on, whose path has a single row.

        Of each of the others, `repeated` gets the first row in the order of hashes, and `positions` the position.
        """
        import numpy as np

        hashes = path_hashes(ref.path for ref in refs)
        begin = np.searchsorted(self._hashes, hashes, "left")
        end = np.searchsorted(self._hashes, hashes, "right")
        # How often the same path has occurred before within this chunk.
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        rank = np.empty(len(refs), np.int64)
        rank[order] = np.arange(len(refs)) - np.searchsorted(ordered, ordered, "left")
        known = end > begin
        slot = begin + rank
        slot[known] += self._taken[begin[known]]
        found = known & (slot < end)
        np.add.at(self._taken, begin[known], 1)
        for index in np.flatnonzero(~found):
            missing(refs[index])
        single = found & (end - begin == 1)
        self.positions[self._order[slot[single]]] = first + np.flatnonzero(single)
        several = np.flatnonzero(found & ~single)
        repeated.extend(begin[several].tolist())
        positions.extend((first + several).tolist())

    def _match_repeated(self, repeated: array[int], positions: array[int]) -> None:
        """Matches sources whose path has several rows: to the row that keeps its table in order, else the first free.

        So if rows of one path are in several shards (a file listed twice, by different sources), each shard is in the
        order of the sources.
        """
        first_free: dict[int, int] = {}
        for begin, position in zip(repeated, positions, strict=True):
            slot = first_free.get(begin, begin)
            while self.positions[self._order[slot]] >= 0:
                slot += 1
            first_free[begin] = slot
            row = int(self._order[slot])
            for near in range(slot, min(slot + _NEAR, self.rows)):
                if self._hashes[near] != self._hashes[begin]:
                    break
                other = int(self._order[near])
                if self.positions[other] < 0 and self._is_next(other, position):
                    row = other
                    break
            self.positions[row] = position

    def _is_next(self, row: int, position: int) -> bool:
        return row in self._starts or 0 <= self.positions[row - 1] < position

    def unmatched(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows whose path no source has, and those whose path the sources have, but less often."""
        import numpy as np

        rows = np.flatnonzero(self.positions < 0)
        if not len(rows):
            return rows, rows
        listed = np.zeros(self.rows, bool)
        groups = np.searchsorted(self._hashes, self._hashes, "left")
        listed[self._order] = self._taken[groups] > 0
        return rows[~listed[rows]], rows[listed[rows]]

    def repeated(self) -> NDArray[np.int64]:
        """Returns the rows whose path an earlier row has."""
        import numpy as np

        again = np.zeros(self.rows, bool)
        if self.rows:
            again[1:] = self._hashes[1:] == self._hashes[:-1]
        return np.sort(self._order[again])


def path_hashes(paths: Iterable[str]) -> NDArray[np.uint64]:
    """Returns the hashes of paths, uint64[n]; those of another process are others."""
    import numpy as np

    digests = b"".join(blake2b(path.encode(), digest_size=8, key=_KEY).digest() for path in paths)
    return np.frombuffer(digests, np.uint64)


def hash_places(known: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns the place of each hash among known ones, which are sorted and different, int64[n]; -1 if it is none."""
    import numpy as np

    if not len(known):
        return np.full(len(hashes), -1, np.int64)
    found = np.searchsorted(known, hashes).clip(max=len(known) - 1)
    return np.where(known[found] == hashes, found, -1)


def paths_of(reader: TableReader) -> Iterator[list[str | None]]:
    """Yields the `path` column of a table, a batch at a time."""
    for batch in reader.batches([PATH]):
        yield batch.column(0).to_pylist()


def row_paths(readers: Iterable[TableReader], rows: NDArray[np.int64]) -> Iterator[str]:
    """Yields the paths of rows, by their sorted numbers in `RowIndex`; the tables are read once more."""
    paths = chain.from_iterable(chain.from_iterable(map(paths_of, readers)))
    previous = -1
    for row in rows.tolist():
        yield next(islice(paths, row - previous - 1, None), None) or ""
        previous = row
