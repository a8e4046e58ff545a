"""What is computed with integers of a model: its layers, where they come from, what they lose; and this as bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import parse_object
from xcli.inference.quantization.depthwise import IntegerDepthwise
from xcli.inference.quantization.layers import IntegerLayer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from xcli.core.checked_json import Schema

_SIZE = range(1, 1 << 20)
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
    "layers": [{"name": str, "shape": [_SIZE], "depthwise": [_SIZE]}],
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
        layers = [{"name": name, **({} if layer is None else _shapes(layer))} for name, layer in self.layers.items()]
        head = {
            "model": self.model,
            "preprocessing": self.preprocessing,
            "requested": self.requested,
            "images": self.images,
            "loss": asdict(self.loss),
            "layers": layers,
        }
        arrays = [array.tobytes() for layer in self.layers.values() if layer is not None for array in _arrays(layer)]
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
        if len(shape) == 3:
            layers[name], rest = _layer(rest, shape, one.get("depthwise", []))
    if len(rest):
        raise ValueError("it is longer than its layers")
    try:
        loss = Loss(**found["loss"])
    except TypeError:
        raise ValueError("it lacks a part of the loss") from None
    return Quantization(
        found["model"], found["preprocessing"], found["requested"], tuple(found["images"]), loss, layers
    )


def _shapes(layer: IntegerLayer) -> dict[str, list[int]]:
    """Returns what the head says of a layer."""
    depthwise = {} if layer.depthwise is None else {"depthwise": list(layer.depthwise.weights.shape)}
    return {"shape": [*layer.weights.shape, len(layer.source)], **depthwise}


def _arrays(layer: IntegerLayer) -> Iterator[NDArray[Any]]:
    yield from (layer.source, layer.low, layer.step, layer.weights, layer.scale, layer.offset)
    if (depthwise := layer.depthwise) is not None:
        yield from (depthwise.step, depthwise.weights, depthwise.scale)


def _layer(data: memoryview, shape: Sequence[int], depthwise: Sequence[int]) -> tuple[IntegerLayer, memoryview]:
    """Reads a layer of these shapes, which are those of `_shapes`; returns it with what follows."""
    outputs, weights, inputs = shape
    vector, wide = (outputs,), (inputs,)
    kinds = (("<i4", wide), ("<f4", wide), ("<f4", wide), ("i1", (outputs, weights)), ("<f4", vector), ("<f4", vector))
    (source, low, step, integers, scale, offset), data = _read(data, kinds)
    layer = IntegerLayer(source, low, step, integers, scale, offset)
    if len(depthwise) == 2:
        channels, places = depthwise
        arrays, data = _read(data, (("<f4", (channels,)), ("i1", (channels, places)), ("<f4", (channels,))))
        layer.depthwise = IntegerDepthwise(*arrays)
        _check_numbers([layer.depthwise.scale], layer.depthwise.step)
    _check_numbers([layer.low, layer.scale, layer.offset], layer.step)
    if layer.source.min() < 0 or weights % inputs:
        raise ValueError("it holds channels that no calibration has")
    return layer, data


def _read(data: memoryview, kinds: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[list[NDArray[Any]], memoryview]:
    """Reads arrays of these types and shapes; returns them with what follows."""
    import numpy as np

    arrays = []
    for kind, shape in kinds:
        dtype, count = np.dtype(kind), prod(shape)
        if count > _MAX_WEIGHTS:
            raise ValueError("a layer is larger than any of an Xception")
        size = dtype.itemsize * count
        if len(data) < size:
            raise ValueError("it ends within a layer")
        arrays.append(np.frombuffer(data[:size], dtype).reshape(shape))
        data = data[size:]
    return arrays, data


def _check_numbers(arrays: Iterable[NDArray[Any]], step: NDArray[Any]) -> None:
    """Raises ValueError unless all are finite, and all steps above 0."""
    import numpy as np

    if not all(np.isfinite(array).all() for array in (*arrays, step)) or step.min() <= 0:
        raise ValueError("it holds numbers that no calibration has")
