"""The convolutions of a graph of OpenVINO, and integers in their place."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ModelError
from xcli.core.openvino import load_openvino
from xcli.inference.quantization.rounding import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from xcli.inference.quantization.depthwise import IntegerDepthwise
    from xcli.inference.quantization.layers import IntegerLayer

_WEIGHTS = range(128, 2049)
"""Of an output. With fewer, a layer spends its time on moving bytes and gains nothing, and it comes early, where errors
grow most; and what is gathered of its inputs grows with the square."""

_VECTOR = 16
"""Channels that a processor computes together, so that the rest of a multiple of it costs little."""

_EXTRA = 32
"""A layer may have one input more for so many channels, rounded to whole vectors."""


class Layer(NamedTuple):
    """A convolution of a graph that can be one of integers.

    Attributes:
        node: of OpenVINO.
        name: the SHA-256 of its weights, and which one it is of those with the same weights: the same in all graphs of
            a model, whatever their outputs and their batch.
        before: the constants that make its input channels, each as the input of a node and the axis of the channels,
            up to those of the convolution before it, which comes last; empty where a channel cannot be made twice.
        depthwise: the depthwise convolution whose outputs are its inputs alone, if there is one.
    """

    node: Any
    name: str
    before: tuple[tuple[Any, int], ...]
    depthwise: Any | None

    @property
    def weights(self) -> NDArray[Any]:
        """The weights, float32[o, p * c]; the channels of each place of the kernel are together."""
        constant = self.node.input_value(1).get_node().get_data()
        return constant.transpose(0, 2, 3, 1).reshape(len(constant), -1)  # type: ignore[no-any-return]

    @property
    def work(self) -> int:
        """Multiplications for one batch."""
        height, width = self.node.get_output_shape(0)[2:]
        return int(self.weights.size * height * width)

    @property
    def extra(self) -> int:
        """Inputs that it may have more than channels."""
        channels = self.node.get_input_shape(1)[1]
        room = -(-(channels + channels // _EXTRA) // _VECTOR) * _VECTOR - channels
        return room if self.before and room <= channels // _VECTOR else 0


def integer_layers(graph: Any) -> list[Layer]:
    """Returns the convolutions of a graph that can be ones of integers, in the order in which they are computed."""
    found: list[Layer] = []
    seen: defaultdict[str, int] = defaultdict(int)
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Convolution" or len(node.get_output_shape(0)) != 4:
            continue
        weights, (_, *inputs) = node.input_value(1).get_node(), node.get_input_shape(1)
        is_plain = weights.get_type_name() == "Constant" and not any((*node.get_pads_begin(), *node.get_pads_end()))
        is_dense = all(one == 1 for one in node.get_dilations())
        if not (is_plain and is_dense and prod(inputs) in _WEIGHTS):
            continue
        digest = hashlib.sha256(weights.get_data().tobytes()).hexdigest()
        name = f"{digest}.{seen[digest]}"
        is_pointwise = inputs[1:] == [1, 1]
        before, depthwise = (_before(node), _depthwise(node)) if is_pointwise else ((), None)
        found.append(Layer(node, name, before, depthwise))
        seen[digest] += 1
    return found


def _before(node: Any) -> tuple[tuple[Any, int], ...]:
    """Returns what `Layer.before` is."""
    found: list[tuple[Any, int]] = []
    output = node.input_value(0)
    while len(output.get_target_inputs()) == 1:
        node = output.get_node()
        kind = node.get_type_name()
        if kind == "Convolution":
            constant = node.input(1)
            is_known = constant.get_source_output().get_node().get_type_name() == "Constant"
            return (*found, (constant, 0)) if is_known else ()
        if _is_depthwise(node):
            found.append((node.input(1), 0))
        elif kind == "Add" and (bias := _constant_bias(node)) is not None:
            if bias.get_source_output().get_node().get_data().size > 1:
                found.append((bias, len(bias.get_shape()) - 3))
            output = node.input_value(1 - bias.get_index())
            continue
        elif kind != "Relu":
            break
        output = node.input_value(0)
    return ()


def _depthwise(node: Any) -> Any | None:
    """Returns what `Layer.depthwise` is."""
    output = node.input_value(0)
    alone = len(output.get_target_inputs()) == 1 and _is_depthwise(output.get_node())
    return output.get_node() if alone else None


def _is_depthwise(node: Any) -> bool:
    """Returns whether a node is a convolution of each channel by itself, with constant weights."""
    if node.get_type_name() != "GroupConvolution" or len(node.get_output_shape(0)) != 4:
        return False
    is_constant = node.input_value(1).get_node().get_type_name() == "Constant"
    return is_constant and list(node.get_input_shape(1)[1:3]) == [1, 1]


def quantize_graph(graph: Any, layers: Mapping[str, IntegerLayer | None]) -> None:
    """Puts convolutions of integers into a graph, which is changed.

    Args:
        graph: not compiled yet.
        layers: for the name of each layer; None leaves it in floating point.

    Raises:
        ModelError: the graph has another layer, or one of another shape.
    """
    found = integer_layers(graph)
    integers = dict(_checked(found, layers))
    names = {layer.node.get_name(): layer.name for layer in found}
    for layer in found:
        integer = integers.get(layer.name)
        if integer is None or not (integer.divides and layer.before):
            continue
        for constant, axis in (*layer.before, (layer.node.input(1), 1)):
            _repeat(constant, integer.source, axis)
        name = names.get(layer.before[-1][0].get_node().get_name(), "")
        if name in integers:
            integers[name] = integers[name].with_outputs(integer.source)
    graph.validate_nodes_and_infer_types()
    for layer in found:
        if (integer := integers.get(layer.name)) is not None:
            channels = layer.node.get_input_shape(1)[1]
            _replace(layer.node, integer)
            if integer.depthwise is not None and layer.depthwise is not None:
                _replace_depthwise(layer.depthwise, integer.depthwise.of(integer.source[:channels]))
    graph.validate_nodes_and_infer_types()


def _checked(found: Sequence[Layer], layers: Mapping[str, IntegerLayer | None]) -> Iterator[tuple[str, IntegerLayer]]:
    """Yields the integers of the layers by their names; raises ModelError where they are those of other layers."""
    for layer in found:
        if layer.name not in layers:
            raise ModelError("the int8 calibration is that of another model, or of other layers of it")
        integers = layers[layer.name]
        if integers is None:
            continue
        outputs, channels, *kernel = layer.node.get_input_shape(1)
        fits = integers.weights.shape == (outputs, len(integers.source) * prod(kernel))
        fits &= list(integers.source[:channels]) == list(range(channels)) and integers.source.max() < channels
        if integers.depthwise is not None and layer.depthwise is not None:
            fits &= integers.depthwise.weights.shape == (channels, prod(layer.depthwise.get_input_shape(1)[3:]))
        if not fits:
            raise ModelError("the int8 calibration is that of another model")
        yield layer.name, integers


def _repeat(constant: Any, channels: NDArray[Any], axis: int) -> None:
    """Lets an input of a node be these channels of the constant that it is."""
    import numpy as np

    data = constant.get_source_output().get_node().get_data()
    repeated = np.ascontiguousarray(np.take(data, channels, axis))
    constant.replace_source_output(load_openvino().opset13.constant(repeated).output(0))


def _replace(node: Any, layer: IntegerLayer) -> None:
    import numpy as np

    ops = load_openvino().opset13
    _, channels, *kernel = node.get_input_shape(1)
    weights = layer.weights.reshape(len(layer.weights), *kernel, len(layer.source)).transpose(0, 3, 1, 2)
    inputs = node.input_value(0)
    if channels < len(layer.source):  # the layers before could not repeat them, since this graph puts their results out
        inputs = ops.gather(inputs, ops.constant(layer.source), np.int64(1)).output(0)
    new = _of_integers(
        node, ops.convolution, inputs, (layer.low, layer.step), np.ascontiguousarray(weights), layer.scale
    )
    users = list(node.output(0).get_target_inputs())
    bias = _constant_bias(users[0].get_node()) if len(users) == 1 else None
    if bias is None:
        new = ops.add(new, ops.constant(layer.offset.reshape(1, -1, 1, 1)))
    else:
        constant = bias.get_source_output().get_node().get_data()
        moved = constant + layer.offset.reshape((1, -1, 1, 1) if constant.size == 1 else constant.shape)
        bias.replace_source_output(ops.constant(moved.astype(np.float32)).output(0))
    for user in users:
        user.replace_source_output(new.output(0))


def _replace_depthwise(node: Any, layer: IntegerDepthwise) -> None:
    import numpy as np

    weights = layer.weights.reshape(node.get_input_shape(1))
    kind = load_openvino().opset13.group_convolution
    steps = np.zeros_like(layer.step), layer.step
    new = _of_integers(node, kind, node.input_value(0), steps, weights, layer.scale)
    for user in node.output(0).get_target_inputs():
        user.replace_source_output(new.output(0))


def _of_integers(
    node: Any,
    kind: Callable[..., Any],
    inputs: Any,
    steps: tuple[NDArray[Any], NDArray[Any]],
    weights: NDArray[Any],
    scale: NDArray[Any],
) -> Any:
    """Returns a convolution of integers in place of a node, with nothing added to it.

    Args:
        node: the convolution, whose places it has.
        kind: makes one.
        inputs: in floating point.
        steps: where the range of each channel begins, and its steps.
        weights: int8, as `kind` takes them.
        scale: of the outputs.
    """
    import numpy as np

    ops = load_openvino().opset13
    low, step = (array.reshape(1, -1, 1, 1) for array in steps)
    integers = ops.fake_quantize(inputs, low, low + LEVELS * step, np.float32(0), np.float32(LEVELS), LEVELS + 1)
    scales = ops.constant(scale.reshape(-1, *(1,) * (weights.ndim - 1)))
    floats = ops.multiply(ops.convert(ops.constant(weights), np.float32), scales)
    return kind(integers, floats, node.get_strides(), node.get_pads_begin(), node.get_pads_end(), node.get_dilations())


def _constant_bias(add: Any) -> Any | None:
    """Returns the input of an addition that is a constant for each channel, or one for all; None if there is none."""
    if add.get_type_name() != "Add":
        return None
    channels = add.get_output_shape(0)[1]
    for bias in add.inputs():
        node, shape = bias.get_source_output().get_node(), list(bias.get_shape())
        if node.get_type_name() == "Constant" and (shape in ([], [1]) or (prod(shape) == channels == shape[-3:][0])):
            return bias
    return None
