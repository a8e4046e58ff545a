"""`duplicates`: from tables of features to the rows of its answer, with a comparison that can be continued.

A table of the answer has `group, path, similarity, keep`: groups by the first of their rows, in each the row that is
kept, then the others in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from xcli.analysis.duplicates import Links, fit_for_copies, group_rows, threshold_for, whiten_tables
from xcli.analysis.nearest import BAND_ROWS, bands
from xcli.analysis.shared_copies import SharedCopies
from xcli.core.errors import ImageError
from xcli.inference.preflight import read_headers
from xcli.sources.row_images import row_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.analysis.compared_bands import ComparedBands
    from xcli.analysis.duplicates import WhitenedRows
    from xcli.analysis.vectors import FeatureTables
    from xcli.analysis.whitening import Whitening

_WRITTEN = 65_536  # rows at a time


@dataclass(frozen=True, eq=False)
class Copies:
    """The answer: n rows of it.

    Attributes:
        group: int64[n], numbers of groups, from 1.
        row: int64[n], numbers of rows, those of the other tables after all of the first.
        similarity: float32[n], with the row that is kept.
        keep: bool[n], one a group.
    """

    group: NDArray[np.int64]
    row: NDArray[np.int64]
    similarity: NDArray[np.float32]
    keep: NDArray[np.bool_]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.keep.sum())


class Comparison:
    """All rows of tables compared with each other, or with those of other tables.

    Args:
        tables, between: the tables; they are read twice, or once if `kept` has a fit.
        kept: what an earlier command has found.
        threshold: of a copy; None is that of the fit.

    Attributes:
        fit: the whitening.
        threshold: of a copy.
        sides: the rows of the tables, and those of the other ones.

    Raises:
        OutputError: what is kept is of other rows or options.
    """

    def __init__(
        self, tables: FeatureTables, between: FeatureTables | None, kept: ComparedBands, threshold: float | None
    ) -> None:
        both = [tables] if between is None else [tables, between]
        self.fit: Whitening = kept.fit or fit_for_copies(*both)
        self.threshold = threshold_for(self.fit) if threshold is None else threshold
        self.sides = [whiten_tables(one, self.fit) for one in both]
        self._kept = kept
        options = {"threshold": self.threshold}
        kept.begin({"comparison": "duplicates", "options": options, "rows": [_digest(side) for side in self.sides]})

    def pairs(self, first: int = 0, end: int | None = None) -> int:
        """Returns how many pairs the bands from `first` to before `end` have."""
        rows = len(self.sides[0])
        found = 0
        for band in range(first, bands(rows) if end is None else end):
            size = min(BAND_ROWS, rows - band * BAND_ROWS)
            inside = size * (rows - band * BAND_ROWS) - size * (size + 1) // 2
            found += size * len(self.sides[1]) if self.sides[1:] else inside
        return found

    @property
    def pairs_kept(self) -> int:
        """Pairs that an earlier command has compared."""
        return self.pairs(0, self._kept.bands)

    def compare(self, count: Callable[[int], object]) -> Links | SharedCopies:
        """Compares the pairs that are left; what is found is kept, also if this is interrupted.

        Args:
            count: told the number of pairs after each band.
        """
        found: Links | SharedCopies = Links(self.sides[0])
        if self.sides[1:]:
            found = SharedCopies(*self.sides)
        done = self._kept.bands
        if self._kept.state is not None:
            found.state = self._kept.state
        steps = found.compare(self.threshold, done)
        state = found.state
        try:
            for number in steps:
                count(self.pairs(number, number + 1))
                done, state = number + 1, found.state
                self._kept.keep(self.fit, done, state)
        finally:
            if done != self._kept.bands:
                self._kept.keep(self.fit, done, state, now=True)
        return found


def _digest(side: WhitenedRows) -> str:
    import numpy as np

    digest = blake2b(side.digests.tobytes() + np.packbits(side.ok).tobytes(), digest_size=16)
    for chunk in side.paths.chunks:
        digest.update("\n".join(chunk.to_pylist()).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def grouped(
    rows: WhitenedRows, links: Links, threshold: float, sizes: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> Copies:
    """Returns the groups of one collection.

    Args:
        rows, links, threshold: the comparison.
        sizes: returns for numbers of rows, those with a copy, how large their images are, int64[m, s]; of two the one
            is larger whose first number is, and if that is equal, whose next one is.
    """
    import numpy as np

    linked = np.flatnonzero(np.bincount(links.root, minlength=len(rows))[links.root] > 1)
    order = np.arange(len(rows))
    if len(linked):
        order[linked] = linked[np.lexsort((linked, *(-column for column in sizes(linked).T[::-1])))]
    groups = group_rows(rows, links.root, threshold, order)
    row = np.flatnonzero(groups.grouped())
    kept = groups.kept[row]
    first = np.full(len(rows), len(rows))
    np.minimum.at(first, kept, row)
    order = np.lexsort((row, row != kept, first[kept]))
    row, kept = row[order], kept[order]
    return Copies(np.cumsum(row == kept), row, groups.similarity[row], row == kept)


def shared(found: SharedCopies) -> Copies:
    """Returns a group for each row of the first collection that has a copy in the other.

    It is kept; its copies are those rows to which it is the most similar one, or, if there are none, its own most
    similar one, which then is in several groups.
    """
    import numpy as np

    found.spread()
    rows = len(found.row[0])
    mine, theirs = np.flatnonzero(found.row[0] >= 0), np.flatnonzero(found.row[1] >= 0)
    centre = found.row[1][theirs]
    alone = mine[~np.isin(mine, centre)]
    group = np.concatenate([mine, centre, alone])
    row = np.concatenate([mine, rows + theirs, rows + found.row[0][alone]])
    ones = np.ones(len(mine))
    similarity = np.concatenate([ones, found.similarity[1][theirs], found.similarity[0][alone]]).astype(np.float32)
    order = np.lexsort((row, group))
    row = row[order]
    return Copies(np.cumsum(row < rows), row, similarity[order], row < rows)


def image_sizes(
    paths: Callable[[NDArray[np.int64]], list[str]], images: str | None, count: Callable[[int, int], object]
) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Returns what reads pixels and bytes of the images of rows, for `grouped`; zeros of one that cannot be read.

    Args:
        paths: returns the paths of rows.
        images: the directory in which they are, if it is not where their paths say.
        count: told for each image that it was read, and whether it failed.
    """
    import numpy as np

    def sizes(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        found = np.zeros((len(rows), 2), np.int64)
        for place, (_, header) in enumerate(read_headers(row_images(paths(rows), images))):
            failed = isinstance(header, ImageError)
            if not isinstance(header, ImageError):
                found[place] = header[1] * header[2], header[3]
            count(1, int(failed))
        return found

    return sizes


def answer_schema() -> pa.Schema:
    """Returns the columns of the answer."""
    import pyarrow as pa

    kinds = {"group": pa.int64(), "path": pa.string(), "similarity": pa.float32(), "keep": pa.bool_()}
    return pa.schema([*kinds.items()])


def answer_rows(copies: Copies, paths: Callable[[NDArray[np.int64]], list[str]]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the answer."""
    import pyarrow as pa

    for at in range(0, len(copies.row), _WRITTEN):
        part = slice(at, at + _WRITTEN)
        columns = [
            pa.array(copies.group[part]),
            pa.array(paths(copies.row[part]), pa.string()),
            pa.array(copies.similarity[part]),
            pa.array(copies.keep[part]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=answer_schema())
