"""Deferring signals during operations that must not be interrupted halfway."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def defer_signals() -> Iterator[list[int]]:
    """A context that defers the first SIGINT, SIGTERM or SIGHUP until its end; a second one takes effect at once.

    It gives the list of the signals that wait, and does nothing outside the main thread, where Python handles none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    handlers: dict[int, Any] = {}
    waiting: list[int] = []

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        handlers.clear()

    def hold(number: int, _: Any) -> None:
        waiting.append(number)
        if len(waiting) > 1:
            restore()
            signal.raise_signal(number)

    for number in _SIGNALS:
        handler = signal.getsignal(number)
        # SIG_IGN stays so, and a handler that is not Python's (None) cannot be put back.
        if handler not in (signal.SIG_IGN, None):
            handlers[number] = handler
            signal.signal(number, hold)
    try:
        yield waiting
    finally:
        restore()
        if len(waiting) == 1:
            signal.raise_signal(waiting[0])
