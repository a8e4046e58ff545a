"""The simulation of faults finds a fault that is put into the program; `make faults` tries all cases."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.thorough import slow

ROOT = Path(__file__).resolve().parents[2]

PLANTS = {
    "publication without sync": (
        "power",
        "merge",
        "from xcli.storage.streams import CheckedStream as S; S.sync = S.flush",
    ),
    "a foreign file is removed": ("call", "merge", "import os; os.unlink('out/t.csv.bak')"),
}
"""Faults in the program: class of cases and job in which they show, and how they are put in."""


def simulate(*arguments: str, plant: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the simulation in a process of its own, which imports no TensorFlow."""
    command = [sys.executable, "-m", "tests.faults.simulation", *arguments]
    environment = {**os.environ, "FAULT_PLANT": plant}
    environment.pop("FAULT", None)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def wrong_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The cases that are wrong."""
    assert " cases tried" in done.stdout, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("FAULT=")]


@slow
def test_a_sample() -> None:
    done = simulate("--job", "csv", "--job", "dir", "--state", "fresh", "--sample", "80", "--seconds", "8")
    assert wrong_of(done) == []


CHANGING = (
    "openat,creat,write,writev,pwrite64,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,rmdir"
)
NAMES = {"openat": "create", "ftruncate": "truncate"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_simulation_sees_every_call_that_the_system_sees(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-qq", "-s0", "-o", str(trace), "-e", f"trace={CHANGING}"]
    program = [sys.executable, "-m", "tests.faults.simulation.recorded", "two", "dir", "merge", "finetune"]
    done = subprocess.run([*strace, *program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if "ptrace" in done.stderr and not done.stdout:
        pytest.skip(f"strace cannot be used here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    recorded = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(recorded) > 100
    case = recorded[0][1].partition("/case/")[0] + "/case"
    assert changes(trace.read_text().splitlines(), case) == recorded


def changes(lines: list[str], case: str) -> list[tuple[str, str]]:
    """The calls of all processes but the first that have succeeded, on what is in the directory of the case."""
    found, first = [], lines[0].split()[0]
    for line in lines:
        call = re.match(r"([0-9]+) +([a-z0-9]+)\((.*)", line)
        if call is None:
            continue  # a signal, or the end of a process
        process, name, arguments = call.groups()
        if process == first or " = -1 " in arguments or (name == "openat" and "O_CREAT" not in arguments):
            continue
        on_descriptor = name in ("write", "writev", "pwrite64", "ftruncate")
        path = re.search("<([^>]*)>" if on_descriptor else '"([^"]*)"', arguments)
        full = os.path.join(case, path[1]) if path else ""
        if full.startswith(case + "/"):
            found.append((NAMES.get(name, name), full))
    return found


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    kind, job, plant = PLANTS[name]
    assert wrong_of(simulate("--class", kind, "--job", job, "--state", "fresh", "--sample", "40", plant=plant))
