"""Cases, and how they are run: each in a directory of its own, with the inputs as `in`."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.record.masks import Masks, describe_files

PATIENCE = 600
"""Seconds after which a command that has not ended is killed."""

UNRECORDED = ("in", ".home", "cache")
"""Of a case's directory: the inputs, and caches, whose names depend on the digest of a model file."""

Argument = str | bytes


@dataclass(frozen=True)
class Run:
    """A command that runs to its end.

    Attributes:
        line: its arguments, in the words of a shell; `WEB/` is the address of the web server.
        more: further arguments as they are.
        stdin: what it reads.
        env: environment variables besides.
        out: where its standard output goes: `pipe`, `closed` (a pipe that nobody reads), `full` or `terminal`.
        code: Python code to run in place of the command.
        shell: commands of bash to run in place of the command; $PYTHONPATH is the checkout.
    """

    line: str = ""
    more: tuple[Argument, ...] = ()
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    out: str = "pipe"
    code: str | None = None
    shell: str | None = None

    def command(self, program: Program) -> list[Argument]:
        """The whole command line."""
        if self.code is not None:
            return [program.python, "-c", self.code]
        if self.shell is not None:
            return ["bash", "--norc", "-c", self.shell]
        words = [one.replace("WEB/", f"{program.env.get('WEB')}/") for one in shlex.split(self.line)]
        return [program.python, "-m", "xcli", *words, *self.more]

    def shown(self) -> str:
        """For a person."""
        words = [os.fsdecode(one).encode("utf-8", "backslashreplace").decode() for one in self.more]
        line = self.code or self.shell or " ".join(["xception", self.line, *map(shlex.quote, words)])
        extra = "".join(f"{name}={value} " for name, value in self.env.items())
        return extra + line + ("" if self.out == "pipe" else f"  [standard output: {self.out}]")


@dataclass(frozen=True)
class Held(Run):
    """A command that is given names on standard input, is held when it has made some parts, and then ended.

    Attributes:
        names: what it gets before it is held; `stdin` is what it gets afterwards, where no signal ends it.
        wait: patterns of the files that must be there.
        meanwhile: commands that are run while it is held.
        end: the signal that ends it; None lets it read on.
    """

    names: bytes | None = None
    wait: tuple[str, ...] = ()
    meanwhile: tuple[Run, ...] = ()
    end: signal.Signals | None = signal.SIGKILL


@dataclass(frozen=True)
class Do:
    """Something that is done to the files between two commands."""

    what: str
    act: Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """Commands that are run one after the other in one directory.

    Attributes:
        name: by which records are compared.
        steps: the commands.
        masks: patterns that are masked in this case alone, with what stands in their place.
        prefix: of the object store, whose objects are recorded like files.
        copied: whether the inputs may be changed.
    """

    name: str
    steps: tuple[Run | Do, ...]
    masks: tuple[tuple[str, str], ...] = ()
    prefix: str | None = None
    copied: bool = False


@dataclass(frozen=True)
class Program:
    """What is recorded: `python -m xcli` of a checkout, under an environment that is the same everywhere."""

    python: str
    checkout: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def environment(self, home: Path, extra: Mapping[str, str] = {}) -> dict[str, str]:
        """Of a command; its home is its own, so that no case finds what another has left in a cache."""
        home.mkdir(exist_ok=True)
        return {
            "PATH": f"{os.path.dirname(self.python)}:/usr/bin:/bin",
            "PYTHONPATH": str(self.checkout),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "xterm",
            "COLUMNS": "100",
            "LINES": "40",
            **self.env,
            **extra,
        }


def run_case(case: Case, program: Program, inputs: Path, root: Path, masks: Masks, store: Any = None) -> dict[str, Any]:
    """Runs a case in `root`/NAME; gives what is written down of it."""
    folder = root / case.name
    folder.mkdir(parents=True)
    if case.copied:
        shutil.copytree(inputs, folder / "in", symlinks=True, copy_function=copy_input)
    else:
        (folder / "in").symlink_to(inputs)
    steps: list[dict[str, Any]] = []
    for step in case.steps:
        if isinstance(step, Do):
            step.act(folder)
            steps.append({"do": step.what})
        else:
            steps += run_step(step, program, folder, masks)
    files = describe_files(folder, masks, without=UNRECORDED)
    if case.prefix is not None:
        files |= store.describe(case.prefix, masks)
    return {"steps": steps, "files": files}


def copy_input(source: str, target: str) -> None:
    """Copies a file; a pipe is made anew, for reading one would never end."""
    if os.path.isfile(source):
        shutil.copy2(source, target)
    else:
        os.mkfifo(target)


def run_step(step: Run, program: Program, folder: Path, masks: Masks) -> list[dict[str, Any]]:
    """Runs one command; gives an entry for it and for each that ran meanwhile."""
    environment = program.environment(folder / ".home", step.env)
    inside: list[dict[str, Any]] = []
    began = time.monotonic()
    if isinstance(step, Held):
        code, out, err = _held(step, program, folder, environment, masks, inside)
    elif step.out == "terminal":
        code, out, err = _on_terminal(step, program, folder, environment)
    else:
        code, out, err = _to_end(step, program, folder, environment)
    entry = {"command": step.shown(), "exit": code, "out": masks.stream(out), "err": masks.stream(err)}
    return [entry | {"took": round(time.monotonic() - began, 1)}, *inside]


def _to_end(step: Run, program: Program, folder: Path, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    out: Any = subprocess.PIPE
    if step.out == "full":
        out = open("/dev/full", "wb")  # noqa: SIM115 - closed below
    elif step.out == "closed":
        reader, out = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            step.command(program),
            cwd=folder,
            env=environment,
            input=step.stdin,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    finally:
        if isinstance(out, int) and out >= 0:
            os.close(out)
        elif not isinstance(out, int):
            out.close()
    return done.returncode, done.stdout or b"", done.stderr


def _on_terminal(step: Run, program: Program, folder: Path, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Standard output is a terminal, standard error is not: no progress is drawn, which depends on time."""
    master, slave = pty.openpty()
    command = step.command(program)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE
    ) as process:
        os.close(slave)
        out = b""
        while True:
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # what Linux answers when the other end is closed
                break
            if not data:
                break
            out += data
        os.close(master)
        assert process.stderr is not None
        err = process.stderr.read()
    return process.returncode, out, err


def _held(
    step: Held, program: Program, folder: Path, environment: dict[str, str], masks: Masks, inside: list[dict[str, Any]]
) -> tuple[int, bytes, bytes]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        step.command(program), cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdin is not None
        if step.names is not None:
            process.stdin.write(step.names)
            process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and not all(any(folder.glob(one)) for one in step.wait):
            if time.monotonic() > deadline:
                process.kill()
            select.select([], [], [], 0.01)
        for one in step.meanwhile:
            inside += run_step(one, program, folder, masks)
        if step.end is not None:
            process.send_signal(step.end)
        out, err = process.communicate(step.stdin if step.end is None else None, timeout=PATIENCE)
    return process.returncode, out, err
