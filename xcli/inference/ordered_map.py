"""Batches computed several at a time, by one engine or by several, and handed on in order."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Done(Generic[Item, Result]):
    """What became of one number: an item with its result, a failure, or (none of them) the end."""

    number: int
    pair: tuple[Item, Result] | None = None
    failure: BaseException | None = None


class OrderedMap(Generic[Item, Result]):
    """Threads that take items from one iterator, whichever is free, and compute a result of each; to be iterated once.

    Iterating gives (item, result) in the order of the items, and raises what the iterator or a computation raised,
    after the results of all items before. Between the iterator and the consumer there is never more than one item a
    thread, and one.

    Args:
        items: taken lazily, by one thread at a time.
        computes: one a thread, which calls nothing else; the same function may be there several times.
        stop: called when the consumer wants no more; it makes a waiting `items` end.
    """

    def __init__(
        self, items: Iterator[Item], computes: Sequence[Callable[[Item], Result]], stop: Callable[[], None]
    ) -> None:
        self._items, self._computes, self._stop = items, computes, stop
        self._turn = threading.Lock()
        self._taken = 0
        self._ended = False
        self._room = threading.Semaphore(len(computes) + 1)
        self._done: queue.SimpleQueue[_Done[Item, Result]] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[tuple[Item, Result]]:
        for compute in self._computes:
            threading.Thread(target=self._work, args=(compute,), name="xception-stream", daemon=True).start()
        early: dict[int, _Done[Item, Result]] = {}
        number = 0
        try:
            while True:
                while number not in early:
                    done = self._done.get()
                    early[done.number] = done
                done = early.pop(number)
                if done.failure is not None:
                    raise done.failure
                if done.pair is None:
                    return
                yield done.pair
                del done
                self._room.release()
                number += 1
        finally:
            self._ended = True
            self._stop()
            for _ in self._computes:
                self._room.release()

    def _work(self, compute: Callable[[Item], Result]) -> None:
        while True:
            self._room.acquire()
            with self._turn:
                if self._ended:
                    return
                number = self._taken
                self._taken += 1
                try:
                    item = next(self._items)
                except StopIteration:
                    self._ended = True
                    self._done.put(_Done(number))
                    return
                except BaseException as error:  # noqa: BLE001 - raised again, as it is, in the consumer's thread
                    self._ended = True
                    self._done.put(_Done(number, failure=error))
                    return
            try:
                self._done.put(_Done(number, (item, compute(item))))
            except BaseException as error:  # noqa: BLE001 - likewise
                self._done.put(_Done(number, failure=error))
            del item
