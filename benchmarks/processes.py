"""What a command takes that runs as a process of its own."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_EACH = 0.02  # seconds between two looks


class Taken(NamedTuple):
    """What a process took.

    Attributes:
        code: its exit code, or the negative number of the signal that ended it.
        seconds: from its start to its end.
        processor: seconds of processor time, those of its children too.
        mib: peak of its resident memory, without that of its children.
    """

    code: int
    seconds: float
    processor: float
    mib: float


def measure_process(command: Sequence[str], **options: Any) -> Taken:
    """Runs a command to its end; `options` are those of `subprocess.Popen`."""
    begin, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, **options)
    while True:
        # Not ru_maxrss, which begins with that of the process that started it.
        peak = max(peak, _peak(process.pid))
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            seconds = time.monotonic() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            return Taken(process.returncode, seconds, usage.ru_utime + usage.ru_stime, peak / 1024)
        time.sleep(_EACH)


def _peak(pid: int) -> float:
    """Returns the peak of a process's resident memory so far in KiB, 0 where it has ended."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return next((float(line.split()[1]) for line in status if line.startswith("VmHWM")), 0.0)
