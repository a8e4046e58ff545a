"""Threads that read and decode images, from which one that hangs can be left behind."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError, MachineError, XcliError
from xcli.core.shortage import has_memory, patiently, shortage
from xcli.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import Readable

Decoder = Callable[["Readable", Preprocessing], "NDArray[np.uint8]"]

MAX_ABANDONED = 16
"""Number of abandoned threads (still reading from a dead mount, say) beyond which the run stops."""

_TIMED_OUT = object()


class DecoderPool:
    """Decodes images in threads of its own, so that one that hangs can be abandoned.

    Args:
        decode: reads and decodes one image.
        timeout: seconds for one image; after that its thread is abandoned and the image is an error.
        max_abandoned: how many threads may hang at the same time.

    Attributes:
        failure: set once more than `max_abandoned` hang.
    """

    def __init__(self, decode: Decoder, timeout: float, max_abandoned: int = MAX_ABANDONED) -> None:
        self._decode, self._timeout, self._max_abandoned = decode, timeout, max_abandoned
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._abandoned = 0
        self._closed = False
        self.failure: MachineError | None = None

    def run(
        self, location: Readable, preprocessing: Preprocessing, before: Callable[[], None] | None = None
    ) -> NDArray[np.uint8] | ImageError:
        """Decodes one image within the timeout; `before` is called in the same thread, before `decode`.

        Raises:
            MachineError: too many images before this one hang, or the machine has too few descriptors, threads or too
                little memory for any image. Then this one is to be tried again, by another run.
            XcliError: the pool is closed.
            Exception: what else `decode` raised.
        """
        try:
            return patiently(lambda: self._run(location, preprocessing, before))
        except MachineError as error:
            # An image that is too large for the memory has a row; the next one will fit.
            cause = error.__cause__
            if isinstance(cause, ImageError) and cause.reason == "too-large" and has_memory():
                return ImageError(cause.reason, cause.message)
            raise

    def _run(
        self, location: Readable, preprocessing: Preprocessing, before: Callable[[], None] | None
    ) -> NDArray[np.uint8] | ImageError:
        """Tries it once; raises an ImageError that a shortage has caused."""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self._closed:
                raise XcliError("the run has been stopped")
            worker = self._idle.pop() if self._idle else _Worker(self)

        def task() -> NDArray[np.uint8]:
            if before is not None:
                before()
            return self._decode(location, preprocessing)

        outcome = worker.submit(task, self._timeout)
        if outcome is _TIMED_OUT:
            return self._abandon()
        with self._lock:
            if self._closed:
                worker.tasks.put(None)
            else:
                self._idle.append(worker)
        if isinstance(outcome, ImageError) and shortage(outcome) is None:
            # A copy: the traceback of the original keeps the bytes of the file and its half-decoded pixels alive.
            return ImageError(outcome.reason, outcome.message)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    def _abandon(self) -> ImageError:
        with self._lock:
            self._abandoned += 1
            if self._abandoned > self._max_abandoned and self.failure is None:
                self.failure = MachineError(
                    f"{self._abandoned} images at once did not answer within --image-timeout {self._timeout:g} s: "
                    "check whether their storage is still mounted"
                )
        return ImageError("timeout", f"not read and decoded within {self._timeout:g} s")

    def returned(self) -> None:
        """Counts one abandoned thread less: it has finished after all."""
        with self._lock:
            self._abandoned -= 1

    def close(self) -> None:
        """Ends the idle threads now, and the others when they have finished."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.tasks.put(None)


class _Worker:
    """One daemon thread, which has at most one task at a time and ends with the task None."""

    def __init__(self, pool: DecoderPool) -> None:
        self._pool = pool
        self.tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._abandoned = False
        threading.Thread(target=self._loop, name="xception-decode", daemon=True).start()

    def submit(self, task: Callable[[], NDArray[np.uint8]], timeout: float) -> Any:
        """Returns what a task returned or raised, or `_TIMED_OUT`: then the worker cannot be used again."""
        self.tasks.put(task)
        left = timeout
        while left > 0:
            # In slices, so that a process that was suspended (Ctrl-Z, a scheduler) loses no more than one of them.
            part = min(left, 1.0)
            try:
                return self._results.get(timeout=part)
            except queue.Empty:
                left -= part
        with self._lock:
            if self._results.empty():
                self._abandoned = True
                return _TIMED_OUT
        return self._results.get()

    def _loop(self) -> None:
        while (task := self.tasks.get()) is not None:
            try:
                outcome: Any = task()
            except BaseException as error:  # noqa: BLE001 - raised again by the pool, or a row
                outcome = error
            with self._lock:
                if self._abandoned:
                    self._pool.returned()
                    return
                self._results.put(outcome)
            del task, outcome  # an idle thread would keep the last image alive
