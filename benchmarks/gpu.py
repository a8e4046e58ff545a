"""One command for a machine with a GPU: is it right, how fast is it, and what to change.

    python -m benchmarks.gpu [DIRECTORY] [--weights NOTOP.h5] [--classifier TOP.h5] [--seconds 480]
    python -m benchmarks.gpu --small         (on a processor, in a minute: that the command itself works)

Each section is a process of its own, with a limit of its own, the most valuable one first. Every result is in the JSON
file as soon as it is known, so that a crash or the end of the time loses one section at most.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import gpu_advice, machine, photographs
from benchmarks.__main__ import write
from benchmarks.children import environment
from benchmarks.gpu_sections import SECTIONS
from benchmarks.report import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.timing import Data

LIMITS = {
    "precision": 120,
    "speed": 120,
    "timm": 100,
    "end-to-end": 90,
    "commands": 420,
    "repeat": 160,
    "finetune": 80,
    "memory": 120,
    "keras": 90,
}
"""Seconds that each section may take; together they may take `--seconds`. XLA takes some 20 for each batch size."""

_PHOTOGRAPHS, _SMALL = 6000, 24
"""Of a run on a GPU, and of a small one."""


def run_section(name: str, arguments: list[str], limit: float, on_result: Callable[[Data], None]) -> str:
    """Runs one section in a process of its own.

    Args:
        name: for the command line.
        arguments: of the command that runs it, after `python`.
        limit: seconds after which it is ended.
        on_result: gets each result at once.

    Returns:
        How it ended: `done`, `out of time`, or the end of what it said on standard error.
    """
    late = threading.Event()
    extra = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"), "CUDA_MODULE_LOADING": "LAZY"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(extra),
            start_new_session=True,
        ) as process,
    ):

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("{"):  # libraries print too
                    on_result({"section": name, **json.loads(line)})
            code = process.wait()
        finally:
            timer.cancel()
        if late.is_set():
            return "out of time"
        errors.seek(0)
        return "done" if code == 0 else f"ended with {code}: {errors.read()[-1500:].strip()}"


def training_data(files: list[Path], folder: Path) -> str:
    """Makes two classes of some photographs: as they are, and with the colours turned around."""
    from PIL import Image, ImageOps

    for name in ("plain", "inverted"):
        (folder / name).mkdir(parents=True)
    for number_, file in enumerate(files):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        (ImageOps.invert(image) if number_ % 2 else image).save(
            folder / ("inverted" if number_ % 2 else "plain") / f"{number_:04}.jpg"
        )
    return str(folder)


def prepare(directory: str | None, scratch: Path, small: bool, values: dict[str, Any]) -> Data:
    """Makes what the sections work on; see `gpu_sections.Given`."""
    count = _SMALL if small else values["images"]
    if directory is None:
        files = photographs.generate(scratch / "generated", min(count, photographs.DISTINCT))
    else:
        files = photographs.find(directory)
    photographs.tile(files, scratch / "photographs", count)
    photographs.warm(scratch / "photographs")
    return {
        "photographs": str(scratch / "photographs"),
        "weights": values["weights"] or "none",
        "classifier": values["classifier"],
        "device": "cpu" if small else "gpu",
        "size": 71 if small else 299,
        "batches": [2, 4] if small else [128, 64, 256],
        "seconds": 0.05 if small else 1.0,
        "scratch": str(scratch),
        "training": training_data(files[: photographs.DISTINCT], scratch / "training"),
        "epochs": 1 if small else 2,
    }


FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, resolve_path=True))
@click.option("--weights", metavar="FILE", type=FILE, help="HDF5 weights without top.  [default: random ones]")
@click.option("--classifier", metavar="FILE", type=FILE, help="HDF5 weights with top, for the agreement of classes.")
@click.option("--images", metavar="N", type=click.IntRange(min=1), default=_PHOTOGRAPHS, help="Of end-to-end.")
@click.option("--seconds", metavar="S", type=click.IntRange(min=1), default=480, help="For all sections together.")
@click.option("--only", "chosen", multiple=True, type=click.Choice(list(SECTIONS)), help="Run this; repeatable.")
@click.option("--small", is_flag=True, help="On the processor, with few small images: a trial of the command.")
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/gpu.json")
def main(directory: str | None, seconds: int, chosen: tuple[str, ...], small: bool, target: str, **values: Any) -> None:
    """Measure xception on this machine's GPU, beside Keras and timm, and say what to change.

    DIRECTORY holds photographs; without it they are generated.
    """
    output = Path(target)
    output.parent.mkdir(parents=True, exist_ok=True)
    data: Data = {"machine": machine.machine(), "gpu": gpu_name(), "versions": machine.versions()}
    data |= {"results": [], "sections": {}}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="xception-gpu-") as folder:
        given = prepare(directory, Path(folder), small, values)

        def on_result(found: Data) -> None:
            data["results"].append(found)
            write(output, data)
            click.echo(line(found))

        for name in [one for one in SECTIONS if one in chosen or not chosen]:
            limit = min(LIMITS[name], end - time.monotonic())
            begin = time.monotonic()
            if limit <= 0:
                ended = "no time left"
            elif name == "timm" and not machine.installed("timm", "torch"):
                ended = "timm and PyTorch are not installed"
            else:
                arguments = ["-m", "benchmarks.gpu_sections", name, json.dumps(given)]
                ended = run_section(name, arguments, limit, on_result)
            data["sections"][name] = {"ended": ended, "seconds": round(time.monotonic() - begin, 1)}
            write(output, data)
            click.echo(f"{name}: {ended} ({data['sections'][name]['seconds']} s)", err=True)
    data["advice"] = gpu_advice.advice(data["results"])
    write(output, data)
    show(data)
    click.echo(f"\n{output}")


def gpu_name() -> str | None:
    """What nvidia-smi calls the GPUs, with driver and memory; None where it does not run."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def line(found: Data) -> str:
    """One result as text."""
    value = found["note"] if found["value"] is None else f"{number(found['value'])} {found['unit']}".strip()
    return f"{found['section']}: {found['name']}: {value}"


def show(data: Data) -> None:
    """The table, and what to change."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table("section", "what", "value", title=f"{data['gpu'] or 'no GPU'}, {data['machine']['processor']}")
    for found in data["results"]:
        table.add_row(*(part.strip() for part in line(found).split(": ", 2)))
    for name, section in data["sections"].items():
        if section["ended"] != "done":
            table.add_row(name, "ended", section["ended"])
    console.print(table)
    for sentence in data["advice"] or ["Nothing falls short of its goal."]:
        console.print(f"- {sentence}", highlight=False)


if __name__ == "__main__":
    main()
