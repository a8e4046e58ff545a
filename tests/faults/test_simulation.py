"""The simulation of faults finds a fault that is put into the program; `make faults` tries all cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.simulation.report import is_known

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
    """The cases that are wrong in a way that is not known."""
    assert " cases tried" in done.stdout, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("FAULT=") and not is_known(line)]


def test_a_sample() -> None:
    done = simulate("--job", "csv", "--job", "dir", "--state", "fresh", "--sample", "80", "--seconds", "8")
    assert wrong_of(done) == []


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    kind, job, plant = PLANTS[name]
    assert wrong_of(simulate("--class", kind, "--job", job, "--state", "fresh", "--sample", "40", plant=plant))
