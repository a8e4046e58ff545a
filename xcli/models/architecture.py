"""The Xception network as one table.

Source: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, figure 5, in the
form of Keras Applications: 36 convolutional layers in 14 blocks, 34 of them depthwise separable.

`BLOCKS` is the only description of the network. `layers()` unrolls it into `Layer` records, which serve to build the
Keras model (`xcli.models.xception`) and the folded forward pass (`folded`), to read weights (`hdf5_weights`), to find
an Xception in a `.keras` file (`keras_graph`) and to list the layers (`summary`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from xcli.core.errors import UsageError

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
        """Number of parameters, moving statistics included."""
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


class _Unroll:
    """Collects the layers in the order in which Keras Applications creates them; its weight files depend on it."""

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
    """Returns the layers from the input to the last feature map, unrolled from `BLOCKS`."""
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
    """Returns the layers with variables in the order in which Keras stores them: the shortcut of a block comes last."""
    weighted = [layer for layer in layers() if layer.weights]
    return tuple(sorted(weighted, key=lambda layer: (_block_number(layer.name), "_residual_" in layer.name)))


def _block_number(name: str) -> int:
    return int(name.removeprefix("block").partition("_")[0])


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
