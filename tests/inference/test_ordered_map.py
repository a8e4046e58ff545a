"""Several batches at a time: order, bounds, failures, an early end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from xcli.inference.ordered_map import OrderedMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def nothing() -> None:
    pass


def slow_when_even(item: int) -> int:
    time.sleep(0.01 * (item % 2 == 0))
    return item * item


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("items", [0, 1, 2, 33])
def test_in_order_and_complete(count: int, items: int) -> None:
    found = list(OrderedMap(iter(range(items)), [slow_when_even] * count, nothing))
    assert found == [(item, item * item) for item in range(items)]


def test_so_many_at_a_time() -> None:
    together = threading.Barrier(3, timeout=10)
    assert len(list(OrderedMap(iter(range(6)), [lambda _: together.wait()] * 3, nothing))) == 6


def test_items_are_taken_only_when_there_is_room() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = iter(OrderedMap(items(), [slow_when_even] * 2, nothing))
    for number in range(5):
        assert next(results)[0] == number
        time.sleep(0.05)
        # Those given out, the one in the consumer's hands included, and as many more as the promise says.
        assert len(taken) <= number + 3
    results.close()  # type: ignore[attr-defined]


def test_every_computation_has_its_thread_and_the_order_stays() -> None:
    both = threading.Barrier(2, timeout=10)

    def named(name: str) -> Callable[[int], tuple[str, int]]:
        def compute(item: int) -> tuple[str, int]:
            both.wait()  # neither gets on without the other
            return name, item

        return compute

    found = list(OrderedMap(iter(range(10)), [named("one"), named("two")], nothing))
    assert [item for item, _ in found] == [item for _, (_, item) in found] == list(range(10))
    assert sorted(name for _, (name, _) in found) == ["one"] * 5 + ["two"] * 5


@pytest.mark.parametrize("failing", [0, 1, 7])
def test_a_failure_comes_after_the_results_before_it(failing: int) -> None:
    def compute(item: int) -> int:
        if item == failing:
            raise ValueError("no good")
        return slow_when_even(item)

    found: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match="no good"):
        found.extend(OrderedMap(iter(range(20)), [compute] * 2, nothing))
    assert [item for item, _ in found] == list(range(failing))


def test_a_failure_of_the_items_comes_after_them() -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        raise OSError("the mount is gone")

    found: list[tuple[int, int]] = []
    with pytest.raises(OSError, match="the mount is gone"):
        found.extend(OrderedMap(items(), [slow_when_even] * 2, nothing))
    assert [item for item, _ in found] == [0, 1, 2, 3]


def test_who_stops_early_stops_the_items_and_the_threads() -> None:
    stop = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        yield 1
        stop.wait(30)

    results = iter(OrderedMap(items(), [slow_when_even] * 2, stop.set))
    assert next(results) == (0, 0)
    results.close()  # type: ignore[attr-defined]
    assert stop.is_set()
    deadline = time.monotonic() + 10
    while any(thread.name == "xception-stream" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads are left behind"
        time.sleep(0.01)
