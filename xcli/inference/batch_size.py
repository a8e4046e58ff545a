"""Chooses the number of images in a batch from the device and its free memory."""

from __future__ import annotations

from xcli.core.process import free_memory
from xcli.core.tensorflow import Precision, arithmetic_dtype, load_tensorflow
from xcli.models.architecture import IMAGE_SIZE

CPU_BATCH, GPU_BATCH = 16, 64
"""Images in a batch of 299 x 299. Larger batches gain nothing on a CPU. An H100 computes 128 at a time 8 % faster, but
gets them from memory 37 % slower: blocks above 32 MiB go back to the system, which clears their pages each time."""

STREAMS = 2
"""Batches computed at a time on a device: while one waits (for memory, a copy, its last thread), the other computes. On
an H100 two take 1.53 times the images of one, and three no more."""

IMAGE_BYTES = 48 << 20
"""Peak memory of the activations of one 299 x 299 image in float32: input and output of the widest layers."""

_SHARE = 0.5
"""Share of the free memory for activations; the rest is for decoding, output and other processes."""


def usual_batch_size(images: int, image_size: int) -> int:
    """Returns how many images, `image_size` pixels wide, are as much work as so many of the usual size, or fewer."""
    return max(1, int(images / max(1.0, (image_size / IMAGE_SIZE) ** 2)))


def default_batch_size(device: str, image_size: int = IMAGE_SIZE, precision: Precision = "float32") -> int:
    """Returns a number of images, `image_size` pixels wide, that keeps a TensorFlow device busy and fits its memory."""
    on_cpu = device.startswith("/CPU")
    batch = usual_batch_size(CPU_BATCH if on_cpu else GPU_BATCH, image_size)
    free = free_memory() if on_cpu else _free_gpu_memory(device)
    if free is None:
        return batch
    width = 4 if arithmetic_dtype(precision) == "float32" else 2
    image = IMAGE_BYTES * width / 4 * (image_size / IMAGE_SIZE) ** 2
    while batch > 1 and batch * STREAMS * image > free * _SHARE:
        batch //= 2
    return batch


def _free_gpu_memory(device: str) -> int | None:
    """Returns the bytes that TensorFlow may still allocate on a GPU; None where it does not say."""
    from tensorflow.python.client import device_lib

    name = f"/device:{device.lstrip('/')}"
    for found in device_lib.list_local_devices():
        if found.name == name:
            used = load_tensorflow().config.experimental.get_memory_info(device.lstrip("/"))["current"]
            return int(found.memory_limit) - int(used)
    return None
