"""Exact comparison of every vector with every other, by products of blocks of matrices.

Vectors have unit length (or are zeros, which are like nothing), so that a product is a cosine. numpy's BLAS multiplies
in float32 on all processors; what comes near the threshold is computed again in float64, so that neither the size of a
block nor the number of processors decides about a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    Wanted = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]], NDArray[np.bool_]] | None

BAND_ROWS = 2048
"""Rows that `pairs_above` compares with all others before it yields."""

SLACK = 1e-4
"""More than the error of a product in float32."""

_TILE = 2048  # rows of the others at a time, so that the products of a tile stay in the processor's cache
_REFINED = 4096  # pairs at a time


class Pairs(NamedTuple):
    """Pairs of rows, in the order of the first and then of the second.

    Attributes:
        first: int64[p], rows of the one matrix.
        second: int64[p], rows of the other; of the same matrix, later ones than the first.
        similarity: float32[p].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float32]


def unit_vectors(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns float32[n, d] at unit length; zeros stay."""
    import numpy as np

    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    found: NDArray[np.float32] = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    return found


def bands(rows: int) -> int:
    """Returns how many times `pairs_above` yields for a matrix of so many rows."""
    return -(-rows // BAND_ROWS)


def pairs_above(
    values: NDArray[Any], threshold: float, other: NDArray[Any] | None = None, *, band: int = 0
) -> Iterator[Pairs]:
    """Yields, for each band of `BAND_ROWS` rows, all pairs with a similarity of at least the threshold.

    Args:
        values: float32[n, k] or float16[n, k], see the module.
        threshold: above 0, at most 1.
        other: [m, k], the rows with which those of `values` are compared; None compares each row with all later ones.
        band: number of the band with which to begin.
    """
    for number in range(band, bands(len(values))):
        yield joined(pairs_of_band(values, number, threshold, other))


def pairs_of_band(
    values: NDArray[Any], number: int, threshold: float, other: NDArray[Any] | None = None, *, wanted: Wanted = None
) -> Iterator[Pairs]:
    """Yields the pairs of one band, a tile of the other rows at a time, so that the pairs of a tile bound the memory.

    Args:
        values, threshold, other: as of `pairs_above`.
        number: of the band.
        wanted: called with rows of `values` and of the others, int64[p] each, whose similarity may reach the
            threshold, and with about what it is, float32[p]; returns bool[p], which of them are of interest.
    """
    import numpy as np

    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold is above 0 and at most 1; received {threshold:g}")
    columns = values if other is None else other
    least = np.float32(threshold - SLACK)
    start = number * BAND_ROWS
    rows = values[start : start + BAND_ROWS].astype(np.float32, copy=False)
    products = np.empty((len(rows), _TILE), np.float32)
    for at in range(start if other is None else 0, len(columns), _TILE):
        tile = columns[at : at + _TILE].astype(np.float32, copy=False)
        product = products[:, : len(tile)]
        if np.matmul(rows, tile.T, out=product).max(initial=-1) < least:
            continue
        first, second = np.nonzero(product >= least)
        about = product[first, second]
        first, second = first + start, second + at
        kept = second > first if other is None else np.ones(len(first), bool)
        if wanted is not None:
            kept &= wanted(first, second, about)
        if kept.any():
            yield _refined(values, columns, first[kept], second[kept], threshold)


def _refined(
    values: NDArray[Any], columns: NDArray[Any], first: NDArray[np.int64], second: NDArray[np.int64], threshold: float
) -> Pairs:
    """Returns the pairs that are above the threshold in float64."""
    import numpy as np

    similarity = similarity_of(values, columns, first, second)
    kept = similarity >= threshold
    return Pairs(first[kept], second[kept], similarity[kept].astype(np.float32))


def similarity_of(
    values: NDArray[Any], columns: NDArray[Any], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns the cosines of pairs of rows of two matrices, which may be one: float64[p]."""
    import numpy as np

    similarity = np.empty(len(first), np.float64)
    for at in range(0, len(first), _REFINED):
        part = slice(at, at + _REFINED)
        similarity[part] = np.einsum("ij,ij->i", values[first[part]], columns[second[part]], dtype=np.float64)
    return np.minimum(similarity, 1)


def joined(found: Iterable[Pairs]) -> Pairs:
    """Returns all of some pairs in one, in their order."""
    import numpy as np

    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    first, second, similarity = (np.concatenate(one) for one in zip(none, *found, strict=True))
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], similarity[order])
