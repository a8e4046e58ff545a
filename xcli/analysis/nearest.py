"""Exact comparison of every vector with every other, by products of blocks of matrices.

Vectors have unit length (or are zeros, which are like nothing), so that a product is a cosine. numpy's BLAS multiplies
in float32 on all processors; what comes near the threshold is computed again in float64, so that neither the size of a
block nor the number of processors decides about a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

BAND_ROWS = 1024
"""Rows that `pairs_above` compares with all others before it yields."""

_TILE = 2048  # rows of the others at a time, so that the products of a tile stay in the processor's cache
_SLACK = 1e-4  # more than the error of a product in float32
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
    import numpy as np

    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold is above 0 and at most 1; received {threshold:g}")
    columns = values if other is None else other
    products, above = np.empty((BAND_ROWS, _TILE), np.float32), np.empty((BAND_ROWS, _TILE), bool)
    least = np.float32(threshold - _SLACK)
    for start in range(band * BAND_ROWS, len(values), BAND_ROWS):
        rows = values[start : start + BAND_ROWS].astype(np.float32, copy=False)
        found = []
        for at in range(start if other is None else 0, len(columns), _TILE):
            tile = columns[at : at + _TILE].astype(np.float32, copy=False)
            size = len(rows), len(tile)
            product = np.matmul(rows, tile.T, out=products[: size[0], : size[1]])
            if np.greater_equal(product, least, out=above[: size[0], : size[1]]).any():
                first, second = np.nonzero(above[: size[0], : size[1]])
                first, second = first + start, second + at
                later = slice(None) if other is not None else second > first
                found.append(_refined(values, columns, first[later], second[later], threshold))
        yield _sorted(found)


def _refined(
    values: NDArray[Any], columns: NDArray[Any], first: NDArray[np.int64], second: NDArray[np.int64], threshold: float
) -> Pairs:
    """Returns the pairs that are above the threshold in float64."""
    import numpy as np

    similarity = np.empty(len(first), np.float64)
    for at in range(0, len(first), _REFINED):
        part = slice(at, at + _REFINED)
        similarity[part] = np.einsum("ij,ij->i", values[first[part]], columns[second[part]], dtype=np.float64)
    kept = similarity >= threshold
    return Pairs(first[kept], second[kept], np.minimum(similarity[kept], 1).astype(np.float32))


def _sorted(found: list[Pairs]) -> Pairs:
    import numpy as np

    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    first, second, similarity = (np.concatenate(one) for one in zip(none, *found, strict=True))
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], similarity[order])
