"""The Xception network as one table, and the Keras model that is built from it.

Source: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, figure 5, in the
form that Keras Applications ships: 36 convolutional layers in 14 blocks, 34 of them depthwise separable.

`BLOCKS` is the only description of the network. `layers()` unrolls it into `Layer` records; the Keras model
(`Xception`), the folded forward pass (`xcli.inference.engine`), the readers of weight files
(`xcli.models.hdf5_weights`), the matcher of other people's models (`xcli.models.keras_file`) and the tables of
`xception info` all walk those records.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_SIZE = 299
"""Side of the square input that the ImageNet weights were trained at, in pixels."""

MIN_SIZE = 71
"""Smallest side, in pixels, for which every convolution still has an output (no-top models only)."""

FEATURE_WIDTH = 2048
"""Channels of the last feature map."""

IMAGENET_CLASSES = 1000

BN_EPSILON = 1e-3
BN_MOMENTUM = 0.99

Kind = Literal["conv", "sepconv", "bn", "relu", "maxpool", "add"]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of separable convolutions.

    Attributes:
        index: its number in the paper's figure, 2 to 14.
        filters: output channels of each separable convolution in turn.
        shortcut: `conv` is a strided 1x1 convolution with batch norm beside a strided max pooling; `identity` adds
            the block's input unchanged; None is a plain chain.
        relu: `before` each separable convolution; `between` leaves out the first one (its input is already
            rectified); `after` each batch norm.
    """

    index: int
    filters: tuple[int, ...]
    shortcut: Literal["conv", "identity"] | None
    relu: Literal["before", "between", "after"]


STEM = ((32, 2), (64, 1))
"""Block 1: filters and stride of its two 3x3 convolutions, without padding."""

BLOCKS: tuple[Block, ...] = (
    Block(2, (128, 128), "conv", "between"),
    Block(3, (256, 256), "conv", "before"),
    Block(4, (728, 728), "conv", "before"),
    *(Block(index, (728, 728, 728), "identity", "before") for index in range(5, 13)),
    Block(13, (728, 1024), "conv", "before"),
    Block(14, (1536, FEATURE_WIDTH), None, "after"),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the network below its pooling and top.

    Attributes:
        name: the name that Keras Applications gives it; where Keras numbers it automatically, a stable one of ours.
        kind: what it computes.
        inputs: names of the layers it reads; `input` is the network's input.
        filters: output channels (of `conv` and `sepconv`; otherwise those of its input).
        channels: input channels.
        kernel, stride: of `conv`, `sepconv` and `maxpool`.
        padding: of `conv`, `sepconv` and `maxpool`.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    channels: int
    filters: int
    kernel: int = 1
    stride: int = 1
    padding: Literal["valid", "same"] = "same"

    @property
    def weights(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes of the layer's variables, in Keras' order."""
        if self.kind == "conv":
            return (("kernel", (self.kernel, self.kernel, self.channels, self.filters)),)
        if self.kind == "sepconv":
            depthwise = ("depthwise_kernel", (self.kernel, self.kernel, self.channels, 1))
            return (depthwise, ("pointwise_kernel", (1, 1, self.channels, self.filters)))
        if self.kind == "bn":
            return tuple((name, (self.filters,)) for name in ("gamma", "beta", "moving_mean", "moving_variance"))
        return ()

    @property
    def parameters(self) -> int:
        """Number of parameters, moving statistics included."""
        return sum(math.prod(shape) for _, shape in self.weights)

    def multiply_adds(self, height: int, width: int) -> int:
        """Multiply-accumulate operations of a convolution whose output is `height` by `width`; 0 for other layers."""
        taps = self.kernel * self.kernel * self.channels
        if self.kind == "conv":
            return height * width * taps * self.filters
        if self.kind == "sepconv":
            return height * width * (taps + self.channels * self.filters)
        return 0

    def output_size(self, size: int) -> int:
        """Side of the output for a square input of side `size`, in pixels."""
        if self.padding == "valid":
            return (size - self.kernel) // self.stride + 1
        return -(-size // self.stride)


class _Unroll:
    """Collects the layers in the order in which Keras Applications creates them (its weight files rely on it)."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.top, self.channels = "input", 3

    def add(self, name: str, kind: Kind, filters: int | None = None, **geometry: Any) -> str:
        filters = self.channels if filters is None else filters
        self.layers.append(Layer(name, kind, (self.top,), self.channels, filters, **geometry))
        self.top, self.channels = name, filters
        return name

    def join(self, name: str, other: str) -> None:
        self.layers.append(Layer(name, "add", (self.top, other), self.channels, self.channels))
        self.top = name

    def shortcut(self, prefix: str, filters: int) -> str:
        trunk = self.top, self.channels
        self.add(f"{prefix}_residual_conv", "conv", filters, stride=2)
        end = self.add(f"{prefix}_residual_bn", "bn")
        self.top, self.channels = trunk
        return end


@cache
def layers() -> tuple[Layer, ...]:
    """The network from its input to the last feature map, unrolled from `BLOCKS`."""
    net = _Unroll()
    for number, (filters, stride) in enumerate(STEM, start=1):
        name = f"block1_conv{number}"
        net.add(name, "conv", filters, kernel=3, stride=stride, padding="valid")
        net.add(f"{name}_bn", "bn")
        net.add(f"{name}_act", "relu")
    for block in BLOCKS:
        prefix = f"block{block.index}"
        other = net.shortcut(prefix, block.filters[-1]) if block.shortcut == "conv" else net.top
        for number, filters in enumerate(block.filters, start=1):
            name = f"{prefix}_sepconv{number}"
            if block.relu == "before" or (block.relu == "between" and number > 1):
                net.add(f"{name}_act", "relu")
            net.add(name, "sepconv", filters, kernel=3)
            net.add(f"{name}_bn", "bn")
            if block.relu == "after":
                net.add(f"{name}_act", "relu")
        if block.shortcut == "conv":
            net.add(f"{prefix}_pool", "maxpool", kernel=3, stride=2)
        if block.shortcut:
            net.join(f"{prefix}_add", other)
    return tuple(net.layers)


@cache
def weighted_layers() -> tuple[Layer, ...]:
    """The layers that have variables, in the order in which Keras stores them: a block's shortcut after its trunk."""
    weighted = [layer for layer in layers() if layer.weights]
    return tuple(sorted(weighted, key=lambda layer: (_block_number(layer.name), "_residual_" in layer.name)))


def _block_number(name: str) -> int:
    return int(name.removeprefix("block").partition("_")[0])


def output_sizes(size: int) -> dict[str, int]:
    """Side of each layer's square output, in pixels, for a square input of side `size`."""
    sizes = {"input": size}
    for layer in layers():
        sizes[layer.name] = layer.output_size(sizes[layer.inputs[0]])
    return sizes


def check_pooling(pooling: str | None) -> None:
    """Raises UsageError unless `pooling` is None, `avg` or `max`."""
    if pooling not in (None, "avg", "max"):
        raise UsageError(f"pooling must be None, 'avg' or 'max'; received {pooling!r}")


def _check_arguments(include_top: bool, weights: object, pooling: str | None, classes: object, activation: Any) -> None:
    check_pooling(pooling)
    if not isinstance(classes, Integral) or isinstance(classes, bool) or classes < 1:
        raise UsageError(f"classes must be a positive integer; received {classes!r}")
    if classes != IMAGENET_CLASSES and not include_top:
        raise UsageError(f"classes goes only with include_top=True; received classes={classes} with include_top=False")
    if classes != IMAGENET_CLASSES and weights == "imagenet":
        raise UsageError(
            f"the ImageNet weights have {IMAGENET_CLASSES} classes; received classes={classes}: "
            "give weights=None or the path of a weights file with that many classes"
        )
    if include_top and pooling is not None:
        raise UsageError(
            f"pooling goes only with include_top=False (the top averages by itself); received pooling={pooling!r}"
        )
    _check_weights(weights)
    name = getattr(activation, "__name__", activation)
    if include_top and weights is not None and name not in (None, "linear", "softmax"):
        raise UsageError(
            f"with weights that are loaded classifier_activation must be None, 'linear' or 'softmax'; received {name!r}"
        )


def _check_weights(weights: object) -> None:
    if weights is None or weights == "imagenet":
        return
    expected = "weights must be None, 'imagenet' or the path of a weights file"
    if not isinstance(weights, (str, os.PathLike)):
        raise UsageError(f"{expected}; received {weights!r}")
    if not os.path.exists(weights):
        raise UsageError(f"{expected}; received {os.fspath(weights)!r}, which does not exist")


def check_input_shape(shape: Sequence[int | None], include_top: bool) -> tuple[int | None, int | None, int]:
    """Checks an input shape (height, width, channels) against the rules of the documentation.

    Args:
        shape: height and width in pixels (None where unknown, no-top only) and 3 channels, `channels_last`.
        include_top: with the top only 299x299x3 is taken.

    Returns:
        The shape as a tuple of three.

    Raises:
        UsageError: the shape breaks a rule; the message says what was received.
    """
    try:
        received = tuple(shape)
    except TypeError:
        raise UsageError(f"input_shape must be (height, width, 3); received {shape!r}") from None
    if len(received) != 3:
        raise UsageError(f"input_shape must be (height, width, 3); received {received}")
    if any(isinstance(side, bool) or not isinstance(side, (Integral, NoneType)) for side in received):
        raise UsageError(f"input_shape must be (height, width, 3) in whole numbers; received {received}")
    height, width, channels = (None if side is None else int(side) for side in received)
    if channels != 3:
        raise UsageError(
            f"the input must have exactly 3 channels, last; received input_shape={received}, so {channels} channels"
        )
    if include_top and (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
        raise UsageError(
            f"with include_top=True the input is {IMAGE_SIZE}x{IMAGE_SIZE}x3; received input_shape={received}: "
            "use include_top=False for other sizes"
        )
    if any(side is not None and side < MIN_SIZE for side in (height, width)):
        raise UsageError(f"the input must be at least {MIN_SIZE}x{MIN_SIZE}; received input_shape={received}")
    return height, width, 3


def _input(keras: Any, tensor: Any, shape: Sequence[int | None] | None, include_top: bool) -> Any:
    """The Keras tensor to build on."""
    if shape is not None:
        shape = check_input_shape(shape, include_top)
    if tensor is None:
        default = (IMAGE_SIZE, IMAGE_SIZE, 3) if include_top else (None, None, 3)
        return keras.layers.Input(shape=shape or default)
    if not keras.backend.is_keras_tensor(tensor):
        raise UsageError(f"input_tensor must be a Keras tensor (keras.Input); received {type(tensor).__name__}")
    given = check_input_shape(tensor.shape[1:], include_top)
    if shape is not None and any(a is not None and b is not None and a != b for a, b in zip(shape, given, strict=True)):
        raise UsageError(f"input_shape={tuple(shape)} contradicts input_tensor, whose shape is {given}")
    return tensor


def Xception(
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = IMAGENET_CLASSES,
    classifier_activation: Any = "softmax",
    name: str = "xception",
) -> Any:
    """Builds Xception as a Keras model; a drop-in for `keras.applications.Xception`.

    Layer names, order of variables and outputs are those of Keras Applications, so each loads the other's
    `.weights.h5` and both load the official HDF5 files. Where Keras' code is laxer than its documentation, this
    function holds to the documentation.

    Args:
        include_top: with the global average pooling and the dense classifier on top.
        weights: `"imagenet"` (located, or downloaded once), None (random initialisation), or the path of a weights
            file (`.weights.h5`, or HDF5 in Keras' older layout).
        input_tensor: a Keras tensor, float32[batch, height, width, 3], to build on.
        input_shape: (height, width, 3), channels last, for no-top models: at least 71x71; None leaves it open. Beside
            `input_tensor` it must agree with it.
        pooling: for no-top models: None gives the map float32[batch, h, w, 2048], `"avg"` and `"max"` give
            float32[batch, 2048].
        classes: outputs of the classifier; other than 1000 only with the top and without the ImageNet weights.
        classifier_activation: activation of the classifier; None gives logits. With weights that are loaded only None
            and `"softmax"`.
        name: name of the model.

    Returns:
        A `keras.Model` that takes float32[batch, 299, 299, 3] scaled to [-1, 1]
        (`keras.applications.xception.preprocess_input`) and gives float32[batch, classes] with the top.

    Raises:
        UsageError: (a ValueError) an argument breaks a rule of the documentation.
        WeightsError: the weights cannot be had, or are of another architecture.
    """
    _check_arguments(include_top, weights, pooling, classes, classifier_activation)
    classes = int(classes)
    keras = _keras()
    image = _input(keras, input_tensor, input_shape, include_top)
    outputs = {"input": image}
    for layer in layers():
        received = [outputs[source] for source in layer.inputs]
        outputs[layer.name] = _keras_layer(keras, layer)(received[0] if len(received) == 1 else received)
    x = outputs[layers()[-1].name]
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool")(x)
        x = keras.layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(data_format="channels_last", name="max_pool")(x)

    sources = keras.utils.get_source_inputs(image)
    # A list of one would have the model expect lists, and warn of every array that it is given.
    model = keras.Model(sources[0] if len(sources) == 1 else sources, x, name=name)
    if weights is not None:
        _load(model, weights, include_top, classes)
    return model


def _keras() -> Any:
    from xcli.core.tensorflow import load_keras

    return load_keras()


def _keras_layer(keras: Any, layer: Layer) -> Any:
    make = keras.layers
    if layer.kind == "conv":
        return make.Conv2D(
            layer.filters,
            layer.kernel,
            strides=layer.stride,
            padding=layer.padding,
            use_bias=False,
            data_format="channels_last",
            name=layer.name,
        )
    if layer.kind == "sepconv":
        return make.SeparableConv2D(
            layer.filters,
            layer.kernel,
            padding=layer.padding,
            use_bias=False,
            data_format="channels_last",
            name=layer.name,
        )
    if layer.kind == "bn":
        return make.BatchNormalization(axis=-1, momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=layer.name)
    if layer.kind == "relu":
        return make.Activation("relu", name=layer.name)
    if layer.kind == "maxpool":
        return make.MaxPooling2D(
            layer.kernel, strides=layer.stride, padding=layer.padding, data_format="channels_last", name=layer.name
        )
    return make.Add(name=layer.name)


def _load(model: Any, weights: str | os.PathLike[str], include_top: bool, classes: int) -> None:
    from xcli.models.hdf5_weights import assign, read_weights

    path = os.fspath(weights)
    if weights == "imagenet":
        from xcli.models.imagenet_weights import locate_imagenet

        path = str(locate_imagenet(include_top))
    assign(model, read_weights(path, include_top=include_top, classes=classes if include_top else None))
