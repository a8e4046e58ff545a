"""Dividing the channels of wide ranges into several inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.inference.quantization.parts import Divider, Parts, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS, OUTPUTS = 6, 4


def divided(low: NDArray[Any], high: NDArray[Any], extra: int) -> Parts:
    weights = np.random.default_rng(1).normal(0, 1, (OUTPUTS, CHANNELS))
    return Divider(weights, np.zeros(CHANNELS), np.ones(CHANNELS), low, high).divide(extra)


def usual() -> tuple[NDArray[Any], NDArray[Any]]:
    return np.full(CHANNELS, -10.0), np.full(CHANNELS, 10.0)


def of(channel: int, parts: Parts, values: NDArray[Any]) -> NDArray[Any]:
    """Adds the parts of a channel up."""
    ours = np.flatnonzero(parts.source == channel)
    return sum(np.clip(values, parts.low[one], parts.high[one]) - parts.anchor[one] for one in ours)  # type: ignore[no-any-return]


@pytest.mark.parametrize("ends", [(-10.0, 4000.0), (-4000.0, 10.0), (-3000.0, 5000.0), (-1e-9, 4000.0)])
@pytest.mark.parametrize("extra", [1, 2, 3, 9])
def test_the_parts_of_a_channel_add_up_to_it(ends: tuple[float, float], extra: int) -> None:
    low, high = usual()
    low[2], high[2] = ends
    parts = divided(low, high, extra)
    assert len(parts.source) == CHANNELS + extra
    assert set(parts.source[CHANNELS:]) == {2}
    values = np.linspace(-6000, 6000, 4001)
    assert np.allclose(of(2, parts, values), np.clip(values, *ends))
    # In its centre, only the first part changes.
    near = np.linspace(max(ends[0], -15), min(ends[1], 15), 50)
    further = np.flatnonzero(parts.source == 2)[1:]
    for one in further:
        assert np.allclose(np.clip(near, parts.low[one], parts.high[one]), parts.anchor[one])


def test_each_part_more_makes_the_greatest_steps_smaller() -> None:
    low, high = usual()
    high[4] = 1e5
    widths = [float((parts.high - parts.low).max()) for parts in (divided(low, high, extra) for extra in range(6))]
    assert widths == sorted(widths, reverse=True)
    assert widths[5] < 0.3 * widths[0]


def test_the_widest_channels_are_divided_first() -> None:
    low, high = usual()
    high[1], high[3] = 200.0, 20000.0
    parts = divided(low, high, 1)
    assert list(parts.source) == [0, 1, 2, 3, 4, 5, 3]


def test_usual_channels_stay_whole() -> None:
    low, high = usual()
    parts, expected = divided(low, high, 8), whole(low, high)
    for name in ("source", "low", "high", "anchor", "share"):
        assert np.array_equal(getattr(parts, name), getattr(expected, name))


def test_a_channel_that_never_changes_stays_whole() -> None:
    low, high = usual()
    high[0] = 1e6
    variance = np.ones(CHANNELS)
    variance[0] = 0
    weights = np.ones((OUTPUTS, CHANNELS))
    parts = Divider(weights, np.zeros(CHANNELS), variance, low, high).divide(4)
    assert list(parts.source) == list(range(CHANNELS))
