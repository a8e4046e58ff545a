"""Runs `xception sort` in processes that are killed at a step: python -m tests.faults.mortal_sort

Reads lines of JSON from standard input, `{"arguments": [...], "step": N}`. For each it forks a process that runs the
command and kills itself, by SIGKILL, after its N-th change of the disk, counted from 1; a call that writes has then
written half of its bytes. The answer is a line with the exit code, or the negative number of the signal.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from xcli.storage import disk

CHANGES = frozenset(
    "create_in exchange fsync link link_in mkdir mkdir_in rename rename_new rmdir rmdir_in rmtree set_status "
    "symlink_in unlink unlink_in write".split()
)
"""The calls of `disk.System` that change a name or the content of a file; `open`, too, where it creates one."""


class MortalSystem(disk.System):
    """Kills this process after its step of that number; calls that fail are none."""

    def __init__(self, step: int) -> None:
        self._left = step

    def __getattribute__(self, name: str) -> Any:
        call = super().__getattribute__(name)
        if name not in CHANGES and name != "open":
            return call

        def counted(*args: Any) -> Any:
            is_last = self._left == 1
            if is_last and name == "write":
                args = (args[0], memoryview(args[1])[: len(args[1]) // 2])
            result = call(*args)
            if name != "open" or args[1] & os.O_CREAT:
                self._left -= 1
                if is_last:
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


def main() -> None:
    """Answers each line."""
    import pyarrow.csv  # noqa: F401 - once, and not in each process

    import xcli.cli.commands.sort  # noqa: F401
    from xcli.cli.main import main as command

    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(2, 1)
            disk.system = MortalSystem(asked["step"])
            sys.argv = ["xception", *asked["arguments"]]
            command()
            os._exit(99)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
