"""What it costs to compare a table with its sources, and to bring it up to date, without any network:

    python -m benchmarks.update [FOLDER] [--rows N] [--new N] [--format csv|parquet|npy] [--width N]

FOLDER gets N files of one byte, a thousand in a folder, and tables of them, which are removed at the end. The time
of copying the table, synced to the disk, is that of the disk alone. A real command takes the time in which it loads its
model besides.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING

from benchmarks.generated_rows import GeneratedRun, Memory
from xcli.outputs.options import Output, SaveOptions
from xcli.outputs.save import save
from xcli.outputs.target import parse_target
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Iterable


def plant(folder: str, numbers: Iterable[int]) -> None:
    """Makes the files of these numbers."""
    for number in numbers:
        below = os.path.join(folder, f"{number // 1000:06}")
        if number % 1000 in (0, 500):
            os.makedirs(below, exist_ok=True)
        with open(os.path.join(below, f"{number:09}.jpg"), "wb") as file:
            file.write(b"x")


def run(source: str, target: str, width: int, *, update: bool = False) -> tuple[float, int, float]:
    """Runs into a table; returns seconds, images computed, and the peak of the memory in MiB."""
    memory, begin = Memory(), time.monotonic()
    with list_images(SourceOptions(sources=(source,))) as listing:
        stand_in = GeneratedRun(listing, 64, width, lambda: None)
        form = os.path.splitext(target)[1][1:]
        output = Output("features" if width else "classify", parse_target(target), form)
        save(stand_in, output, SaveOptions(update=update, part_rows=100_000))  # type: ignore[arg-type]
    return time.monotonic() - begin, stand_in.computed, memory.peak()


def copy(source: str, target: str) -> float:
    """Copies a file to the disk; returns the seconds."""
    begin = time.monotonic()
    shutil.copyfile(source, target)
    with open(target, "rb+") as file:
        os.fsync(file.fileno())
    return time.monotonic() - begin


def main() -> None:
    """Measures, and prints one line of JSON for each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=tempfile.gettempdir())
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--width", type=int, default=0, help="of the features; 0 is a table of classify")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        source, target = os.path.join(place, "in"), os.path.join(place, f"table.{chosen.format}")
        plant(source, range(chosen.rows))

        def show(step: str, seconds: float, computed: int, memory: float) -> None:
            print(json.dumps({"step": step, "seconds": round(seconds, 1), "computed": computed, "MiB": round(memory)}))

        show("write", *run(source, target, chosen.width))
        states = os.path.getsize(f"{target}.states")
        show("compare", *run(source, target, chosen.width))
        # Half of the new files are at the beginning of the table, the others at its end.
        plant(source, range(chosen.rows, chosen.rows + chosen.new // 2))
        for number in range(chosen.new - chosen.new // 2):
            shutil.copyfile(f"{source}/000000/000000000.jpg", f"{source}/000000/x{number:09}.jpg")
        show("update", *run(source, target, chosen.width, update=True))
        size = os.path.getsize(target)
        seconds = copy(target, os.path.join(place, "copy"))
        print(json.dumps({"step": "copy", "seconds": round(seconds, 1), "MB": size // 10**6}))
        print(json.dumps({"bytes of state a row": round(states / chosen.rows, 1)}))


if __name__ == "__main__":
    main()
