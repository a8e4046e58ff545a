"""How much memory a traced graph takes, computed from the shapes of its tensors before it runs."""

from __future__ import annotations

import math
from typing import Any

from xcli.inference.batch_size import IMAGE_BYTES
from xcli.models.architecture import IMAGE_SIZE

HEAD_BYTES = 512 << 20
"""What the layers around an Xception may take, on a CPU, beside it for a batch; two batches are computed at a time."""

HEAD_EFFORT = 4e11
"""What they may take for an image, as `effort` counts: some ten seconds of a small machine."""

_PLAIN_EFFORT = 2e10  # of an Xception for an image of 299 x 299 pixels


def peak_bytes(graph: Any) -> int:
    """Returns the bytes of the tensors that live at once, at most, when operations run in the order of their making.

    Constants do not count, since they come from the file of the model.
    """
    operations = [one for one in graph.get_operations() if one.type != "Const"]
    last = {tensor.ref(): index for index, one in enumerate(operations) for tensor in one.inputs}
    ends: dict[int, int] = {}
    live = peak = 0
    for index, one in enumerate(operations):
        for tensor in one.outputs:
            size = (tensor.shape.num_elements() or 0) * tensor.dtype.size
            live += size
            end = last.get(tensor.ref(), index)
            ends[end] = ends.get(end, 0) + size
        peak = max(peak, live)
        live -= ends.pop(index, 0)
    return peak


def effort(graph: Any) -> float:
    """Returns the multiply-adds of a traced graph, where each number that an operation puts out counts as 32."""
    total = 0.0
    for one in graph.get_operations():
        if one.type == "Const":
            continue
        outputs = [tensor.shape.num_elements() or 0 for tensor in one.outputs]
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
