"""What the page of a large table costs: time, memory, size, and the time to open it in Chromium, if that is installed.

    python -m benchmarks.pages PHOTOGRAPHS [--rows N] [--classes N] [--compare] [--truth] [--repeats N] [--keep PAGE]

The rows share the photographs below PHOTOGRAPHS; their scores are random. With --compare, the page is that of two such
tables, in which one best class in ten is another one; with --truth, each photograph has one of the classes as its true
one. Told are the medians of the repeats; processor time and memory are those of the process, without those that decode.
The tables are temporary, and the page as well unless --keep names a file for it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import csv

from benchmarks.machine import processor
from benchmarks.photographs import find
from benchmarks.processes import measure_process
from xcli.core.process import processor_count
from xcli.tables.formats import create_table
from xcli.tables.schema import classify_schema

if TYPE_CHECKING:
    from pathlib import Path

TOP, BATCH = 5, 1 << 16


def write_table(name: str, files: list[Path], rows: int, classes: int, changed: float = 0) -> None:
    """Writes a table of `classify` in Parquet, one row in 500 of which is an error.

    Args:
        changed: share of the rows whose best class is another one than in the table without changes.
    """
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    schema = classify_schema(TOP, "name", ())
    labels = np.array([_label(number) for number in range(classes)])
    paths = np.array([str(file) for file in files])
    with create_table("parquet", name, schema, {}, overwrite=False) as table:
        for begin in range(0, rows, BATCH):
            count = min(BATCH, rows - begin)
            failed = rng.random(count) < 1 / 500
            statuses, errors = np.where(failed, "error", "ok"), np.where(failed, "corrupt: the data ends early", None)
            columns = [pa.array(paths[rng.integers(0, len(paths), count)]), pa.array(statuses)]
            columns.append(pa.array(errors, pa.string()))
            scores = np.sort(rng.dirichlet(np.full(TOP, 0.4), count).astype(np.float32), axis=1)[:, ::-1]
            for k in range(TOP):
                chosen = rng.integers(0, classes, count)
                if k == 0:
                    chosen = (chosen + (other.random(count) < changed)) % classes
                for values, kind in ((labels[chosen], pa.string()), (chosen, pa.int32()), (scores[:, k], pa.float32())):
                    columns.append(pa.array(values, kind, mask=failed))
            table.write(pa.RecordBatch.from_arrays(columns, schema=schema))


def _label(number: int) -> str:
    return f"class {number:04}"


def seconds_to_open(page: str) -> float | None:
    """Returns the seconds until Chromium has loaded a page; None where there is no Chromium or no Playwright."""
    program = shutil.which("chromium")
    if program is None or find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        begin = time.monotonic()
        tab.goto(f"file://{page}", wait_until="load")
        tab.evaluate("new Promise(done => requestAnimationFrame(() => done()))")
        seconds = time.monotonic() - begin
        browser.close()
    return seconds


def main() -> None:
    """Writes the table, makes its page by the command, and opens it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--compare", action="store_true", help="the page of two tables")
    parser.add_argument("--truth", action="store_true", help="with the true classes of the images")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", metavar="PAGE", help="a file for the page")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, page = os.path.join(folder, "table.parquet"), os.path.join(folder, "report.html")
        files = find(os.path.abspath(chosen.photographs))
        write_table(table, files, chosen.rows, chosen.classes)
        command = [sys.executable, "-m", "xcli", "report", table, "-o", page, "--overwrite", "-q"]
        if chosen.compare:
            other = os.path.join(folder, "other.parquet")
            write_table(other, files, chosen.rows, chosen.classes, changed=0.1)
            command += ["--compare", other]
        if chosen.truth:
            truth = os.path.join(folder, "truth.csv")
            labelled = {
                "path": [*map(str, files)],
                "label": [_label(number % chosen.classes) for number in range(len(files))],
            }
            csv.write_csv(pa.table(labelled), truth)
            command += ["--truth", truth]
        figures = []
        for _ in range(chosen.repeats):
            taken = measure_process(command)
            if taken.code:
                sys.exit(f"xception report ended with exit code {taken.code}")
            figures.append((taken.seconds, taken.processor, taken.mib, seconds_to_open(page)))
        seconds, busy, memory, opened = zip(*figures, strict=True)
        print(f"{chosen.rows:,} rows: {median(seconds):.1f} s, {median(busy):.1f} s of a processor, ", end="")
        print(f"{median(memory):,.0f} MiB of memory, ", end="")
        print(f"page of {os.path.getsize(page) / 1e6:.1f} MB, ", end="")
        print("not opened: no Chromium with Playwright" if None in opened else f"opened in {median(opened):.1f} s")
        print(f"medians of {chosen.repeats}; {processor()}, {processor_count()} cores, load {os.getloadavg()[0]:.1f}")
        if chosen.keep:
            shutil.copy(page, chosen.keep)


if __name__ == "__main__":
    main()
