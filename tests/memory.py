"""Limits on the memory and time that a block of code takes."""

from __future__ import annotations

import time
import tracemalloc
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def frugality() -> Iterator[None]:
    """Fails if the block takes more than a second of work, 20 MB by Python's count, or 100 MB by that of the system."""
    before = resident()
    tracemalloc.start()
    begin = time.process_time()
    try:
        yield
        seconds = time.process_time() - begin
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert peak < 20 << 20
    assert resident() - before < 100 << 20


def resident() -> int:
    """The memory of this process at its peak, in bytes; 0 where the system does not tell."""
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    return 0
