"""Rows against sources: which row belongs to which image, which image has none, which row is one too many.

Of a path only a hash of 64 bits is kept, with a key that is new in every process: nobody can choose names that
collide, and by chance two of a million do so once in 37 million times. A row takes some 40 bytes while it is matched;
a source takes none, for sources are matched as they are listed.
"""

from __future__ import annotations

import json
import os
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from xcli.core.records import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import ImageRef
    from xcli.storage.streams import ByteStream
    from xcli.tables.base import TableReader

MAX_SHOWN = 20
"""Examples that are kept of each finding; all are counted, and all go to the report."""

_CHUNK = 4096
_NEAR = 64  # rows of one path that are looked at for the best; a path has one, as a rule
_KEY = os.urandom(16)


@dataclass(slots=True)
class Finding:
    """One kind of thing that is wrong.

    Attributes:
        check: a short machine-readable word.
        what: what it is, in words that go before a number: `sources without a row`.
        count: how many.
        examples: the first of them: paths as in the `path` column, or what else names them.
        warning: whether it is worth a look, but no failure.
    """

    check: str
    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    warning: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = ("check", "what", "count", "examples", "warning")
        return {name: getattr(self, name) for name in names}


class Findings:
    """What was found, by kind; every single one also goes to a report as a line of JSON.

    Args:
        report: where the lines go; None for nowhere.
    """

    def __init__(self, report: ByteStream | None = None) -> None:
        self._by_check: dict[tuple[str, str], Finding] = {}
        self._report = report

    def add(self, check: str, what: str, names: Iterable[str], *, warning: bool = False) -> None:
        """Notes some; `names` says which, one by one."""
        for name in names:
            finding = self._by_check.setdefault((check, what), Finding(check, what, warning=warning))
            finding.count += 1
            if finding.count <= MAX_SHOWN:
                finding.examples.append(name)
            if self._report is not None:
                line = json.dumps({"check": check, "what": what, "name": name}, ensure_ascii=False) + "\n"
                self._report.write(line.encode("utf-8", "backslashreplace"))

    @property
    def all(self) -> list[Finding]:
        """In the order in which they were found first."""
        return list(self._by_check.values())

    @property
    def failures(self) -> list[Finding]:
        """Those that are no mere warnings."""
        return [finding for finding in self.all if not finding.warning]


class RowIndex:
    """The rows of one or several tables, by path.

    Attributes:
        rows: how many.
        positions: int64[rows], for each row the number of its source in the listing; -1 without one, and before
            `match`.
    """

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.uint64]] = []
        self._starts: set[int] = set()
        self._hashes: NDArray[np.uint64]
        self._order: NDArray[np.int64]
        self._taken: NDArray[np.int32]
        self.positions: NDArray[np.int64]
        self.rows = 0

    @classmethod
    def of(cls, tables: Iterable[Iterable[Iterable[str | None]]]) -> RowIndex:
        """The index of tables, one behind the other.

        Args:
            tables: for each its paths, a batch at a time (`paths_of`).
        """
        index = cls()
        for table in tables:
            index._starts.add(index.rows)
            for paths in table:
                index._add(paths)
        index._freeze()
        return index

    def _add(self, paths: Iterable[str | None]) -> None:
        chunk = _hashes(path or "" for path in paths)
        self._chunks.append(chunk)
        self.rows += len(chunk)

    def _freeze(self) -> None:
        import numpy as np

        hashes = np.concatenate([np.zeros(0, np.uint64), *self._chunks])
        self._chunks = []
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._taken = np.zeros(self.rows, np.int32)
        self.positions = np.full(self.rows, -1, np.int64)

    def match(self, refs: Iterable[ImageRef], missing: Callable[[str], None]) -> int:
        """Gives every source its row; of several rows with one path, the first to the first source of that path.

        Args:
            refs: the sources, in order.
            missing: called with the path of each source that has no row.

        Returns:
            Number of sources.
        """
        listed = 0
        several, numbers = array("q"), array("q")
        iterator = iter(refs)
        while paths := [ref.path for ref in islice(iterator, _CHUNK)]:
            self._match_chunk(paths, listed, missing, several, numbers)
            listed += len(paths)
        self._match_repeated(several, numbers)
        return listed

    def _match_chunk(
        self, paths: list[str], first: int, missing: Callable[[str], None], several: array[int], numbers: array[int]
    ) -> None:
        import numpy as np

        hashes = _hashes(paths)
        begin = np.searchsorted(self._hashes, hashes, "left")
        end = np.searchsorted(self._hashes, hashes, "right")
        # How often the same path has come before within this chunk.
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        rank = np.empty(len(paths), np.int64)
        rank[order] = np.arange(len(paths)) - np.searchsorted(ordered, ordered, "left")
        known = end > begin
        slot = begin + rank
        slot[known] += self._taken[begin[known]]
        found = known & (slot < end)
        np.add.at(self._taken, begin[known], 1)
        for index in np.flatnonzero(~found):
            missing(paths[index])
        single = found & (end - begin == 1)
        self.positions[self._order[slot[single]]] = first + np.flatnonzero(single)
        chosen = np.flatnonzero(found & ~single)
        several.extend(begin[chosen].tolist())
        numbers.extend((first + chosen).tolist())

    def _match_repeated(self, several: array[int], numbers: array[int]) -> None:
        """Sources whose path has several rows: the row that continues where its table stands, else the first free.

        So rows of one path in several shards (a file listed twice, under different sources) leave each shard in order.
        """
        first_free: dict[int, int] = {}
        for begin, number in zip(several, numbers, strict=True):
            slot = first_free.get(begin, begin)
            while self.positions[self._order[slot]] >= 0:
                slot += 1
            first_free[begin] = slot
            row = int(self._order[slot])
            for near in range(slot, min(slot + _NEAR, self.rows)):
                if self._hashes[near] != self._hashes[begin]:
                    break
                other = int(self._order[near])
                if self.positions[other] < 0 and self._is_next(other, number):
                    row = other
                    break
            self.positions[row] = number

    def _is_next(self, row: int, number: int) -> bool:
        return row in self._starts or 0 <= self.positions[row - 1] < number

    def unmatched(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the rows that no source has, and of those whose path the sources have, but not so often."""
        import numpy as np

        rows = np.flatnonzero(self.positions < 0)
        listed = np.zeros(self.rows, bool)
        groups = np.searchsorted(self._hashes, self._hashes, "left")
        listed[self._order] = self._taken[groups] > 0
        return rows[~listed[rows]], rows[listed[rows]]

    def repeated(self) -> NDArray[np.int64]:
        """Numbers of the rows whose path an earlier row has."""
        import numpy as np

        again = np.zeros(self.rows, bool)
        if self.rows:
            again[1:] = self._hashes[1:] == self._hashes[:-1]
        return np.sort(self._order[again])


def _hashes(paths: Iterable[str]) -> NDArray[np.uint64]:
    import numpy as np

    digests = b"".join(blake2b(path.encode(), digest_size=8, key=_KEY).digest() for path in paths)
    return np.frombuffer(digests, np.uint64)


def paths_of(reader: TableReader) -> Iterator[list[str | None]]:
    """The `path` column of a table, a batch at a time.

    Raises:
        CheckError: the table is damaged.
    """
    for batch in reader.batches([PATH]):
        yield batch.column(0).to_pylist()


def names_of(readers: Iterable[TableReader], rows: NDArray[np.int64]) -> Iterator[str]:
    """The paths of rows of tables one behind the other, by their sorted numbers; tables are read once more."""
    import numpy as np

    first = at = 0
    for paths in chain.from_iterable(map(paths_of, readers)):
        end = int(np.searchsorted(rows, first + len(paths), "left"))
        yield from (paths[int(row) - first] or "" for row in rows[at:end])
        at, first = end, first + len(paths)
        if at == len(rows):
            return
