"""One engine on every device of a machine, and the work divided between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.inference.batch_size import STREAMS
from xcli.inference.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xcli.models.folded import Forward


class Engines:
    """Engines that compute the same, each with its own copy of the weights.

    Args:
        forward, size, batch_size, embedded: see `Engine`.
        devices: TensorFlow devices; they must be of one kind.

    Attributes:
        batch_size: images in a batch.
        output_shapes: shape of one image's result, an output each.
    """

    def __init__(
        self, forward: Forward, *, size: int, batch_size: int, devices: Sequence[str], embedded: bool = False
    ) -> None:
        self._engines = [
            Engine(forward, size=size, batch_size=batch_size, device=device, embedded=embedded) for device in devices
        ]
        self.batch_size = batch_size
        self.output_shapes = self._engines[0].output_shapes

    @property
    def streams(self) -> list[Engine]:
        """One entry a thread: while one batch of a device waits (for a copy, say), its other one computes."""
        return self._engines * STREAMS
