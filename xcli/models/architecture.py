"""The Xception network as one table.

Source: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, figure 5, in the
form of Keras Applications: 36 convolutional layers in 14 blocks, 34 of them depthwise separable. `BLOCKS` is the only
description of the network; `layers()` unrolls it into `Layer` records for every other module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from xcli.core.errors import UsageError

IMAGE_SIZE = 299  # side of the square input that the ImageNet weights were trained at, in pixels
MIN_SIZE = 71  # smallest side, in pixels, for which every convolution still has an output (no-top models only)
FEATURE_WIDTH = 2048  # channels of the last feature map
IMAGENET_CLASSES = 1000
BN_EPSILON = 1e-3

Kind = Literal["conv", "sepconv", "bn", "relu", "maxpool", "add"]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of separable convolutions.

    Attributes:
        index: its number in the figure of the paper, 2 to 14.
        filters: output channels of each separable convolution in turn.
        shortcut: `conv`: a strided 1x1 convolution with batch norm, added to the strided max pooling of the block;
            `identity`: the unchanged input is added; None: no shortcut.
        relu: `before` each separable convolution; `between` them, not before the first (its input is already
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
        name: that of Keras Applications; a stable one of our own for layers that Keras numbers automatically.
        kind: what it computes.
        inputs: names of the layers whose outputs it reads; `input` is the input of the network.
        channels, filters: input and output channels.
        kernel, stride, padding: of `conv`, `sepconv` and `maxpool`.
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
        """Names and shapes of its variables, in the order of Keras."""
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
        return sum(math.prod(shape) for _, shape in self.weights)

    def multiply_adds(self, height: int, width: int) -> int:
        """Returns the multiply-adds of a convolution with an output of `height` by `width`; 0 for other layers."""
        taps = self.kernel * self.kernel * self.channels
        if self.kind == "conv":
            return height * width * taps * self.filters
        if self.kind == "sepconv":
            return height * width * (taps + self.channels * self.filters)
        return 0

    def output_size(self, size: int) -> int:
        """Returns the side of the output for a square input of side `size`, in pixels."""
        if self.padding == "valid":
            return (size - self.kernel) // self.stride + 1
        return -(-size // self.stride)


@cache
def layers() -> tuple[Layer, ...]:
    """Returns the layers from the input to the last feature map, in the order in which Keras Applications creates them.

    The weight files of Keras depend on that order.
    """
    net: list[Layer] = []
    channels = {"input": 3}

    def add(name: str, kind: Kind, *inputs: str, filters: int | None = None, **geometry: Any) -> str:
        received = channels[inputs[0]]
        channels[name] = filters or received
        net.append(Layer(name, kind, inputs, received, channels[name], **geometry))
        return name

    top = "input"
    for number, (filters, stride) in enumerate(STEM, start=1):
        name = f"block1_conv{number}"
        top = add(name, "conv", top, filters=filters, kernel=3, stride=stride, padding="valid")
        top = add(f"{name}_bn", "bn", top)
        top = add(f"{name}_act", "relu", top)
    for block in BLOCKS:
        prefix, shortcut = f"block{block.index}", top
        if block.shortcut == "conv":
            shortcut = add(f"{prefix}_residual_conv", "conv", top, filters=block.filters[-1], stride=2)
            shortcut = add(f"{prefix}_residual_bn", "bn", shortcut)
        for number, filters in enumerate(block.filters, start=1):
            name = f"{prefix}_sepconv{number}"
            if block.relu == "before" or (block.relu == "between" and number > 1):
                top = add(f"{name}_act", "relu", top)
            top = add(name, "sepconv", top, filters=filters, kernel=3)
            top = add(f"{name}_bn", "bn", top)
            if block.relu == "after":
                top = add(f"{name}_act", "relu", top)
        if block.shortcut == "conv":
            top = add(f"{prefix}_pool", "maxpool", top, kernel=3, stride=2)
        if block.shortcut:
            top = add(f"{prefix}_add", "add", top, shortcut)
    return tuple(net)


@cache
def weighted_layers() -> tuple[Layer, ...]:
    """Returns the layers with variables in the order in which Keras stores them: the shortcut of a block comes last."""

    def order(layer: Layer) -> tuple[int, bool]:
        block = layer.name.partition("_")[0]
        return int(block.removeprefix("block")), "_residual_" in layer.name

    return tuple(sorted((layer for layer in layers() if layer.weights), key=order))


def output_sizes(size: int) -> dict[str, int]:
    """Returns the side of each layer's square output, in pixels, for a square input of side `size`."""
    sizes = {"input": size}
    for layer in layers():
        sizes[layer.name] = layer.output_size(sizes[layer.inputs[0]])
    return sizes


def check_pooling(pooling: str | None) -> None:
    """Raises UsageError unless `pooling` is None, `avg` or `max`."""
    if pooling not in (None, "avg", "max"):
        raise UsageError(f"pooling must be None, 'avg' or 'max'; received {pooling!r}")
