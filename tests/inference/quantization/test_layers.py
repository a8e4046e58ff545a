"""Rounding a convolution to eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.inference.quantization.depthwise import DepthwiseInputs
from xcli.inference.quantization.layers import InputStatistics, IntegerLayer, left_in_floats, quantize_layer
from xcli.inference.quantization.rounding import LEVELS, gptq

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTPUTS, INPUTS, PLACES = 24, 40, 4000


def made_inputs(seed: int = 0, *, negative: bool = True) -> NDArray[Any]:
    """Makes float64[places, inputs] that go together, of very different ranges."""
    random = np.random.default_rng(seed)
    hidden = random.normal(0, 1, (PLACES, 8))
    values = hidden @ random.normal(0, 1, (8, INPUTS)) + random.normal(0, 0.2, (PLACES, INPUTS)) + 1
    values *= np.geomspace(0.01, 30, INPUTS)
    return values if negative else np.maximum(values, 0)


def statistics(values: NDArray[Any]) -> InputStatistics:
    return InputStatistics(values.min(0), values.max(0), values.mean(0), values.T @ values / len(values))


def made_weights(seed: int = 1) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(0, 1, (OUTPUTS, INPUTS)) / np.geomspace(0.1, 3, INPUTS)


def integers(layer: IntegerLayer, values: NDArray[Any]) -> NDArray[Any]:
    """Computes a layer as a processor does, of float64[places, p * c]."""
    kernel = layer.weights.shape[1] // len(layer.source)
    by_channel = values.reshape(len(values), kernel, -1)[:, :, layer.source]
    steps = np.clip(np.round((by_channel - layer.low) / layer.step), 0, LEVELS).reshape(len(values), -1)
    return (steps @ layer.weights.T.astype(np.int64)) * layer.scale + layer.offset


@pytest.mark.parametrize("negative", [True, False])
def test_the_outputs_are_those_of_floats(negative: bool) -> None:
    values, weights = made_inputs(negative=negative), made_weights()
    found = quantize_layer(weights, statistics(values))
    assert found is not None
    layer, error = found
    assert layer.weights.dtype == np.int8
    assert np.abs(layer.weights).max() <= 127
    expected = values @ weights.T
    change = integers(layer, values) - expected
    lost = change.var(0).sum() / expected.var(0).sum()
    assert lost < 2e-3
    assert lost == pytest.approx(error, rel=0.5)
    # The mean of the outputs stays, which the network's later layers depend on.
    assert np.abs(change.mean(0)).max() < 0.02 * expected.std(0).max()
    if not negative:
        assert np.all(layer.low == 0)


def test_no_input_of_the_calibration_is_cut_off() -> None:
    values = made_inputs()
    found = quantize_layer(made_weights(), statistics(values))
    assert found is not None
    steps = (values - found[0].low) / found[0].step
    assert steps.min() > -0.51
    assert steps.max() < LEVELS + 0.51


def test_inputs_that_go_together_are_rounded_together() -> None:
    values, weights = made_inputs(), made_weights()
    covariance = np.cov(values.T, bias=True)
    scale = np.abs(weights).max(1) / 127

    def lost(rounded: NDArray[Any]) -> float:
        change = rounded * scale[:, None] - weights
        return float(np.sum((change @ covariance) * change))

    nearest = np.round(weights / scale[:, None])
    found = gptq(weights, covariance, scale)
    assert np.array_equal(found, np.round(found))
    assert np.abs(found).max() <= 127
    assert lost(found) < 0.5 * lost(nearest)


def test_an_input_that_is_always_zero_does_no_harm() -> None:
    values = made_inputs()
    values[:, 3] = 0
    found = quantize_layer(made_weights(), statistics(values))
    assert found is not None
    layer, error = found
    assert np.isfinite(error)
    assert np.all(layer.step > 0)
    assert all(np.isfinite(array).all() for array in (layer.low, layer.scale, layer.offset))


def test_the_same_inputs_give_the_same_integers() -> None:
    one, other = (quantize_layer(made_weights(), statistics(made_inputs())) for _ in range(2))
    assert one is not None
    assert other is not None
    assert np.array_equal(one[0].weights, other[0].weights)
    assert np.array_equal(one[0].offset, other[0].offset)


@pytest.mark.parametrize("value", [0.0, 2.5, np.nan, np.inf])
def test_inputs_without_change_or_number_leave_the_layer_as_it_is(value: float) -> None:
    values = np.full((10, INPUTS), value)
    assert quantize_layer(made_weights(), statistics(values)) is None


def test_weights_of_zero_leave_the_layer_as_it_is() -> None:
    assert quantize_layer(np.zeros((OUTPUTS, INPUTS)), statistics(made_inputs())) is None


def test_the_layers_with_the_greatest_errors_stay_in_floats_as_far_as_the_work_allows() -> None:
    work = {"a": 10, "b": 15, "c": 5, "d": 60, "e": 10}
    errors = {"a": 0.02, "b": 0.1, "c": 0.01, "d": 0.2, "e": 0.002}
    assert left_in_floats(errors, work) == ["b", "c"]
    assert left_in_floats({"a": 0.02}, work) == ["a"]
    assert left_in_floats(dict.fromkeys(work, 0.002), work) == []


def lost_share(layer: IntegerLayer, values: NDArray[Any], weights: NDArray[Any]) -> float:
    expected = values @ weights.T
    return float((integers(layer, values) - expected).var(0).sum() / expected.var(0).sum())


def test_channels_of_wide_ranges_become_several_inputs() -> None:
    values, weights = made_inputs(), made_weights()
    values[7, 35] += 3000 * values[:, 35].std()
    values[9, 38] -= 900 * values[:, 38].std()
    plain, divided = (quantize_layer(weights, statistics(values), extra) for extra in (0, 8))
    assert plain is not None
    assert divided is not None
    assert not plain[0].divides
    assert divided[0].divides
    assert INPUTS < len(divided[0].source) <= INPUTS + 8
    assert np.array_equal(divided[0].source[:INPUTS], np.arange(INPUTS))
    assert {35, 38} <= set(divided[0].source[INPUTS:])
    usual = np.delete(values, (7, 9), 0)
    assert lost_share(divided[0], usual, weights) < 0.1 * lost_share(plain[0], usual, weights)
    assert divided[1] < 0.2 * plain[1]
    # The rare values are still there, which a narrower range would cut off.
    rare, expected = integers(divided[0], values[[7, 9]]), values[[7, 9]] @ weights.T
    assert np.abs(rare - expected).max() < 0.02 * np.abs(expected).max()


def test_a_layer_of_usual_ranges_is_not_divided() -> None:
    found = quantize_layer(made_weights(), statistics(made_inputs()), 8)
    assert found is not None
    assert not found[0].divides


def test_a_kernel_may_have_several_places() -> None:
    values = np.concatenate([made_inputs(seed) for seed in range(4)], 1)
    weights = np.concatenate([made_weights(seed) for seed in range(4)], 1)
    every = statistics(values)
    ends = every.lowest.reshape(4, -1).min(0), every.highest.reshape(4, -1).max(0)
    found = quantize_layer(weights, InputStatistics(*ends, every.mean, every.second_moment))
    assert found is not None
    layer, error = found
    assert layer.weights.shape == (OUTPUTS, 4 * INPUTS)
    assert layer.low.shape == layer.step.shape == layer.source.shape == (INPUTS,)
    assert lost_share(layer, values, weights) == pytest.approx(error, rel=0.5)
    assert error < 3e-3


def test_the_depthwise_convolution_before_a_layer_is_of_integers_where_that_loses_little() -> None:
    values, weights = made_inputs(), made_weights()
    inputs = statistics(values)
    for size, expected in ((1.0, True), (1000.0, False)):
        kernels = np.full((INPUTS, 9), size / 9)
        inputs.depthwise = DepthwiseInputs(kernels, np.zeros(INPUTS), inputs.highest)
        found = quantize_layer(weights, inputs)
        assert found is not None
        assert (found[0].depthwise is not None) == expected


def test_repeated_outputs_are_those_of_the_layer() -> None:
    found = quantize_layer(made_weights(), statistics(made_inputs()))
    assert found is not None
    outputs = np.array([0, 1, 5, 5], np.int32)
    several = found[0].with_outputs(outputs)
    assert np.array_equal(integers(several, made_inputs()), integers(found[0], made_inputs())[:, outputs])
