"""One run of the command line, in a forked child of this process."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tests.faults.simulation.stubs import replace_chance, replace_computation
from tests.faults.simulation.system import Call, Fault, FaultySystem, Pause

LIMIT = 20.0
"""Seconds after which a run hangs."""

HUNG = 1000
"""The exit code of a run that hangs."""

Argv = Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its exit code, or the negative number of the signal that killed it, and what it said."""

    code: int
    out: str
    err: str
    calls: list[Call] = field(default_factory=list, compare=False)


@dataclass
class Workplace:
    """A directory in memory for the cases of one worker process: `case` is where the commands run.

    Attributes:
        root: made by the caller, and removed by it.
        plant: called in each child before the command: a fault in the program, for the tests of the simulation.
        undisturbed: what runs without a fault did, see `tests.faults.simulation.jobs`.
    """

    root: str
    plant: Callable[[], None] | None = None
    undisturbed: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def case(self) -> str:
        return os.path.join(self.root, "case")

    def run(self, argv: Argv, fault: Fault | None = None, *, record: bool = False, process: int = 0) -> Outcome:
        """Runs a command to its end; runs that follow each other have different numbers `process`."""
        return self.start(argv, fault, record=record, process=process).wait()

    def start(
        self,
        argv: Argv,
        fault: Fault | None = None,
        *,
        record: bool = False,
        process: int = 0,
        pause: Pause | None = None,
    ) -> Running:
        """Starts a command; several that run at once have different numbers `process`."""
        files = [os.path.join(self.root, f"{name}-{process}") for name in ("out", "err", "log")]
        pid = os.fork()
        if pid:
            return Running(pid, files)
        try:
            self._become(argv, fault, record, process, pause, files)
        except BaseException:  # noqa: BLE001 - whatever escapes from the program is a finding
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(99)

    def _become(
        self, argv: Argv, fault: Fault | None, record: bool, process: int, pause: Pause | None, files: list[str]
    ) -> NoReturn:
        from xcli.cli.main import main
        from xcli.storage import disk

        descriptors = [os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in files]
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os.chdir(self.case)
        os.environ["TMPDIR"] = os.path.join(self.case, "tmp")
        replace_chance(process)
        disk.system = FaultySystem(self.case, fault, descriptors[2] if record else None, process, pause)
        sys.argv = ["xception", *argv]
        if self.plant is not None:
            self.plant()
        main()


@dataclass
class Running:
    """A run that has been started."""

    pid: int
    files: list[str]

    def ended(self, seconds: float) -> bool:
        """Waits so long for its end; returns whether it has ended."""
        descriptor = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        finally:
            os.close(descriptor)

    def wait(self) -> Outcome:
        """Waits for its end, or ends it."""
        hung = not self.ended(LIMIT)
        if hung:
            os.kill(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        out, err = (_text(name) for name in self.files[:2])
        return Outcome(HUNG if hung else code, out, err, _calls(self.files[2]))


def _text(name: str) -> str:
    with open(name, "rb") as file:
        return file.read().decode("utf-8", "backslashreplace")


def _calls(name: str) -> list[Call]:
    calls = []
    with open(name, "rb") as file:
        while file.peek(1):
            calls.append(pickle.load(file))
    return calls


def warm_up() -> None:
    """Imports everything that a run needs, so that a fork has it; pyarrow gets no threads."""
    import gc
    from importlib import import_module

    for name in ("features", "classify", "merge", "verify", "finetune"):
        import_module(f"xcli.cli.commands.{name}")
    for name in ("xcli.cli.main", "xcli.cli.completion"):
        import_module(name)
    for name in ("compute", "csv", "dataset", "ipc", "parquet"):
        import_module(f"pyarrow.{name}")
    for name in ("numpy.lib.format", "rich.console", "rich.text", "concurrent.futures.thread", "resource"):
        import_module(name)
    pa = import_module("pyarrow")
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    replace_computation()
    gc.collect()
    gc.freeze()
