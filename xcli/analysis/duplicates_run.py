"""`duplicates`: from tables of features to the rows of its answer, with a comparison that can be continued.

A table of the answer has `group, path, similarity, keep`: groups by the first of their rows, in each the row that is
kept, then the others in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from xcli.analysis.approximate import Recall, RowLists, list_rows, measured_recall
from xcli.analysis.checked_copies import CheckedPairs
from xcli.analysis.duplicates import (
    Groups,
    Links,
    fit_for_copies,
    group_pairs,
    group_rows,
    threshold_for,
    whiten_tables,
)
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
    from xcli.analysis.nearest import Pairs
    from xcli.analysis.vectors import FeatureTables
    from xcli.analysis.whitening import Whitening

    # Returns for numbers of rows how large their images are, int64[m, s]; of two the one is larger whose first number
    # is, and if that is equal, whose next one is.
    Paths = Callable[[NDArray[np.int64]], list[str]]
    Sizes = Callable[[NDArray[np.int64]], NDArray[np.int64]]

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
        check: whether the pixels of pairs that may be copies are looked at.
        approximate: whether only pairs are compared that lists of similar rows bring together.

    Attributes:
        fit: the whitening.
        threshold: of a copy.
        sides: the rows of the tables, and those of the other ones.
        lists: the lists, if it is approximate.

    Raises:
        OutputError: what is kept is of other rows or options.
    """

    def __init__(
        self,
        tables: FeatureTables,
        between: FeatureTables | None,
        kept: ComparedBands,
        threshold: float | None,
        *,
        check: bool = False,
        approximate: bool = False,
    ) -> None:
        both = [tables] if between is None else [tables, between]
        self.fit: Whitening = kept.fit or fit_for_copies(*both)
        self.threshold = threshold_for(self.fit) if threshold is None else threshold
        self.sides = [whiten_tables(one, self.fit) for one in both]
        self._kept = kept
        self.lists: RowLists | None = None
        self._check, self._done = check, 0
        choices = {"approximate": approximate, "check_pixels": check}
        options = {"threshold": self.threshold, **{name: True for name, chosen in choices.items() if chosen}}
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

    def make_lists(self, progress: Callable[[int, int], object]) -> None:
        """Makes the lists; `progress` is told how many steps are done, and of how many."""
        self.lists = list_rows(self.sides[0].values, progress=progress)

    def recall(self) -> Recall:
        """Compares some rows with all others, and returns how many of their pairs the lists bring together."""
        assert self.lists is not None
        return measured_recall(self.sides[0].values, self.lists, self.threshold)

    def bands(self) -> int:
        """Returns how many bands are left."""
        return (bands(len(self.sides[0])) if self.lists is None else self.lists.bands) - self._kept.bands

    def compare(self, count: Callable[[int], object]) -> Links | SharedCopies | CheckedPairs:
        """Compares the pairs that are left; what is found is kept, also if this is interrupted.

        Args:
            count: told the number of pairs after each band; of an approximate comparison, that of bands.
        """
        done = self._kept.bands
        found: Links | SharedCopies | CheckedPairs
        if self._check:
            found = CheckedPairs(self.sides, self.threshold, self.lists)
            steps = found.compare(done)
        elif self.sides[1:]:
            found = SharedCopies(*self.sides)
            steps = found.compare(self.threshold, done)
        else:
            found = Links(self.sides[0])
            steps = found.compare(self.threshold, done, self.lists)
        if self._kept.state is not None:
            found.state = self._kept.state
        state = found.snapshot()
        try:
            for number in steps:
                count(self.pairs(number, number + 1) if self.lists is None else 1)
                done, state = number + 1, found.snapshot()
                self._kept.keep(self.fit, done, state)
        finally:
            self._done = done
            if done != self._kept.bands:
                self._kept.keep(self.fit, done, state, now=True)
        return found

    def check(
        self, found: CheckedPairs, paths: Paths, images: str | None, progress: Callable[[str, int, int], object]
    ) -> None:
        """Looks at the pixels of the pairs that are left, see `CheckedPairs.check`; what is found is kept."""
        found.check(paths, images, progress, lambda: self._kept.keep(self.fit, self._done, found.snapshot(), now=True))


def _digest(side: WhitenedRows) -> str:
    import numpy as np

    digest = blake2b(side.digests.tobytes() + np.packbits(side.ok).tobytes(), digest_size=16)
    for chunk in side.paths.chunks:
        digest.update("\n".join(chunk.to_pylist()).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def grouped(rows: WhitenedRows, links: Links, threshold: float, sizes: Sizes) -> Copies:
    """Returns the groups of one collection; `sizes` is asked for rows with copies."""
    import numpy as np

    linked = np.bincount(links.root, minlength=len(rows))[links.root] > 1
    return _as_copies(group_rows(rows, links.root, threshold, _order(linked, sizes)))


def grouped_pairs(rows: WhitenedRows, copies: Pairs, sizes: Sizes) -> Copies:
    """Returns the groups of one collection whose copies are these pairs; `sizes` is asked for rows with copies."""
    import numpy as np

    has_pair = np.zeros(len(rows), bool)
    has_pair[copies.first] = has_pair[copies.second] = True
    linked = has_pair[rows.same] | (np.bincount(rows.same, minlength=len(rows))[rows.same] > 1)
    return _as_copies(group_pairs(rows, copies, _order(linked, sizes)))


def _order(linked: NDArray[np.bool_], sizes: Sizes) -> NDArray[np.int64]:
    """Returns the rows from the one that is kept first."""
    import numpy as np

    rows = np.flatnonzero(linked)
    order = np.arange(len(linked))
    if len(rows):
        order[rows] = rows[np.lexsort((rows, *(-column for column in sizes(rows).T[::-1])))]
    return order


def _as_copies(groups: Groups) -> Copies:
    import numpy as np

    row = np.flatnonzero(groups.grouped())
    kept = groups.kept[row]
    first = np.full(len(groups.kept), len(groups.kept))
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


def image_sizes(paths: Paths, images: str | None, progress: Callable[[int, int, int], object]) -> Sizes:
    """Returns what reads pixels and bytes of the images of rows, for `grouped`; zeros of one that cannot be read.

    Args:
        paths: returns the paths of rows.
        images: the directory in which they are, if it is not where their paths say.
        progress: told how many images were looked at, of how many, and how many of them have failed.
    """
    import numpy as np

    def sizes(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        found, failed = np.zeros((len(rows), 2), np.int64), 0
        for place, (_, header) in enumerate(read_headers(row_images(paths(rows), images))):
            if isinstance(header, ImageError):
                failed += 1
            else:
                found[place] = header[1] * header[2], header[3]
            progress(place + 1, len(rows), failed)
        return found

    return sizes


def answer_schema() -> pa.Schema:
    """Returns the columns of the answer."""
    import pyarrow as pa

    kinds = {"group": pa.int64(), "path": pa.string(), "similarity": pa.float32(), "keep": pa.bool_()}
    return pa.schema([*kinds.items()])


def answer_rows(copies: Copies, paths: Paths) -> Iterator[pa.RecordBatch]:
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
