"""What is computed with integers of a model: its layers, where they come from, what they lose; and this as bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import parse_object
from xcli.inference.quantization.layers import IntegerLayer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xcli.core.checked_json import Schema

_SCHEMA: dict[str, Schema] = {
    "model": dict,
    "preprocessing": dict,
    "requested": int,
    "images": [str],
    "loss": {
        "images": int,
        "cosine_median": float,
        "cosine_percentile_1": float,
        "cosine_min": float,
        "agreement": float,
        "classes": bool,
    },
    "layers": [{"name": str, "shape": [range(1, 1 << 20)]}],
}
_MAX_HEAD = 1 << 24
_MAX_WEIGHTS = 1 << 31


@dataclass(frozen=True, slots=True)
class Loss:
    """What integers lose, measured on images that they were not found on, against float32.

    Attributes:
        images: number of them.
        cosine_median, cosine_percentile_1, cosine_min: of the cosine between both features of an image.
        agreement: share of the images with the same best class; for a model without classes, of those whose features
            have a cosine of at least `ALIKE`.
        classes: whether the model has classes.
    """

    images: int
    cosine_median: float
    cosine_percentile_1: float
    cosine_min: float
    agreement: float
    classes: bool


@dataclass(frozen=True)
class Quantization:
    """The integers of a model. Not mutable; `digest` and `content` follow from the rest.

    Attributes:
        model: what tells the model from others, as `ForwardPass.description` has it.
        preprocessing: how the images became pixels.
        requested: number of images that were asked for, to calibrate.
        images: paths of those that were taken, in their order.
        loss: what was measured.
        layers: by name; None is left in floating point.
    """

    model: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    requested: int
    images: tuple[str, ...]
    loss: Loss
    layers: Mapping[str, IntegerLayer | None]

    @cached_property
    def content(self) -> bytes:
        """A line of JSON, and the arrays of the layers."""
        layers = [
            {"name": name, "shape": [] if layer is None else list(layer.weights.shape)}
            for name, layer in self.layers.items()
        ]
        head = {
            "model": self.model,
            "preprocessing": self.preprocessing,
            "requested": self.requested,
            "images": self.images,
            "loss": asdict(self.loss),
            "layers": layers,
        }
        arrays = [
            array.tobytes()
            for layer in self.layers.values()
            if layer is not None
            for array in (layer.low, layer.step, layer.weights, layer.scale, layer.offset)
        ]
        return b"".join((json.dumps(head, sort_keys=True).encode(), b"\n", *arrays))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def record(self) -> dict[str, Any]:
        """Returns what the provenance of a run says of it."""
        return {
            "sha256": self.digest,
            "requested": self.requested,
            "images": list(self.images),
            "integer_layers": sum(layer is not None for layer in self.layers.values()),
            "float_layers": sum(layer is None for layer in self.layers.values()),
            "loss": asdict(self.loss),
        }


def parse_quantization(content: bytes | memoryview) -> Quantization:
    """Reads what `Quantization.content` is.

    Raises:
        ValueError: it is something else, or damaged.
    """
    data = memoryview(content)
    head = bytes(data[:_MAX_HEAD])
    end = head.find(b"\n") + 1
    found = parse_object(head[:end], {**_SCHEMA})
    if missing := _SCHEMA.keys() - found.keys():
        raise ValueError(f"it lacks {min(missing)}")
    rest = data[end:]
    layers: dict[str, IntegerLayer | None] = {}
    for one in found["layers"]:
        name, shape = one.get("name", ""), one.get("shape", [])
        layers[name] = None
        if len(shape) == 2:
            layers[name], rest = _layer(rest, *shape)
    if len(rest):
        raise ValueError("it is longer than its layers")
    try:
        loss = Loss(**found["loss"])
    except TypeError:
        raise ValueError("it lacks a part of the loss") from None
    return Quantization(
        found["model"], found["preprocessing"], found["requested"], tuple(found["images"]), loss, layers
    )


def _layer(data: memoryview, outputs: int, inputs: int) -> tuple[IntegerLayer, memoryview]:
    import numpy as np

    if outputs * inputs > _MAX_WEIGHTS:
        raise ValueError("a layer is larger than any of an Xception")
    arrays = []
    for kind, shape in (
        ("<f4", (inputs,)),
        ("<f4", (inputs,)),
        ("i1", (outputs, inputs)),
        ("<f4", (outputs,)),
        ("<f4", (outputs,)),
    ):
        dtype, count = np.dtype(kind), int(np.prod(shape))
        size = dtype.itemsize * count
        if len(data) < size:
            raise ValueError("it ends within a layer")
        arrays.append(np.frombuffer(data[:size], dtype).reshape(shape))
        data = data[size:]
    low, step, weights, scale, offset = arrays
    if not all(isfinite(float(array.sum(dtype=np.float64))) for array in (low, step, scale, offset)) or step.min() <= 0:
        raise ValueError("it holds numbers that no calibration has")
    return IntegerLayer(low, step, weights, scale, offset), data
