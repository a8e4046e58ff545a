"""What the sections of `python -m benchmarks.gpu` work on, and how they tell a result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

LOWER = ("tf32", "bfloat16", "float16")
"""The precisions of a GPU below float32."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the sections work on.

    Attributes:
        photographs: directory of files.
        weights: HDF5 file without top, or `none`.
        classifier: HDF5 file with top, or None.
        device: `gpu` or `cpu`.
        size: side of the network's input, in pixels.
        batches: numbers of images in a batch.
        seconds: that a speed is measured for.
        scratch: directory for temporary files.
        training: directory with a folder for each class.
        epochs: of the training.
    """

    photographs: str
    weights: str
    classifier: str | None
    device: str
    size: int
    batches: tuple[int, ...]
    seconds: float
    scratch: str
    training: str
    epochs: int

    @property
    def tf_device(self) -> str:
        return "/CPU:0" if self.device == "cpu" else "/GPU:0"

    @property
    def precision(self) -> str:
        """The fast one, whose speed is measured."""
        return "float32" if self.device == "cpu" else "float16"


def tell(name: str, value: float | None, unit: str = "", **more: Any) -> None:
    """Hands one result to the parent; `value` is None where there is nothing to measure, and `note` says why."""
    print(json.dumps({"name": name, "value": value, "unit": unit, **more}), flush=True)
