"""Divides inputs of a layer into parts, so that a few great values do not make the steps of all others coarse.

Some channels are near their mean in almost all places, and a thousand times as far from it in a few: 256 steps over
such a range leave nothing of the usual values. Such a channel becomes several inputs of the convolution of integers,

    x = clip(x, centre) + the sum over the other parts of (clip(x, part) - the end of the part next to the centre),

each with steps of its own. That is exact, and costs one input for each further part: the layers before it compute the
channel several times.

Source: outlier channel splitting (Zhao et al., ICML 2019) repeats channels too, to halve them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xcli.inference.quantization.rounding import GPTQ_GAIN, LARGEST, LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CENTRE = 16.0
"""Half the width of the centre, in standard deviations; a usual channel has a range of some 20 of them."""

_BEYOND = 1 / _CENTRE**2
"""Share of the places whose values are beyond the centre, at most (Chebyshev)."""

_CANDIDATES = 4
"""Channels that are tried for each further part: so many of the greatest errors, and of the greatest weights."""


@dataclass(slots=True)
class Parts:
    """The inputs of a convolution of integers, i of them for c channels: a part of each channel, then further ones.

    Attributes:
        source: int32[i], the channel of each input.
        low, high: float64[i], its range.
        anchor: float64[i], the value that does not count: that of a further part where the channel is in its centre.
        share: float64[i], of the places in which it changes.
    """

    source: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    anchor: NDArray[Any]
    share: NDArray[Any]


def whole(low: NDArray[Any], high: NDArray[Any]) -> Parts:
    """Returns each channel as one part."""
    import numpy as np

    count = len(low)
    return Parts(np.arange(count, dtype=np.int32), low, high, np.zeros(count), np.ones(count))


class Divider:
    """Divides channels, one part after another, those first where that takes away most of the error.

    Args:
        weights: float64[o, c].
        mean, variance: float64[c], of the channels.
        low, high: float64[c], the ranges, which are not empty.
    """

    def __init__(
        self,
        weights: NDArray[Any],
        mean: NDArray[Any],
        variance: NDArray[Any],
        low: NDArray[Any],
        high: NDArray[Any],
    ) -> None:
        import numpy as np

        self._sizes, self._power = np.abs(weights), (weights**2).sum(0)
        self._low, self._high, self._variance = low, high, variance
        deviation = np.sqrt(np.maximum(variance, 0))
        self._begin = np.maximum(low, mean - _CENTRE * deviation)
        self._end = np.minimum(high, mean + _CENTRE * deviation)
        self._divisible = (deviation > 0) & (self._end - self._begin < high - low)
        self._counts = np.ones(len(low), np.int64)
        # Of each channel: its greatest step, and the mean squares of a step and of its values in steps, over all parts.
        self._widest = (high - low) / LEVELS
        self._squares = self._widest**2
        self._values = variance / self._squares

    def divide(self, extra: int) -> Parts:
        """Returns the parts, at most `extra` more than there are channels."""
        for _ in range(extra):
            channel = self._best()
            if channel is None:
                break
            self._widest[channel], self._squares[channel], self._values[channel] = self._more(channel)
            self._counts[channel] += 1
        return self._parts()

    def _best(self) -> int | None:
        """Returns the channel with which one part more takes away most of the error; None if it grows with all."""
        import numpy as np

        weighted = self._sizes * self._widest
        largest = weighted.argmax(1)
        outputs = np.arange(len(weighted))
        first = weighted[outputs, largest]
        weighted[outputs, largest] = 0
        second = weighted.max(1)
        sums = float(self._power @ self._squares), float(self._values.sum())
        best, least = None, _error(first, *sums)
        inputs = np.where(self._divisible, self._power * self._squares, -1)
        most = np.where(self._divisible, np.bincount(largest, minlength=len(inputs)), -1)
        order = [*np.argsort(-inputs, kind="stable")[:_CANDIDATES], *np.argsort(-most, kind="stable")[:_CANDIDATES]]
        for channel in dict.fromkeys(int(one) for one in order if self._divisible[one]):
            widest, squares, values = self._more(channel)
            changed = np.maximum(np.where(largest == channel, second, first), self._sizes[:, channel] * widest)
            error = _error(
                changed,
                sums[0] + float(self._power[channel]) * (squares - float(self._squares[channel])),
                sums[1] + values - float(self._values[channel]),
            )
            if error < least:
                best, least = channel, error
        return best

    def _more(self, channel: int) -> tuple[float, float, float]:
        """Returns what the constructor notes of a channel, if it had one part more."""
        steps = [(high - low) / LEVELS for low, high, _ in self._divided(channel, int(self._counts[channel]) + 1)]
        both = list(zip(steps, [1.0] + [_BEYOND] * (len(steps) - 1), strict=True))
        values = sum(share / step**2 for step, share in both)
        return max(steps), sum(share * step**2 for step, share in both), float(self._variance[channel]) * values

    def _divided(self, channel: int, count: int) -> list[tuple[float, float, float]]:
        """Returns the ends of so many parts, with their anchors: the centre, and equal parts of what is beyond it."""
        low, high = float(self._low[channel]), float(self._high[channel])
        begin, end = float(self._begin[channel]), float(self._end[channel])
        below = above = 0
        for _ in range(count - 1):
            if (begin - low) / (below + 1) > (high - end) / (above + 1):
                below += 1
            else:
                above += 1
        parts = [(begin if below else low, end if above else high, 0.0)]
        for near, far, number in ((begin, low, below), (end, high, above)):
            cuts = [near + (far - near) * step / number for step in range(number + 1)] if number else []
            parts += [(min(one, other), max(one, other), one) for one, other in pairwise(cuts)]
        return parts

    def _parts(self) -> Parts:
        import numpy as np

        first, further = [], []
        for channel, count in enumerate(self._counts):
            head, *rest = self._divided(channel, int(count))
            first.append((channel, *head, 1.0))
            further += [(channel, *part, _BEYOND) for part in rest]
        source, low, high, anchor, share = (np.array(column) for column in zip(*first, *further, strict=True))
        return Parts(source.astype(np.int32), low, high, anchor, share)


def _error(largest: NDArray[Any], squares: float, values: float) -> float:
    """Returns the variance that both roundings add to the outputs, about.

    Args:
        largest: float64[o], the largest weight of each output, for inputs in steps.
        squares: the sum of the squared steps, each weighted by the squares of the weights.
        values: the sum of the variances of the inputs, in steps.
    """
    return (squares + GPTQ_GAIN * float(((largest / LARGEST) ** 2).sum()) * values) / 12
