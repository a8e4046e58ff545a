"""Rounding a pointwise convolution to eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.inference.quantization.layers import (
    LEVELS,
    InputStatistics,
    IntegerLayer,
    gptq,
    left_in_floats,
    quantize_layer,
)

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
    """Computes a layer as a processor does."""
    steps = np.clip(np.round((values - layer.low) / layer.step), 0, LEVELS)
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
    errors = {"a": 0.002, "b": 0.01, "c": 0.001, "d": 0.02, "e": 0.0001}
    assert left_in_floats(errors, work) == ["b", "c"]
    assert left_in_floats({"a": 0.002}, work) == ["a"]
    assert left_in_floats(dict.fromkeys(work, 0.0001), work) == []
