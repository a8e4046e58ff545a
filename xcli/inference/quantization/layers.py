"""Rounds one convolution to eight bits, so that its outputs change least on given inputs.

A convolution y = W x + b of inputs x, which are taken as integers u from 0 to 255, x ~ low + step u, with a range of
its own for each channel, is again one of integers, exactly but for the two roundings:

    y ~ scale (Q u) + offset + b      Q int8[o, i] ~ W diag(step) / scale      offset = W low + what rounding adds

Sources: SmoothQuant (Xiao et al., ICML 2023) for steps between those of the inputs and of the weights; bias correction
(Nagel et al., ICCV 2019) for the mean of the error; `xcli.inference.quantization.rounding` for the weights, and
`xcli.inference.quantization.parts` for channels that become several inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xcli.inference.quantization.depthwise import quantize_depthwise
from xcli.inference.quantization.parts import Divider, Parts, whole
from xcli.inference.quantization.rounding import GPTQ_GAIN, HEADROOM, LARGEST, LEVELS, SMALLEST_RANGE, gptq, scales

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from xcli.inference.quantization.depthwise import DepthwiseInputs, IntegerDepthwise

_EXPONENTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""How the steps go with the ranges of the inputs: 1 gives each channel its whole range, less takes from channels of
small weights for those of large ones."""

FLOAT_SHARE = 0.2
"""Share of the multiplications that may stay in floating point. On a processor that computes integers twice as fast as
floats, this takes a tenth of the speed."""

_LARGE_ERROR = 4e-3
"""Share of the variance of its outputs from which on a layer is left in floating point."""

_SMALL_ERROR = 5e-4
"""The same, up to which no channel is divided; and what integers of the depthwise convolution before it may add."""


@dataclass(slots=True)
class InputStatistics:
    """What is known of the inputs of a layer: c channels, at each of the p places of its kernel.

    Attributes:
        lowest, highest: float64[c], over all places of all images.
        mean: float64[p * c], over sampled places; the channels of each place of the kernel are together.
        second_moment: float64[p * c, p * c], the mean of x x^T over the same places.
        depthwise: the depthwise convolution whose outputs they are, if they are such.
    """

    lowest: NDArray[Any]
    highest: NDArray[Any]
    mean: NDArray[Any]
    second_moment: NDArray[Any]
    depthwise: DepthwiseInputs | None = None


@dataclass(slots=True)
class IntegerLayer:
    """A convolution of integers, with o outputs, of c channels as i inputs; see the text of this module.

    Attributes:
        source: int32[i], the channel of each input; the first c are the channels in their order.
        low, step: float32[i].
        weights: int8[o, p * i], from -127 to 127, for the p places of the kernel.
        scale, offset: float32[o].
        depthwise: the convolution before it, of c channels; None leaves that in floating point, if it is there.
    """

    source: NDArray[Any]
    low: NDArray[Any]
    step: NDArray[Any]
    weights: NDArray[Any]
    scale: NDArray[Any]
    offset: NDArray[Any]
    depthwise: IntegerDepthwise | None = None

    @property
    def divides(self) -> bool:
        """Whether there are more inputs than channels."""
        return len(self.source) > int(self.source.max()) + 1

    def with_outputs(self, outputs: NDArray[Any]) -> IntegerLayer:
        """Returns the layer with these of its outputs, int32[n], of which some may be repeated."""
        return replace(self, weights=self.weights[outputs], scale=self.scale[outputs], offset=self.offset[outputs])


def quantize_layer(weights: NDArray[Any], inputs: InputStatistics, extra: int = 0) -> tuple[IntegerLayer, float] | None:
    """Rounds a layer; returns it with its error, the share of the variance of the outputs that the two roundings make.

    Args:
        weights: float[o, p * c].
        inputs: of the layer.
        extra: inputs that it may have in addition to its channels; only for a kernel of one place.

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
    ranges = np.maximum(highest - lowest, SMALLEST_RANGE * widest)
    channels = whole(*_ranges(weights, covariance, lowest, ranges))
    layer, error = _rounded(weights, covariance, inputs.mean, channels)
    if extra and error / signal > _SMALL_ERROR:
        parts = Divider(weights, inputs.mean, np.diag(covariance), lowest, lowest + ranges).divide(extra)
        layer, error = min((layer, error), _rounded(weights, covariance, inputs.mean, parts), key=lambda one: one[1])
    found = None if inputs.depthwise is None else quantize_depthwise(inputs.depthwise, (weights**2).sum(0))
    if found is not None and found[1] / signal <= _SMALL_ERROR:
        layer.depthwise, error = found[0], error + found[1]
    return layer, error / signal


def _rounded(
    weights: NDArray[Any], covariance: NDArray[Any], mean: NDArray[Any], parts: Parts
) -> tuple[IntegerLayer, float]:
    """Rounds the inputs to the steps of their ranges and the weights to theirs; returns the variance that this adds."""
    import numpy as np

    channels, places = len(covariance), len(covariance) // (int(parts.source.max()) + 1)
    step, low = (np.tile(array, places) for array in ((parts.high - parts.low) / LEVELS, parts.low))
    source = np.concatenate([np.arange(channels), parts.source[channels:]])
    share = np.tile(parts.share, places)
    # Further parts rarely change, so what goes with them is not known.
    together = np.diag(np.diag(covariance)[source] * share)
    together[:channels, :channels] = covariance
    means = np.concatenate([mean, parts.anchor[channels:]])
    scaled, seen = weights[:, source] * step, together / np.outer(step, step)
    scale = scales(scaled)
    rounded = gptq(scaled, seen, scale)
    change = rounded * scale[:, None] - scaled
    error = float(np.sum((change @ seen) * change)) + _input_error(scaled * np.sqrt(share))
    offset = weights[:, source] @ (low - np.tile(parts.anchor, places)) - change @ ((means - low) / step)
    first = slice(len(parts.source))
    low32, step32, scale32, offset32 = (array.astype(np.float32) for array in (low[first], step[first], scale, offset))
    return IntegerLayer(parts.source, low32, step32, rounded.astype(np.int8), scale32, offset32), error


def _ranges(
    weights: NDArray[Any], covariance: NDArray[Any], lowest: NDArray[Any], ranges: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Chooses the ranges of the channels, as their ends, by the error that is to be expected; see `_EXPONENTS`."""
    import numpy as np

    places = len(covariance) // len(ranges)
    sizes = np.abs(weights).max(0).reshape(places, -1).max(0)
    largest = sizes + 1e-9 * sizes.max()
    found = []
    for exponent in _EXPONENTS:
        balanced = ranges**exponent / largest ** (1 - exponent)
        step = balanced * np.max(ranges / balanced) / LEVELS
        steps = np.tile(step, places)
        scaled = weights * steps
        scale = scales(scaled)[:, None]
        change = (np.clip(np.round(scaled / scale), -LARGEST, LARGEST) * scale - scaled) / steps
        error = GPTQ_GAIN * float(np.sum((change @ covariance) * change)) + _input_error(scaled)
        found.append((error, exponent, step))
    best: NDArray[Any] = LEVELS * min(found, key=lambda one: one[:2])[2]
    # Channels that are never negative begin at 0; the others get their additional range on both sides.
    low = lowest - (best - ranges) / 2 * (lowest < 0)
    return low, low + best


def _input_error(scaled: NDArray[Any]) -> float:
    """Returns the variance that rounding the inputs to steps adds to the outputs, whose weights are for steps."""
    import numpy as np

    return float(np.sum(scaled**2)) / 12


def left_in_floats(errors: Mapping[str, float], work: Mapping[str, int]) -> list[str]:
    """Chooses the layers with the greatest errors, as many as `FLOAT_SHARE` allows.

    Args:
        errors: of the layers, by name; see `quantize_layer`.
        work: multiplications of all layers, those without an error too.
    """
    left, chosen = FLOAT_SHARE * sum(work.values()), []
    for name in sorted(errors, key=lambda one: -errors[one]):
        if work[name] <= left and errors[name] >= _LARGE_ERROR:
            left -= work[name]
            chosen.append(name)
    return chosen
