"""The network below its head as the engine computes it: batch norms are folded into the convolutions.

Folding is exact algebra. For a batch norm y = gamma * (x - mean) / sqrt(variance + epsilon) + beta after a
convolution x = W * image, scale = gamma / sqrt(variance + epsilon) goes into the output channels of W, and
beta - mean * scale becomes a bias. (In a separable convolution, scale goes into the pointwise kernel.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError, UsageError
from xcli.core.tensorflow import Precision, arithmetic_dtype, load_tensorflow
from xcli.models.architecture import BN_EPSILON, Layer, layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

INPUT_RANGES = ("xception", "unit", "raw")

Forward = Callable[[Any], Sequence[Any]]
"""A traceable function from uint8[b, size, size, 3] to one tensor for each output, with b rows."""


def scale_pixels(pixels: Any, input_range: str, dtype: Any) -> Any:
    """Scales pixels in [0, 255], as `dtype`: `xception` gives [-1, 1], `unit` [0, 1], `raw` keeps [0, 255]."""
    tf = load_tensorflow()
    x = tf.cast(pixels, dtype)
    if input_range == "xception":
        return x * tf.constant(1 / 127.5, dtype) - tf.constant(1, dtype)
    if input_range == "unit":
        return x * tf.constant(1 / 255, dtype)
    if input_range == "raw":
        return x
    raise UsageError(f"the input range must be one of {', '.join(INPUT_RANGES)}; received {input_range!r}")


def constant(array: NDArray[Any], dtype: Any) -> Any:
    """Returns a constant for the function that is being traced, on the device for which it is traced.

    It is created once, outside of the graph, which refers to it; or inside of the graph where `embedding` is set.
    """
    tf = load_tensorflow()
    if embedding.get():
        return tf.constant(array, dtype)
    with tf.init_scope():
        return tf.constant(array, dtype)


embedding: ContextVar[bool] = ContextVar("embedding", default=False)
"""Whether constants become part of the graph. oneDNN then reorders the weights once instead of for every batch, but
each pass over the graph copies them, which costs one to three seconds at the first call."""

MAX_GRAPH_BYTES = 2**31 - (64 << 20)
"""Of the constants in a graph that TensorFlow is to hand over, which it does in a format that ends at 2 GiB."""


class Backbone:
    """The network below its pooling, as a function of tensors; the weights are rounded to `precision` after folding."""

    def __init__(self, weights: Weights, precision: Precision) -> None:
        tf = load_tensorflow()
        self.dtype = tf.dtypes.as_dtype(arithmetic_dtype(precision))
        self._weights = weights
        self._layers = {layer.name: layer for layer in layers()}
        self._norms = {layer.inputs[0]: layer for layer in layers() if layer.kind == "bn"}
        self.names = frozenset(self._layers)

    def _arrays(self, layer: Layer) -> list[NDArray[Any]]:
        return [self._weights[f"{layer.name}/{variable}"] for variable, _ in layer.weights]

    def _rounded(self, array: NDArray[Any], layer: Layer) -> Any:
        import numpy as np

        with np.errstate(over="ignore"):
            rounded = array.astype(np.float32).astype(self.dtype.as_numpy_dtype)
        if not np.isfinite(rounded).all():
            advice = "use bfloat16 or float32" if self.dtype.name == "float16" else "check the model"
            raise ModelError(
                f"the weights of layer {layer.name!r} are too large for --precision {self.dtype.name}; {advice}"
            )
        return constant(rounded, self.dtype)

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Computes the outputs of the layers in `taps`, in the precision of the arithmetic.

        Args:
            x: tensor[b, h, w, 3], scaled; any floating-point type.
            taps: some of `names`. The output of a convolution is computed once more, unfolded.
        """
        tf = load_tensorflow()
        wanted = set(taps)
        assert wanted <= self.names, wanted - self.names
        values = {"input": tf.cast(x, self.dtype)}
        found: dict[str, Any] = {}
        for layer in layers():
            if len(found) == len(wanted):
                break
            inputs = [values[name] for name in layer.inputs]
            values[layer.name] = self._apply(layer, inputs)
            if layer.name in wanted:
                unfolded = layer.name in self._norms
                found[layer.name] = self._convolve(layer, inputs[0], fold=False) if unfolded else values[layer.name]
        return found

    def _apply(self, layer: Layer, inputs: list[Any]) -> Any:
        tf = load_tensorflow()
        x = inputs[0]
        if layer.kind in ("conv", "sepconv"):
            return self._convolve(layer, x, fold=True)
        if layer.kind == "relu":
            if self._layers[layer.inputs[0]].kind == "add":
                # The same values. After a sum, a Relu makes the fusing pass of TensorFlow give up on the whole graph;
                # this way it fuses both the sums and the other activations.
                return tf.maximum(x, tf.zeros((), x.dtype))
            return tf.nn.relu(x)
        if layer.kind == "maxpool":
            return tf.nn.max_pool2d(x, layer.kernel, layer.stride, layer.padding.upper())
        return x if layer.kind == "bn" else inputs[0] + inputs[1]

    def _convolve(self, layer: Layer, x: Any, *, fold: bool) -> Any:
        """Computes a convolution, with the batch norm after it folded in or without it."""
        import numpy as np

        tf = load_tensorflow()
        arrays = self._arrays(layer)
        if fold:
            gamma, beta, mean, variance = (array.astype(np.float64) for array in self._arrays(self._norms[layer.name]))
            scale = gamma / np.sqrt(variance + BN_EPSILON)
            arrays = [*arrays[:-1], arrays[-1] * scale, beta - mean * scale]
        constants = [self._rounded(array, layer) for array in arrays]
        if layer.kind == "sepconv":
            x = tf.nn.depthwise_conv2d(x, constants.pop(0), (1, 1, 1, 1), "SAME")
        x = tf.nn.conv2d(x, constants[0], layer.stride, layer.padding.upper())
        return tf.nn.bias_add(x, constants[1]) if fold else x


def pool(features: Any, pooling: str | None) -> Any:
    """Pools tensor[b, h, w, c]: `avg` or `max` gives float32[b, c]; None gives float32[b, h, w, c]."""
    tf = load_tensorflow()
    features = tf.cast(features, tf.float32)
    if pooling == "avg":
        return tf.reduce_mean(features, (1, 2))
    if pooling == "max":
        return tf.reduce_max(features, (1, 2))
    return features
