"""Calibration: one temperature for a classifier, fitted on images that it was not trained on.

Label smoothing and mixup make a network underconfident, long training makes it overconfident. Dividing its logits by
one number corrects both and changes no prediction (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.models.hdf5_weights import BIAS, KERNEL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

MIN_IMAGES = 50
"""With fewer images the temperature would be fitted to their noise."""

_LEAST, _MOST = 0.2, 5.0


def fit_temperature(scores: NDArray[np.float32], classes: NDArray[np.int64]) -> float:
    """Returns the temperature, from 0.2 to 5, that makes the true classes most likely; 1 if there are too few images.

    Args:
        scores: float32[m, classes], probabilities.
        classes: int64[m].
    """
    import numpy as np

    if len(scores) < MIN_IMAGES:
        return 1.0
    logits = np.log(np.maximum(scores.astype(np.float64), 1e-30))
    true = logits[np.arange(len(logits)), classes]

    def loss(sharpness: float) -> float:
        scaled = logits * sharpness
        top = scaled.max(1)
        return float((top + np.log(np.exp(scaled - top[:, None]).sum(1)) - true * sharpness).mean())

    # The loss is convex in the inverse temperature, so a ternary search finds its minimum.
    low, high = 1 / _MOST, 1 / _LEAST
    while high - low > 1e-4:
        one, other = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, other) if loss(one) <= loss(other) else (one, high)
    return 2 / (low + high)


def apply_temperature(weights: Weights, temperature: float) -> Weights:
    """Returns the weights with the logits of the classifier divided by a temperature."""
    import numpy as np

    return {
        name: (array / np.float32(temperature)).astype(np.float32) if name in (KERNEL, BIAS) else array
        for name, array in weights.items()
    }
