"""What the page of a large table costs: time, memory, size, and the time to open it in Chromium, if that is installed.

    python -m benchmarks.pages PHOTOGRAPHS [--rows N] [--classes N]

The rows share the photographs below PHOTOGRAPHS; their scores are random. The table and the page are temporary.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from benchmarks.photographs import find
from xcli.tables.formats import create_table
from xcli.tables.schema import classify_schema

if TYPE_CHECKING:
    from pathlib import Path

TOP, BATCH = 5, 1 << 16


def write_table(name: str, files: list[Path], rows: int, classes: int) -> None:
    """Writes a table of `classify` in Parquet, one row in 500 of which is an error."""
    rng = np.random.default_rng(0)
    schema = classify_schema(TOP, "name", ())
    labels = np.array([f"class {number:04}" for number in range(classes)])
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
                for values, kind in ((labels[chosen], pa.string()), (chosen, pa.int32()), (scores[:, k], pa.float32())):
                    columns.append(pa.array(values, kind, mask=failed))
            table.write(pa.RecordBatch.from_arrays(columns, schema=schema))


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
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table, page = os.path.join(folder, "table.parquet"), os.path.join(folder, "report.html")
        write_table(table, find(os.path.abspath(chosen.photographs)), chosen.rows, chosen.classes)
        begin = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "xcli", "report", table, "-o", page])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        print(f"{chosen.rows:,} rows: {seconds:.1f} s, {usage.ru_maxrss * 1024 / 1e6:,.0f} MB of memory, ", end="")
        print(f"exit code {os.waitstatus_to_exitcode(status)}, page of {os.path.getsize(page) / 1e6:.1f} MB")
        opened = seconds_to_open(page)
        print("not opened: no Chromium with Playwright" if opened is None else f"opened in {opened:.1f} s")


if __name__ == "__main__":
    main()
