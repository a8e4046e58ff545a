"""What one file of a stranger may take: 1 GiB of memory and 10 s more than an honest file, in a process of its own.

A child that takes more is killed, so that a failing test costs the machine no more than a passing one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY = 1 << 30  # bytes
SECONDS = 10.0

_ROOT = str(Path(__file__).parents[1])

# Starts the child, since the peak of a process that this one starts would be counted from the memory of this one.
_WATCHER = """
import json, os, signal, subprocess, sys, time

report, memory, seconds, *argv = sys.argv[1:]
begin = time.monotonic()
child = subprocess.Popen(argv, start_new_session=True)
killed = ""
while True:
    pid, status, usage = os.wait4(child.pid, os.WNOHANG)
    if pid:
        break
    resident = 0
    try:
        with open(f"/proc/{child.pid}/status") as file:
            resident = next((int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS")), 0)
    except OSError:
        pass
    if resident > int(memory):
        killed = "memory"
    elif time.monotonic() - begin > float(seconds):
        killed = "time"
    if killed:
        os.killpg(child.pid, signal.SIGKILL)
    time.sleep(0.005)
unit = 1 if sys.platform == "darwin" else 1024
found = os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit, time.monotonic() - begin, killed
os.write(int(report), json.dumps(found).encode())
"""


class Cost(NamedTuple):
    """What a child did and took.

    Attributes:
        code: its exit code; negative for the signal that ended it.
        text: its standard output and standard error.
        peak: bytes of memory, of the child or of the largest of its own children.
        seconds: by the clock.
        killed: what it took too much of, `memory` or `time`; an empty text if it ended by itself.
    """

    code: int
    text: str
    peak: int
    seconds: float
    killed: str


def measure(
    what: str | Sequence[str], *arguments: str | os.PathLike[str], memory: int = 1 << 40, seconds: float = 120
) -> Cost:
    """Runs Python code, which finds the arguments in `sys.argv[1:]`, or a command; kills it beyond the limits."""
    command = [sys.executable, "-c", what] if isinstance(what, str) else what
    watcher = (sys.executable, "-I", "-S", "-c", _WATCHER)
    reading, writing = os.pipe()
    with os.fdopen(reading) as report:
        try:
            done = subprocess.run(
                [*watcher, str(writing), str(memory), str(seconds), *command, *map(os.fspath, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(writing,),
                env=os.environ | {"PYTHONPATH": _ROOT},
                check=True,
            )
        finally:
            os.close(writing)
        code, peak, taken, killed = json.load(report)
    return Cost(code, done.stdout.decode(errors="backslashreplace"), peak, taken, killed)


_honest = cache(measure)


def check_cost(
    what: str | tuple[str, ...],
    hostile: Sequence[str | os.PathLike[str]],
    honest: Sequence[str | os.PathLike[str]],
    *,
    memory: int = MEMORY,
    seconds: float = SECONDS,
) -> Cost:
    """Fails if a child takes more for a hostile file than for an honest one, beyond the given limits.

    Args:
        what: Python code, or the beginning of a command, such as `COMMAND` of `tests.cli.conftest`.
        hostile, honest: its arguments. What the honest ones take is measured once in a session, for the same `what`
            and arguments, so share the honest file among tests.
        memory, seconds: how much more the hostile file may take.

    Returns:
        What the child did; the caller checks its exit code and text.
    """
    normal = _honest(what, *map(os.fspath, honest))
    assert not normal.code, normal
    cost = measure(what, *hostile, memory=normal.peak + memory, seconds=normal.seconds + seconds)
    assert not cost.killed, f"killed for its {cost.killed}: {cost}, beside {normal}"
    assert cost.peak - normal.peak <= memory, f"{(cost.peak - normal.peak) >> 20:,} MiB more than {normal}"
    return cost
