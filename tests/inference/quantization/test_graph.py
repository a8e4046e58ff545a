"""Integers in the graphs of OpenVINO."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.core.errors import ModelError
from xcli.core.openvino import load_openvino
from xcli.inference.engines.static_batch import compute_in_pieces
from xcli.inference.quantization.graph import Observer, pointwise_layers, quantize_graph
from xcli.inference.quantization.layers import quantize_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

BATCH, CHANNELS, OUTPUTS, SIDE = 2, 16, 24, 12


def graph(*, bias: str = "vector", stride: int = 1, side: int = 1, channels: int = CHANNELS, times: int = 1) -> Any:
    """Makes convolutions float32[2, channels, 12, 12] -> [2, 24, ...], side by side, with the same weights."""
    ops = load_openvino().opset13
    random = np.random.default_rng(4)
    x = ops.parameter([BATCH, channels, SIDE, SIDE], np.float32)
    weights = random.normal(0, 1, (OUTPUTS, channels, side, side)).astype(np.float32)
    results = []
    for _ in range(times):
        y = ops.convolution(x, ops.constant(weights.copy()), [stride] * 2, [0, 0], [0, 0], [1, 1])
        shape = {"vector": (1, OUTPUTS, 1, 1), "scalar": (), "none": None}[bias]
        if shape is not None:
            y = ops.add(y, ops.constant(random.normal(0, 1, shape).astype(np.float32)))
        results.append(ops.relu(y))
    return load_openvino().Model(results, [x], "graph")


def made_inputs(channels: int = CHANNELS, seed: int = 0) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    values = random.normal(0.5, 1, (BATCH, channels, SIDE, SIDE)) * np.geomspace(0.1, 10, channels)[:, None, None]
    return values.astype(np.float32)


def run(model: Any, values: NDArray[Any]) -> list[NDArray[Any]]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = load_openvino().Core().compile_model(model, "CPU", settings)
    found = compiled({0: values})
    return [found[index].copy() for index in range(len(compiled.outputs))]


def observed(model: Any, values: NDArray[Any]) -> Observer:
    observer = Observer(model)
    observer.add(run(model, values))
    return observer


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", ["vector", "scalar", "none"])
def test_the_results_are_those_of_floats(bias: str, stride: int) -> None:
    values = made_inputs()
    observer = observed(graph(bias=bias, stride=stride), values)
    (layer,), (inputs,) = observer.layers, observer.statistics()
    found = quantize_layer(layer.weights, inputs)
    assert found is not None
    quantized = graph(bias=bias, stride=stride)
    quantize_graph(quantized, {layer.name: found[0]})
    kinds = [node.get_type_name() for node in quantized.get_ops()]
    assert kinds.count("FakeQuantize") == 1
    (expected,), (got,) = run(graph(bias=bias, stride=stride), values), run(quantized, values)
    assert not np.array_equal(got, expected)
    assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()


def test_what_is_observed_is_what_comes_in() -> None:
    values = made_inputs()
    (inputs,) = observed(graph(), values).statistics()
    assert np.allclose(inputs.lowest, values.min((0, 2, 3)))
    assert np.allclose(inputs.highest, values.max((0, 2, 3)))
    places = values[:, :, 1::2, 1::2].transpose(0, 2, 3, 1).reshape(-1, CHANNELS).astype(np.float64)
    assert np.allclose(inputs.mean, places.mean(0), rtol=1e-5)
    assert np.allclose(inputs.second_moment, places.T @ places / len(places), rtol=1e-5)


def test_images_that_fill_up_a_batch_do_not_count() -> None:
    model, values = graph(), made_inputs()
    observer = Observer(model)
    observer.add(compute_in_pieces(values[:1], BATCH, partial(run, model)))
    (inputs,) = observer.statistics()
    assert np.allclose(inputs.highest, values[:1].max((0, 2, 3)))


@pytest.mark.parametrize("other", [{"side": 3}, {"channels": 15}])
def test_other_convolutions_are_left_alone(other: dict[str, int]) -> None:
    assert pointwise_layers(graph(**other)) == []


def test_layers_of_the_same_weights_have_names_of_their_own() -> None:
    names = [layer.name for layer in pointwise_layers(graph(times=2))]
    assert len(set(names)) == 2
    assert len({name.partition(".")[0] for name in names}) == 1


def test_a_layer_may_stay_in_floating_point() -> None:
    model = graph()
    (layer,) = pointwise_layers(model)
    quantize_graph(model, {layer.name: None})
    assert np.array_equal(run(model, made_inputs())[0], run(graph(), made_inputs())[0])


def test_the_calibration_of_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="of another model"):
        quantize_graph(graph(), {})
