"""The tf.data pipeline from image references to batches of pixels: ordered, parallel, bounded.

    refs --(generator)--> number --(map: decode, in parallel, in order)--> number, pixels --> batch --> prefetch

References and errors stay in Python and only numbers and pixels travel. Ahead of the batch in the consumer's hands
there are at most four batches, and images on their way: twice as many as `workers`. Bytes out of object stores are
fetched ahead of that (`xcli.inference.prefetch`).
"""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.core.records import FileState, ImageBatch, ImageRef
from xcli.core.tensorflow import load_tensorflow
from xcli.images.decoders import load_decoders
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.inference.decoder_pool import Decoder, DecoderPool
from xcli.inference.options import DEFAULT_TIMEOUT
from xcli.inference.prefetch import Coming, ReadAhead
from xcli.inference.profiler import Profile, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


def default_workers() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class PixelPipeline:
    """Batches of decoded images, in the order of the references; to be iterated once.

    Args:
        refs: the references; consumed lazily, in a thread of tf.data.
        preprocessing: what to make of each image.
        batch_size: images in a batch; the last one may have fewer.
        workers: decodes at a time.
        timeout: seconds for one image.
        decode: reads and decodes one image (for tests).
        profile: clocks to count the listing and the decodes on.

    Iterating raises what the iteration of `refs` raised, after all that it gave before; what `decode` raised other
    than ImageError; and XcliError when too many images hang. Every reference is in exactly one batch.
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
        profile: Profile | None = None,
    ) -> None:
        self._preprocessing, self._batch_size = preprocessing, batch_size
        self._workers = workers or default_workers()
        self._profile = profile or Profile(self._workers)
        self._refs = ReadAhead(timed(refs, self._profile, "listing"))
        self._pool = DecoderPool(decode, timeout)
        self._pending: dict[int, ImageRef] = {}
        self._coming: dict[int, Coming] = {}
        self._errors: dict[int, ImageError] = {}
        self._stamps: dict[int, FileState] = {}
        self._failure: BaseException | None = None
        self._listing_failure: Exception | None = None
        self._stopped = threading.Event()
        self._room = threading.Semaphore(1)
        """Acquired for a batch to wait for the consumer, released when it is taken."""

    def _numbers(self) -> Iterator[int]:
        try:
            for number, (ref, coming) in enumerate(self._refs):
                if self._stopped.is_set():
                    return
                self._pending[number] = ref
                if coming is not None:
                    self._coming[number] = coming
                yield number
        except Exception as error:  # noqa: BLE001 - raised again, as it is, where the batches are consumed
            self._listing_failure = error

    def _load(self, number: Any) -> NDArray[np.uint8]:
        import numpy as np

        number = int(number)
        ref, coming = self._pending[number], self._coming.pop(number, None)
        try:
            with self._profile.stage("decode"):
                if coming is not None:
                    outcome = self._load_coming(number, coming)
                else:
                    outcome = ref.error or self._pool.run(
                        ref.location, self._preprocessing, lambda: self._stamp(number, ref.location.state())
                    )
        except BaseException as error:
            # TensorFlow makes a text of it.
            self._failure = self._failure or error
            raise
        if isinstance(outcome, ImageError):
            self._errors[number] = outcome
            return np.zeros((self._preprocessing.size, self._preprocessing.size, 3), np.uint8)
        return outcome

    def _load_coming(self, number: int, coming: Coming) -> NDArray[np.uint8] | ImageError:
        try:
            return self._pool.run(coming, self._preprocessing)
        finally:
            coming.drop()
            # A store says with the bytes what state they are of; of a file it is looked up just before.
            self._stamp(number, coming.stamp)

    def _stamp(self, number: int, stamp: FileState | None) -> None:
        if stamp is not None:
            self._stamps[number] = stamp

    def dataset(self) -> Any:
        """The `tf.data.Dataset` of (number int64[b], pixels uint8[b, size, size, 3]); errors are kept aside."""
        tf = load_tensorflow()
        load_decoders()
        size = self._preprocessing.size

        def load(number: Any) -> tuple[Any, Any]:
            pixels = tf.numpy_function(self._load, [number], tf.uint8)
            return number, tf.ensure_shape(pixels, (size, size, 3))

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
        ready: queue.SimpleQueue[ImageBatch | BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._feed, args=(ready,), name="xception-feed", daemon=True).start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._room.release()
                yield item
            if self._pool.failure is not None:
                raise self._pool.failure
            if self._listing_failure is not None:
                raise self._listing_failure
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the iteration early, from any thread; who waits for a batch gets no more."""
        self._stopped.set()
        self._refs.stop()
        self._pool.close()
        self._room.release()

    def _feed(self, ready: queue.SimpleQueue[ImageBatch | BaseException | None]) -> None:
        try:
            with load_tensorflow().device("/CPU:0"):
                batches = iter(self.dataset())
                while self._room.acquire() and not self._stopped.is_set():
                    item = next(batches, None)
                    if item is None:
                        ready.put(None)
                        return
                    ready.put(self._batch(item[0].numpy().tolist(), item[1].numpy()))
                ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again, as it is, in the caller's thread
            ready.put(self._failure or error)

    def _batch(self, numbers: list[int], pixels: NDArray[np.uint8]) -> ImageBatch:
        refs = tuple(self._pending.pop(number) for number in numbers)
        errors = tuple(self._errors.pop(number, None) for number in numbers)
        return ImageBatch(refs, pixels, errors, tuple(self._stamps.pop(number, None) for number in numbers))
