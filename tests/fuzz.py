"""Fuzzes the pixel stage: damaged images of every format become pixels or an `ImageError`, soon and in little memory.

    python -m tests.fuzz --seconds 3600 --seed 7
    python -m tests.fuzz --replay build/fuzz/7-1234-detail.jpg

The decodes run in a process of their own: it may crash, hang, or grow, and another one goes on behind the file that
did it, which is kept.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

MAX_PIXELS = 4_000_000
BYTES_PER_PIXEL = 24
FIXED_BYTES = 64 << 20
"""One decode takes less than this and `BYTES_PER_PIXEL` for each of `max_pixels`."""

TIMEOUT = 10.0


def bound() -> int:
    """The memory in bytes that a decode may take."""
    return MAX_PIXELS * BYTES_PER_PIXEL + FIXED_BYTES


def settings() -> tuple[Any, ...]:
    """What the images are made into, in turn."""
    from xcli.images.preprocessing import Preprocessing

    return (
        Preprocessing(size=24, max_pixels=MAX_PIXELS),
        Preprocessing(size=31, resize="squash", interpolation="nearest", max_pixels=MAX_PIXELS),
        Preprocessing(size=5, resize="pad", interpolation="lanczos", max_pixels=MAX_PIXELS),
        Preprocessing(size=299, interpolation="bilinear", crop_pct=1.0, max_pixels=MAX_PIXELS),
    )


def case(seed: int, number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The damaged file of that number, and the name of the sound one."""
    from tests.mutations import mutate, random_edits

    chance = random.Random(f"{seed}/{number}")
    name = chance.choice(sorted(files))
    return name, mutate(files[name], random_edits(chance), files)


def chosen(formats: str) -> dict[str, bytes]:
    """Those files of the corpus whose extension is named; all without any."""
    from tests.mutations import corpus

    wanted = {one.strip().lower() for one in formats.split(",") if one.strip()}
    files = corpus()
    return {name: data for name, data in files.items() if not wanted or name.rpartition(".")[2] in wanted}


def check(path: str, preprocessing: Any) -> str:
    """Loads a file; `ok` or the reason of its error.

    Raises:
        AssertionError: what came is neither pixels nor an error as promised, or was too slow, or took too much memory.
        Exception: what was raised and must not have been.
    """
    import numpy as np

    from xcli.core.errors import ImageError
    from xcli.images.preprocessing import load_image
    from xcli.storage.local import LocalFile

    before = _reset_peak()
    begin = time.monotonic()
    try:
        pixels = load_image(LocalFile(path), preprocessing)
    except ImageError as error:
        outcome, problem = error.reason, _message_problem(error)
    else:
        outcome, problem = "ok", ""
        if pixels.dtype != np.uint8 or pixels.shape != (preprocessing.size, preprocessing.size, 3):
            problem = f"{pixels.dtype}{list(pixels.shape)}"
    seconds, grown = time.monotonic() - begin, _peak() - before
    if seconds > TIMEOUT:
        problem = f"{seconds:.1f} s"
    if grown > bound():
        problem = f"{grown:,} bytes of memory"
    if problem:
        raise AssertionError(problem)
    check.most = max(check.most, grown)  # type: ignore[attr-defined]
    return outcome


def _message_problem(error: Any) -> str:
    """What is wrong with an `ImageError`; empty if nothing is."""
    if error.reason not in error.REASONS:
        return f"unknown reason {error.reason}"
    if not error.message or len(str(error).splitlines()) != 1:
        return f"not one line: {error}"
    return f"an address in {error}" if " at 0x" in error.message else ""


check.most = 0  # type: ignore[attr-defined]


def _reset_peak() -> int:
    """Memory in use now, in bytes, from which on the peak counts, where Linux lets it be counted anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
    return _peak()


def _peak() -> int:
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def work(arguments: argparse.Namespace) -> int:
    """The process that decodes: says every number before it is tried, and what became of it."""
    from xcli.images.decoders import load_decoders

    files, ways = chosen(arguments.formats), settings()
    warnings.simplefilter("error")
    load_decoders()
    path = os.path.join(arguments.keep, f"{arguments.seed}-trying")
    for number in range(arguments.worker, sys.maxsize):
        name, data = case(arguments.seed, number, files)
        with open(path, "wb") as file:
            file.write(data)
        print(f"try {number} {name}", flush=True)
        try:
            outcome = check(path, ways[number % len(ways)])
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            print(f"bad {type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        else:
            print(f"end {outcome} {check.most}", flush=True)  # type: ignore[attr-defined]
    return 0


class Run:
    """The process that watches.

    Attributes:
        counts: how many cases ended how.
        failures: what was kept and why.
        most: the most memory that one decode took, in bytes.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []
        self.most = 0
        self._number = 0
        self._name = ""
        self._end = time.monotonic() + arguments.seconds

    def run(self) -> None:
        """Tries cases until time or their number is up."""
        os.makedirs(self.arguments.keep, exist_ok=True)
        while not self._done():
            self._worker()

    def _done(self) -> bool:
        cases = self.arguments.cases
        return time.monotonic() > self._end or (cases is not None and self._number >= cases)

    def _worker(self) -> None:
        a = self.arguments
        command = [sys.executable, "-m", "tests.fuzz", "--worker", str(self._number), "--seed", str(a.seed)]
        command += ["--formats", a.formats, "--keep", a.keep]
        # What libtiff writes there is for the program's own capture of standard error.
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            buffer = b""
            descriptor = child.stdout.fileno()
            while not self._done():
                ready, _, _ = select.select([descriptor], [], [], 6 * TIMEOUT)
                piece = os.read(descriptor, 1 << 16) if ready else b""
                *lines, buffer = (buffer + piece).split(b"\n")
                for line in lines:
                    self._line(line.decode("utf-8", "replace"))
                if not piece:
                    child.kill()
                    code = child.wait()
                    how = "hangs" if not ready else f"ends the process ({_ending(code)})"
                    self._failed(how)
                    return
            child.kill()

    def _line(self, line: str) -> None:
        if self._done():
            return
        word, _, rest = line.partition(" ")
        if word == "try":
            number, _, self._name = rest.partition(" ")
            self._number = int(number)
        elif word == "end":
            outcome, most = rest.split()
            self.counts[outcome] = self.counts.get(outcome, 0) + 1
            self.most = max(self.most, int(most))
            self._number += 1
        elif word == "bad":
            self._failed(rest)

    def _failed(self, why: str) -> None:
        if not self._name:
            raise SystemExit(f"the fuzzing process does not start: {why}")
        _, data = case(self.arguments.seed, self._number, chosen(self.arguments.formats))
        way = self._number % len(settings())
        kept = os.path.join(self.arguments.keep, f"{self.arguments.seed}-{self._number}-{self._name}")
        with open(kept, "wb") as file:
            file.write(data)
        self.failures.append(kept)
        print(f"{kept}: {why}\n  replay: python -m tests.fuzz --replay {kept} --way {way}", flush=True)
        self._number += 1


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main() -> int:
    """Runs from the command line; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--cases", type=int, help="how many files at most")
    parser.add_argument("--seed", type=int, default=0, help="the same seed damages alike (default: 0)")
    parser.add_argument(
        "--formats", default="", help="extensions, as jpg,png,gif,bmp,webp,tif,avif,heic,ppm,tga,ico,jp2 (default: all)"
    )
    parser.add_argument("--keep", default=str(ROOT / "build" / "fuzz"), help="where files that fail are kept")
    parser.add_argument("--replay", metavar="FILE", help="try one file again, in this process")
    parser.add_argument("--way", type=int, default=0, help="which preprocessing to replay it with")
    parser.add_argument("--worker", type=int, metavar="N", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        return work(arguments)
    if arguments.replay:
        warnings.simplefilter("error")
        print(check(arguments.replay, settings()[arguments.way]))
        return 0
    run = Run(arguments)
    run.run()
    shown = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(run.counts.items()))
    print(f"{sum(run.counts.values()):,} files: {shown}; {len(run.failures)} failures; ", end="")
    print(f"at most {run.most / 2**20:.0f} MiB for one, of {bound() / 2**20:.0f} allowed")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
