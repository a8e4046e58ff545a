"""Rounds a depthwise convolution to eight bits, as `xcli.inference.quantization.layers` does with others.

Its inputs are those of a ReLU, x ~ step u, so that the zeros around an image are zeros of the integers too. Each
channel has a range of its own, in and out, so little is lost, and half as many bytes are moved, which is what such a
convolution spends its time on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.inference.quantization.rounding import HEADROOM, LEVELS, SMALLEST_RANGE, scales

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True)
class DepthwiseInputs:
    """A depthwise convolution of c channels, with p places in its kernel, and what is known of its inputs.

    Attributes:
        kernels: float32[c, p].
        lowest, highest: float64[c], over all places of all images.
    """

    kernels: NDArray[Any]
    lowest: NDArray[Any]
    highest: NDArray[Any]


@dataclass(slots=True)
class IntegerDepthwise:
    """A depthwise convolution of integers: y[c] ~ scale[c] * the sum over p of weights[c, p] u[c, p].

    Attributes:
        step: float32[c].
        weights: int8[c, p], from -127 to 127.
        scale: float32[c].
    """

    step: NDArray[Any]
    weights: NDArray[Any]
    scale: NDArray[Any]

    def of(self, channels: NDArray[Any]) -> IntegerDepthwise:
        """Returns that of these channels, int32[n], of which some may be repeated."""
        return IntegerDepthwise(self.step[channels], self.weights[channels], self.scale[channels])


def quantize_depthwise(inputs: DepthwiseInputs, power: NDArray[Any]) -> tuple[IntegerDepthwise, float] | None:
    """Rounds a depthwise convolution; returns it with the variance that this adds to the outputs of the layer after it.

    Args:
        inputs: of the convolution.
        power: float64[c], for each channel the sum of the squared weights of the layer after it.

    Returns:
        None for inputs that are not those of a ReLU, or never change.
    """
    import numpy as np

    widest = float(inputs.highest.max())
    if not (inputs.lowest.min() >= 0 and 0 < widest < np.inf):
        return None
    step = HEADROOM * np.maximum(inputs.highest, SMALLEST_RANGE * widest) / LEVELS
    scaled = inputs.kernels.astype(np.float64) * step[:, None]
    scale = scales(scaled)
    rounded = np.round(scaled / scale[:, None])
    added = float(power @ (scaled**2).sum(1)) / 12
    return IntegerDepthwise(step.astype(np.float32), rounded.astype(np.int8), scale.astype(np.float32)), added
