"""Objects of stores fetched ahead of their decoding: a request takes some fifty milliseconds, a decode fewer.

    refs --(one thread)--> queue, in order --> the pipeline
              \\--> requests, some threads --> bytes, waiting for their turn

Only what lies in an object store goes this way; a listing without such passes through untouched. How much is under way
depends on the store, not on this machine's processors.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar

from xcli.core.errors import ImageError, XcliError
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

_PATIENCE = 0.5
"""Seconds after which a thread that waits looks whether it still should."""


class Coming:
    """An object on its way: a location like the one that it stands for, but its bytes are given once.

    Args:
        location: what is to be fetched.
        budget: what its bytes count against.
    """

    def __init__(self, location: Location, budget: Budget) -> None:
        self._location, self._budget = location, budget
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._counted = 0
        self._dropped = False
        self._later = False
        self._data: bytes | None = None
        self._error: BaseException | None = None
        self._read: FileState | None = None

    def admit(self) -> bool:
        """Waits until there is room; says whether to `fetch` it. To be called in the order in which they are read."""
        size = self._location.size
        # An object of unknown size counts for its share, and is not fetched ahead if it has more.
        self._counted = _SHARE if size is None else size
        if self._counted > self._budget.limit:
            self._counted = 0
            self._leave()
            return False
        self._budget.take(self._counted)
        return True

    def fetch(self) -> None:
        """Fetches the bytes; what goes wrong is for who reads them."""
        try:
            data, stamp = self._location.fetch(min(self._counted, MAX_FILE_BYTES))
        except ImageError as error:
            # Larger than it was when it was listed, or than its share.
            if error.reason == "too-large":
                self._leave()
            else:
                self._finish(error=error.with_traceback(None))
        except BaseException as error:  # noqa: BLE001 - raised again where the bytes are wanted
            self._finish(error=error)
        else:
            self._finish(data, stamp)

    def _finish(
        self, data: bytes | None = None, stamp: FileState | None = None, error: BaseException | None = None
    ) -> None:
        with self._lock:
            self._read, self._error = stamp, error
            self._data = None if self._dropped else data
            self._count(len(self._data or b""))
        self._done.set()

    def _leave(self) -> None:
        """Leaves the fetching to who wants the bytes, one a decoder as with files."""
        with self._lock:
            self._later = True
            self._count(0)
        self._done.set()

    def _count(self, size: int) -> None:
        self._budget.give(self._counted - size)
        self._counted = size

    def read(self, max_bytes: int) -> bytes:
        """Waits for the bytes and gives them, once.

        Raises:
            ImageError: as its location does.
        """
        self._done.wait()
        if self._later:
            data, self._read = self._location.fetch(max_bytes)
            return data
        with self._lock:
            taken, self._data = self._data, None
            self._count(0)
        if self._error is not None:
            raise self._error
        if taken is None:
            raise XcliError("the images are not wanted any more")
        return taken

    @property
    def stamp(self) -> FileState | None:
        """The state of what was read; where nothing was, that of the listing, if it has been listed."""
        if self._read is not None:
            return self._read
        return self._location.stamp if isinstance(self._location, RemoteObject) else self._location.state()

    def drop(self) -> None:
        """The bytes are not wanted any more, whether they are there or still to come."""
        with self._lock:
            self._dropped, self._data = True, None
            if self._done.is_set():
                self._count(0)

    def cancel(self) -> None:
        """Nobody will fetch it."""
        self._finish(error=XcliError("the images are not wanted any more"))


class Budget:
    """Bytes that are under way or waiting.

    Args:
        limit: the most that there may be; where there are none, one object of any size may come.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Waits for so much room."""
        with self._changed:
            self._changed.wait_for(lambda: self.held + size <= self.limit or not self.held or self._closed)
            self.held += size

    def give(self, size: int) -> None:
        """Gives so much back."""
        with self._changed:
            self.held -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class State:
    """The state of an object, on its way."""

    def __init__(self, location: RemoteObject) -> None:
        self._location = location
        self._done = threading.Event()
        self._found: FileState | None = None

    def fetch(self) -> None:
        """Asks for it."""
        try:
            self._found = self._location.state()
        except Exception as error:  # noqa: BLE001 - that cannot be read either, and then a row says what is wrong
            log.debug("%s: %s", one_line(self._location.url), one_line(str(error)))
        finally:
            self._done.set()

    def cancel(self) -> None:
        """Nobody will ask for it."""
        self._done.set()

    def wait(self) -> FileState | None:
        """Waits for it; None where it cannot be had."""
        self._done.wait()
        return self._found


Work = TypeVar("Work", Coming, State)


class Ahead(ABC, Generic[Work]):
    """References in their order, with work on some of them begun before their turn; to be iterated once.

    Args:
        refs: the references. From the first one that wants work on, they are consumed in a thread of this object's.

    Iterating gives each reference and its work, or None. It raises what the iteration of `refs` raised, after all that
    it gave before.
    """

    def __init__(self, refs: Iterator[ImageRef]) -> None:
        self._refs = refs
        self._ready: queue.Queue[tuple[ImageRef, Work | None] | BaseException | None] = queue.Queue(MAX_OBJECTS)
        self._wanted: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads = 0
        self._stopped = threading.Event()

    @abstractmethod
    def wants(self, ref: ImageRef) -> bool:
        """Whether there is work on a reference."""

    @abstractmethod
    def begin(self, ref: ImageRef) -> Work:
        """Its work, handed to `submit` unless it is to be left."""

    def submit(self, work: Work) -> None:
        """Has work done in one of the threads; first come, first served."""
        self._wanted.put(work)
        if self._threads < MAX_OBJECTS:
            self._threads += 1
            threading.Thread(target=self._work, name="xception-fetch", daemon=True).start()

    def __iter__(self) -> Iterator[tuple[ImageRef, Work | None]]:
        """Begins."""
        for ref in self._refs:
            if not self.wants(ref):
                yield ref, None
                continue
            threading.Thread(target=self._pull, args=(ref,), name="xception-listing", daemon=True).start()
            yield from self._pulled()
            return

    def _pulled(self) -> Iterator[tuple[ImageRef, Work | None]]:
        while not self._stopped.is_set():
            try:
                item = self._ready.get(timeout=_PATIENCE)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _pull(self, first: ImageRef) -> None:
        last: BaseException | None = None
        try:
            for ref in chain((first,), self._refs):
                if not self._put((ref, self.begin(ref) if self.wants(ref) else None)):
                    break
        except BaseException as error:  # noqa: BLE001 - raised again where the references are consumed
            last = error
        self._put(last)
        for _ in range(self._threads):
            self._wanted.put(None)

    def _put(self, item: tuple[ImageRef, Work | None] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def _work(self) -> None:
        while (work := self._wanted.get()) is not None:
            if self._stopped.is_set():
                work.cancel()
            else:
                work.fetch()
            del work  # an idle thread would keep the last object alive

    def stop(self) -> None:
        """Ends the iteration early, from any thread; what requests that are under way still bring is lost."""
        self._stopped.set()


class ReadAhead(Ahead[Coming]):
    """References, those in object stores with their bytes on the way: what to read in the place of the location."""

    def __init__(self, refs: Iterator[ImageRef]) -> None:
        super().__init__(refs)
        self._budget = Budget(MAX_BYTES)

    def wants(self, ref: ImageRef) -> bool:
        """See `Ahead`."""
        return ref.error is None and ref.location.remote

    def begin(self, ref: ImageRef) -> Coming:
        """See `Ahead`."""
        coming = Coming(ref.location, self._budget)
        if coming.admit():
            self.submit(coming)
        return coming

    def stop(self) -> None:
        """See `Ahead`."""
        super().stop()
        self._budget.close()


class _LookAhead(Ahead[State]):
    """References, with the state of some of the objects that were named without being listed."""

    def __init__(self, refs: Iterator[ImageRef], known: Callable[[ImageRef], bool]) -> None:
        super().__init__(refs)
        self._known = known

    def wants(self, ref: ImageRef) -> bool:
        """See `Ahead`."""
        return isinstance(ref.location, RemoteObject) and ref.location.stamp is None and self._known(ref)

    def begin(self, ref: ImageRef) -> State:
        """See `Ahead`."""
        assert isinstance(ref.location, RemoteObject)
        state = State(ref.location)
        self.submit(state)
        return state


def with_states(refs: Iterator[ImageRef], known: Callable[[ImageRef], bool]) -> Iterator[ImageRef]:
    """The references, where objects that were named without being listed have their state looked up, many at a time.

    Args:
        refs: the references.
        known: those whose state is wanted.
    """
    ahead = _LookAhead(refs, known)
    try:
        for ref, state in ahead:
            if state is None:
                yield ref
            else:
                assert isinstance(ref.location, RemoteObject)
                yield replace(ref, location=replace(ref.location, stamp=state.wait()))
    finally:
        ahead.stop()
