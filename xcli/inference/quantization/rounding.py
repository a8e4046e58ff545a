"""Rounds the weights of a layer to eight bits.

Source: GPTQ (Frantar et al., ICLR 2023), which hands the error of one input on to those that go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS, LARGEST = 255, 127
"""Steps of an input, and the largest weight."""

GPTQ_GAIN = 0.5
"""Share of the error of rounding to the nearest that is left after GPTQ, about; for choosing what is rounded."""

HEADROOM = 1.25
"""Ranges over those of the calibration, for images that differ from all of it: what is beyond a range is cut off, which
harms an image more than coarser steps do."""

SMALLEST_RANGE = 1e-4
"""Of a channel, as a share of the widest range of the layer."""

_DAMPING = 0.01
_BLOCK = 64


def scales(scaled: NDArray[Any]) -> NDArray[Any]:
    """Returns the step of the weights of each output, float64[o], for weights float64[o, i]."""
    import numpy as np

    found: NDArray[Any] = np.maximum(np.abs(scaled).max(1), 1e-30) / LARGEST
    return found


def gptq(weights: NDArray[Any], covariance: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """Rounds float64[o, i] to multiples of `scale`, float64[o]; returns the integers, as float64[o, i].

    After each input, in the order of their variances, what its rounding changed is taken back as far as the inputs
    that follow can: see Frantar et al., algorithm 1.

    Args:
        weights: to be rounded.
        covariance: float64[i, i], of the inputs.
        scale: of the outputs.
    """
    import numpy as np

    count = weights.shape[1]
    order = np.argsort(-np.diag(covariance), kind="stable")
    weights, covariance = weights[:, order], covariance[np.ix_(order, order)]
    diagonal = np.diag_indices(count)
    variance = float(covariance[diagonal].mean())
    covariance[diagonal] = np.maximum(covariance[diagonal], 0) + _DAMPING * variance
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).T
    rounded = np.empty_like(weights)
    for begin in range(0, count, _BLOCK):
        end = min(count, begin + _BLOCK)
        block, left = weights[:, begin:end].copy(), factor[begin:end, begin:end]
        changes = np.empty_like(block)
        for column in range(end - begin):
            whole = np.clip(np.round(block[:, column] / scale), -LARGEST, LARGEST)
            changes[:, column] = (block[:, column] - whole * scale) / left[column, column]
            block[:, column + 1 :] -= np.outer(changes[:, column], left[column, column + 1 :])
            rounded[:, begin + column] = whole
        weights[:, end:] -= changes @ factor[begin:end, end:]
    back = np.empty_like(rounded)
    back[:, order] = rounded
    return back
