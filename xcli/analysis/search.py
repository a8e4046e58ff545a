"""`search`: the rows of tables of features that are most like some vectors, by cosine, exactly.

The tables are read once, block by block. Products in float32 say which rows of a block may be among the best; only
these are computed again in float64, and rounded to float32. So equal rows have equal scores wherever they stand, and of
rows with equal scores the first one wins. Memory is that of a block, of its products, and of the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.analysis.whitening import fit_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xcli.analysis.vectors import Block, FeatureTables
    from xcli.analysis.whitening import Whitening

_PRODUCTS = 1 << 23
"""Products that are in memory at a time: 32 MiB."""

_EXACT_ROWS = 512
"""Rows that are in memory in float64 at a time."""

_DENSE = 16
"""If a row is a candidate of one query in so many, its products with all of them are as fast."""


@dataclass(frozen=True)
class Answers:
    """The best rows for q queries.

    Attributes:
        rows: int64[q, top], numbers of rows as `Block` counts them, best first; -1 where there are no more.
        scores: float32[q, top], their cosines.
        paths: of these rows, by their numbers.
        compared: number of rows that have a vector.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    paths: dict[int, str]
    compared: int

    def of(self, query: int) -> Iterator[tuple[str, float]]:
        """Yields path and score of the answers to a query, best first."""
        for row, score in zip(self.rows[query].tolist(), self.scores[query].tolist(), strict=True):
            if row >= 0:
                yield self.paths[row], score


class Space:
    """Where vectors are compared: as they are, or centred and whitened."""

    def __init__(self, whitening: Whitening | None = None) -> None:
        import numpy as np

        self._whitening = whitening
        if whitening is not None:
            self._projection = whitening.projection.astype(np.float64)

    def unit(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Returns vectors [n, d] in this space at unit length, float64[n, k]; NaN where one has no direction."""
        import numpy as np

        found = values.astype(np.float64)
        if self._whitening is not None:
            found = (found - self._whitening.mean) @ self._projection
        with np.errstate(all="ignore"):
            # The largest value first, since squares of float64 may overflow.
            found /= np.abs(found).max(axis=1, keepdims=True, initial=0)
            found /= np.sqrt(np.einsum("ij,ij->i", found, found))[:, None]
        return found

    def products(self, queries: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns about the cosines of queries, which `unit` returned, and vectors: float32[q, n].

        They are -inf for vectors without a direction, and else off by less than the `tolerance`.
        """
        import numpy as np

        with np.errstate(all="ignore"):
            if self._whitening is None:
                length = np.sqrt(np.einsum("ij,ij->i", values, values))
                found = _product(queries, values)
                found /= length
                odd = ~((length > 1e-12) & (length < 1e18))  # squares that do not fit into float32
            else:
                there = self._whitening.transform(values)
                found = _product(queries, there)
                odd = ~(np.abs(np.einsum("ij,ij->i", there, there) - 1) < 0.01)
        if odd.any():
            found[:, odd] = _product(queries, self.unit(values[odd]).astype(np.float32))
            np.nan_to_num(found, copy=False, nan=-np.inf)
        return found

    def tolerance(self, width: int) -> float:
        """How far `products` of vectors of this width may be off."""
        # Of vectors of unit length a product is off by at most `width` roundings, and so are the lengths. Whitening
        # divides small differences by their small deviations, and their roundings as well.
        return 3 * (width + 8) * 2.0**-24 + (1e-3 if self._whitening is not None else 0.0)


def _product(queries: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    # So BLAS is about four times as fast as with the few queries first.
    return np.ascontiguousarray((values @ queries.T).T)


def fit_space(tables: FeatureTables, *, whiten: bool) -> Space:
    """Returns the space in which rows of the tables are compared; to `whiten`, the tables are read once."""
    return Space(fit_tables(tables)) if whiten else Space()


def most_alike(
    blocks: Iterable[Block],
    vectors: NDArray[Any],
    top: int,
    space: Space,
    excluded: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> Answers:
    """Finds for each vector the rows with the highest cosines; rows without a vector or a direction are none.

    Args:
        blocks: of the tables.
        vectors: [q, d], float32 or float64, each with a direction in `space`.
        top: rows for each.
        excluded: rows that are no answer to a query: int64[m] numbers of rows, sorted, and int64[m] those of queries.
    """
    import numpy as np

    exact = space.unit(vectors)
    fast, margin = exact.astype(np.float32), space.tolerance(vectors.shape[1])
    best, compared = _Best(len(vectors), top), 0
    own_rows, own_queries = excluded or (np.zeros(0, np.int64),) * 2
    for first, values, ok, paths in _pieces(blocks, max(1, _PRODUCTS // max(len(vectors), 1))):
        found = space.products(fast, values)
        found[:, ~ok] = -np.inf
        compared += int(ok.sum())
        own = slice(*np.searchsorted(own_rows, (first, first + len(ok))))
        found[own_queries[own], own_rows[own] - first] = -np.inf
        queries, rows = np.nonzero(_candidates(found, best, margin))
        if len(rows):
            scores = _exact_scores(space, exact, values, queries, rows)
            best.add(queries, first + rows, scores)
            best.name(first, paths)
    return Answers(best.rows, best.scores, best.paths, compared)


def _pieces(blocks: Iterable[Block], rows: int) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_], Any]]:
    for block in blocks:
        for start in range(0, len(block.ok), rows):
            here = slice(start, start + rows)
            yield block.start + start, block.values[here], block.ok[here], block.paths[here]


def _candidates(found: NDArray[np.float32], best: _Best, margin: float) -> NDArray[np.bool_]:
    """Returns bool[q, n], which products may be among the best of all."""
    import numpy as np

    least = best.least - margin
    top, rows = best.rows.shape[1], found.shape[1]
    many = np.flatnonzero((found >= least[:, None]).sum(axis=1) > top)
    if len(many) and rows > top:
        # No less than the last of the best of these rows, both of which are known with an error.
        of_these = np.partition(found[many], rows - top, axis=1)[:, rows - top]
        least[many] = np.maximum(least[many], of_these - 2 * margin)
    may: NDArray[np.bool_] = (found >= least[:, None]) & (found > -np.inf)
    return may


def _exact_scores(
    space: Space,
    exact: NDArray[np.float64],
    values: NDArray[np.float32],
    queries: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Returns the cosines of pairs of queries and rows: float32[pairs]."""
    import numpy as np

    different, places = np.unique(rows, return_inverse=True)
    scores = np.empty(len(rows), np.float64)
    for start in range(0, len(different), _EXACT_ROWS):
        there = space.unit(values[different[start : start + _EXACT_ROWS]])
        pairs = np.flatnonzero((places >= start) & (places < start + _EXACT_ROWS))
        if len(pairs) * _DENSE > len(there) * len(exact):
            scores[pairs] = (exact @ there.T)[queries[pairs], places[pairs] - start]
            continue
        for at in range(0, len(pairs), _EXACT_ROWS):
            some = pairs[at : at + _EXACT_ROWS]
            scores[some] = np.einsum("ij,ij->i", exact[queries[some]], there[places[some] - start])
    return np.clip(scores, -1, 1).astype(np.float32)


class _Best:
    """The best rows so far of each query.

    Attributes:
        rows, scores, paths: see `Answers`; the score of no row is -inf.
    """

    def __init__(self, queries: int, top: int) -> None:
        import numpy as np

        self.rows = np.full((queries, top), -1, np.int64)
        self.scores = np.full((queries, top), -np.inf, np.float32)
        self.paths: dict[int, str] = {}

    @property
    def least(self) -> NDArray[np.float32]:
        """The scores that further rows have to reach, float32[q]."""
        return self.scores[:, -1]

    def add(self, queries: NDArray[np.int64], rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Takes further rows; numbers of queries, of rows and the scores of pairs."""
        import numpy as np

        known = np.nonzero(self.rows >= 0)
        queries = np.concatenate([known[0], queries])
        rows = np.concatenate([self.rows[known], rows])
        scores = np.concatenate([self.scores[known], scores])
        order = np.lexsort((rows, -scores, queries))
        queries, rows, scores = queries[order], rows[order], scores[order]
        rank = np.arange(len(queries)) - np.searchsorted(queries, queries, "left")
        kept = rank < self.rows.shape[1]
        at = queries[kept], rank[kept]
        self.rows[at], self.scores[at] = rows[kept], scores[kept]

    def name(self, first: int, paths: Any) -> None:
        """Keeps the paths of the best rows among those from `first` on, whose paths these are."""
        import numpy as np

        new = self.rows[(self.rows >= first) & (self.rows < first + len(paths))]
        for row in np.unique(new).tolist():
            self.paths[row] = paths[row - first].as_py()
        if len(self.paths) > 2 * self.rows.size + 1000:
            self.paths = {row: self.paths[row] for row in np.unique(self.rows[self.rows >= 0]).tolist()}
