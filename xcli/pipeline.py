"""The tf.data pipeline from image references to batches of pixels: ordered, parallel, bounded.

    refs --(generator)--> number --(map: decode, in parallel, in order)--> pixels, error --> batch --> prefetch

References stay in Python and only their numbers travel; at most `workers` + 3 batches of them exist at a time.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from xcli.errors import ImageError, XcliError
from xcli.images import Preprocessing, load_image, prepare
from xcli.records import ImageBatch, ImageRef
from xcli.runtime import load_tensorflow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Decoder = Callable[[str, Preprocessing], "NDArray[np.uint8]"]

DEFAULT_TIMEOUT = 60.0
"""Seconds that one image may take to be read and decoded."""

MAX_ABANDONED = 16
"""Threads given up on (still reading from a dead mount, say) before the run stops."""

_SEPARATOR = b"\0"


def default_workers() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class DecoderPool:
    """Runs decodes in threads of its own, so that one that hangs can be left behind.

    Args:
        decode: what to run.
        timeout: seconds for one image; after that its thread is abandoned and the image is an error.
        max_abandoned: how many threads may hang at the same time.
    """

    def __init__(self, decode: Decoder, timeout: float, max_abandoned: int = MAX_ABANDONED) -> None:
        self._decode, self._timeout, self._max_abandoned = decode, timeout, max_abandoned
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._abandoned = 0
        self._closed = False
        self.failure: XcliError | None = None

    def run(self, location: str, preprocessing: Preprocessing) -> NDArray[np.uint8] | ImageError:
        """Decodes one image; blocks for at most the timeout."""
        if self.failure is not None:
            return ImageError("timeout", "not tried: too many images before it did not answer")
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self)
        outcome = worker.submit(lambda: self._decode(location, preprocessing), self._timeout)
        if outcome is None:
            return self._abandon()
        self._idle.put(worker)
        if isinstance(outcome, Exception) and not isinstance(outcome, ImageError):
            raise outcome
        return outcome

    def _abandon(self) -> ImageError:
        with self._lock:
            self._abandoned += 1
            if self._abandoned > self._max_abandoned:
                self.failure = XcliError(
                    f"{self._abandoned} images at once did not answer within --image-timeout {self._timeout:g} s: "
                    "is the storage they lie on still there?"
                )
        return ImageError("timeout", f"not read and decoded within {self._timeout:g} s")

    def returned(self) -> None:
        """Called by an abandoned thread that came back after all."""
        with self._lock:
            self._abandoned -= 1

    def close(self) -> None:
        """Ends the threads that are idle."""
        while not self._idle.empty():
            self._idle.get().stop()


class _Worker:
    """One daemon thread and the single task it may be given at a time."""

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._given_up = False
        threading.Thread(target=self._loop, name="xception-decode", daemon=True).start()

    def submit(self, task: Callable[[], NDArray[np.uint8]], timeout: float) -> Any:
        """What a task returned or raised; None when it takes longer than `timeout` seconds.

        After None the worker is of no more use.
        """
        self._tasks.put(task)
        try:
            return self._results.get(timeout=timeout)
        except queue.Empty:
            with self._lock:
                if self._results.empty():
                    self._given_up = True
                    return None
            return self._results.get()

    def stop(self) -> None:
        self._tasks.put(None)

    def _loop(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                outcome: Any = task()
            except Exception as error:  # noqa: BLE001 - raised again by the pool, or a row
                outcome = error
            with self._lock:
                if self._given_up:
                    break
                self._results.put(outcome)
        else:
            return
        self._pool.returned()


class PixelPipeline:
    """Batches of decoded images, in the order of the references.

    Args:
        refs: the references; consumed lazily, in a thread of tf.data.
        preprocessing: what to make of each image.
        batch_size: images in a batch; the last one may have fewer.
        workers: decodes at a time.
        timeout: seconds for one image.
        decode: reads and decodes one image (for tests).

    Iterating raises what the iteration of `refs` raised, after the batches before it, and XcliError when too many
    images hang. Every reference is in exactly one batch.
    """

    def __init__(
        self,
        refs: Iterator[ImageRef],
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        workers: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        decode: Decoder = load_image,
    ) -> None:
        self._refs, self._preprocessing, self._batch_size = refs, preprocessing, batch_size
        self._workers = workers or default_workers()
        self._pool = DecoderPool(decode, timeout)
        self._pending: dict[int, ImageRef] = {}
        self._listing_failure: BaseException | None = None
        self._stopped = threading.Event()

    def _numbers(self) -> Iterator[int]:
        try:
            for number, ref in enumerate(self._refs):
                if self._stopped.is_set():
                    return
                self._pending[number] = ref
                yield number
        except Exception as error:  # noqa: BLE001 - raised again, as it is, where the batches are consumed
            self._listing_failure = error

    def _load(self, number: Any) -> tuple[NDArray[np.uint8], bytes]:
        import numpy as np

        ref = self._pending[int(number)]
        outcome = ref.error or self._pool.run(ref.location, self._preprocessing)
        if isinstance(outcome, ImageError):
            size = self._preprocessing.size
            error = outcome.reason.encode() + _SEPARATOR + outcome.message.encode("utf-8", "backslashreplace")
            return np.zeros((size, size, 3), np.uint8), error
        return outcome, b""

    def dataset(self) -> Any:
        """The `tf.data.Dataset` of (number int64[b], pixels uint8[b, size, size, 3], error string[b])."""
        tf = load_tensorflow()
        prepare()
        size = self._preprocessing.size

        def load(number: Any) -> tuple[Any, Any, Any]:
            pixels, error = tf.numpy_function(self._load, [number], [tf.uint8, tf.string], stateful=False)
            return number, tf.ensure_shape(pixels, (size, size, 3)), tf.ensure_shape(error, ())

        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        # The waiting threads of `map` do no work of their own; keeping them apart leaves TensorFlow's to the engine.
        options.threading.private_threadpool_size = self._workers + 2
        numbers = tf.data.Dataset.from_generator(self._numbers, output_signature=tf.TensorSpec((), tf.int64))
        decoded = numbers.map(load, num_parallel_calls=self._workers, deterministic=True)
        return decoded.batch(self._batch_size).prefetch(1).with_options(options)

    def __iter__(self) -> Iterator[ImageBatch]:
        # A thread of its own feeds the caller: waiting in TensorFlow cannot be interrupted, waiting on a queue can.
        ready: queue.Queue[Any] = queue.Queue(maxsize=1)
        threading.Thread(target=self._feed, args=(ready,), name="xception-feed", daemon=True).start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield self._batch(*item)
                if self._pool.failure is not None:
                    raise self._pool.failure
            if self._listing_failure is not None:
                raise self._listing_failure
        finally:
            self._stopped.set()
            self._pool.close()

    def _feed(self, ready: queue.Queue[Any]) -> None:
        try:
            with load_tensorflow().device("/CPU:0"):
                for item in self.dataset():
                    if not self._offer(ready, item):
                        return
            self._offer(ready, None)
        except Exception as error:  # noqa: BLE001 - raised again, as it is, in the caller's thread
            self._offer(ready, error)

    def _offer(self, ready: queue.Queue[Any], item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                ready.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def _batch(self, numbers: Any, pixels: Any, errors: Any) -> ImageBatch:
        refs = tuple(self._pending.pop(number) for number in numbers.numpy().tolist())
        return ImageBatch(refs, pixels.numpy(), tuple(_error(code) for code in errors.numpy().tolist()))


def _error(code: bytes) -> ImageError | None:
    if not code:
        return None
    reason, _, message = code.partition(_SEPARATOR)
    return ImageError(reason.decode(), message.decode())
