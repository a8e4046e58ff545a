"""The fast forward pass: batch norms folded, static batch, one traced function, uint8 in.

Folding is exact algebra. With a batch norm y = gamma * (x - mean) / sqrt(variance + epsilon) + beta behind a
convolution x = W * image, scale = gamma / sqrt(variance + epsilon) goes into the output channels of W, and
beta - mean * scale becomes a bias. (Of a separable convolution it goes into the pointwise kernel.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.architecture import BN_EPSILON, Layer, layers
from xcli.errors import UsageError
from xcli.runtime import Precision, load_tensorflow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.h5weights import Weights

INPUT_RANGES = ("xception", "unit", "raw")
CPU_BATCH, GPU_BATCH = 16, 64

Forward = Callable[[Any], Sequence[Any]]
"""A traceable function: uint8[b, size, size, 3] to one tensor an output, each with b rows."""


def scale_pixels(pixels: Any, input_range: str, dtype: Any) -> Any:
    """Pixels as the network was fed in training.

    Args:
        pixels: tensor of [0, 255] values.
        input_range: `xception` gives [-1, 1], `unit` [0, 1], `raw` leaves [0, 255].
        dtype: floating-point type of the result.
    """
    tf = load_tensorflow()
    x = tf.cast(pixels, dtype)
    if input_range == "xception":
        return x * tf.constant(1 / 127.5, dtype) - tf.constant(1, dtype)
    if input_range == "unit":
        return x * tf.constant(1 / 255, dtype)
    if input_range == "raw":
        return x
    raise UsageError(f"the input range must be one of {', '.join(INPUT_RANGES)}; received {input_range!r}")


@dataclass(frozen=True, slots=True)
class _Folded:
    """A convolution with its batch norm folded in; `depthwise` is None for plain convolutions."""

    depthwise: Any
    kernel: Any
    bias: Any


class Backbone:
    """The network below its pooling, folded, as a function of tensors.

    Args:
        weights: arrays by `layer/variable`; see `xcli.h5weights`.
        precision: of the arithmetic; the weights are rounded to it after folding.
    """

    def __init__(self, weights: Weights, precision: Precision) -> None:
        tf = load_tensorflow()
        self.dtype = tf.dtypes.as_dtype(precision)
        self._weights = weights
        self._layers = {layer.name: layer for layer in layers()}
        self._folded: dict[str, _Folded] = {}
        for layer in layers():
            if layer.kind == "bn":
                source = self._layers[layer.inputs[0]]
                self._folded[source.name] = self._fold(source, layer)

    def _fold(self, layer: Layer, norm: Layer) -> _Folded:
        import numpy as np

        tf = load_tensorflow()
        gamma, beta, mean, variance = (
            self._weights[f"{norm.name}/{name}"].astype(np.float64) for name, _ in norm.weights
        )
        scale = gamma / np.sqrt(variance + BN_EPSILON)
        depthwise = None
        kernel = "kernel"
        if layer.kind == "sepconv":
            kernel = "pointwise_kernel"
            depthwise = tf.constant(self._weights[f"{layer.name}/depthwise_kernel"], self.dtype)
        return _Folded(
            depthwise,
            tf.constant((self._weights[f"{layer.name}/{kernel}"] * scale).astype(np.float32), self.dtype),
            tf.constant((beta - mean * scale).astype(np.float32), self.dtype),
        )

    @property
    def names(self) -> frozenset[str]:
        """Names that can be tapped."""
        return frozenset(self._layers)

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Computes the outputs of the layers named in `taps`, and nothing beyond the last of them.

        Args:
            x: tensor[b, h, w, 3], scaled; any floating-point type.
            taps: names of layers. A convolution whose batch norm is folded is computed again, unfolded, for its tap.

        Returns:
            Tensors by name, in the precision of the arithmetic.
        """
        tf = load_tensorflow()
        wanted = set(taps)
        values = {"input": tf.cast(x, self.dtype)}
        found: dict[str, Any] = {}
        for layer in layers():
            if len(found) == len(wanted):
                break
            inputs = [values[name] for name in layer.inputs]
            values[layer.name] = self._apply(layer, inputs)
            if layer.name in wanted:
                found[layer.name] = (
                    self._unfolded(layer, inputs[0]) if layer.name in self._folded else values[layer.name]
                )
        return found

    def _apply(self, layer: Layer, inputs: list[Any]) -> Any:
        tf = load_tensorflow()
        x = inputs[0]
        if layer.kind in ("conv", "sepconv"):
            folded = self._folded[layer.name]
            return tf.nn.bias_add(self._convolve(layer, x, folded.depthwise, folded.kernel), folded.bias)
        if layer.kind == "relu":
            return tf.nn.relu(x)
        if layer.kind == "maxpool":
            return tf.nn.max_pool2d(x, layer.kernel, layer.stride, layer.padding.upper())
        return x if layer.kind == "bn" else inputs[0] + inputs[1]

    def _convolve(self, layer: Layer, x: Any, depthwise: Any, kernel: Any) -> Any:
        tf = load_tensorflow()
        if depthwise is not None:
            x = tf.nn.depthwise_conv2d(x, depthwise, (1, 1, 1, 1), "SAME")
            return tf.nn.conv2d(x, kernel, 1, "SAME")
        return tf.nn.conv2d(x, kernel, layer.stride, layer.padding.upper())

    def _unfolded(self, layer: Layer, x: Any) -> Any:
        tf = load_tensorflow()
        arrays = [tf.constant(self._weights[f"{layer.name}/{name}"], self.dtype) for name, _ in layer.weights]
        depthwise = arrays[0] if layer.kind == "sepconv" else None
        return self._convolve(layer, x, depthwise, arrays[-1])


def pool(features: Any, pooling: str | None) -> Any:
    """Global pooling of a map, in float32.

    Args:
        features: tensor[b, h, w, c].
        pooling: `avg` or `max` gives float32[b, c]; None gives float32[b, h, w, c].
    """
    tf = load_tensorflow()
    features = tf.cast(features, tf.float32)
    if pooling == "avg":
        return tf.reduce_mean(features, (1, 2))
    if pooling == "max":
        return tf.reduce_max(features, (1, 2))
    return features


def default_batch_size(device: str) -> int:
    """Images in a batch that keep a TensorFlow device busy without needing much of its memory."""
    return CPU_BATCH if device.startswith("/CPU") else GPU_BATCH


class Engine:
    """A forward function traced once for a static batch, called with numpy arrays.

    The batch shape never changes (a short batch is padded with zeros and cut), so an image's result does not depend
    on where in the run it stands, nor on its neighbours.

    Args:
        forward: from uint8[batch_size, size, size, 3] to one float32 tensor an output.
        size: side of the input, in pixels.
        batch_size: images in a batch.
        device: TensorFlow device that computes.
    """

    def __init__(self, forward: Forward, *, size: int, batch_size: int, device: str = "/CPU:0") -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size must be positive; received {batch_size}")
        tf = load_tensorflow()
        self.batch_size, self.size, self.device = batch_size, size, device
        spec = tf.TensorSpec((batch_size, size, size, 3), tf.uint8)
        # XLA fuses well on a GPU; on a CPU its convolutions are several times slower than oneDNN's.
        traced = tf.function(
            forward, input_signature=[spec], jit_compile=not device.startswith("/CPU"), autograph=False
        )
        with tf.device(device):
            self._function = traced.get_concrete_function()

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one image's result, an output each."""
        return tuple(tuple(shape[1:]) for shape in self._function.output_shapes)

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Runs up to `batch_size` images.

        Args:
            pixels: uint8[b, size, size, 3], b from 1 to `batch_size`.

        Returns:
            float32[b, ...] for each output.
        """
        import numpy as np

        tf = load_tensorflow()
        count = len(pixels)
        if count < self.batch_size:
            padding = np.zeros((self.batch_size - count, *pixels.shape[1:]), np.uint8)
            pixels = np.concatenate([pixels, padding])
        with tf.device(self.device):
            outputs = self._function(tf.constant(pixels))
        return tuple(output.numpy()[:count] for output in outputs)
