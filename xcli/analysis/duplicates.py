"""Copies of images among rows of features: pairs, and groups of which one image can be kept for all.

Vectors are compared centred and whitened (`xcli.analysis.whitening`); rows whose vectors are equal are copies whatever
the whitening makes of them. Every pair of rows is compared:

    rows = whiten_tables(tables)                # or whiten_vectors(values, ok), of vectors in memory
    pairs = find_pairs(rows)                    # all pairs, as many as fit into memory
    groups = group_rows(rows, linked_rows(rows))  # bounded by the number of rows, whatever the number of pairs

In a group **each row is a copy of the row that is kept**: there are no chains, in which each image is like the next one
and the last one unlike the first. Rows are taken in an order, the table's own or one of preference; one that is in no
group yet is kept, and takes all later ones that are copies of it and in no group. So the groups depend on nothing but
the rows and their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, Any

from xcli.analysis.approximate import pairs_of_lists
from xcli.analysis.nearest import BAND_ROWS, SLACK, Pairs, bands, joined, pairs_above, pairs_of_band, similarity_of
from xcli.analysis.vectors import VectorsInMemory, read_matrix
from xcli.analysis.whitening import fit_tables
from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.analysis.approximate import RowLists
    from xcli.analysis.vectors import FeatureTables
    from xcli.analysis.whitening import Whitening

DEFAULT_THRESHOLD = 0.56
"""Whitened cosine from which two images are taken for copies, if the fit has all directions; see `threshold_for`."""

LEFT_OUT = 192
"""Leading directions of a fit that are not compared: in these, look-alikes are as close as copies."""

MAX_PAIRS = 10_000_000
"""Pairs that `find_pairs` returns: 200 MB."""

FLOAT16_ROWS = 250_000
"""From so many rows on, vectors are kept in float16, which changes a cosine by some 1e-5."""

_DIGEST = 16  # bytes

_LINKED = 1_000_000  # pairs that wait to be linked

_PRODUCTS = 1 << 24  # in memory at a time

_CENTRES = 256  # rows of a group of linked rows that are compared with all others of it at a time


@dataclass(frozen=True, eq=False)
class WhitenedRows:
    """Rows made ready to be compared.

    Attributes:
        values: float32[n, k] or float16[n, k], of unit length; zeros in rows without a vector, in rows without a
            direction, and in rows that repeat an earlier one.
        same: int64[n], the first row with an equal vector; the row itself if there is none before it.
        digests: 16 bytes[n], equal for equal vectors; zeros in rows that have none, or only zeros.
        ok: bool[n], which rows have a vector.
        paths: n texts; empty ones of vectors that were in memory.
        whitening: the fit.
    """

    values: NDArray[Any]
    same: NDArray[np.int64]
    digests: NDArray[np.void]
    ok: NDArray[np.bool_]
    paths: pa.ChunkedArray
    whitening: Whitening

    def __len__(self) -> int:
        return len(self.ok)


@dataclass(frozen=True, eq=False)
class Groups:
    """To which group each of n rows belongs.

    Attributes:
        kept: int64[n], the row that is kept of its group, which is the row itself for rows in no group.
        similarity: float32[n], with the row that is kept; 1 for that one.
    """

    kept: NDArray[np.int64]
    similarity: NDArray[np.float32]

    def grouped(self) -> NDArray[np.bool_]:
        """Returns bool[n], which rows are in a group, kept or not."""
        import numpy as np

        found: NDArray[np.bool_] = self.kept != np.arange(len(self.kept))
        found[self.kept[found]] = True
        return found


class _Whitener:
    """Whitens blocks, and remembers digests of the vectors as they were."""

    def __init__(self, whitening: Whitening) -> None:
        self._transform = whitening.transform
        self._digests = bytearray()

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        for row in values + 0.0:  # so that there is one zero
            self._digests += blake2b(row.data, digest_size=_DIGEST).digest()
        return self._transform(values)

    def digests(self, ok: NDArray[np.bool_], width: int) -> NDArray[np.void]:
        """Returns the digest of each vector; zeros for rows that are not `ok`, and for vectors of zeros."""
        import numpy as np

        found = np.frombuffer(self._digests, f"V{_DIGEST}")
        zero = np.void(blake2b(bytes(4 * width), digest_size=_DIGEST).digest())
        found[~ok | (found == zero)] = np.void(bytes(_DIGEST))
        return found


def whiten_tables(tables: FeatureTables, whitening: Whitening | None = None) -> WhitenedRows:
    """Reads all rows of tables; twice, unless a fit is given, see `fit_for_copies`.

    Raises:
        UsageError: no row has a vector.
        CheckError: a table is damaged.
    """
    import numpy as np

    fit = fit_for_copies(tables) if whitening is None else whitening
    whiten = _Whitener(fit)
    dtype = "float16" if tables.row_count >= FLOAT16_ROWS else "float32"
    matrix = read_matrix(tables, whiten, width=fit.components, dtype=dtype)
    digests = whiten.digests(matrix.ok, tables.width)
    same = np.arange(len(digests))
    rows = np.flatnonzero(digests != np.void(bytes(_DIGEST)))
    _, first, inverse = np.unique(digests[rows], return_index=True, return_inverse=True)
    same[rows] = rows[first[inverse]]
    matrix.values[same != np.arange(len(same))] = 0
    return WhitenedRows(matrix.values, same, digests, matrix.ok, matrix.paths, fit)


def whiten_vectors(
    values: NDArray[Any], ok: NDArray[np.bool_] | None = None, whitening: Whitening | None = None
) -> WhitenedRows:
    """Makes vectors ready that are in memory, float[n, d]; without a fit they get one to all of them, or to each n-th.

    Args:
        values: the vectors.
        ok: bool[n], which rows have one, if not all whose values are finite.
        whitening: the fit.

    Raises:
        UsageError: no row has a vector.
    """
    import numpy as np

    has = np.ones(len(values), bool) if ok is None else ok
    return whiten_tables(VectorsInMemory((), values.shape[1], None, values, has), whitening)


def fit_for_copies(*tables: FeatureTables) -> Whitening:
    """Fits to the rows of tables, see `fit_tables`, and leaves out the directions that look-alikes share."""
    return fit_tables(*tables, leave_out=LEFT_OUT)


def threshold_for(fit: Whitening) -> float:
    """Returns the threshold of copies in a fit: the fewer directions it has, the higher cosines are by chance."""
    return round(min(0.9, 0.445 + 2.6 / math.sqrt(max(1, fit.components))), 2)


def find_pairs(rows: WhitenedRows, threshold: float | None = None, *, most: int = MAX_PAIRS) -> Pairs:
    """Returns all pairs of rows that are at least so similar; rows with equal vectors have a similarity of 1.

    Args:
        rows: the rows.
        threshold: by default that of `threshold_for`.
        most: pairs that fit into memory.

    Raises:
        UsageError: there are more than `most`, or no cosine can be so high.
    """
    import numpy as np

    threshold = threshold_for(rows.whitening) if threshold is None else threshold
    members = np.argsort(rows.same, kind="stable")  # by the first row with an equal vector
    sizes = np.bincount(rows.same, minlength=len(rows))
    repeated = np.flatnonzero(sizes > 1)
    repeats = Pairs(repeated, repeated, np.ones(len(repeated), np.float32))
    found, count = list[Pairs](), 0
    for pairs in chain([repeats], pairs_above(rows.values, threshold)):
        count += int(sizes[pairs.first] @ sizes[pairs.second])
        if count > most:
            raise UsageError(f"more than {most:,} pairs have a similarity of {threshold:g}: give a higher threshold")
        found.append(_with_repeats(pairs, members, sizes))
    return joined(found)


def _with_repeats(pairs: Pairs, members: NDArray[np.int64], sizes: NDArray[np.int64]) -> Pairs:
    """Returns for each pair those of all rows that have vectors equal to its two; for a row with itself, each once."""
    import numpy as np

    starts = np.cumsum(sizes) - sizes
    width = sizes[pairs.second]
    counts = sizes[pairs.first] * width
    pair = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = members[starts[pairs.first[pair]] + place // width[pair]]
    second = members[starts[pairs.second[pair]] + place % width[pair]]
    kept = (pairs.first != pairs.second)[pair] | (first < second)
    first, second = first[kept], second[kept]
    return Pairs(np.minimum(first, second), np.maximum(first, second), pairs.similarity[pair[kept]])


class Links:
    """Which rows are linked by copies, and by copies of copies, in memory bounded by their number.

    Attributes:
        root: int64[n], the first of the rows with which each is linked.
    """

    def __init__(self, rows: WhitenedRows) -> None:
        self._rows = rows
        self.root = rows.same.copy()

    @property
    def state(self) -> NDArray[np.int64]:
        """A copy of all that is known."""
        return self.root.copy()

    @state.setter
    def state(self, state: NDArray[np.int64]) -> None:
        self.root = state.copy()

    def snapshot(self) -> Callable[[], NDArray[np.int64]]:
        """Returns what returns the state as it is now."""
        state = self.state
        return lambda: state

    def compare(self, threshold: float, band: int = 0, lists: RowLists | None = None) -> Iterator[int]:
        """Compares pairs of rows, band by band from one on, and yields the number of each.

        Args:
            threshold: of a copy.
            band: the first one.
            lists: only the pairs that these bring together, in their bands; without them all pairs.
        """
        values = self._rows.values
        for number in range(band, bands(len(self._rows)) if lists is None else lists.bands):
            steps = pairs_of_band(values, number, threshold, wanted=self._wanted)
            if lists is not None:
                steps = pairs_of_lists(values, lists, number, threshold, wanted=self._wanted)
            found, count = list[Pairs](), 0
            for pairs in steps:
                found.append(pairs)
                count += len(pairs.first)
                if count > _LINKED:
                    self._add(joined(found))
                    found, count = [], 0
            if count:
                self._add(joined(found))
            yield number

    def _wanted(self, first: NDArray[np.int64], second: NDArray[np.int64], _: NDArray[np.float32]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.root[first] != self.root[second]
        return found

    def _add(self, pairs: Pairs) -> None:
        import numpy as np

        first, second = pairs.first, pairs.second
        while True:
            one, other = self.root[first], self.root[second]
            differ = one != other
            if not differ.any():
                return
            first, second, one, other = first[differ], second[differ], one[differ], other[differ]
            np.minimum.at(self.root, np.maximum(one, other), np.minimum(one, other))
            while not np.array_equal(further := self.root[self.root], self.root):
                self.root = further


def linked_rows(rows: WhitenedRows, threshold: float | None = None) -> NDArray[np.int64]:
    """Returns the first of the rows with which each is linked by copies, and by copies of copies, int64[n].

    What must not be on two sides of a split is linked; what can stand for another is not, see `group_rows`.
    """
    links = Links(rows)
    threshold = threshold_for(rows.whitening) if threshold is None else threshold
    for _ in links.compare(threshold):
        pass
    return links.root


def group_rows(
    rows: WhitenedRows,
    linked: NDArray[np.int64],
    threshold: float | None = None,
    order: NDArray[np.int64] | None = None,
) -> Groups:
    """Returns the groups, see the module.

    Args:
        rows: the rows.
        linked: what `linked_rows` returned for them and the threshold.
        threshold: that of a copy.
        order: int64[n], the rows from the one that is kept first to the last one; without it, the order of the table.
    """
    import numpy as np

    threshold = threshold_for(rows.whitening) if threshold is None else threshold
    groups = Groups(np.arange(len(rows)), np.ones(len(rows), np.float32))
    rank = np.arange(len(rows))
    if order is not None:
        rank[order] = np.arange(len(rows))
    many = np.flatnonzero(np.bincount(linked, minlength=len(rows))[linked] > 1)
    many = many[np.lexsort((rank[many], linked[many]))]
    for members in np.split(many, np.flatnonzero(np.diff(linked[many])) + 1):
        size = 1
        while len(members) > 1:
            found = _pairs_of_first(rows, members, size, threshold)
            # Where each takes many, few are left to be compared with the next ones.
            sparse = 16 * len(found.first) < size * len(members)
            members = _taken(members, size, found, groups)
            size = max(1, min(2 * size, _CENTRES, _PRODUCTS // max(1, len(members)))) if sparse else 1
    return groups


def group_pairs(rows: WhitenedRows, copies: Pairs, order: NDArray[np.int64]) -> Groups:
    """Returns the groups if these pairs are the copies, see the module; of equal vectors only the first has pairs.

    Args:
        rows, order: as of `group_rows`.
        copies: the pairs.
    """
    import numpy as np

    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    best = np.full(len(rows), len(rows))  # of the rows with a vector equal to that of a row
    np.minimum.at(best, rows.same, rank)
    first, second = best[copies.first], best[copies.second]
    places = Pairs(np.minimum(first, second), np.maximum(first, second), copies.similarity)
    groups = Groups(np.arange(len(rows)), np.ones(len(rows), np.float32))
    _taken(order, len(rows), joined([places]), groups)
    firsts = order[best[rows.same]]
    return Groups(groups.kept[firsts], groups.similarity[firsts])


def _pairs_of_first(rows: WhitenedRows, members: NDArray[np.int64], count: int, threshold: float) -> Pairs:
    """Returns the pairs of the first members with later ones, by their places among them."""
    import numpy as np

    same = rows.same[members]
    centres = rows.values[same[:count]].astype(np.float32)
    found = []
    for at in range(0, len(members), BAND_ROWS):
        tile = same[at : at + BAND_ROWS]
        product = centres @ rows.values[tile].astype(np.float32).T
        product[same[:count, None] == tile] = 1
        first, second = np.nonzero(product >= np.float32(threshold - SLACK))
        second += at
        later = second > first
        first, second = first[later], second[later]
        similarity = similarity_of(rows.values, rows.values, same[first], same[second])
        similarity[same[first] == same[second]] = 1
        kept = similarity >= threshold
        found.append(Pairs(first[kept], second[kept], similarity[kept].astype(np.float32)))
    return joined(found)


def _taken(members: NDArray[np.int64], size: int, found: Pairs, groups: Groups) -> NDArray[np.int64]:
    """Lets the first members take what is like them, and returns those that are left."""
    import numpy as np

    free = np.ones(len(members), bool)
    bounds = np.searchsorted(found.first, np.arange(size + 1))
    for place in range(min(size, len(members))):
        if free[place]:
            free[place] = False
            part = slice(bounds[place], bounds[place + 1])
            own = free[found.second[part]]
            taken = found.second[part][own]
            groups.kept[members[taken]] = members[place]
            groups.similarity[members[taken]] = found.similarity[part][own]
            free[taken] = False
    return members[free]
