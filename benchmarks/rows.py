"""What comes after the network: rows without images, to as many as there is patience for.

    python -m benchmarks rows [--rows 10000,100000,1000000] [--formats csv,parquet,features] [--batch-size 16]

For each number of rows: the end of an undisturbed run (its parts become the file), the same with --errors-out, a
continuation with a tenth of the rows computed again at random places, one of sources in another order, one with
--retry-errors (a hundredth), `verify`, and `merge` of four shards, both against the sources. Listing, keys, parts,
digests and files are real; images, their files and the network are not there. Counted are processor seconds of the
process, so that other work on the machine matters little, and the peak of its resident memory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import machine
from benchmarks.children import environment

if TYPE_CHECKING:
    from benchmarks.timing import Data

FORMATS = {"csv": (".csv", 0), "parquet": (".parquet", 0), "features": (".parquet", 1), "directory": ("/", 0)}
"""For each what the name of the output ends with, and whether it has features rather than predictions."""

SHARDS = 4
STEPS = ("finish", "errors", "continue", "reorder", "retry", "verify", "merge")


def child(step: str, target: str, **arguments: Any) -> dict[str, float]:
    """Runs a step of `benchmarks.generated_rows` in a process of its own.

    Raises:
        click.ClickException: it failed.
    """
    given = json.dumps({"target": target, **arguments})
    command = [sys.executable, "-m", "benchmarks.generated_rows", step, given]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{step} {given} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_once(folder: Path, form: str, rows: int, batch: int, width: int, steps: tuple[str, ...]) -> Data:
    """Measures the steps for one format and number of rows, in an empty directory."""
    end, is_features = FORMATS[form]
    size: dict[str, Any] = {"rows": rows, "batch": batch, "width": width * is_features}
    first, again, kept = (f"{folder}/{name}" for name in ("first", "again", "kept"))
    found = {"finish": child("save", first + end, keep=kept, **size)}

    def resumed(**options: Any) -> dict[str, float]:
        """Continues the run that was interrupted at its end; it leaves its parts as they were."""
        subprocess.run(["cp", "-rl", kept, again if end == "/" else f"{again}{end}.partial"], check=True)
        result = child("save", again + end, **size, **options)
        subprocess.run(["rm", "-r", *folder.glob("again*")], check=True)
        return result

    if "errors" in steps:
        found["errors"] = resumed(errors_out=f"{folder}/errors")
    if "continue" in steps:
        found["continue"] = resumed(changed=0.1)
    if "reorder" in steps:
        found["reorder"] = resumed(reordered=True)
    if "retry" in steps:
        found["retry"] = resumed(retry_errors=True)
    if "verify" in steps:
        found["verify"] = child("verify", first + end, rows=rows)
    if "merge" in steps and end != "/":  # what is merged is a file
        shards = [f"{folder}/shard{number}{end}" for number in range(SHARDS)]
        for number, shard in enumerate(shards):
            child("save", shard, shard=(number, SHARDS), **size)
        found["merge"] = child("merge", f"{folder}/merged{end}", rows=rows, shards=shards)
    return found


def medians(rounds: list[Data]) -> Data:
    """Returns the median of each figure over rounds, by step and name."""
    return {
        step: {name: statistics.median(one[step][name] for one in rounds) for name in rounds[0][step]}
        for step in rounds[0]
    }


def numbers(_: Any, __: Any, text: str) -> list[int]:
    """Reads a list of numbers of rows."""
    return [int(float(one)) for one in text.split(",")]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--rows", metavar="N[,N...]", default="10000,100000,1000000", callback=numbers, help="Numbers of rows.")
@click.option(
    "--formats", default=",".join(FORMATS), help="What to write: tables of classify as csv or parquet, features."
)
@click.option("--steps", default=",".join(STEPS), help="What to measure; finish always is.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, help="Rows of a batch of the network.")
@click.option("--width", type=click.IntRange(min=1), default=64, help="Values of a row of features.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, help="Rounds; the table has their medians.")
@click.option("--json", "target", metavar="FILE", type=click.Path(dir_okay=False), default="build/rows.json")
def main(rows: list[int], formats: str, steps: str, batch_size: int, width: int, repeats: int, target: str) -> None:
    """Measure what rows cost after the network: finish, continue, verify, merge."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110)
    data: Data = {"machine": machine.machine(), "batch_size": batch_size, "width": width, "rounds": {}, "medians": {}}
    table = Table("format", "rows", "step", "computed", "load", "keep", "append", "finish", "MiB", title="µs a row")
    output = Path(target)
    output.parent.mkdir(parents=True, exist_ok=True)
    for form in formats.split(","):
        for count in rows:
            rounds = []
            for _ in range(repeats):
                with tempfile.TemporaryDirectory(prefix="xception-rows-") as folder:
                    rounds.append(measure_once(Path(folder), form, count, batch_size, width, tuple(steps.split(","))))
            key = f"{form} {count}"
            data["rounds"][key], data["medians"][key] = rounds, medians(rounds)
            output.write_text(json.dumps(data, indent=1), encoding="utf-8")
            for step, found in data["medians"][key].items():
                costs = [f"{found[name] / count * 1e6:.2f}" if name in found else "" for name in COSTS]
                computed = f"{found['computed']:,.0f}" if "computed" in found else ""
                table.add_row(form, f"{count:,}", step, computed, *costs, f"{found['memory']:.0f}")
    console.print(table)


COSTS = ("load", "keep", "append", "finish")

if __name__ == "__main__":
    main()
