"""How much memory a traced graph takes, computed from the shapes of its tensors before it runs."""

from __future__ import annotations

import math
from typing import Any

from xcli.core.errors import ModelError
from xcli.inference.batch_size import IMAGE_BYTES
from xcli.models.architecture import IMAGE_SIZE
from xcli.models.keras_file import MAX_PADDING

HEAD_BYTES = 512 << 20
"""What the layers around an Xception may take, on a CPU, beside it for a batch; two batches are computed at a time."""

HEAD_EFFORT = 4e11
"""What they may take for an image, as `effort` counts: some ten seconds of a small machine."""

_PLAIN_EFFORT = 2e10  # of an Xception for an image of 299 x 299 pixels

_PADDING = ("StatelessIf", "If", "Identity")
"""Operations that give tensors of a size that shows only when they run. Of the layers that may be loaded only a
Resizing that pads has them: within the graph it decides which side to pad."""


def _operations(graph: Any) -> list[tuple[Any, list[int]]]:
    """Returns the operations of a graph but its constants, and how many numbers each of their outputs has at most.

    Raises:
        ModelError: that of one cannot be told before it runs.
    """
    found: list[tuple[Any, list[int]]] = []
    sides: dict[Any, int] = {}  # of the tensors of unknown size, at most
    for one in graph.get_operations():
        sizes: list[int] = []
        hidden = any("func" in attribute.type for attribute in one.op_def.attr)
        for tensor in one.outputs:
            shape = tensor.shape
            told = shape.is_fully_defined() and not hidden
            if shape.rank is None or not (told or one.type in _PADDING):
                raise ModelError(
                    f"the model has an operation {one.type!r} whose size cannot be told before it runs; it is not run"
                )
            if not shape.is_fully_defined():
                known = [side for before in one.inputs if before.shape.rank == shape.rank for side in before.shape[1:]]
                longest = MAX_PADDING * max((side or 0 for side in known), default=0)
                sides[tensor.ref()] = max((sides[x.ref()] for x in one.inputs if x.ref() in sides), default=longest)
            sizes.append(math.prod(sides[tensor.ref()] if side is None else side for side in shape))
        if one.type != "Const":
            found.append((one, sizes))
    return found


def peak_bytes(graph: Any) -> int:
    """Returns the bytes of the tensors that live at once, at most, when operations run in the order of their making.

    Constants do not count, since they come from the file of the model.

    Raises:
        ModelError: that cannot be told.
    """
    operations = _operations(graph)
    last = {tensor.ref(): index for index, (one, _) in enumerate(operations) for tensor in one.inputs}
    ends: dict[int, int] = {}
    live = peak = 0
    for index, (one, numbers) in enumerate(operations):
        for tensor, number in zip(one.outputs, numbers, strict=True):
            size = number * tensor.dtype.size
            live += size
            end = last.get(tensor.ref(), index)
            ends[end] = ends.get(end, 0) + size
        peak = max(peak, live)
        live -= ends.pop(index, 0)
    return peak


def effort(graph: Any) -> float:
    """Returns the multiply-adds of a traced graph, where each number that an operation puts out counts as 32."""
    total = 0.0
    for one, outputs in _operations(graph):
        total += 32 * sum(outputs)
        sizes = [tensor.shape.num_elements() or 0 for tensor in one.inputs]
        if one.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
            total += outputs[0] * sizes[1] / max(1, one.outputs[0].shape[-1] or 1)
        elif one.type == "Conv2DBackpropInput":  # a transposed convolution
            total += sizes[2] * sizes[1] / max(1, one.inputs[2].shape[-1] or 1)
        elif one.type in ("BatchMatMulV2", "BatchMatMulV3", "Einsum"):
            # Exact without a batch dimension, and too large by the root of it with one.
            total += math.sqrt(math.prod([*sizes[:2], outputs[0]]))
    return total


def fitting_batch(needed: int, batch_size: int, size: int, device: str) -> int:
    """Returns how many images, at most `batch_size`, may be computed at a time; at least 1, and 0 where 1 is too many.

    Args:
        needed: bytes that a batch takes.
        batch_size: images in it, of `size` pixels.
        device: a TensorFlow device. A GPU has its own memory, so that the machine is not at risk.
    """
    plain = IMAGE_BYTES * (size / IMAGE_SIZE) ** 2
    allowed = HEAD_BYTES * (1 if device.startswith("/CPU") else 8)
    above = needed / batch_size - plain
    return batch_size if above * batch_size <= allowed else min(batch_size - 1, max(1, int(allowed / above)))


def is_too_slow(work: float, batch_size: int, size: int) -> bool:
    """Returns whether a batch of images of `size` pixels takes far more work than a plain Xception does."""
    return work / batch_size > HEAD_EFFORT + _PLAIN_EFFORT * (size / IMAGE_SIZE) ** 2
