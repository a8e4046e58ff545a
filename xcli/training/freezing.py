"""Freezing: where the network is cut. Layers below the cut are frozen and computed once, those above are trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xcli.core.errors import UsageError
from xcli.models.architecture import FEATURE_WIDTH, Layer, layers, output_sizes

BLOCK_COUNT = 14

UNFREEZE = ("none", *(f"block{number}" for number in range(BLOCK_COUNT, 0, -1)), "all")
"""What can be trained besides the head, from nothing to everything; `block1` and `all` mean the same."""

PIXELS = "pixels"
"""The cut at the input: nothing is frozen."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The tensor at which the network is cut.

    Attributes:
        tap: name of the layer whose output it is; `pixels` for the input; None for the pooled features.
    """

    tap: str | None

    @property
    def trained(self) -> tuple[Layer, ...]:
        """The layers between the cut and the pooling, in the order of computation."""
        if self.tap is None:
            return ()
        names = [layer.name for layer in layers()]
        return layers()[0 if self.tap == PIXELS else names.index(self.tap) + 1 :]

    def bytes_per_image(self, size: int) -> int:
        """Returns the bytes of one image's activations: float16 maps or uint8 pixels, and float32 features.

        The side of the input is `size` pixels.
        """
        shape = self.shape(size)
        return FEATURE_WIDTH * 4 + (math.prod(shape) * (1 if self.tap == PIXELS else 2) if shape else 0)

    def shape(self, size: int) -> tuple[int, ...]:
        """Returns the shape of one image's maps, or pixels, of `size` pixels; an empty one for pooled features."""
        if self.tap is None:
            return ()
        if self.tap == PIXELS:
            return (size, size, 3)
        side = output_sizes(size)[self.tap]
        return (side, side, next(one.filters for one in layers() if one.name == self.tap))


def cut_below(unfreeze: str) -> Cut:
    """Returns the cut for one of `UNFREEZE`, where a block means this one and all above it.

    Raises:
        UsageError: it is not one of these.
    """
    if unfreeze not in UNFREEZE:
        raise UsageError(f"--unfreeze takes none, block14 down to block1, or all; received {unfreeze!r}")
    if unfreeze == "none":
        return Cut(None)
    if unfreeze in ("all", "block1"):
        return Cut(PIXELS)
    below = f"block{int(unfreeze.removeprefix('block')) - 1}_"
    return Cut([layer.name for layer in layers() if layer.name.startswith(below)][-1])
