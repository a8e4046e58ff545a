"""What it costs to search in a table of features, beside reading it:

    python -m benchmarks.search [FOLDER] [--rows N] [--dtype T] [--format F] [--queries N] [--repeats N] [--whiten]

FOLDER gets the table, which is removed at the end; a million rows of float16 are 4 GB. Half of the queries are rows,
spread over the table, the others are vectors. Vectors are mixtures of some random ones, each mixture another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.processes import measure_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

WIDTH, BATCH, BASE = 2048, 4096, 8192
READ = (
    "import sys\nfrom xcli.analysis.vectors import open_features\nfor _ in open_features(sys.argv[1:]).blocks(): pass"
)


def main() -> None:
    """Writes the table, reads it, and searches in it by the command."""
    parser = table_parser(__doc__)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--whiten", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        table, vectors = os.path.join(folder, f"table.{options.format}"), os.path.join(folder, "vectors.npy")
        write_table(table, options.rows, options.dtype)
        spread = np.linspace(0, options.rows - 1, options.queries - options.queries // 2).astype(int)
        np.save(vectors, mixtures(np.random.default_rng(1).integers(0, options.rows, options.queries // 2), 0.6))
        search = ["-m", "xcli", "-q", "search", table, *(f"{row}.jpg" for row in spread.tolist()), vectors]
        search += ["-o", os.path.join(folder, "answers.csv"), "--overwrite"]
        runs = {"read": ["-c", READ, table], f"{options.queries} queries": search}
        if options.whiten:
            runs |= {"the same, whitened": [*search, "--whiten"]}
        print_runs(options, {f"{options.format}, {options.dtype}, {what}": one for what, one in runs.items()})


def table_parser(text: str | None) -> argparse.ArgumentParser:
    """Returns a parser with what says how large a table is, where it goes, and how often it is read."""
    parser = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the table goes (default: a temporary directory)")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--format", choices=["parquet", "npy", "csv"], default="parquet")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def print_runs(options: argparse.Namespace, runs: Mapping[str, list[str]]) -> None:
    """Runs Python with each of some arguments, and prints the median time and the greatest memory of each."""
    for what, command in runs.items():
        seconds, most = zip(*(run_python(command) for _ in range(options.repeats)), strict=True)
        print(f"{options.rows:,} rows, {what}: {statistics.median(seconds):.1f} s, {max(most):,.0f} MiB")


def mixtures(numbers: NDArray[np.int64], share: float = 0.7) -> NDArray[np.float32]:
    """Returns the vectors of rows, float32[n, WIDTH]."""
    base = _base()
    first, second = numbers % BASE, (numbers * 7919 + numbers // BASE) % BASE
    return base[first] * np.float32(share) + base[second] * np.float32(1 - share)


@cache
def _base() -> NDArray[np.float32]:
    return np.maximum(np.random.default_rng(0).standard_normal((BASE, WIDTH), np.float32), 0)


def write_table(name: str, rows: int, dtype: Any, provenance: Mapping[str, Any] | None = None) -> None:
    """Writes a table of features whose paths are `NUMBER.jpg`, and what made it, if that is to be said."""
    import pyarrow as pa

    from xcli.tables.formats import create_table
    from xcli.tables.provenance import provenance_metadata
    from xcli.tables.rows import features_array
    from xcli.tables.schema import FIRST_RESULT, features_schema

    schema = features_schema((WIDTH,), dtype, ())
    metadata = {} if provenance is None else provenance_metadata(provenance)
    with create_table(os.path.splitext(name)[1][1:], name, schema, metadata, overwrite=False) as table:
        if provenance is not None:
            table.record(provenance)
        for numbers in _batches(rows):
            values = mixtures(numbers).astype(dtype).ravel()
            columns = [pa.array([f"{number}.jpg" for number in numbers.tolist()]), pa.array(["ok"] * len(numbers))]
            columns += [pa.nulls(len(numbers), pa.string()), features_array(schema.field(FIRST_RESULT).type, values)]
            table.write(pa.RecordBatch.from_arrays(columns, schema=schema))


def _batches(rows: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, rows, BATCH):
        yield np.arange(start, min(rows, start + BATCH))


def run_python(command: list[str]) -> tuple[float, float]:
    """Runs Python; returns its seconds, and the MiB of its memory."""
    taken = measure_process([sys.executable, *command])
    assert taken.code == 0, command
    return taken.seconds, taken.mib


if __name__ == "__main__":
    main()
