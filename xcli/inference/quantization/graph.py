"""The pointwise convolutions of a graph of OpenVINO: what comes into them, and integers in their place."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ModelError
from xcli.core.openvino import load_openvino
from xcli.inference.quantization.layers import LEVELS, InputStatistics, IntegerLayer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_FEWEST_CHANNELS = 16
"""Layers with fewer inputs gain nothing."""

_PLACES = 8
"""Places of an image in each direction whose inputs are sampled."""


class PointwiseLayer(NamedTuple):
    """A pointwise convolution of a graph.

    Attributes:
        node: of OpenVINO.
        name: the SHA-256 of its weights, and which one it is of those with the same weights: the same in all graphs of
            a model, whatever their outputs and their batch.
    """

    node: Any
    name: str

    @property
    def weights(self) -> NDArray[Any]:
        """The weights, float32[o, c]."""
        constant = self.node.input_value(1).get_node().get_data()
        return constant.reshape(constant.shape[:2])  # type: ignore[no-any-return]

    @property
    def work(self) -> int:
        """Multiplications for one batch."""
        outputs, inputs = self.weights.shape
        height, width = self.node.get_output_shape(0)[2:]
        return int(outputs * inputs * height * width)


def pointwise_layers(graph: Any) -> list[PointwiseLayer]:
    """Returns the convolutions of a graph that can be ones of integers, in the order in which they are computed."""
    found: list[PointwiseLayer] = []
    seen: defaultdict[str, int] = defaultdict(int)
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        weights = node.input_value(1).get_node()
        shape = tuple(node.input_value(1).get_shape())
        is_plain = weights.get_type_name() == "Constant" and not any((*node.get_pads_begin(), *node.get_pads_end()))
        if not is_plain or shape[2:] != (1, 1) or shape[1] < _FEWEST_CHANNELS:
            continue
        digest = hashlib.sha256(weights.get_data().tobytes()).hexdigest()
        found.append(PointwiseLayer(node, f"{digest}.{seen[digest]}"))
        seen[digest] += 1
    return found


class Observer:
    """Gathers the inputs of the layers of a graph, which it gives further outputs.

    Args:
        graph: not compiled yet.
    """

    def __init__(self, graph: Any) -> None:
        self.layers = pointwise_layers(graph)
        self._first = len(graph.outputs)
        self._sums: list[_Sums] = [_Sums() for _ in self.layers]
        ops = load_openvino().opset13
        graph.add_results([ops.result(output) for layer in self.layers for output in _observed(layer.node)])

    def add(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Adds all outputs of the compiled graph, by their numbers, for some images."""
        for number, sums in enumerate(self._sums):
            begin = self._first + 3 * number
            sums.add(*outputs[begin : begin + 3])

    def statistics(self) -> list[InputStatistics]:
        """Returns what was found, for each layer."""
        return [sums.statistics() for sums in self._sums]


class _Sums:
    """Sums over the inputs of one layer."""

    def __init__(self) -> None:
        self._lowest: Any = None
        self._highest: Any = None
        self._sum: Any = 0.0
        self._products: Any = 0.0
        self._places = 0

    def add(self, highest: NDArray[Any], lowest: NDArray[Any], sampled: NDArray[Any]) -> None:
        """Adds float32[b, c, 1, 1], the same, and float32[b, c, h, w]."""
        import numpy as np

        highest, lowest = highest.max((0, 2, 3)), lowest.min((0, 2, 3))
        self._highest = highest if self._highest is None else np.maximum(self._highest, highest)
        self._lowest = lowest if self._lowest is None else np.minimum(self._lowest, lowest)
        places = sampled.transpose(0, 2, 3, 1).reshape(-1, sampled.shape[1])
        self._sum = self._sum + places.sum(0, dtype=np.float64)
        self._products = self._products + (places.T @ places).astype(np.float64)
        self._places += len(places)

    def statistics(self) -> InputStatistics:
        import numpy as np

        return InputStatistics(
            lowest=self._lowest.astype(np.float64),
            highest=self._highest.astype(np.float64),
            mean=self._sum / self._places,
            second_moment=self._products / self._places,
        )


def _observed(node: Any) -> tuple[Any, Any, Any]:
    """Returns the greatest and the smallest input of each channel, and the inputs of places that the layer looks at."""
    import numpy as np

    ops = load_openvino().opset13
    source, (stride, _) = node.input_value(0), node.get_strides()
    axes = np.array([2, 3], np.int64)
    side = min(source.get_shape()[2:])
    step = -(-max(1, -(-side // _PLACES)) // stride) * stride
    begin = min(step // 2, side - 1) // stride * stride
    end = np.full(2, np.iinfo(np.int32).max, np.int64)
    sampled = ops.slice(source, np.full(2, begin, np.int64), end, np.full(2, step, np.int64), axes)
    return ops.reduce_max(source, axes, True), ops.reduce_min(source, axes, True), sampled


def quantize_graph(graph: Any, layers: Mapping[str, IntegerLayer | None]) -> None:
    """Puts convolutions of integers into a graph, which is changed.

    Args:
        graph: not compiled yet.
        layers: for the name of each layer; None leaves it in floating point.

    Raises:
        ModelError: the graph has another layer, or one of another shape.
    """
    for layer in pointwise_layers(graph):
        if layer.name not in layers:
            raise ModelError("the int8 calibration is that of another model, or of other layers of it")
        found = layers[layer.name]
        if found is not None:
            if found.weights.shape != layer.weights.shape:
                raise ModelError("the int8 calibration is that of another model")
            _replace(layer.node, found)
    graph.validate_nodes_and_infer_types()


def _replace(node: Any, layer: IntegerLayer) -> None:
    import numpy as np

    ops = load_openvino().opset13
    low, step = (array.reshape(1, -1, 1, 1) for array in (layer.low, layer.step))
    inputs = ops.fake_quantize(
        node.input_value(0), low, low + LEVELS * step, np.float32(0), np.float32(LEVELS), LEVELS + 1
    )
    integers = ops.convert(ops.constant(layer.weights.reshape(*layer.weights.shape, 1, 1)), np.float32)
    weights = ops.multiply(integers, ops.constant(layer.scale.reshape(-1, 1, 1, 1)))
    new = ops.convolution(
        inputs, weights, node.get_strides(), node.get_pads_begin(), node.get_pads_end(), node.get_dilations()
    )
    users = list(node.output(0).get_target_inputs())
    bias = _constant_bias(users)
    if bias is None:
        new = ops.add(new, ops.constant(layer.offset.reshape(1, -1, 1, 1)))
    else:
        add, place = bias
        constant = add.input_value(place).get_node().get_data()
        moved = constant + layer.offset.reshape((1, -1, 1, 1) if constant.size == 1 else constant.shape)
        add.input(place).replace_source_output(ops.constant(moved.astype(np.float32)).output(0))
    for user in users:
        user.replace_source_output(new.output(0))


def _constant_bias(users: Sequence[Any]) -> tuple[Any, int] | None:
    """Returns the addition of a constant that alone follows, and which of its inputs that is."""
    if len(users) != 1 or users[0].get_node().get_type_name() != "Add":
        return None
    add, place = users[0].get_node(), 1 - users[0].get_index()
    constant = add.input_value(place).get_node()
    channels = add.get_output_shape(0)[1]
    if constant.get_type_name() != "Constant" or constant.get_data().size not in (1, channels):
        return None
    if len(constant.get_output_shape(0)) > 1 and constant.get_output_shape(0)[-3:-2] != [channels]:
        return None
    return add, place
