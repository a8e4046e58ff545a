"""The pipeline from image references to batches of pixels: ordered, parallel, bounded.

    refs --(a thread)--> chunks --> DecoderPool --> batches in shared memory --> tf.data --> ImageBatch

References and errors stay in Python, pixels in memory that is shared with the processes that decode. tf.data takes
whole batches on to the engine. Beyond the batch that the consumer holds, three are under way, and as many more as hold
two chunks for each worker.
"""

from __future__ import annotations

import queue
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.process import processor_count
from xcli.core.shortage import raise_shortage
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.decoder_pool import DecoderPool
from xcli.inference.decoder_server import DecoderSpec
from xcli.inference.options import DEFAULT_TIMEOUT
from xcli.inference.pixel_batch import Chunk, PixelBatch
from xcli.inference.pixel_slots import PixelSlots, SlotLayout
from xcli.inference.prefetch import ObjectPrefetcher, PrefetchedObject
from xcli.inference.profiler import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.core.records import ImageBatch, ImageRef
    from xcli.images.preprocessing import Preprocessing

CHUNK = 8
"""Images that travel to a decoder together, at most."""

MIN_AHEAD = 3
"""Batches that are under way at the same time, besides those that keep the workers busy."""


class PixelPipeline:
    """Batches of decoded images, in the order of the references; to be iterated once.

    Args:
        refs: the references; consumed lazily, in a thread of this object.
        batch_size: images in a batch; the last one may have fewer.
        workers: number of processes that decode.
        timeout: seconds for one image.
        decoder: reads and decodes an image with the `preprocessing`.
        profile: counts the time of listing and decoding.

    Iterating raises what the iteration of `refs` raised, after the batches before; MachineError when the storage of
    many images does not answer, or the machine has no room for the processes. Every reference is in exactly one batch.
    """

    def __init__(
        self,
        refs: Iterator[ImageRef],
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        workers: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        decoder: DecoderSpec | None = None,
        profile: Profile | None = None,
    ) -> None:
        self._preprocessing, self._batch_size = preprocessing, batch_size
        self._workers = workers or processor_count()
        self._timeout = timeout
        self._decoder = decoder or DecoderSpec()
        self._profile = profile or Profile()
        self._profile.workers = self._workers
        self._refs = ObjectPrefetcher(refs)
        self._pending = iter(self._refs)
        self._slots = PixelSlots(SlotLayout(batch_size, preprocessing.size))
        self._pool: DecoderPool | None = None
        self._ordered: queue.SimpleQueue[PixelBatch | None] = queue.SimpleQueue()
        """The batches in the order of the run, complete or not, and None at the end."""
        self._complete: dict[int, PixelBatch] = {}
        self._failure: BaseException | None = None
        self._listing_failure: BaseException | None = None
        self._stopped = threading.Event()
        self._room = threading.Semaphore(MIN_AHEAD + -(-2 * CHUNK * self._workers // batch_size))
        """Acquired before a batch is begun, released when the consumer takes one."""

    def _list(self, pool: DecoderPool) -> None:
        """Takes the references, and hands them to the decoders."""
        listed = 0
        batch: PixelBatch | None = None
        try:
            while self._listing_failure is None:
                if batch is None:
                    self._room.acquire()
                    if self._stopped.is_set():
                        break
                    batch = PixelBatch(listed // self._batch_size, self._slots.take())
                # The first chunks are small, so that all workers have something to do when there are few images.
                room = self._batch_size - len(batch.refs)
                found = self._next(min(CHUNK, room, 1 + listed // (2 * self._workers)))
                if found:
                    begin = len(batch.refs)
                    batch.refs += found
                    if begin == 0:
                        self._ordered.put(batch)
                    pool.submit(Chunk(batch, range(begin, len(batch.refs))))
                    listed += len(found)
                elif self._listing_failure is None:
                    break
                if len(batch.refs) == self._batch_size:
                    batch.end()
                    batch = None
        except BaseException as error:  # noqa: BLE001 - raised again, as it is, where the batches are consumed
            if not self._stopped.is_set():
                self._listing_failure = error
        if batch is not None:
            batch.end()
        self._ordered.put(None)

    def _next(self, count: int) -> list[tuple[ImageRef, PrefetchedObject | None]]:
        """Returns the next references, as many as there are; keeps what their iteration raises."""
        found: list[tuple[ImageRef, PrefetchedObject | None]] = []
        with self._profile.stage("listing", 0):
            try:
                found.extend(islice(self._pending, count))
            except Exception as error:  # noqa: BLE001 - raised again, as it is, where the batches are consumed
                self._listing_failure = error
        self._profile.count("listing", len(found))
        return found

    def _batches(self) -> Iterator[tuple[int, Any]]:
        """Yields the number and the pixels of each batch, as soon as it and all before it are complete."""
        while (batch := self._ordered.get()) is not None:
            batch.done.wait()
            if batch.failure is not None:
                self._failure = batch.failure
                return
            self._complete[batch.number] = batch
            yield batch.number, batch.pixels
            del batch
        self._failure = self._listing_failure

    def arrays(self) -> Iterator[ImageBatch]:
        """Yields the batches without TensorFlow; in place of the iteration."""
        try:
            self._start()
            for number, pixels in self._batches():
                batch = self._complete.pop(number).finished(pixels.copy())
                del pixels
                self._room.release()
                yield batch
            if self._failure is not None:
                raise self._failure
        finally:
            self.stop()

    def dataset(self) -> Any:
        """Returns the `tf.data.Dataset` of (number int64, pixels uint8[b, size, size, 3]), one element a batch."""
        tf = load_tensorflow()
        size = self._preprocessing.size
        options = tf.data.Options()
        options.autotune.enabled = False
        # Its threads only wait for decoders; a pool of their own leaves TensorFlow's to the engine.
        options.threading.private_threadpool_size = 1
        signature = (tf.TensorSpec((), tf.int64), tf.TensorSpec((None, size, size, 3), tf.uint8))
        dataset = tf.data.Dataset.from_generator(self._batches, output_signature=signature)
        return dataset.prefetch(1).with_options(options)

    def __iter__(self) -> Iterator[ImageBatch]:
        # A thread of its own feeds the caller: waiting in TensorFlow cannot be interrupted, waiting on a queue can.
        ready: queue.SimpleQueue[ImageBatch | BaseException | None] = queue.SimpleQueue()
        try:
            self._start()
            threading.Thread(target=self._feed, args=(ready,), name="xception-feed", daemon=True).start()
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self._room.release()
                yield item
        finally:
            self.stop()

    def _start(self) -> None:
        """Starts the processes that decode, and the listing."""
        self._pool = DecoderPool(
            self._preprocessing,
            self._decoder,
            self._slots,
            workers=self._workers,
            timeout=self._timeout,
            profile=self._profile,
        )
        try:
            threading.Thread(target=self._list, args=(self._pool,), name="xception-listing", daemon=True).start()
        except RuntimeError as error:
            raise_shortage(error)
            raise

    def stop(self) -> None:
        """Ends the iteration early, from any thread."""
        self._stopped.set()
        self._refs.stop()
        self._room.release()
        if self._pool is not None:
            self._pool.close()
            self._slots.close()

    def _feed(self, ready: queue.SimpleQueue[ImageBatch | BaseException | None]) -> None:
        import numpy as np

        try:
            with load_tensorflow().device("/CPU:0"):
                for number, pixels in self.dataset():
                    # An array that shares the tensor's memory, where `numpy()` makes a copy.
                    ready.put(self._complete.pop(int(number)).finished(np.asarray(pixels)))
            ready.put(self._failure)
        except BaseException as error:  # noqa: BLE001 - raised again, as it is, in the caller's thread
            ready.put(self._failure or error)
