"""Images unlike all others: those whose nearest others are much farther away than those of most images.

The measure is the mean cosine of the features, as they are, to the ten nearest others. Of the measures that were
compared (also after centring, after whitening, and with euclidean distances) it put photographs of other things among
those of clothes, and drawings, first; whitening makes rare details of usual images count most, and hides them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xcli.analysis.nearest import unit_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_DEVIATION = 3.5
"""Robust standard deviations below the median; Iglewicz and Hoaglin (1993) advise this limit. Of 3,409 photographs of
clothes two are beyond it, of 12 drawings and photographs of other things that were put among them seven."""

MIN_IMAGES = 50
"""With fewer there is no telling what is usual."""

_NEAREST = 10
_MIN_SPREAD = 0.02  # of the cosines: where all images are copies of one another, the smallest difference is no outlier
_BLOCK = 2048


class Nearness(NamedTuple):
    """How near others are to b images.

    Attributes:
        cosine: float32[b], mean cosine to the nearest images of the sample.
        nearest: int64[b], number of the nearest one.
    """

    cosine: NDArray[np.float32]
    nearest: NDArray[np.int64]


def nearness(values: NDArray[np.float32], sample: NDArray[np.float32], own: NDArray[np.int64]) -> Nearness:
    """Compares images with a sample of at least two.

    Args:
        values: float32[b, d], features.
        sample: float32[m, d], of unit length.
        own: int64[b], the number of each image in the sample, -1 for none.
    """
    import numpy as np

    cosine, nearest = np.empty(len(values), np.float32), np.empty(len(values), np.int64)
    count = min(_NEAREST, len(sample) - 1)
    for at in range(0, len(values), _BLOCK):
        here = slice(at, at + _BLOCK)
        products = unit_vectors(values[here]) @ sample.T
        rows = np.flatnonzero(own[here] >= 0)
        products[rows, own[here][rows]] = -np.inf
        nearest[here] = products.argmax(axis=1)
        cosine[here] = np.partition(products, -count, axis=1)[:, -count:].mean(axis=1)
    return Nearness(cosine, nearest)


def deviations(cosine: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Returns how many robust standard deviations each image is below the median, float64[n], and the median."""
    import numpy as np

    median = float(np.median(cosine))
    spread = max(1.4826 * float(np.median(np.abs(cosine - median))), _MIN_SPREAD)
    found: NDArray[np.float64] = (median - cosine.astype(np.float64)) / spread
    return found, median
