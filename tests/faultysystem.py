"""A disk that fails, or a process that dies, at one call of `xcli.storage.disk`."""

from __future__ import annotations

import os
from typing import Any

from xcli.storage import disk

CALLS = "open write fsync truncate lock rename link unlink mkdir rmdir listdir".split()


class Faulty(disk.System):
    """Does something at one call, counted from 0."""

    def __init__(self, number: int, act: Any) -> None:
        self.number, self.act, self.calls = number, act, 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CALLS:
            return found

        def call(*args: Any) -> Any:
            self.calls += 1
            if self.calls - 1 == self.number:
                self.act()
            return found(*args)

        return call


def fail(number: int) -> Any:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act
