"""Limits on what the row of a manifest may carry, since many rows are in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_ROW = 2 << 20
"""Bytes of a row: its text, and `EACH` for every value, also those within lists."""

EACH = 64
"""Bytes that a value takes in Python besides its text."""

MAX_COLUMNS = 1 << 14

MAX_NAME = 1 << 13
"""Bytes of a path: no file system has longer ones than 4,096, and there may be that of a member of an archive too."""


def carried_size(values: Collection[Any]) -> int:
    """Returns the bytes of the values of a row, as `MAX_ROW` counts them."""
    size = EACH * len(values)
    for value in values:
        if isinstance(value, (str, bytes)):
            size += len(value)
        elif isinstance(value, dict):
            size += carried_size(value) + carried_size(value.values())
        elif isinstance(value, (list, tuple)):
            size += carried_size(value)
    return size


@dataclass(slots=True)
class CarriedBytes:
    """Counts the memory of the rows of a manifest that were read so far."""

    total: int = 0
