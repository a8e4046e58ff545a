"""The TensorFlow engine: a forward pass traced once for a static batch of pixels, on one device or on several."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ModelError, UsageError
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.batch_size import STREAMS
from xcli.inference.engines.static_batch import check_pixels, compute_in_pieces
from xcli.inference.graph_memory import HEAD_BYTES, effort, fitting_batch, is_too_slow, peak_bytes
from xcli.models.folded import Forward, embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


class Engine:
    """A forward function traced once for a static batch, called with numpy arrays, from any number of threads.

    The batch shape never changes (a short batch is padded with zeros and cut), so an image's result does not depend
    on its place in the run, nor on its neighbours. The one exception: when the device runs out of memory, the shape is
    halved for the rest of the run, and the current batch is computed again in pieces. Where the layers around an
    Xception would take too much memory for a batch, by their shapes, it is computed in pieces from the start.

    Args:
        forward: maps uint8[batch_size, size, size, 3] to one float32 tensor for each output.
        size: side of the input, in pixels.
        batch_size: images in a batch.
        device: name of a TensorFlow device.
        embedded: put the constants into the graph, which delays the start and gives about 3 % more speed on a CPU; the
            results are the same.

    Raises:
        ModelError: not even one image is within what a model may take.
    """

    def __init__(
        self, forward: Forward, *, size: int, batch_size: int, device: str = "/CPU:0", embedded: bool = False
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"the batch size must be positive; received {batch_size}")
        self.batch_size, self.size, self.device = batch_size, size, device
        self._forward, self._embedded = forward, embedded
        self._lock = threading.Lock()
        self._traced = self._fitting(batch_size)
        self._compiled: _Traced | None = None

    def _fitting(self, batch_size: int) -> _Traced:
        traced = _Traced(self._trace(batch_size), batch_size)
        needed = peak_bytes(traced.function.graph)
        fitting = fitting_batch(needed, batch_size, self.size, self.device)
        if fitting == batch_size:
            work = effort(traced.function.graph)
            if is_too_slow(work, batch_size, self.size):
                raise ModelError(
                    f"the model would take {work / batch_size / 1e9:,.0f} billion operations for one image of "
                    f"{self.size} pixels, far more than an Xception and usual layers around it; it is not run"
                )
            return traced
        if batch_size == 1:
            raise ModelError(
                f"the model would take {needed / (1 << 30):.1f} GiB for one image of {self.size} pixels, of which the "
                f"layers around an Xception may take {HEAD_BYTES / (1 << 30)}; it is not run"
            )
        log.info("the layers around the Xception take much memory: %d images are computed at a time", fitting)
        return self._fitting(fitting)

    def _trace(self, batch_size: int) -> Any:
        tf = load_tensorflow()
        spec = tf.TensorSpec((batch_size, self.size, self.size, 3), tf.uint8)

        def on_device(pixels: Any) -> Sequence[Any]:
            # Tracing does not pass the surrounding device on to the graph; `constant` needs it too.
            with tf.device(self.device):
                return self._forward(pixels)

        # XLA fuses well on a GPU; on a CPU its convolutions are several times slower than oneDNN's.
        traced = tf.function(
            on_device, input_signature=[spec], jit_compile=not self.device.startswith("/CPU"), autograph=False
        )
        token = embedding.set(self._embedded)
        try:
            with tf.device(self.device):
                return traced.get_concrete_function()
        finally:
            embedding.reset(token)

    @property
    def function(self) -> Any:
        """The traced function, with a graph for `computed_batch_size` images."""
        return self._traced.function

    @property
    def is_cold(self) -> bool:
        """Whether the next batch waits until XLA has compiled the network, as the first one on a GPU does."""
        return not self.device.startswith("/CPU") and self._compiled is not self._traced

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of one image's result, for each output."""
        return tuple(tuple(shape[1:]) for shape in self._traced.function.output_shapes)

    @property
    def computed_batch_size(self) -> int:
        """Images computed at a time: `batch_size`, or fewer after the device has run out of memory."""
        return self._traced.batch_size

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Runs uint8[b, size, size, 3], b at most `batch_size`; returns float32[b, ...] for each output.

        Raises:
            UsageError: not even one image fits in the device's memory.
        """
        tf = load_tensorflow()
        check_pixels(pixels, self.size, self.batch_size)
        while True:
            traced = self._traced
            try:
                results = self._run(traced, pixels)
            except tf.errors.OpError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = error.message.partition("\n")[0]
            else:
                self._compiled = traced
                return results
            # Outside of the handler, whose traceback would keep the tensors of this attempt alive.
            self._back_off(traced, reason)

    def _run(self, traced: _Traced, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        tf = load_tensorflow()

        def compute(piece: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            with tf.device(self.device):
                return [output.numpy() for output in traced.function(tf.constant(piece))]

        return compute_in_pieces(pixels, traced.batch_size, compute)

    def _back_off(self, failed: _Traced, reason: str) -> None:
        """Halves the number of images computed at a time, unless another thread has done so since `failed` was used."""
        with self._lock:
            if self._traced is not failed:
                return
            if failed.batch_size == 1:
                raise UsageError(
                    f"not enough memory on {self.device} for one image of {self.size} pixels ({reason}); "
                    "use --device cpu, a smaller --image-size or a lower --precision"
                )
            batch_size = failed.batch_size // 2
            log.warning("out of memory with %d images at a time; continuing with %d", failed.batch_size, batch_size)
            self._traced = _Traced(self._trace(batch_size), batch_size)


class _Traced(NamedTuple):
    """The function for one shape; replaced as a whole, so that threads see a consistent pair."""

    function: Any
    batch_size: int


def _is_out_of_memory(error: Any) -> bool:
    """Returns whether memory ran out; XLA and cuDNN report it with other types of errors than TensorFlow."""
    exhausted = isinstance(error, load_tensorflow().errors.ResourceExhaustedError)
    signs = ("resource_exhausted", "out of memory", "alloc_failed")
    return exhausted or any(sign in error.message.lower() for sign in signs)


class Engines:
    """One engine for each device of a machine, each with its own copy of the weights.

    Args:
        forward, size, batch_size, embedded: see `Engine`; the attributes too.
        devices: TensorFlow devices; they must be of one kind.
    """

    def __init__(
        self, forward: Forward, *, size: int, batch_size: int, devices: Sequence[str], embedded: bool = False
    ) -> None:
        engines = [
            Engine(forward, size=size, batch_size=batch_size, device=device, embedded=embedded) for device in devices
        ]
        self.batch_size, self.output_shapes = batch_size, engines[0].output_shapes
        self.streams = engines * STREAMS
        """One entry for each thread: while one batch of a device waits (for a copy, say), its other one computes."""
