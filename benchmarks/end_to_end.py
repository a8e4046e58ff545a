"""Whole processes, from their start to their exit: a directory of photographs to a table of features."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import children
from benchmarks.machine import installed
from benchmarks.timing import Data, Sampler, Save, alternate, compare_all, group, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.settings import Settings

KERAS = "Keras script, float32"


def ours(precision: str) -> str:
    """Name of a contestant of ours."""
    return f"ours, {precision}"


def timm(precision: str) -> str:
    """Name of timm as a contestant."""
    return f"timm script, {precision}"


def measure(settings: Settings, save: Save) -> Data:
    """Runs every contestant once a round."""
    data: Data = {"format": settings.format}
    commands, missing = _commands(settings)
    samplers = {name: _sampler(command, settings) for name, command in commands.items()}

    def result(samples: dict[str, list[float]]) -> Data:
        pairs = [(ours(one), other) for one in settings.precisions[::-1] for other in (KERAS, timm(one))]
        if len(settings.precisions) > 1:
            pairs.append((ours(settings.precisions[1]), ours("float32")))
        title = f"Whole processes: {settings.images} photographs to {settings.format} of 2048 features"
        return {**data, "groups": [group(title, "images/s", samples, compare_all(samples, pairs), missing=missing)]}

    return result(alternate(samplers, settings.repeats, lambda samples: save(result(samples))))


def _commands(settings: Settings) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The command lines up to the output, which comes last, by contestant."""
    folder, python = settings.photographs, [sys.executable, "-m"]
    own = [*python, "xcli", "features", folder, "--weights", settings.weights, "--device", "cpu", "--quiet"]
    commands = {ours(precision): [*own, "--precision", precision, "--output"] for precision in settings.precisions}
    commands[KERAS] = [*python, "benchmarks.peers.keras_script", folder, settings.weights]
    missing = {} if len(settings.precisions) > 1 else {ours("bfloat16"): "this processor has no instructions for it"}
    best = settings.precisions[-1]
    if not installed("timm", "torch", "torchvision"):
        return commands, {**missing, timm(best): "not installed"}
    checkpoint = str(Path(settings.scratch, "timm.pth"))
    children.run("benchmarks.weights:convert_for_timm", settings, lambda _: None, arguments={"path": checkpoint})
    # A decoding process a core, as many as PyTorch takes threads for the network.
    commands[timm(best)] = [*python, "benchmarks.peers.timm_script", folder, checkpoint, best, str(settings.cores)]
    return commands, missing


def _sampler(command: Sequence[str], settings: Settings) -> Sampler:
    def sample() -> float:
        with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
            out = os.path.join(folder, f"features.{settings.format}")
            passed = seconds(lambda: children.execute([*command, out]))
            check_rows(out, settings.images)
        return settings.images / passed

    return sample


def check_rows(path: str, expected: int) -> None:
    """Raises click.ClickException unless the table has that many rows."""
    import pyarrow.parquet

    if path.endswith(".parquet"):
        rows = pyarrow.parquet.read_metadata(path).num_rows
    else:
        with open(path, "rb") as file:
            rows = sum(1 for _ in file) - 1
    if rows != expected:
        raise click.ClickException(f"{os.path.basename(path)} has {rows} rows for {expected} photographs")
