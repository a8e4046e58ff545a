"""How many images a batch should have, by device and free memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xcli.core.process import free_memory
from xcli.core.tensorflow import arithmetic_dtype, load_tensorflow
from xcli.models.architecture import IMAGE_SIZE

if TYPE_CHECKING:
    from xcli.core.tensorflow import Precision

CPU_BATCH, GPU_BATCH = 16, 128
"""Images in a batch of 299 x 299; a CPU gains nothing from more, and a GPU little."""

STREAMS = 2
"""Batches computed at a time: while one waits (for memory, for its last thread, for a copy), the other computes."""

_IMAGE_BYTES = 48 << 20
"""Peak memory of the activations of one 299 x 299 image in float32: input and output of the widest layers."""

_SHARE = 0.5
"""Of the free memory; the rest is for decoding, output, and everybody else."""


def default_batch_size(device: str, image_size: int = IMAGE_SIZE, precision: Precision = "float32") -> int:
    """Images in a batch that keep a TensorFlow device busy and fit well within its free memory.

    Args:
        device: name of a TensorFlow device.
        image_size: side of the input, in pixels; larger images come in smaller batches.
        precision: of the arithmetic.
    """
    on_cpu = device.startswith("/CPU")
    larger = max(1.0, (image_size / IMAGE_SIZE) ** 2)
    batch = max(1, int((CPU_BATCH if on_cpu else GPU_BATCH) / larger))
    free = free_memory() if on_cpu else _free_gpu_memory(device)
    if free is None:
        return batch
    dtype = load_tensorflow().dtypes.as_dtype(arithmetic_dtype(precision))
    image = _IMAGE_BYTES * dtype.size / 4 * (image_size / IMAGE_SIZE) ** 2
    while batch > 1 and batch * STREAMS * image > free * _SHARE:
        batch //= 2
    return batch


def _free_gpu_memory(device: str) -> int | None:
    """Bytes that TensorFlow will let itself have on a GPU, less what it has."""
    from tensorflow.python.client import device_lib

    name = f"/device:{device.lstrip('/')}"
    for found in device_lib.list_local_devices():
        if found.name == name:
            used = load_tensorflow().config.experimental.get_memory_info(device.lstrip("/"))["current"]
            return int(found.memory_limit) - int(used)
    return None
