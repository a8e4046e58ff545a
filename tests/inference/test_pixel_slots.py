"""Tests of the memory that is shared with the processes that decode."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from xcli.inference.pixel_slots import PixelSlots, SlotLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAYOUT = SlotLayout(1, 8)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*functions: Callable[[], object]) -> list[OSError]:
    """Calls functions in a thread each, all at one moment; returns what they raised."""
    raised: list[OSError] = []
    together = threading.Barrier(len(functions))

    def call(function: Callable[[], object]) -> None:
        together.wait()
        try:
            function()
        except OSError as error:
            raised.append(error)

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_arrays_are_valid_after_the_end() -> None:
    slots = PixelSlots(LAYOUT)
    slot = slots.take()
    slots.close()
    slot.pixels[:] = 7
    assert (slot.pixels == 7).all()


@pytest.mark.usefixtures("impatient")
def test_several_threads_may_end_it() -> None:
    """The number of a closed descriptor may be another file's already: nothing closes it a second time."""
    for _ in range(300):
        slots = PixelSlots(LAYOUT)
        assert at_once(*[slots.close] * 8) == []


@pytest.mark.usefixtures("impatient")
def test_the_end_while_a_thread_takes() -> None:
    for _ in range(300):
        slots = PixelSlots(LAYOUT)

        def take(slots: PixelSlots = slots) -> None:
            with suppress(ValueError):
                slots.take()

        assert at_once(take, slots.close) == []


def test_a_closed_memory_gives_no_more_slots_and_leaves_the_next_file_alone() -> None:
    slots = PixelSlots(LAYOUT)
    number = slots.descriptor
    slots.close()
    with open(os.devnull, "rb") as other:
        assert other.fileno() == number, "the system gives the same number again"
        for use in (slots.take, lambda: slots.descriptor):
            with pytest.raises(ValueError, match="closed file"):
                use()
        slots.close()
        assert other.read() == b""


def test_a_memory_that_nothing_uses_is_closed() -> None:
    slots = PixelSlots(LAYOUT)
    number = slots.descriptor
    del slots
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
