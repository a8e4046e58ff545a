"""Warnings about images that are decoded all the same."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DAMAGED_DATA, FEW_BITS = "damaged-data", "few-bits"

HINTS = {
    DAMAGED_DATA: "the data of these JPEGs are damaged; a part of the image may be wrong (--strict makes them errors)",
    FEW_BITS: "these 16-bit images have no sample above 4,095 and are nearly black; for 12 bits give --bit-depth 12",
}
"""What each warning means and what to do, for the end of a run."""

_thread = threading.local()


def listen(note: Callable[[str], None]) -> None:
    """Sets what is called with each warning that is raised in this thread from now on."""
    _thread.note = note


def warn(kind: str) -> None:
    """Passes a warning, one of `HINTS`, to whoever listens in this thread."""
    note = getattr(_thread, "note", None)
    if note is not None:
        note(kind)
