"""The real command with one fault in it: python -m tests.faults.child FAULT:N ARGS...

FAULT is what happens at the N-th call of a function of the system or of ours, counted from 1:

    kill-append    SIGKILL in the middle of a part: its last rows are written, it is not finished
    kill-fsync     SIGKILL before content is brought to the disk
    kill-replace   SIGKILL between that and the new name
    kill-link      SIGKILL before the finished file gets its name
    kill-unlink    SIGKILL before a file is removed
    kill-write     SIGKILL in the middle of the writing of the finished file
    full-append, full-fsync, full-write    "No space left on device" there
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS = ("append", "fsync", "replace", "link", "unlink", "write")


def die() -> NoReturn:
    """Ends this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def fill() -> NoReturn:
    """What a full disk answers."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def on_call(number: int, function: Callable[..., Any], act: Callable[[], NoReturn], *, after: bool) -> Any:
    """`function`, whose call of that number ends in `act`."""
    calls = 0

    def faulty(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != number:
            return function(*args, **options)
        if after:
            function(*args, **options)
        act()

    return faulty


def half_written(number: int, act: Callable[[], NoReturn]) -> Any:
    """`CheckedStream.write`, whose call of that number comes half way."""
    from xcli.storage.streams import CheckedStream

    original, calls = CheckedStream.write, 0

    def write(self: CheckedStream, data: bytes | memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls == number:
            view = memoryview(data).cast("B")
            original(self, view[: len(view) // 2])
            self.flush()
            act()
        return original(self, data)

    return write


def install(fault: str) -> None:
    """Puts a fault in place."""
    from xcli.outputs.partial_file import PartialFile
    from xcli.storage.streams import CheckedStream

    name, _, number = fault.partition(":")
    how, _, where = name.partition("-")
    act = {"kill": die, "full": fill}[how]
    if where == "write":
        CheckedStream.write = half_written(int(number), act)  # type: ignore[method-assign]
    elif where == "append":
        PartialFile._add = on_call(int(number), PartialFile._add, act, after=how == "kill")  # type: ignore[method-assign]
    elif where in FAULTS:
        setattr(os, where, on_call(int(number), getattr(os, where), act, after=False))
    else:
        raise SystemExit(f"no such fault: {fault}")


if __name__ == "__main__":
    install(sys.argv[1])
    sys.argv = ["xception", *sys.argv[2:]]
    from xcli.cli.main import main

    sys.exit(main())
