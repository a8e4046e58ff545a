"""What it costs to compare two tables of the same images in different orders:

    python -m benchmarks.compare [FOLDER] [--rows N] [--format csv|jsonl|parquet|npy] [--width N] [--dtype float16]

FOLDER gets the two tables, which are removed at the end. `--width` is that of features; 0 are tables of `classify`. In
the second table one best class in ten is another one; its features differ a little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from benchmarks.generated_rows import GeneratedListing
from benchmarks.machine import machine
from benchmarks.processes import measure_process
from xcli.tables.formats import create_table
from xcli.tables.schema import classify_schema, features_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BATCH, TOP, CLASSES = 4096, 5, 1000
PERIODS = (1021, 1019, 1013)  # primes: their products repeat after a million rows only


def batches(rows: int, *, reordered: bool) -> Iterator[tuple[NDArray[np.int64], list[pa.Array]]]:
    """Yields the numbers of the next rows, and the columns that every table has; one row in a hundred failed."""
    paths, numbers = list[str](), list[int]()
    for ref in GeneratedListing(rows, reordered=reordered):
        paths.append(ref.path)
        numbers.append(int(ref.path[-13:-4]))
        if len(paths) == BATCH:
            yield _columns(numbers, paths)
            paths, numbers = [], []
    if paths:
        yield _columns(numbers, paths)


def _columns(numbers: list[int], paths: list[str]) -> tuple[NDArray[np.int64], list[pa.Array]]:
    order = np.array(numbers)
    failed = order % 100 == 7
    errors = np.where(failed, "truncated: the data ends early", None)
    return order, [pa.array(paths), pa.array(np.where(failed, "error", "ok")), pa.array(errors, pa.string())]


def write_classes(name: str, form: str, rows: int, *, second: bool) -> None:
    """Writes a table of `classify`."""
    schema = classify_schema(TOP, "name", ())
    labels = np.array([f"class {number}" for number in range(CLASSES + TOP)])
    known = np.sort(np.random.default_rng(0).dirichlet(np.full(TOP, 0.4), PERIODS[0]).astype(np.float32))[:, ::-1]
    with create_table(form, name, schema, {}, overwrite=False) as table:
        for numbers, columns in batches(rows, reordered=second):
            failed = numbers % 100 == 7
            best = (numbers * 7919 + (second & (numbers % 10 == 3))) % CLASSES
            for k in range(TOP):
                scores = known[numbers % PERIODS[0], k] * np.float32(0.999 if second else 1)
                for values, kind in ((labels[best + k], pa.string()), (best + k, pa.int32()), (scores, pa.float32())):
                    columns.append(pa.array(values, kind, mask=failed))
            table.write(pa.RecordBatch.from_arrays(columns, schema=schema))


def write_features(
    name: str, form: str, rows: int, width: int, dtype: Literal["float32", "float16"], *, second: bool
) -> None:
    """Writes a table of `features`; every row has other values, from 0 to 1."""
    schema = features_schema((width,), dtype, ())
    first, other, noise = (np.random.default_rng(seed).random((PERIODS[seed], width), np.float32) for seed in range(3))
    with create_table(form, name, schema, {}, overwrite=False) as table:
        for numbers, columns in batches(rows, reordered=second):
            values = first[numbers % PERIODS[0]] * other[numbers % PERIODS[1]]
            if second:
                values += np.float32(0.1) * noise[numbers % PERIODS[2]]
            values[numbers % 100 == 7] = np.nan
            flat = pa.array(values.astype(dtype).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=schema.field(3).type))
            table.write(pa.RecordBatch.from_arrays(columns, schema=schema))


def measure(tables: list[str]) -> tuple[float, float]:
    """Compares two tables by the command; returns seconds and MiB."""
    command = [sys.executable, "-m", "xcli", "compare", *tables, "-q"]
    taken = measure_process(command, stdout=subprocess.DEVNULL)
    if taken.code:
        sys.exit(f"xception compare ended with exit code {taken.code}")
    return taken.seconds, taken.mib


def main() -> None:
    """Writes the tables, and compares them by the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the tables go (default: a temporary directory)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        tables = [os.path.join(folder, f"{name}.{options.format}") for name in "ab"]
        for second, table in enumerate(tables):
            if options.width:
                write_features(table, options.format, options.rows, options.width, options.dtype, second=bool(second))
            else:
                write_classes(table, options.format, options.rows, second=bool(second))
        sizes = sum(os.path.getsize(table) for table in tables) / 2e6
        seconds, memory = zip(*(measure(tables) for _ in range(options.repeats)), strict=True)
    about = machine()
    kind = f"features of {options.width:,} values, {options.dtype}" if options.width else "classes"
    print(f"{options.rows:,} rows of {kind}, {options.format} of {sizes:,.0f} MB each: ", end="")
    print(f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), {max(memory):,.0f} MiB")
    print(f"{about['processor']}, {about['cores']} cores, load {about['load']}")


if __name__ == "__main__":
    main()
