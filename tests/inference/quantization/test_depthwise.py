"""Rounding a depthwise convolution to eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.inference.quantization.depthwise import DepthwiseInputs, IntegerDepthwise, quantize_depthwise
from xcli.inference.quantization.rounding import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANNELS, PLACES, VALUES = 12, 9, 2000


def made() -> tuple[NDArray[Any], DepthwiseInputs]:
    """Makes float64[values, channels, places] of very different ranges, and what is known of them."""
    random = np.random.default_rng(2)
    values = (
        np.maximum(random.normal(0.3, 1, (VALUES, CHANNELS, PLACES)), 0) * np.geomspace(0.01, 50, CHANNELS)[:, None]
    )
    kernels = random.normal(0, 1, (CHANNELS, PLACES)).astype(np.float32)
    return values, DepthwiseInputs(kernels, values.min((0, 2)), values.max((0, 2)))


def computed(layer: IntegerDepthwise, values: NDArray[Any]) -> NDArray[Any]:
    """Computes float64[values, channels] as a processor does."""
    steps = np.clip(np.round(values / layer.step[:, None]), 0, LEVELS)
    return (steps * layer.weights.astype(np.int64)).sum(2) * layer.scale


def test_the_outputs_are_those_of_floats() -> None:
    values, inputs = made()
    power = np.geomspace(9, 0.1, CHANNELS)
    found = quantize_depthwise(inputs, power)
    assert found is not None
    layer, added = found
    assert layer.weights.dtype == np.int8
    assert np.abs(layer.weights).max() == 127
    change = computed(layer, values) - (values * inputs.kernels).sum(2)
    assert float(power @ change.var(0)) == pytest.approx(added, rel=0.5)
    assert np.all(change.std(0) < 0.02 * (values * inputs.kernels).sum(2).std(0))


def test_repeated_channels_are_those_of_the_convolution() -> None:
    values, inputs = made()
    found = quantize_depthwise(inputs, np.ones(CHANNELS))
    assert found is not None
    channels = np.array([0, 1, 4, 4], np.int32)
    assert np.array_equal(computed(found[0].of(channels), values[:, channels]), computed(found[0], values)[:, channels])


def test_a_channel_that_is_always_zero_does_no_harm() -> None:
    values, inputs = made()
    inputs.highest[3] = values[:, 3] = 0
    found = quantize_depthwise(inputs, np.ones(CHANNELS))
    assert found is not None
    assert np.all(found[0].step > 0)
    assert np.all(computed(found[0], values)[:, 3] == 0)


@pytest.mark.parametrize(
    ("lowest", "highest"), [(-0.1, 1.0), (0.0, 0.0), (0.0, np.inf), (np.nan, 1.0), (0.0, np.nan)], ids=str
)
def test_inputs_of_another_kind_leave_it_as_it_is(lowest: float, highest: float) -> None:
    _, inputs = made()
    ends = np.full(CHANNELS, lowest), np.full(CHANNELS, highest)
    assert quantize_depthwise(DepthwiseInputs(inputs.kernels, *ends), np.ones(CHANNELS)) is None
