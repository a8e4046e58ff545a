"""Rounds the weights of one pointwise convolution to eight bits, so that its outputs change least on given inputs.

A pointwise convolution y = W x + b of inputs x, which are taken as integers u from 0 to 255, x ~ low + step u, with a
range of its own for each channel, is again one of integers, exactly but for the two roundings:

    y ~ scale (Q u) + offset + b      Q int8[o, c] ~ W diag(step) / scale      offset = W low + what rounding adds

Sources: GPTQ (Frantar et al., ICLR 2023) for the rounding of the weights, which hands the error of one input on to
those that go with it; SmoothQuant (Xiao et al., ICML 2023) for steps between those of the inputs and of the weights;
bias correction (Nagel et al., ICCV 2019) for the mean of the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

LEVELS, LARGEST = 255, 127
"""Steps of an input, and the largest weight."""

_EXPONENTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""How the steps go with the ranges of the inputs: 1 gives each channel its whole range, less takes from channels of
small weights for those of large ones."""

_GPTQ_GAIN = 0.5
"""Share of the error of rounding to the nearest that is left after GPTQ, about; it chooses among the exponents."""

FLOAT_SHARE = 0.2
"""Share of the multiplications that may stay in floating point. On a processor that computes integers twice as fast as
floats, this takes a tenth of the speed."""

_SMALL_ERROR = 5e-4
"""Share of the variance of its outputs below which a layer is not left in floating point."""

_DAMPING = 0.01
_BLOCK = 64
HEADROOM = 1.25
"""Ranges over those of the calibration, for images that differ from all of it: what is beyond a range is cut off, which
harms an image more than coarser steps do."""

_SMALLEST_RANGE = 1e-4
"""Of a channel, as a share of the widest range of the layer."""


@dataclass(slots=True)
class InputStatistics:
    """What is known of the inputs of a layer with c channels.

    Attributes:
        lowest, highest: float64[c], over all places of all images.
        mean: float64[c], over sampled places.
        second_moment: float64[c, c], the mean of x x^T over the same places.
    """

    lowest: NDArray[Any]
    highest: NDArray[Any]
    mean: NDArray[Any]
    second_moment: NDArray[Any]


@dataclass(slots=True)
class IntegerLayer:
    """A pointwise convolution of integers, o outputs of c inputs; see the text of this module.

    Attributes:
        low, step: float32[c].
        weights: int8[o, c], from -127 to 127.
        scale, offset: float32[o].
    """

    low: NDArray[Any]
    step: NDArray[Any]
    weights: NDArray[Any]
    scale: NDArray[Any]
    offset: NDArray[Any]


def quantize_layer(weights: NDArray[Any], inputs: InputStatistics) -> tuple[IntegerLayer, float] | None:
    """Rounds a layer; returns it with its error, the share of the variance of the outputs that the two roundings make.

    Args:
        weights: float[o, c].
        inputs: of the layer.

    Returns:
        None for a layer whose inputs never change, or are not finite: it stays as it is.
    """
    import numpy as np

    weights = weights.astype(np.float64)
    with np.errstate(all="ignore"):  # of inputs that are not finite, which is seen below
        covariance = inputs.second_moment - np.outer(inputs.mean, inputs.mean)
        signal = float(np.sum((weights @ covariance) * weights))
    highest, lowest = HEADROOM * np.maximum(inputs.highest, 0), HEADROOM * np.minimum(inputs.lowest, 0)
    widest = float((highest - lowest).max())
    if not (np.isfinite(signal) and np.isfinite(widest) and signal > 0 and widest > 0):
        return None
    ranges = np.maximum(highest - lowest, _SMALLEST_RANGE * widest)
    low, step = _inputs_in_steps(weights, covariance, lowest, ranges)
    scaled, seen = weights * step, covariance / np.outer(step, step)
    scale = _scales(scaled)
    rounded = gptq(scaled, seen, scale)
    change = rounded * scale[:, None] - scaled
    error = float(np.sum((change @ seen) * change)) + _input_error(scaled)
    offset = weights @ low - change @ ((inputs.mean - low) / step)
    narrow = (array.astype(np.float32) for array in (low, step, scale, offset))
    low32, step32, scale32, offset32 = narrow
    return IntegerLayer(low32, step32, rounded.astype(np.int8), scale32, offset32), error / signal


def _inputs_in_steps(
    weights: NDArray[Any], covariance: NDArray[Any], lowest: NDArray[Any], ranges: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Chooses `low` and `step` of a layer by the error that is to be expected; see `_EXPONENTS`."""
    import numpy as np

    largest = np.abs(weights).max(0) + 1e-9 * np.abs(weights).max()
    found = []
    for exponent in _EXPONENTS:
        balanced = ranges**exponent / largest ** (1 - exponent)
        step = balanced * np.max(ranges / balanced) / LEVELS
        scaled = weights * step
        scale = _scales(scaled)[:, None]
        change = (np.clip(np.round(scaled / scale), -LARGEST, LARGEST) * scale - scaled) / step
        error = _GPTQ_GAIN * float(np.sum((change @ covariance) * change)) + _input_error(scaled)
        found.append((error, exponent, step))
    best: NDArray[Any] = min(found, key=lambda one: one[:2])[2]
    # Channels that are never negative begin at 0; the others get their additional range on both sides.
    return lowest - (best * LEVELS - ranges) / 2 * (lowest < 0), best


def _scales(scaled: NDArray[Any]) -> NDArray[Any]:
    """Returns the step of the weights of each output, float64[o]."""
    import numpy as np

    scales: NDArray[Any] = np.maximum(np.abs(scaled).max(1), 1e-30) / LARGEST
    return scales


def _input_error(scaled: NDArray[Any]) -> float:
    """Returns the variance that rounding the inputs to steps adds to the outputs, whose weights are for steps."""
    import numpy as np

    return float(np.sum(scaled**2)) / 12


def gptq(weights: NDArray[Any], covariance: NDArray[Any], scale: NDArray[Any]) -> NDArray[Any]:
    """Rounds float64[o, c] to multiples of `scale`, float64[o]; returns the integers, as float64[o, c].

    After each input, in the order of their variances, what its rounding changed is taken back as far as the inputs
    that follow can: see Frantar et al., algorithm 1.

    Args:
        weights: to be rounded.
        covariance: float64[c, c], of the inputs.
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


def left_in_floats(errors: Mapping[str, float], work: Mapping[str, int]) -> list[str]:
    """Chooses the layers with the greatest errors, as many as `FLOAT_SHARE` allows.

    Args:
        errors: of the layers, by name; see `quantize_layer`.
        work: multiplications of all layers, those without an error too.
    """
    left, chosen = FLOAT_SHARE * sum(work.values()), []
    for name in sorted(errors, key=lambda one: -errors[one]):
        if work[name] <= left and errors[name] >= _SMALL_ERROR:
            left -= work[name]
            chosen.append(name)
    return chosen
