"""What comes into the convolutions of a graph of OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.openvino import load_openvino
from xcli.inference.quantization.depthwise import DepthwiseInputs
from xcli.inference.quantization.graph import Layer, integer_layers
from xcli.inference.quantization.layers import InputStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_PLACES = 8
"""Places of an image in each direction whose inputs are sampled."""


class Observer:
    """Gathers the inputs of the layers of a graph, which it gives further outputs.

    Args:
        graph: not compiled yet.
    """

    def __init__(self, graph: Any) -> None:
        self.layers = integer_layers(graph)
        ops = load_openvino().opset13
        first, self._outputs = len(graph.outputs), []
        for layer in self.layers:
            observed = _observed(layer)
            self._outputs.append(range(first, first + len(observed)))
            first += len(observed)
            graph.add_results([ops.result(output) for output in observed])
        self._sums = [_Sums() for _ in self.layers]

    def add(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Adds all outputs of the compiled graph, by their numbers, for some images."""
        for numbers, sums in zip(self._outputs, self._sums, strict=True):
            sums.add(*(outputs[number] for number in numbers))

    def statistics(self) -> list[InputStatistics]:
        """Returns what was found, for each layer."""
        return [sums.statistics(layer) for layer, sums in zip(self.layers, self._sums, strict=True)]


class _Range:
    """The smallest and the greatest value of each channel."""

    def __init__(self) -> None:
        self._lowest: Any = None
        self._highest: Any = None

    def add(self, highest: NDArray[Any], lowest: NDArray[Any]) -> None:
        """Adds those of some images, both float32[b, c, 1, 1]."""
        import numpy as np

        highest, lowest = highest.max((0, 2, 3)), lowest.min((0, 2, 3))
        self._highest = highest if self._highest is None else np.maximum(self._highest, highest)
        self._lowest = lowest if self._lowest is None else np.minimum(self._lowest, lowest)

    def ends(self) -> dict[str, NDArray[Any]]:
        """Returns both, float64[c]."""
        import numpy as np

        return {"lowest": self._lowest.astype(np.float64), "highest": self._highest.astype(np.float64)}


class _Sums:
    """Sums over the inputs of one layer, and ranges of these and of the inputs of its depthwise convolution."""

    def __init__(self) -> None:
        self._range, self._depthwise = _Range(), _Range()
        self._sum: Any = 0.0
        self._products: Any = 0.0
        self._places = 0

    def add(self, sampled: NDArray[Any], *ends: NDArray[Any]) -> None:
        """Adds float32[b, p * c, h, w], and the greatest and the smallest inputs, of the depthwise convolution too."""
        import numpy as np

        self._range.add(*ends[:2])
        if len(ends) > 2:
            self._depthwise.add(*ends[2:])
        places = sampled.transpose(0, 2, 3, 1).reshape(-1, sampled.shape[1])
        self._sum = self._sum + places.sum(0, dtype=np.float64)
        self._products = self._products + (places.T @ places).astype(np.float64)
        self._places += len(places)

    def statistics(self, layer: Layer) -> InputStatistics:
        depthwise = None
        if layer.depthwise is not None:
            kernels = layer.depthwise.input_value(1).get_node().get_data()
            depthwise = DepthwiseInputs(kernels.reshape(len(kernels), -1), **self._depthwise.ends())
        mean, second_moment = self._sum / self._places, self._products / self._places
        return InputStatistics(**self._range.ends(), mean=mean, second_moment=second_moment, depthwise=depthwise)


def _observed(layer: Layer) -> list[Any]:
    """Returns inputs of some places, and the greatest and the smallest of each channel, as `_Sums.add` takes them."""
    import numpy as np

    ops = load_openvino().opset13
    node = layer.node
    source, (stride, _), kernel = node.input_value(0), node.get_strides(), list(node.get_input_shape(1)[2:])
    axes = np.array([2, 3], np.int64)
    side = min(node.get_output_shape(0)[2:])
    step = max(1, -(-side // _PLACES))
    begin = np.full(2, min(step // 2, side - 1) * stride, np.int64)
    end = np.full(2, np.iinfo(np.int32).max, np.int64)
    if kernel == [1, 1]:
        sampled = ops.slice(source, begin, end, np.full(2, step * stride, np.int64), axes)
    else:
        rest = ops.slice(source, begin, end, np.ones(2, np.int64), axes)
        sampled = ops.extract_image_patches(rest, kernel, [step * stride] * 2, [1, 1], "VALID")
    ranged = [source] if layer.depthwise is None else [source, layer.depthwise.input_value(0)]
    return [sampled, *(reduce(one, axes, True) for one in ranged for reduce in (ops.reduce_max, ops.reduce_min))]
