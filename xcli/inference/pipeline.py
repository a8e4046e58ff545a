"""The tf.data pipeline from image references to batches of pixels: ordered, parallel, bounded.

    refs --(generator)--> number --(map: decode, in parallel, in order)--> number, pixels --> batch --> prefetch

References and errors stay in Python; only numbers and pixels pass through TensorFlow. Beyond the batch that the
consumer holds, at most four batches are ready, and twice as many images as `workers` are being decoded.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.core.levels import DETAIL
from xcli.core.process import processor_count
from xcli.core.records import FileState, ImageBatch, ImageRef
from xcli.core.tensorflow import load_tensorflow
from xcli.images.decoders import load_decoders
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.images.warnings import listen
from xcli.inference.decoder_pool import Decoder, DecoderPool
from xcli.inference.options import DEFAULT_TIMEOUT
from xcli.inference.prefetch import ObjectPrefetcher, PrefetchedObject
from xcli.inference.profiler import Profile, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger("xcli")


class PixelPipeline:
    """Batches of decoded images, in the order of the references; to be iterated once.

    Args:
        refs: the references; consumed lazily, in a thread of tf.data.
        batch_size: images in a batch; the last one may have fewer.
        workers: number of images decoded at a time.
        timeout: seconds for one image.
        decode: reads and decodes one image with the `preprocessing`.
        profile: counts the time of listing and decoding.

    Iterating raises what the iteration of `refs` raised, after the batches before; what `decode` raised other than
    ImageError; and XcliError when too many images hang. Every reference is in exactly one batch.
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
        self._workers = workers or processor_count()
        self._profile = profile or Profile()
        self._profile.workers = self._workers
        self._refs = ObjectPrefetcher(timed(refs, self._profile, "listing"))
        self._pool = DecoderPool(decode, timeout)
        self._pending: dict[int, tuple[ImageRef, PrefetchedObject | None]] = {}
        self._errors: dict[int, ImageError] = {}
        self._states: dict[int, FileState] = {}
        self._warnings: dict[int, tuple[str, ...]] = {}
        self._failure: BaseException | None = None
        self._listing_failure: Exception | None = None
        self._stopped = threading.Event()
        self._room = threading.Semaphore(1)
        """Acquired before a batch is computed for the consumer, released when the consumer takes it."""

    def _numbers(self) -> Iterator[int]:
        try:
            for number, pending in enumerate(self._refs):
                if self._stopped.is_set():
                    return
                self._pending[number] = pending
                yield number
        except Exception as error:  # noqa: BLE001 - raised again, as it is, where the batches are consumed
            self._listing_failure = error

    def _load(self, number: Any) -> NDArray[np.uint8]:
        import numpy as np

        number = int(number)
        ref, prefetched = self._pending[number]
        try:
            with self._profile.stage("decode"):
                if prefetched is not None:
                    outcome = self._load_prefetched(number, prefetched)
                else:
                    outcome = ref.error or self._pool.run(
                        ref.location, self._preprocessing, lambda: self._begin(number, ref.location.state())
                    )
        except BaseException as error:
            # TensorFlow passes on only its text.
            self._failure = self._failure or error
            raise
        if isinstance(outcome, ImageError):
            self._errors[number] = outcome
            return np.zeros((self._preprocessing.size, self._preprocessing.size, 3), np.uint8)
        return outcome

    def _load_prefetched(self, number: int, prefetched: PrefetchedObject) -> NDArray[np.uint8] | ImageError:
        try:
            return self._pool.run(prefetched, self._preprocessing, lambda: self._begin(number, None))
        finally:
            prefetched.drop()
            # A store sends the state with the bytes; that of a file is looked up just before it is read.
            self._note_state(number, prefetched.state)

    def _begin(self, number: int, state: FileState | None) -> None:
        """Called in the thread that is about to read and decode an image."""
        self._note_state(number, state)
        listen(lambda kind: self._note_warning(number, kind))

    def _note_warning(self, number: int, kind: str) -> None:
        self._warnings[number] = (*self._warnings.get(number, ()), kind)
        pending = self._pending.get(number)
        if pending is not None:  # None: the image took too long, and its batch has gone on
            log.log(DETAIL, "%s: warning: %s", pending[0].path, kind)

    def _note_state(self, number: int, state: FileState | None) -> None:
        if state is not None:
            self._states[number] = state

    def dataset(self) -> Any:
        """Returns the `tf.data.Dataset` of (number int64[b], pixels uint8[b, size, size, 3])."""
        tf = load_tensorflow()
        load_decoders()
        size = self._preprocessing.size

        def load(number: Any) -> tuple[Any, Any]:
            pixels = tf.numpy_function(self._load, [number], tf.uint8)
            return number, tf.ensure_shape(pixels, (size, size, 3))

        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = False
        # The threads of `map` only wait for decoders; a pool of their own leaves TensorFlow's to the engine.
        options.threading.private_threadpool_size = self._workers + 2
        numbers = tf.data.Dataset.from_generator(self._numbers, output_signature=tf.TensorSpec((), tf.int64))
        # AutoGraph would leave a generated file in the temporary directory.
        load = tf.autograph.experimental.do_not_convert(load)
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
            failure = self._pool.failure or self._listing_failure
            if failure is not None:
                raise failure
        finally:
            self.stop()

    def stop(self) -> None:
        """Ends the iteration early, from any thread."""
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
                        break
                    ready.put(self._batch(item[0].numpy().tolist(), item[1].numpy()))
                ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again, as it is, in the caller's thread
            ready.put(self._failure or error)

    def _batch(self, numbers: list[int], pixels: NDArray[np.uint8]) -> ImageBatch:
        refs = tuple(self._pending.pop(number)[0] for number in numbers)
        errors = tuple(self._errors.pop(number, None) for number in numbers)
        states = tuple(self._states.pop(number, None) for number in numbers)
        warnings = tuple(kind for number in numbers for kind in self._warnings.pop(number, ()))
        return ImageBatch(refs, pixels, errors, states, warnings)
