"""Decodes batches of images in processes of their own, of which any may crash, hang or be killed.

A thread for each process hands it chunks of images and deals with what becomes of them. An image whose decoder dies, or
has not enough memory, is tried once more, while no other image is: then the same end makes it an error row.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ImageError, MachineError, XcliError
from xcli.core.levels import DETAIL
from xcli.images.formats import MAX_FILE_BYTES
from xcli.inference.decoder_messages import pack_location, receive, send
from xcli.inference.decoder_process import WARNING_BITS
from xcli.inference.decoder_server import DecoderServer, DecoderSpec, ServerGone, Worker, take_server
from xcli.inference.pixel_slots import DECODING, DONE, READING, STAGE, WAITING, PixelSlots, note_state

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.pixel_batch import Chunk, PixelBatch
    from xcli.inference.profiler import Profile

log = logging.getLogger("xcli")

MAX_SILENT = 16
"""Images one after the other that cannot be read within the timeout, beyond which the run stops."""

MAX_RESTARTS = 3
"""Times that the decoder of a chunk may end without an image at fault."""

_MESSAGE_BYTES = 16 << 20
"""Bytes of images in a message, from which no more images are added to it."""

Images = dict[int, "list[Any] | bytes"]
"""By their index in the batch: where to read images, or their bytes."""


class DecoderPool:
    """Decodes chunks of batches, several at a time, in the order in which they are submitted.

    Args:
        preprocessing: how images become pixels.
        decoder: reads and decodes an image.
        slots: where the batches are.
        workers: processes that decode.
        timeout: seconds for one image; after that its process is ended and the image is an error.
        profile: counts the time of decoding.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        decoder: DecoderSpec,
        slots: PixelSlots,
        *,
        workers: int,
        timeout: float,
        profile: Profile,
    ) -> None:
        self._settings = (preprocessing, decoder, slots, workers)
        self.timeout, self.profile = timeout, profile
        self.stopped = False
        self.alone = threading.Lock()
        """Held while an image is decoded that may need much memory."""
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._workers = workers
        self._lock = threading.Lock()
        self._silent = 0
        self._server = self._new_server()
        self._threads = [
            threading.Thread(target=_Lane(self).run, name="xception-decode", daemon=True) for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def _new_server(self) -> DecoderServer:
        server = take_server()
        try:
            server.start(*self._settings)
        except ServerGone as error:
            server.close()
            raise MachineError("the processes that decode do not start; -vv shows what they say") from error
        return server

    def server(self, gone: DecoderServer | None = None) -> DecoderServer:
        """Returns the server, which is a new one if the last is the one that is `gone`."""
        with self._lock:
            if self.stopped:
                raise ServerGone
            if gone is not None and self._server is gone:
                gone.close()
                self._server = self._new_server()
            return self._server

    def submit(self, chunk: Chunk) -> None:
        """Queues a chunk; its batch is told when it has been dealt with."""
        chunk.batch.begin()
        self._chunks.put(chunk)

    def next_chunk(self) -> Chunk | None:
        """Returns the next chunk; None once the pool is closed."""
        return self._chunks.get()

    def note_silence(self, silent: bool) -> None:
        """Counts an image that could not be read within the timeout, or was read.

        Raises:
            MachineError: so many could not, one after the other, that their storage is at fault.
        """
        with self._lock:
            self._silent = self._silent + 1 if silent else 0
            if self._silent > MAX_SILENT:
                raise MachineError(
                    f"{self._silent} images one after the other could not be read within --image-timeout "
                    f"{self.timeout:g} s: check whether their storage is still mounted"
                )

    def close(self) -> None:
        """Ends all processes; chunks that are left fail. May be called again, and from any thread."""
        with self._lock:
            if self.stopped:
                return
            self.stopped = True
        for _ in self._threads:
            self._chunks.put(None)
        self._server.close()


@dataclass(slots=True)
class _Lane:
    """A thread, and the process that it hands images to: one after the other, as they end."""

    pool: DecoderPool
    _worker: Worker | None = None
    _server: DecoderServer | None = None

    def run(self) -> None:
        while (chunk := self.pool.next_chunk()) is not None:
            failure: BaseException | None = None
            try:
                self._decode(chunk)
            except ServerGone:
                failure = XcliError("the run has been stopped")
            except BaseException as error:  # noqa: BLE001 - raised again, as it is, where the batches are consumed
                failure = error
            chunk.batch.end(failure)
            del chunk, failure  # an idle thread would keep the last images alive
        if self._worker is not None:
            self._worker.channel.close()

    def _decode(self, chunk: Chunk) -> None:
        images: Images = {}
        size = 0
        for index in chunk.indexes:
            source = self._source(chunk.batch, index)
            if source is None:
                chunk.batch.slot.pixels[index] = 0
                continue
            images[index] = source
            size += len(source) if isinstance(source, bytes) else 0
            if size > _MESSAGE_BYTES:
                self._decode_images(chunk.batch, images)
                images, size = {}, 0
        self._decode_images(chunk.batch, images)

    def _source(self, batch: PixelBatch, index: int) -> list[Any] | bytes | None:
        """Returns where an image is to be read, or its bytes; None if it has an error."""
        ref, prefetched = batch.refs[index]
        error = ref.error
        source: list[Any] | bytes | None = None
        note = batch.slot.notes[index]
        note_state(note, None)
        if prefetched is not None:
            try:
                source = prefetched.read(MAX_FILE_BYTES, self.pool.timeout)
                self.pool.note_silence(False)
            except ImageError as caught:
                error = ImageError(caught.reason, caught.message)
                self.pool.note_silence(error.reason == "timeout")
            finally:
                prefetched.drop()
        elif error is None:
            source = pack_location(ref.location)
            if source is None:
                note_state(note, ref.location.state())
                try:
                    source = ref.location.read(MAX_FILE_BYTES)
                except ImageError as caught:
                    error = ImageError(caught.reason, caught.message)
        if prefetched is not None:
            # A store sends the state with the bytes; that of a file is looked up just before it is read.
            note_state(note, prefetched.state)
        if error is not None:
            batch.errors[index] = error
        return source

    def _decode_images(self, batch: PixelBatch, images: Images, *, alone: bool = False) -> None:
        """Decodes images until each has pixels or an error."""
        restarts = 0
        while images:
            with self.pool.profile.stage("decode", 0):
                answer = self._exchange(batch, images, alone)
            if isinstance(answer, _Death):
                again, culprit = self._bury(batch, images, answer, alone)
                if culprit is None:
                    restarts += 1
                    if restarts > MAX_RESTARTS:
                        raise MachineError(f"the processes that decode end again and again ({answer.how})")
            else:
                again = self._take(batch, images, answer, alone)
            self.pool.profile.count("decode", len(images) - len(again))
            images = again

    def _take(self, batch: PixelBatch, images: Images, answer: dict[str, Any], alone: bool) -> Images:
        """Takes over what a decoder has answered; returns the images that it has said nothing of."""
        if "machine" in answer:
            raise MachineError(str(answer["machine"]))
        if "bug" in answer:
            raise RuntimeError(f"a decoder failed:\n{answer['bug']}")
        left = dict(images)
        for index, reason, message, of_memory in answer["errors"]:
            source = left.pop(index)
            if of_memory and not alone:
                self._decode_alone(batch, {index: source})
            else:
                batch.errors[index] = ImageError(reason, message)
        return self._without_done(batch, left)

    def _without_done(self, batch: PixelBatch, images: Images) -> Images:
        """Returns the images that are not decoded, and notes the warnings of the others."""
        notes, left = batch.slot.notes, {}
        for index, source in images.items():
            stage, _, _, bits = notes[index].tolist()
            if stage != DONE:
                left[index] = source
                continue
            for kind, bit in WARNING_BITS.items() if bits else ():
                if bits & bit:
                    batch.warnings.append(kind)
                    log.log(DETAIL, "%s: warning: %s", batch.refs[index][0].path, kind)
        if len(left) < len(images):
            self.pool.note_silence(False)
        return left

    def _bury(self, batch: PixelBatch, images: Images, death: _Death, alone: bool) -> tuple[Images, int | None]:
        """Deals with the image whose decoder has ended; returns the images to be tried again, and the index of that."""
        culprit = death.culprit
        rest = {index: source for index, source in images.items() if index != culprit}
        again = self._without_done(batch, rest)
        if culprit is not None:
            batch.slot.pixels[culprit] = 0
            if death.error.reason == "timeout" or alone:
                batch.errors[culprit] = death.error
                self.pool.note_silence(death.error.reason == "timeout" and death.reading)
            else:
                log.log(DETAIL, "%s: %s; trying again", batch.refs[culprit][0].path, death.how)
                self._decode_alone(batch, {culprit: images[culprit]})
        return again, culprit

    def _decode_alone(self, batch: PixelBatch, images: Images) -> None:
        with self.pool.alone:
            self._decode_images(batch, images, alone=True)

    def _exchange(self, batch: PixelBatch, images: Images, alone: bool) -> dict[str, Any] | _Death:
        """Has the images decoded; returns the answer, or how the decoder has ended."""
        notes = batch.slot.notes
        notes[list(images), STAGE] = WAITING
        timed_out = False
        try:
            worker = self._live_worker()
            listed = [[index, len(source) if isinstance(source, bytes) else source] for index, source in images.items()]
            data = [source for source in images.values() if isinstance(source, bytes)]
            send(worker.channel, {"slot": batch.slot.number, "alone": alone, "images": listed}, data)
            if self._answers(worker, notes, images):
                message = receive(worker.channel)
                if message is not None and _is_sound(message.value, images):
                    return message.value
            else:
                timed_out = True
        except OSError:
            pass  # it has ended while nobody was looking
        return self._death(batch, images, timed_out)

    def _live_worker(self) -> Worker:
        if self._worker is None:
            self._server = self.pool.server()
            try:
                self._worker = self._server.spawn()
            except ServerGone:
                self._server = self.pool.server(self._server)
                self._worker = self._server.spawn()
            # Messages are taken at once; one that has begun and does not end is no decoder's any more.
            self._worker.channel.settimeout(max(60.0, self.pool.timeout))
        return self._worker

    def _answers(self, worker: Worker, notes: NDArray[np.int64], images: Images) -> bool:
        """Waits for an answer, for no more than the timeout for each image; returns whether it, or an end, has come."""
        poll = select.poll()
        poll.register(worker.channel, select.POLLIN)
        last, left = None, self.pool.timeout
        while left > 0:
            # In slices, so that a process that was suspended (Ctrl-Z, a scheduler) loses no more than one of them.
            part = min(left, 1.0)
            if poll.poll(1000 * part):
                return True
            current = _current(notes, images)
            left = left - part if current == last else self.pool.timeout
            last = current
        return False

    def _death(self, batch: PixelBatch, images: Images, timed_out: bool) -> _Death:
        """Ends the decoder, and finds out which image it died of."""
        worker, server = self._worker, self._server
        assert worker is not None
        assert server is not None
        culprit = _current(batch.slot.notes, images)
        reading = culprit is not None and bool(batch.slot.notes[culprit, STAGE] == READING)
        self._worker = None
        try:
            status = server.end(worker)
        except ServerGone:
            self.pool.server(server)
            return _Death(None, ImageError("crashed", "unknown"), "with all the others")
        if timed_out:
            error = ImageError("timeout", f"not read and decoded within {self.pool.timeout:g} s")
            return _Death(culprit, error, error.message, reading)
        how = _describe_end(status)
        if status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            error = ImageError("too-large", f"its decoder was {how}, most likely for want of memory")
        else:
            error = ImageError("crashed", f"its decoder was {how}")
        return _Death(culprit, error, how, reading)


class _Death(NamedTuple):
    """How a decoder has ended.

    Attributes:
        culprit: index of the image that it was at; None if it was at none.
        error: what that image's row says.
        how: the same about the process.
        reading: whether the image was being read, not decoded.
    """

    culprit: int | None
    error: ImageError
    how: str
    reading: bool = False


def _current(notes: NDArray[np.int64], images: Images) -> int | None:
    """Returns the index of the image that is being read or decoded."""
    return next((index for index in images if notes[index, STAGE] in (READING, DECODING)), None)


def _describe_end(status: int | None) -> str:
    if status is None:
        return "stuck in the system"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed ({signal.Signals(number).name})" if number in signal.valid_signals() else f"killed ({number})"
    return f"ended (exit code {os.waitstatus_to_exitcode(status)})"


def _is_sound(answer: dict[str, Any], images: Images) -> bool:
    """Returns whether an answer is one of this program's; a decoder that a file has damaged may send anything."""
    errors = answer.get("errors")
    return isinstance(errors, list) and all(
        isinstance(error, list)
        and len(error) == 4
        and isinstance(error[0], int)
        and error[0] in images
        and error[1] in ImageError.REASONS
        and isinstance(error[2], str)
        and isinstance(error[3], bool)
        for error in errors
    )
