"""What it costs to compare two tables of the same images in different orders:

    python -m benchmarks.compare [FOLDER] [--rows N] [--format csv|parquet|npy] [--width N]

FOLDER gets the two tables, which are removed at the end. `--width` is that of features; 0 are tables of `classify`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.generated_rows import save_rows


def main() -> None:
    """Writes the tables, and compares them by the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the tables go (default: a temporary directory)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--width", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tables = [os.path.join(folder, f"{name}.{options.format}") for name in "ab"]
        for number, table in enumerate(tables):
            save_rows(
                table, rows=options.rows, batch=4096, width=options.width, reordered=bool(number), part_rows=100_000
            )
        begin = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "xcli", "compare", *tables])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        print(f"{options.rows:,} rows, {options.format}, width {options.width}: {seconds:.1f} s, ", end="")
        print(f"{usage.ru_maxrss / 1024:,.0f} MiB, exit code {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    main()
