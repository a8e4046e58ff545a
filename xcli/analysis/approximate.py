"""Most pairs of similar vectors, in tables in which comparing every pair would take too long.

Vectors are put into lists, each into that of the centre that it is most like; centres come from some of the vectors
(spherical k-means). Rows of a list are compared with each other, and with the rows for which it is among the `PROBES`
next lists. A pair is missed where neither row is in a list that is near the other one, which happens the more often the
less similar they are; `measured_recall` says how often. Pairs that are found have their exact similarity.

That is what index libraries call inverted lists. Here whole lists are multiplied with each other by BLAS, so that a
pair of rows takes a third of the time that it takes if each row is searched for by itself, and more lists can be looked
at (`python -m benchmarks approximate` compares). On one machine the same vectors give the same pairs; elsewhere another
BLAS may put a vector that lies between two centres into the other list.

    lists = list_rows(values)
    for pairs in pairs_near(values, lists, threshold): ...
    measured_recall(values, lists, threshold)

Time grows with the 1.5th power of the rows. Memory beside the vectors is 4 * (`PROBES` + 1) bytes a row, and some
hundred MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.analysis.nearest import SLACK, Pairs, joined, similarity_of
from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.nearest import Wanted

PROBES = 32
"""Lists with which a row is compared."""

BANDS = 64
"""Steps in which all lists are gone through."""

SAMPLE_ROWS = 2000
"""Rows that `measured_recall` compares with all others."""

_LISTS = 8  # times the square root of the number of rows
_ROUNDS = 4  # of k-means
_SAMPLED = 32  # vectors for a centre
_PRODUCTS = 1 << 24  # in memory at a time
_TILE = 2048  # rows of a list that are compared at a time
_GROUP = 8  # lists of which only the best decides whether they are looked at


@dataclass(frozen=True, eq=False)
class RowLists:
    """Which lists are near each row.

    Attributes:
        near: int32[n, p], numbers of lists, the row's own first; -1 for rows of zeros, which are like nothing.
        count: number of lists.
    """

    near: NDArray[np.int32]
    count: int

    @property
    def bands(self) -> int:
        """How many times `pairs_near` yields."""
        return min(BANDS, self.count)

    def are_near(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns for pairs of rows whether the list of one is near the other: whether they are compared."""
        one, other = self.near[first], self.near[second]
        found: NDArray[np.bool_] = ((one[:, :1] == other) | (other[:, :1] == one)).any(axis=1)
        return found & (one[:, 0] >= 0)


class Recall(NamedTuple):
    """How many pairs of some rows are found.

    Attributes:
        found: pairs of these rows that are found.
        pairs: pairs of these rows with any others.
        rows: number of these rows.
    """

    found: int
    pairs: int
    rows: int


def _silent(done: int, of: int) -> None:
    pass


def list_rows(values: NDArray[Any], *, seed: int = 0, progress: Callable[[int, int], object] = _silent) -> RowLists:
    """Makes the lists.

    Args:
        values: float32[n, k] or float16[n, k], of unit length; rows of zeros are in no list.
        seed: of the draw of the vectors from which the centres come.
        progress: is told how many vectors have been compared with the centres, and how many will be.
    """
    import numpy as np

    usable = _with_direction(values)
    count = max(1, min(int(_LISTS * len(usable) ** 0.5), len(usable) // _GROUP))
    sample = np.random.default_rng(seed).permutation(usable)[: _SAMPLED * count]
    total, done = _ROUNDS * len(sample) + len(usable), 0
    centres = values[np.sort(sample[:count])].astype(np.float32)
    sample.sort()
    step = max(1, _PRODUCTS // count)
    for _ in range(_ROUNDS):
        sums = np.zeros_like(centres)
        for at in range(0, len(sample), step):
            some = values[sample[at : at + step]].astype(np.float32)
            _add_by_list(sums, (some @ centres.T).argmax(axis=1), some)
            done += len(some)
            progress(done, total)
        length = np.sqrt(np.einsum("ij,ij->i", sums, sums))[:, None]
        # A centre of no vector stays where it is.
        centres = np.where(length > 0, sums / np.maximum(length, 1e-12), centres)
    near = np.full((len(values), min(PROBES, count)), -1, np.int32)
    for at in range(0, len(usable), step):
        rows = usable[at : at + step]
        near[rows] = _highest(values[rows].astype(np.float32) @ centres.T, near.shape[1])
        done += len(rows)
        progress(done, total)
    return RowLists(near, count)


def _with_direction(values: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the rows that are not zeros."""
    import numpy as np

    parts = [values[at : at + _TILE].any(axis=1) for at in range(0, len(values), _TILE)]
    return np.flatnonzero(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def _add_by_list(sums: NDArray[np.float32], lists: NDArray[np.int64], values: NDArray[np.float32]) -> None:
    import numpy as np

    order = np.argsort(lists, kind="stable")
    present, starts = np.unique(lists[order], return_index=True)
    sums[present] += np.add.reduceat(values[order], starts, axis=0)


def _highest(products: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Returns the columns of the highest products of each row, best first, [b, count]."""
    import numpy as np

    rows, columns = products.shape
    groups = -(-columns // _GROUP)
    if groups > count:
        # The best are within the groups with the highest maxima, of which there are fewer to look through.
        padded = np.full((rows, groups * _GROUP), -np.inf, np.float32)
        padded[:, :columns] = products
        padded = padded.reshape(rows, groups, _GROUP)
        best = np.argpartition(padded.max(axis=2), groups - count, axis=1)[:, groups - count :]
        best.sort(axis=1)
        candidates = (best[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(rows, -1)
        products = np.take_along_axis(padded, best[:, :, None], axis=1).reshape(rows, -1)
    else:
        candidates = np.broadcast_to(np.arange(columns), products.shape)
    top = np.argpartition(products, products.shape[1] - count, axis=1)[:, products.shape[1] - count :]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(products, top, axis=1), axis=1, kind="stable"), axis=1)
    return np.take_along_axis(candidates, top, axis=1)


def pairs_near(values: NDArray[Any], lists: RowLists, threshold: float, *, band: int = 0) -> Iterator[Pairs]:
    """Yields, for each band of lists, the pairs found with a similarity of at least the threshold, each pair once.

    Args:
        values: of which the lists were made.
        lists: the lists.
        threshold: above 0, at most 1.
        band: number of the band with which to begin.
    """
    for number in range(band, lists.bands):
        yield joined(pairs_of_lists(values, lists, number, threshold))


def pairs_of_lists(
    values: NDArray[Any], lists: RowLists, number: int, threshold: float, *, wanted: Wanted = None
) -> Iterator[Pairs]:
    """Yields the pairs of one band of lists, a tile at a time; `wanted` is as of `pairs_of_band`."""
    import numpy as np

    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold is above 0 and at most 1; received {threshold:g}")
    begin, end = (lists.count * one // lists.bands for one in (number, number + 1))
    rows, place = np.nonzero((lists.near >= begin) & (lists.near < end))
    at = lists.near[rows, place]
    order = np.argsort(at, kind="stable")
    rows, is_own, at = rows[order], place[order] == 0, at[order]
    bounds = np.searchsorted(at, np.arange(begin, end + 1))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        members = rows[first:last][is_own[first:last]]
        for member in range(0, len(members), _TILE):
            own = members[member : member + _TILE]
            block = values[own].astype(np.float32)
            for other in range(first, last, _TILE):
                tile = rows[other : min(other + _TILE, last)]
                yield from _pairs_of_tile(values, lists, own, block, tile, threshold, wanted)


def _pairs_of_tile(
    values: NDArray[Any],
    lists: RowLists,
    own: NDArray[np.int64],
    block: NDArray[np.float32],
    tile: NDArray[np.int64],
    threshold: float,
    wanted: Wanted,
) -> Iterator[Pairs]:
    """Yields the pairs of rows of a list with others near it, unless another list has them, or there are none."""
    import numpy as np

    product = block @ values[tile].astype(np.float32).T
    least = np.float32(threshold - SLACK)
    if product.max(initial=-1) < least:
        return
    mine, theirs = np.nonzero(product >= least)
    about = product[mine, theirs]
    one, other = own[mine], tile[theirs]
    # A pair belongs to the list of its first row if that is near the second one, otherwise to that of the second.
    is_near = (lists.near[one] == lists.near[other, :1]).any(axis=1)
    kept = (one < other) | ((one > other) & ~is_near)
    one, other, about = one[kept], other[kept], about[kept]
    first, second = np.minimum(one, other), np.maximum(one, other)
    if wanted is not None:
        kept = wanted(first, second, about)
        first, second = first[kept], second[kept]
    similarity = similarity_of(values, values, first, second)
    kept = similarity >= threshold
    if kept.any():
        yield Pairs(first[kept], second[kept], similarity[kept].astype(np.float32))


def measured_recall(
    values: NDArray[Any], lists: RowLists, threshold: float, *, rows: int = SAMPLE_ROWS, seed: int = 1
) -> Recall:
    """Compares some rows with all others, and counts which of their pairs `pairs_near` finds.

    Args:
        values, lists, threshold: as of `pairs_near`.
        rows: number of rows that are drawn.
        seed: of the draw.
    """
    import numpy as np

    usable = np.flatnonzero(lists.near[:, 0] >= 0)
    sample = np.sort(np.random.default_rng(seed).permutation(usable)[:rows])
    drawn = values[sample].astype(np.float32)
    step, found, pairs = max(1, _PRODUCTS // max(len(sample), 1)), 0, 0
    for at in range(0, len(values), step):
        product = drawn @ values[at : at + step].astype(np.float32).T
        mine, other = np.nonzero(product >= np.float32(threshold - SLACK))
        first, second = sample[mine], other + at
        differ = first != second
        first, second = first[differ], second[differ]
        similar = similarity_of(values, values, first, second) >= threshold
        pairs += int(similar.sum())
        found += int(lists.are_near(first[similar], second[similar]).sum())
    return Recall(found, pairs, len(sample))
