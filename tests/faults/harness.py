"""Jobs that run the real command on real files, die, and are started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.conftest import COMMAND, Result, clean_environment, run_process
from tests.thorough import WHOLE as WHOLE

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = ("--weights", "none", "--image-size", "71", "--batch-size", "1", "--part-rows", "25")
"""A fast network, rows one by one, many parts."""


@dataclass
class Tally:
    """Counts over all tests of a session: kills that hit, rows compared, and those missing or there too often."""

    kills: int = 0
    rows: int = 0
    lost: int = 0
    doubled: int = 0

    def hold(self, found: Sequence[str], expected: Sequence[str]) -> None:
        """Compares the paths of a table with those of an undisturbed run."""
        self.rows += len(expected)
        self.lost += (Counter(expected) - Counter(found)).total()
        self.doubled += (Counter(found) - Counter(expected)).total()


TALLY = Tally()


@dataclass(frozen=True)
class Job:
    """A command that writes files.

    Attributes:
        arguments: of the command line, without the output.
        outputs: options and names of the output, the names relative to a directory.
    """

    arguments: tuple[str, ...]
    outputs: tuple[str, ...]

    def table(self, folder: Path) -> list[str]:
        """The paths in the first of its tables."""
        return paths_of(folder, self.outputs[1])

    def command(self, folder: Path) -> list[str]:
        """The arguments, with the output in a directory."""
        named = [one if one.startswith("-") else f"{folder}/{one}" for one in self.outputs]
        return [*self.arguments, *named]

    def run(self, folder: Path) -> Result:
        """Runs to the end."""
        return run_process(*self.command(folder))

    def content(self, folder: Path) -> dict[str, bytes]:
        """Everything that the command leaves in a directory, but for times."""
        of_one_run = ("meta.json", ".states")  # the latter names the second table, if there is one
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(of_one_run))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def features(source: Path, output: str = "out.csv") -> Job:
    """The job of most tests."""
    return Job(("features", str(source), *SMALL), ("-o", output))


def jobs(source: Path, few: Path) -> list[Job]:
    """One of every kind of output."""
    both = ("classify", str(few), "--weights", "none", "--classes", "7", "--batch-size", "1", "--part-rows", "5")
    return [
        features(source),
        features(source, "out.parquet"),
        features(source, "out.npy"),
        features(source, "out/"),
        Job(both, ("-o", "out.jsonl", "--features-out", "out.npy")),
    ]


def start(job: Job, folder: Path, *, launcher: Sequence[str] = COMMAND) -> subprocess.Popen[bytes]:
    """Starts a job."""
    command = [*launcher, *job.command(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())


def wait_for_work(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Returns when the first rows are on the disk for good, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not any(folder.rglob("*part-00000.*")):
        assert time.monotonic() < deadline, "no part within a minute"
        time.sleep(0.005)


def kill_at(job: Job, folder: Path, moment: random.Random, seconds: float) -> bool:
    """Starts a job and kills it within so many seconds of its first part; False where it was faster."""
    with start(job, folder) as process:
        wait_for_work(process, folder)
        time.sleep(moment.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed = process.returncode == -signal.SIGKILL
        TALLY.kills += killed
        return killed


def run_with(fault: str, job: Job, folder: Path) -> Result:
    """Runs a job with one fault of `tests.faults.child` in it."""
    launcher = (sys.executable, "-m", "tests.faults.child", fault)
    with start(job, folder, launcher=launcher) as process:
        out, errors = process.communicate(timeout=120)
    TALLY.kills += process.returncode == -signal.SIGKILL
    return Result(process.returncode, out, errors.decode())


def paths_of(folder: Path, name: str) -> list[str]:
    """The column `path` of an output."""
    from xcli.tables.formats import open_table

    batches = open_table(str(folder / name)).batches(["path"])
    return [os.path.basename(path) for batch in batches for path in batch.column(0).to_pylist()]
