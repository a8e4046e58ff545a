"""Integers in the graphs of OpenVINO."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.inference.quantization.graphs import WIDE, chain, graph, made_inputs, observed, run
from xcli.core.errors import ModelError
from xcli.inference.quantization.graph import integer_layers, quantize_graph
from xcli.inference.quantization.layers import IntegerLayer, quantize_layer

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", ["vector", "scalar", "none"])
def test_the_results_are_those_of_floats(bias: str, stride: int, side: int) -> None:
    values = made_inputs()
    observer = observed(graph(bias=bias, stride=stride, side=side), values)
    (layer,), (inputs,) = observer.layers, observer.statistics()
    found = quantize_layer(layer.weights, inputs)
    assert found is not None
    quantized = graph(bias=bias, stride=stride, side=side)
    quantize_graph(quantized, {layer.name: found[0]})
    kinds = [node.get_type_name() for node in quantized.get_ops()]
    assert kinds.count("FakeQuantize") == 1
    (expected,), (got,) = run(graph(bias=bias, stride=stride, side=side), values), run(quantized, values)
    assert not np.array_equal(got, expected)
    assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("other", [{"padding": 1}, {"channels": 127}, {"side": 12}])
def test_other_convolutions_are_left_alone(other: dict[str, int]) -> None:
    assert integer_layers(graph(**other)) == []


def test_layers_of_the_same_weights_have_names_of_their_own() -> None:
    names = [layer.name for layer in integer_layers(graph(times=2))]
    assert len(set(names)) == 2
    assert len({name.partition(".")[0] for name in names}) == 1


def test_a_layer_may_stay_in_floating_point() -> None:
    model = graph()
    (layer,) = integer_layers(model)
    quantize_graph(model, {layer.name: None})
    assert np.array_equal(run(model, made_inputs())[0], run(graph(), made_inputs())[0])


def test_the_calibration_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="of another model"):
        quantize_graph(graph(), {})


Layers = dict[str, IntegerLayer | None]


def integers_of(make: Callable[[], Any], extra: int = 0, *, rare: float = 0) -> tuple[list[str], Layers]:
    """Rounds the layers of a graph; returns their names in order, and the integers.

    Args:
        make: makes the graph.
        extra: inputs that the last layer may have more than channels.
        rare: two channels of the last layer have values so many times as great as the others, as if in one image in a
            million.
    """
    observer = observed(make(), made_inputs())
    layers: Layers = {}
    for layer, inputs in zip(observer.layers, observer.statistics(), strict=True):
        if len(inputs.highest) == WIDE:
            inputs.highest[3] *= 1 + rare
            inputs.lowest[5] -= rare * inputs.highest[5]
        found = quantize_layer(layer.weights, inputs, extra if layer.extra else 0)
        assert found is not None
        layers[layer.name] = found[0]
    return list(layers), layers


def lost(make: Callable[[], Any], layers: Layers) -> float:
    """Returns the greatest difference of the outputs, as a share of the greatest output."""
    quantized = make()
    quantize_graph(quantized, layers)
    got, expected = run(quantized, made_inputs())[0], run(make(), made_inputs())[0]
    assert not np.array_equal(got, expected)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("integers_before", [True, False])
@pytest.mark.parametrize("depthwise", [True, False])
def test_the_layers_before_compute_a_divided_channel_several_times(depthwise: bool, integers_before: bool) -> None:
    def make() -> Any:
        return chain(depthwise=depthwise, integers_before=integers_before)

    names, divided = integers_of(make, extra=16, rare=100)
    last = divided[names[-1]]
    assert last is not None
    assert last.divides
    assert {3, 5} <= set(last.source[WIDE:])
    assert lost(make, divided) < 0.2
    assert lost(make, divided) < 0.7 * lost(make, integers_of(make, rare=100)[1])
    # In floating point, the layer before repeats its outputs as well.
    if integers_before:
        assert lost(make, {**divided, names[0]: None}) < 0.2


def test_a_depthwise_convolution_is_one_of_integers_too() -> None:
    names, layers = integers_of(chain)
    last = layers[names[-1]]
    assert last is not None
    assert last.depthwise is not None
    quantized = chain()
    quantize_graph(quantized, layers)
    assert [node.get_type_name() for node in quantized.get_ops()].count("FakeQuantize") == 3
    assert lost(chain, layers) < 0.03


def test_a_depthwise_convolution_of_other_inputs_stays_in_floating_point() -> None:
    def make() -> Any:
        return chain(relu=False)

    names, layers = integers_of(make)
    last = layers[names[-1]]
    assert last is not None
    assert last.depthwise is None
    assert lost(make, layers) < 0.03


def test_a_graph_with_further_outputs_takes_the_same_integers() -> None:
    def make() -> Any:
        return chain(shared=True)

    last = integer_layers(make())[-1]
    assert (last.extra, last.before, last.depthwise) == (0, (), None)
    _, layers = integers_of(chain, extra=16, rare=100)
    assert lost(make, layers) < 0.05
    quantized, plain = make(), make()
    quantize_graph(quantized, layers)
    got, expected = run(quantized, made_inputs())[1], run(plain, made_inputs())[1]
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("source", [[0, 1, WIDE], [1, 0, 0]], ids=["a channel that is not there", "another order"])
def test_channels_that_the_graph_does_not_have_are_refused(source: list[int]) -> None:
    names, layers = integers_of(chain, extra=16, rare=100)
    last = layers[names[-1]]
    assert last is not None
    changed = last.source.copy()
    changed[[0, 1, -1]] = source
    with pytest.raises(ModelError, match="of another model"):
        quantize_graph(chain(), {**layers, names[-1]: replace(last, source=changed)})


def test_a_depthwise_convolution_of_another_shape_is_refused() -> None:
    names, layers = integers_of(chain)
    last = layers[names[-1]]
    assert last is not None
    assert last.depthwise is not None
    narrow = last.depthwise.of(np.arange(WIDE // 2))
    narrow.weights = narrow.weights.repeat(2, 1)
    with pytest.raises(ModelError, match="of another model"):
        quantize_graph(chain(), {**layers, names[-1]: replace(last, depthwise=narrow)})
