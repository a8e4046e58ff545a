"""Applies functions to items in several threads, and returns the results in the order of the items."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedMap(Generic[Item, Result]):
    """Results of functions that run in threads, in the order of the items; to be iterated once.

    Iterating gives (item, result) and raises what `items` or a function raised, after the results of all items before.
    At most one item a thread, and one more, is taken before the consumer asks for it.

    Args:
        items: taken lazily, by one thread at a time; the next free thread gets the next item.
        functions: one for each thread; the same function may be given several times.
        stop: called when the consumer stops; it makes a waiting `items` end.
    """

    def __init__(
        self, items: Iterator[Item], functions: Sequence[Callable[[Item], Result]], stop: Callable[[], None]
    ) -> None:
        self._items, self._functions, self._stop = items, functions, stop
        self._turn = threading.Lock()
        self._taken = 0
        self._ended = False
        self._room = threading.Semaphore(len(functions) + 1)
        # Numbers and their outcomes: an item with its result, a failure, or None for the end of the items.
        self._done: queue.SimpleQueue[tuple[int, tuple[Item, Result] | BaseException | None]] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[tuple[Item, Result]]:
        for function in self._functions:
            threading.Thread(target=self._work, args=(function,), name="xception-stream", daemon=True).start()
        early: dict[int, tuple[Item, Result] | BaseException | None] = {}
        number = 0
        try:
            while True:
                while number not in early:
                    early.update([self._done.get()])
                outcome = early.pop(number)
                if outcome is None:
                    return
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
                del outcome
                self._room.release()
                number += 1
        finally:
            self._ended = True
            self._stop()
            for _ in self._functions:
                self._room.release()

    def _work(self, function: Callable[[Item], Result]) -> None:
        while True:
            self._room.acquire()
            with self._turn:
                if self._ended:
                    return
                number = self._taken
                self._taken += 1
                try:
                    item = next(self._items)
                except BaseException as error:  # noqa: BLE001 - raised again, as it is, in the consumer's thread
                    self._ended = True
                    self._done.put((number, None if isinstance(error, StopIteration) else error))
                    return
            try:
                self._done.put((number, (item, function(item))))
            except BaseException as error:  # noqa: BLE001 - likewise
                self._done.put((number, error))
            del item
