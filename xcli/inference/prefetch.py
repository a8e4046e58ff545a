"""Objects of stores fetched before their turn to be decoded: a request takes some 50 ms, longer than a decode.

    references --(one thread)--> queue, in order --> the pipeline
                    \\--> requests, in up to 32 threads --> bytes, kept until their turn

A listing without references to object stores passes through untouched.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from xcli.core.errors import ImageError, XcliError
from xcli.core.shortage import patiently, shortage
from xcli.core.text import one_line
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.locations import RemoteObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xcli.core.records import FileState, ImageRef, Location

log = logging.getLogger("xcli")

MAX_OBJECTS = 32
"""Objects that are fetched ahead of the decoders."""

MAX_BYTES = 256 << 20
"""Bytes that they may have together."""

_SHARE = MAX_BYTES // MAX_OBJECTS


class PrefetchedObject:
    """An object that is fetched early, and whose bytes can be read once.

    Args:
        location: what to fetch.
        budget: limits the bytes that are being fetched or kept.
    """

    def __init__(self, location: Location, budget: ByteBudget) -> None:
        self._location, self._budget = location, budget
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._reserved = 0
        self._dropped = self._on_demand = False
        self._data: bytes | None = None
        self._error: BaseException | None = None
        self._state: FileState | None = None

    def reserve(self) -> bool:
        """Waits for room in the budget; must be called in the order in which the objects are read.

        Returns:
            Whether to call `fetch`. A larger object than the budget is fetched only by `read`.
        """
        # An object of unknown size gets an equal share, and is not fetched early if it turns out to be larger.
        size = _SHARE if self._location.size is None else self._location.size
        if size > self._budget.limit:
            self._finish(on_demand=True)
            return False
        self._budget.take(size)
        self._reserved = size
        return True

    def fetch(self) -> None:
        """Fetches the bytes; an error is kept for `read`."""
        try:
            data, state = self._location.fetch(min(self._reserved, MAX_FILE_BYTES))
        except ImageError as error:
            # Larger than when it was listed, or than its share: `read` fetches it in a decoder's thread, like a file.
            # And what the machine had no descriptor or memory for is tried again there.
            on_demand = error.reason == "too-large" or shortage(error) is not None
            self._finish(error=error.with_traceback(None), on_demand=on_demand)
        except BaseException as error:  # noqa: BLE001 - raised again by read()
            self._finish(error=error)
        else:
            self._finish(data, state)

    def _finish(
        self,
        data: bytes | None = None,
        state: FileState | None = None,
        error: BaseException | None = None,
        on_demand: bool = False,
    ) -> None:
        with self._lock:
            self._state, self._error, self._on_demand = state, error, on_demand
            self._data = None if self._dropped else data
            self._reserve_only(len(self._data or b""))
        self._done.set()

    def _reserve_only(self, size: int) -> None:
        self._budget.give_back(self._reserved - size)
        self._reserved = size

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Waits for the bytes, at most `timeout` seconds, and returns them, once.

        Raises:
            ImageError: the object cannot be read, has more bytes, or does not come in time.
            XcliError: the run has been stopped, or the bytes have been returned already.
        """
        if not self._done.wait(timeout):
            raise _late(timeout)
        if self._on_demand:
            return self._fetch_now(max_bytes, timeout)
        with self._lock:
            taken, self._data = self._data, None
            self._reserve_only(0)
        if taken is None:
            raise self._error or XcliError("the run has been stopped")
        return taken

    def _fetch_now(self, max_bytes: int, timeout: float | None) -> bytes:
        answer: Future[tuple[bytes, FileState | None]] = Future()

        def fetch() -> None:
            try:
                answer.set_result(patiently(lambda: self._location.fetch(max_bytes)))
            except BaseException as error:  # noqa: BLE001 - raised again by result()
                answer.set_exception(error)

        # In a thread that can be left behind, should the store not answer.
        threading.Thread(target=fetch, name="xception-fetch", daemon=True).start()
        try:
            data, self._state = answer.result(timeout)
        except TimeoutError as error:
            if answer.done():
                raise
            raise _late(timeout) from error
        return data

    @property
    def state(self) -> FileState | None:
        """The state of what was read; where nothing was read, that of the listing, if there is one."""
        if self._state is not None:
            return self._state
        return self._location.listed_state if isinstance(self._location, RemoteObject) else self._location.state()

    def drop(self) -> None:
        """Releases the bytes, whether they have arrived or not."""
        with self._lock:
            self._dropped, self._data = True, None
            if self._done.is_set():
                self._reserve_only(0)

    def cancel(self) -> None:
        """Lets `read` fail instead of waiting."""
        self._finish()


def _late(timeout: float | None) -> ImageError:
    return ImageError("timeout", f"not read and decoded within {timeout:g} s")


class ByteBudget:
    """A limit to the bytes that are being fetched or kept.

    Args:
        limit: the most that there may be; while there are none, one object of any size is let through.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Waits until so many bytes are free, and takes them."""
        with self._changed:
            self._changed.wait_for(lambda: self.used + size <= self.limit or not self.used or self._closed)
            self.used += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self.used -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class PrefetchedState(Future["FileState | None"]):
    """The state of an object, looked up early; None where the store does not tell it."""

    def __init__(self, location: RemoteObject) -> None:
        super().__init__()
        self._location = location

    def fetch(self) -> None:
        state = None
        try:
            state = self._location.state()
        except Exception as error:  # noqa: BLE001 - it cannot be read either, and its row will say why
            log.debug("%s: %s", one_line(self._location.file), one_line(str(error)))
        finally:
            self.set_result(state)


Work = TypeVar("Work", PrefetchedObject, PrefetchedState)


class Prefetcher(ABC, Generic[Work]):
    """References in their order, with requests for some of them begun early; to be iterated once.

    Args:
        refs: the references. After the first one that needs a request, they are consumed in a thread of this object.

    Iterating gives each reference and its request, or None. It raises what the iteration of `refs` raised, after all
    the references before.
    """

    def __init__(self, refs: Iterator[ImageRef]) -> None:
        self._refs = refs
        self._ready: queue.SimpleQueue[tuple[ImageRef, Work | None] | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(MAX_OBJECTS)
        self._requested: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads = 0
        self._stopped = threading.Event()

    @abstractmethod
    def begin(self, ref: ImageRef) -> Work | None:
        """Creates the request, if one is needed, and hands it to `submit` unless it should not be made early."""

    def submit(self, work: Work) -> None:
        """Queues a request for the threads; first come, first served."""
        self._requested.put(work)
        if self._threads < MAX_OBJECTS:
            try:
                threading.Thread(target=self._work, name="xception-fetch", daemon=True).start()
            except RuntimeError:
                if not self._threads:
                    raise
                return  # no more threads can be started; those there are will get to it
            self._threads += 1

    def __iter__(self) -> Iterator[tuple[ImageRef, Work | None]]:
        for ref in self._refs:
            work = self.begin(ref)
            if work is None:
                yield ref, None
                continue
            threading.Thread(target=self._pull, name="xception-listing", daemon=True).start()
            yield ref, work
            yield from self._pulled()
            return

    def _pulled(self) -> Iterator[tuple[ImageRef, Work | None]]:
        while (item := self._ready.get()) is not None and not self._stopped.is_set():
            if isinstance(item, BaseException):
                raise item
            self._room.release()
            yield item

    def _pull(self) -> None:
        last: BaseException | None = None
        try:
            for ref in self._refs:
                work = self.begin(ref)
                self._room.acquire()
                if self._stopped.is_set():
                    break
                self._ready.put((ref, work))
        except BaseException as error:  # noqa: BLE001 - raised again where the references are consumed
            last = error
        self._ready.put(last)
        for _ in range(self._threads):
            self._requested.put(None)

    def _work(self) -> None:
        while (work := self._requested.get()) is not None:
            if self._stopped.is_set():
                work.cancel()
            else:
                work.fetch()
            del work  # an idle thread would keep the last object alive

    def stop(self) -> None:
        """Ends the iteration early, from any thread; answers to requests under way are discarded."""
        self._stopped.set()
        self._ready.put(None)
        self._room.release()


class ObjectPrefetcher(Prefetcher[PrefetchedObject]):
    """References; for those in object stores, what to read in the place of their location."""

    def __init__(self, refs: Iterator[ImageRef]) -> None:
        super().__init__(refs)
        self._budget = ByteBudget(MAX_BYTES)

    def begin(self, ref: ImageRef) -> PrefetchedObject | None:
        if ref.error is not None or not ref.location.remote:
            return None
        prefetched = PrefetchedObject(ref.location, self._budget)
        if prefetched.reserve():
            self.submit(prefetched)
        return prefetched

    def stop(self) -> None:
        super().stop()
        self._budget.close()


class _StatePrefetcher(Prefetcher[PrefetchedState]):
    def __init__(self, refs: Iterator[ImageRef], wanted: Callable[[ImageRef], bool]) -> None:
        super().__init__(refs)
        self._wanted = wanted

    def begin(self, ref: ImageRef) -> PrefetchedState | None:
        if not (isinstance(ref.location, RemoteObject) and ref.location.listed_state is None and self._wanted(ref)):
            return None
        state = PrefetchedState(ref.location)
        self.submit(state)
        return state


def with_states(refs: Iterator[ImageRef], wanted: Callable[[ImageRef], bool]) -> Iterator[ImageRef]:
    """Yields all references; looks up the state of objects that were named without being listed, many at a time.

    Args:
        refs: the references.
        wanted: selects those whose state is needed.
    """
    prefetcher = _StatePrefetcher(refs, wanted)
    try:
        for ref, state in prefetcher:
            if state is None:
                yield ref
            else:
                assert isinstance(ref.location, RemoteObject)
                yield replace(ref, location=replace(ref.location, listed_state=state.result()))
    finally:
        prefetcher.stop()
