"""Sections of `python -m benchmarks.gpu` that run whole commands: beside a Keras script, twice, and after a kill."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import photographs
from benchmarks.gpu_advice import RATIO
from benchmarks.gpu_given import LOWER, Given, tell
from benchmarks.precision import vectors

if TYPE_CHECKING:
    from collections.abc import Callable

KERAS = "Keras script"
ROUNDS, FEW = 3, 64
"""FEW photographs show what a command takes to start."""


def commands(given: Given) -> None:
    """Seconds from start to exit, of photographs to Parquet: ours in each precision and the Keras script, in turns."""
    files = photographs.find(given.photographs)
    few, start = Path(given.scratch, "few"), min(FEW, len(files) // 2)
    photographs.tile(files, few, start)
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        weights = _weights(given, scratch)

        def sample(name: str, directory: str, images: int, **more: Any) -> float:
            output = Path(scratch, "features.parquet")
            peer = [sys.executable, "-m", "benchmarks.peers.keras_script", directory, weights, str(output)]
            command = peer if name == KERAS else ours(given, directory, output, weights, name)
            passed = _seconds(command)
            output.unlink()
            tell(f"{name}, {images} photographs", passed, "s", **more)
            return passed

        pair = ("auto", KERAS)
        starts = {name: sample(name, str(few), start) for name in pair}
        samples: dict[str, list[float]] = {name: [] for name in pair}
        for number in range(1 if given.device == "cpu" else ROUNDS):
            for name in pair if number % 2 == 0 else pair[::-1]:
                samples[name].append(sample(name, given.photographs, len(files), round=number))
            tell(RATIO, samples[KERAS][-1] / samples["auto"][-1], "", round=number)
        for name in pair:
            above = statistics.median(samples[name]) - starts[name]
            rate = (len(files) - start) / above if above > 0 else None
            tell(f"{name}, what is above the start", rate, "images/s", note="lost in the noise of the start")
        for name in ("float32", *LOWER) if given.device == "gpu" else ():
            sample(name, given.photographs, len(files))


def repeat(given: Given) -> None:
    """Whether a second run, and one that was killed and continued, give the bytes of the first."""
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        weights = _weights(given, scratch)

        def run(name: str, *more: str, until: Callable[[], bool] | None = None) -> Path:
            output = Path(scratch, f"{name}.parquet")
            passed = _seconds([*ours(given, given.photographs, output, weights), *more], until)
            tell(f"{name} run, {'killed' if until else 'whole'}", passed, "s")
            return output

        def has_parts() -> bool:
            return any(Path(scratch).glob("*continued*/part-*.arrow"))

        first, second = run("first"), run("second")
        run("continued", "--part-rows", str(2 * min(given.batches)), until=has_parts)
        tell("killed with rows saved", float(has_parts()))
        continued = run("continued")
        expected = _features(first)
        for name, path in (("second", second), ("continued", continued)):
            found = _features(path)
            tell(f"{name}: rows with the same bits", 100 * float((found == expected).all(axis=1).mean()), "%")
            largest = float(abs(found - expected).max() / abs(expected).max())
            tell(f"{name}: largest difference", largest, "of the largest value")


def ours(given: Given, directory: str, output: Path, weights: str, precision: str = "auto") -> list[str]:
    """The command line of `xception features` in one precision."""
    command = [sys.executable, "-m", "xcli", "features", directory, "-o", str(output), "--weights", weights]
    return [*command, "--image-size", str(given.size), "--device", given.device, "--precision", precision, "--quiet"]


def _seconds(command: list[str], until: Callable[[], bool] | None = None) -> float:
    """Runs a command to its end, or kills it as soon as `until` is true; seconds that passed.

    Raises:
        RuntimeError: the command failed.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stderr=errors, text=True) as process:
        killed = False
        while until is not None and process.poll() is None:
            if until():
                process.kill()
                killed = True
                break
            time.sleep(0.02)
        code = process.wait()
        passed = time.perf_counter() - begin
        if code and not killed:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command[1:5])} ended with {code}:\n{errors.read()[-2000:]}")
    return passed


def _features(path: Path) -> Any:
    import pyarrow.parquet

    return vectors(pyarrow.parquet.read_table(path, columns=["features"]))


def _weights(given: Given, scratch: str) -> str:
    """The weights given, or random ones in a file, which Keras can read too; made on the processor."""
    if given.weights != "none":
        return given.weights
    path = str(Path(scratch, "random.weights.h5"))
    code = "import sys; from benchmarks.weights import make_random; make_random(*sys.argv[1:])"
    hidden = ["env", "CUDA_VISIBLE_DEVICES=-1"]
    subprocess.run([*hidden, sys.executable, "-c", code, given.photographs, path, str(given.size)], check=True)
    return path
