"""A network of no cost, for measurements and tests of everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 2048


class StubEngine:
    """What a run uses of `xcli.inference.engines.tensorflow.Engine`: the mean of each first line, and 2,047 zeros."""

    is_cold = False

    def __init__(self, forward: Any, *, size: int, batch_size: int, device: str, embedded: bool = False) -> None:
        self.batch_size = batch_size
        self.output_shapes = ((WIDTH,),)

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32]]:
        result = np.zeros((len(pixels), WIDTH), np.float32)
        result[:, 0] = pixels[:, 0].mean((1, 2))
        return (result,)
