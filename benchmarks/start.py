"""How long one waits for the first row: a whole process for one image, beside the bare import of TensorFlow."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import children
from benchmarks.timing import DIFFERENCE, Data, Save, alternate, compare, group, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.settings import Settings


def measure(settings: Settings, save: Save) -> Data:
    """Seconds from the start of a process to its end, with the image's row written as CSV."""
    image = str(min(Path(settings.photographs).iterdir()))
    row, bare = "ours, one image to CSV", "python -c 'import tensorflow'"
    own = [sys.executable, "-m", "xcli", "features", image, "--weights", settings.weights, "--device", "cpu", "--quiet"]
    commands = {row: own, bare: [sys.executable, "-c", "import tensorflow"]}

    def run(command: Sequence[str], lines: int) -> float:
        with tempfile.TemporaryFile(dir=settings.scratch) as out:
            passed = seconds(lambda: children.execute(command, stdout=out))
            out.seek(0)
            if sum(1 for _ in out) != lines:
                raise click.ClickException(f"{' '.join(command[:4])} ... wrote other than {lines} lines")
        return passed

    def result(samples: dict[str, list[float]]) -> Data:
        pairs = [compare(f"{row} - {bare}", samples[row], samples[bare], kind=DIFFERENCE, unit="s")]
        return {"groups": [group("Start of a process, files cached", "s", samples, pairs)]}

    samplers = {
        row: lambda: run(commands[row], 2),  # the header and the row
        bare: lambda: run(commands[bare], 0),
    }
    for sample in samplers.values():  # so that the system has the files in its cache
        sample()
    return result(alternate(samplers, settings.repeats * 2, lambda samples: save(result(samples))))
