"""The part of a network that is trained: the layers above the cut, average pooling and a dense softmax.

Batch norms keep their moving statistics, because those of a few photographs are worse than ImageNet's, and because an
image's result must not depend on its batch. Their scale and shift are trained. A batch norm is therefore an affine
function, and is folded into the preceding convolution at every step, as in `xcli.models.folded`: that multiplies the
kernel instead of the larger map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.tensorflow import load_tensorflow
from xcli.models.architecture import BN_EPSILON, FEATURE_WIDTH, Layer, layers
from xcli.models.folded import pool
from xcli.models.hdf5_weights import BIAS, KERNEL, Weights
from xcli.training.freezing import PIXELS, Cut

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

_STATISTICS = ("moving_mean", "moving_variance")

_HEAD_SCALE = 0.01
"""Standard deviation of a new head's weights: small, so that at first all classes have similar scores."""


class TrainableLayers:
    """The layers above a cut and the classifier on top of them (the head).

    Args:
        cut: where the network is cut.
        weights: of the Xception, by `layer/variable`; the head starts from `predictions/...` if they hold it.
        classes: number of classes.
        dtype: of the arithmetic of the convolutions, `float32` or `bfloat16`; variables, pooling and head are float32.
        scaling: factor and offset that turn [0, 255] into the input range of the network; for a cut at the input.
        seed: of a new head.

    Attributes:
        variables: the trained variables, float32, by `layer/variable`.
    """

    def __init__(
        self,
        cut: Cut,
        weights: Mapping[str, NDArray[np.float32]],
        classes: int,
        *,
        dtype: str = "float32",
        scaling: tuple[float, float] = (1 / 127.5, -1.0),
        seed: int = 0,
    ) -> None:
        import numpy as np

        tf = load_tensorflow()
        self.cut, self.dtype, self._scaling = cut, tf.dtypes.as_dtype(dtype), scaling
        self._norms = {layer.inputs[0]: layer for layer in layers() if layer.kind == "bn"}
        self._factors: dict[str, tuple[Any, Any]] = {}
        self.variables: dict[str, Any] = {}
        for layer in cut.trained:
            for name, _ in layer.weights:
                if name not in _STATISTICS:
                    key = f"{layer.name}/{name}"
                    self.variables[key] = tf.Variable(weights[key], dtype=tf.float32)
            if layer.kind == "bn":
                mean, variance = (weights[f"{layer.name}/{name}"] for name in _STATISTICS)
                inverse = 1 / np.sqrt(variance.astype(np.float64) + BN_EPSILON)
                self._factors[layer.name] = (inverse.astype(np.float32), mean)
        shape = (FEATURE_WIDTH, classes)
        fresh = np.random.default_rng([seed, 1]).normal(0, _HEAD_SCALE, shape)
        self.variables[KERNEL] = tf.Variable(weights.get(KERNEL, fresh), dtype=tf.float32)
        self.variables[BIAS] = tf.Variable(weights.get(BIAS, np.zeros(classes)), dtype=tf.float32)

    def pooled(self, x: Any) -> Any:
        """Returns pooled features float32[b, 2048] of activations at the cut.

        These are float16[b, h, w, c], uint8[b, size, size, 3] at the input, or pooled features already.
        """
        tf = load_tensorflow()
        if self.cut.tap is None:
            return tf.cast(x, tf.float32)
        start = self.cut.tap
        if start == PIXELS:
            factor, offset = self._scaling
            start, x = "input", tf.cast(x, tf.float32) * factor + offset
        values = {start: tf.cast(x, self.dtype)}
        for layer in self.cut.trained:
            values[layer.name] = self._apply(layer, [values[name] for name in layer.inputs])
        return pool(values[layers()[-1].name], "avg")

    def logits(self, pooled: Any) -> Any:
        """Returns logits float32[b, classes] of pooled features float32[b, 2048]."""
        return load_tensorflow().linalg.matmul(pooled, self.variables[KERNEL]) + self.variables[BIAS]

    def weights(self) -> Weights:
        """Returns the trained variables as arrays."""
        return {name: variable.numpy() for name, variable in self.variables.items()}

    def assign(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Sets the trained variables; the names must be the same."""
        assert weights.keys() == self.variables.keys(), weights.keys() ^ self.variables.keys()
        for name, array in weights.items():
            self.variables[name].assign(array)

    def _apply(self, layer: Layer, inputs: list[Any]) -> Any:
        tf = load_tensorflow()
        x = inputs[0]
        if layer.kind in ("conv", "sepconv"):
            return self._convolve(layer, x)
        if layer.kind == "relu":
            return tf.nn.relu(x)
        if layer.kind == "maxpool":
            return tf.nn.max_pool2d(x, layer.kernel, layer.stride, layer.padding.upper())
        return x if layer.kind == "bn" else inputs[0] + inputs[1]

    def _convolve(self, layer: Layer, x: Any) -> Any:
        tf = load_tensorflow()
        norm = self._norms[layer.name].name
        inverse, mean = self._factors[norm]
        scale = self.variables[f"{norm}/gamma"] * inverse
        shift = tf.cast(self.variables[f"{norm}/beta"] - mean * scale, self.dtype)
        kernel, stride, padding = "kernel", layer.stride, layer.padding.upper()
        if layer.kind == "sepconv":
            depthwise = tf.cast(self.variables[f"{layer.name}/depthwise_kernel"], self.dtype)
            x = tf.nn.depthwise_conv2d(x, depthwise, (1, 1, 1, 1), "SAME")
            kernel, stride, padding = "pointwise_kernel", 1, "SAME"
        kernel = self.variables[f"{layer.name}/{kernel}"]
        return tf.nn.bias_add(tf.nn.conv2d(x, tf.cast(kernel * scale, self.dtype), stride, padding), shift)
