"""Training a head: `xception finetune` against the plain Keras loop, on the same photographs for the same epochs.

    python -m benchmarks.finetuning DATA --weights NOTOP.h5 [--epochs 6] [--repeats 1]

Both run as processes of their own, in turn. Compared are the seconds for the same number of epochs, and those until
each has first reached the lower of the two best accuracies on the validation part: for Keras to the end of that epoch;
for `finetune` always to the end of the whole command, its report and pictures included.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import machine


def ours(data: str, weights: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Runs the command with an empty cache; gives its seconds and the accuracy of what it has made."""
    command = [sys.executable, "-m", "xcli", "finetune", data, "-o", str(folder / "run"), "--weights", weights]
    command += ["--unfreeze", "none", "--views", "1", "--epochs", str(epochs), "--cache-dir", str(folder / "cache")]
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - begin
    with open(folder / "run" / "history.csv", encoding="utf-8", newline="") as file:
        course = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    return {"seconds": seconds, "course": course, "best": max(course)}


def keras(data: str, weights: str, epochs: int, folder: Path) -> dict[str, Any]:
    """Runs the plain loop; gives the seconds to the end of every epoch, and its accuracies."""
    out = folder / "keras.json"
    command = [sys.executable, "-m", "benchmarks.peers.keras_finetune", data, weights, str(out), str(epochs)]
    subprocess.run(command, check=True, capture_output=True)
    course = json.loads(out.read_text(encoding="utf-8"))["epochs"]
    return {
        "seconds": [one["seconds"] for one in course],
        "course": [one["val_accuracy"] for one in course],
        "best": max(one["val_accuracy"] for one in course),
    }


def compared(tool: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """The accuracy that both have reached, and how many times longer the peer took: to all epochs, and to there."""
    goal = min(tool["best"], peer["best"])
    reached = next(s for s, found in zip(peer["seconds"], peer["course"], strict=True) if found >= goal)
    return {
        "accuracy": goal,
        "times_all_epochs": peer["seconds"][-1] / tool["seconds"],
        "times_to_accuracy": reached / tool["seconds"],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("data", type=click.Path(exists=True, file_okay=False, resolve_path=True))
@click.option("--weights", required=True, metavar="FILE", type=click.Path(exists=True, resolve_path=True))
@click.option("--epochs", metavar="N", type=click.IntRange(1), default=6)
@click.option("--repeats", metavar="N", type=click.IntRange(1), default=1)
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/finetuning.json")
def main(data: str, weights: str, epochs: int, repeats: int, target: str) -> None:
    """Compares on DATA, a directory with train/ and validation/."""
    rounds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            tool, peer = ours(data, weights, epochs, Path(folder)), keras(data, weights, epochs, Path(folder))
        found = compared(tool, peer)
        rounds.append({"finetune": tool, "keras": peer, **found})
        click.echo(
            f"finetune {tool['seconds']:.0f} s (best {tool['best']:.4f}); Keras {peer['seconds'][-1]:.0f} s (best "
            f"{peer['best']:.4f}): {found['times_all_epochs']:.1f} times as long for all epochs, "
            f"{found['times_to_accuracy']:.1f} times to {found['accuracy']:.4f}"
        )
    for name in ("times_all_epochs", "times_to_accuracy"):
        click.echo(f"{name}: median {statistics.median(one[name] for one in rounds):.1f} ({machine.processor()})")
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps({"machine": machine.machine(), "rounds": rounds}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
