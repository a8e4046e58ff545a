"""The steps of `benchmarks.rows`, each in a process of its own: python -m benchmarks.generated_rows STEP ARGUMENTS

ARGUMENTS is a JSON object. What is measured goes to standard output as one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.core.records import FileState, ImageBatch, ImageRef, RunCounts
from xcli.inference.profiler import Profile
from xcli.sources.options import SourceOptions
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from xcli.outputs.resume import RowOrder
    from xcli.sources.listing import Listing

TOP, CLASSES = 5, 1000
BROKEN = ImageError("truncated", "the data ends early")
_PERIOD = 1021  # rows until values repeat
_SPREAD = 2_654_435_761  # a multiple of it, modulo 2**32, is as good as a random number


def _hash(number: int) -> int:
    return number * _SPREAD % 2**32


@dataclass(frozen=True, slots=True)
class GeneratedLocation:
    """A file that is nowhere; its state is known without a look."""

    number: int
    file: str
    version: int
    offset: None = None
    size: None = None
    remote: bool = False

    def state(self) -> FileState:
        """Returns the state; that of a file that has changed is another."""
        return FileState(self.number, self.version)


@dataclass(slots=True)
class GeneratedListing:
    """A listing of files that are nowhere.

    Attributes:
        rows: number of images.
        changed: share of them, chosen at random, that have changed.
        shard: (i, n), every n-th image from the i-th on.
        reordered: whether they come in another order.
    """

    rows: int
    changed: float = 0
    shard: tuple[int, int] = (0, 1)
    reordered: bool = False
    listed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    extra_columns: tuple[()] = ()
    whole: None = None

    @property
    def options(self) -> SourceOptions:
        """Those of a run over a directory."""
        return SourceOptions(sources=("photographs",))

    def __iter__(self) -> Iterator[ImageRef]:
        first, step = self.shard
        limit = self.changed * 2**32
        numbers: Iterable[int] = range(first, self.rows, step)
        if self.reordered:
            power = 1 << self.rows.bit_length()
            numbers = (number for at in range(power) if (number := at * _SPREAD % power) < self.rows)
        for number in numbers:
            path = f"photographs/{number // 1000:05}/{number:09}.jpg"
            self.listed += 1
            yield ImageRef(path, GeneratedLocation(number, path, int(_hash(number) < limit)), path.encode())  # type: ignore[arg-type]


class Stopped(BaseException):
    """Ends a run before its output is written."""


class GeneratedRun:
    """What `xcli.outputs.save` uses of a `Run`; the time that it takes for itself is not counted.

    Args:
        listing: the images, each with a name of nine digits; one in a hundred is an error.
        batch_size: rows of a batch.
        width: of the features; 0 for a table of `classify`.
        at_end: called when all rows are with the outputs.
    """

    def __init__(
        self, listing: GeneratedListing | Listing, batch_size: int, width: int, at_end: Callable[[], None]
    ) -> None:
        self.listing, self.report, self.profile = listing, RunCounts(), Profile()
        self._batch_size, self._width, self._at_end = batch_size, width, at_end
        self.appending = self.keeping = 0.0  # processor seconds
        self.computed = 0
        self._labels = [f"class {number}" for number in range(CLASSES)]

    def foresee(self, pinned_batch_size: int | None) -> bool:
        return False

    def start(self, pinned_batch_size: int | None = None) -> pa.Schema:
        """Returns the schema of the rows."""
        return features_schema((self._width,), "float32", ()) if self._width else classify_schema(TOP, "name", ())

    def references(self) -> Iterator[ImageRef]:
        """Returns the listing."""
        return iter(self.listing)

    def batches(self, earlier: RowOrder) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """Yields the rows that are not kept from before."""
        import numpy as np

        schema, empty = self.start(), np.empty((0, 0, 0, 3), np.uint8)
        # Values of an image depend on its number alone, so that a continued run gives the same file.
        table = np.random.default_rng(0).random((_PERIOD, self._width or CLASSES), np.float32)
        wanted = earlier.rest(iter(self.listing))
        while True:
            begin = time.process_time()
            refs = tuple(islice(wanted, self._batch_size))
            self.keeping += time.process_time() - begin
            if not refs:
                break
            numbers = [int(ref.path[-13:-4]) for ref in refs]
            errors = tuple(BROKEN if _hash(number + 7) % 100 == 0 else None for number in numbers)
            states = tuple(ref.location.state() for ref in refs)
            values = table[[number % _PERIOD for number in numbers]]
            if self._width:
                rows = features_batch(schema, refs, errors, values)
            else:
                rows = classify_batch(schema, refs, errors, values, self._labels)
            begin = time.process_time()
            yield ImageBatch(refs, empty, errors, states), rows
            self.appending += time.process_time() - begin
            self.report.count(errors)
            self.computed += len(refs)
        self.report.resume(earlier.ok, earlier.errors)
        self.report.listed, self.report.skipped = self.listing.listed, {}
        self._at_end()

    def provenance(self, command: str) -> dict[str, Any]:
        """Returns what stands for the provenance of a real run."""
        return {
            "tool": {"name": "xception-cli", "version": "0", "command": command},
            "versions": {},
            "model": {"sha256": "ab" * 32},
            "preprocessing": {},
            "precision": "float32",
            "device": "CPU",
            "batch_size": self._batch_size,
            "options": {"top": TOP, "raw_scores": False} if not self._width else {"dtype": "float32"},
        }


class Memory:
    """The peak of this process's resident memory in MiB, above what it was at the last `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets the peak so far."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = self._read("VmRSS")

    def peak(self) -> float:
        """Returns the peak since `reset`; the total, where that cannot be told apart."""
        return self._read("VmHWM")

    @staticmethod
    def _read(name: str) -> float:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))


def save_rows(
    target: str,
    *,
    rows: int,
    batch: int,
    width: int,
    changed: float = 0,
    shard: tuple[int, int] = (0, 1),
    reordered: bool = False,
    keep: str | None = None,
    **options: Any,
) -> dict[str, float]:
    """Runs into a file.

    Args:
        target: the file; the format is that of its extension. With a slash at the end, a directory of parts.
        rows, batch, width, changed, shard, reordered: see `GeneratedRun` and `GeneratedListing`.
        keep: a directory that gets a copy of what an interrupted run would leave.
        options: of `SaveOptions`.
    """
    from xcli.outputs.options import Output, SaveOptions
    from xcli.outputs.save import save
    from xcli.outputs.target import parse_target

    begin, memory = time.process_time(), Memory()
    found: dict[str, float] = {}

    def at_end() -> None:
        found["memory of the run"] = memory.peak()
        if keep is not None:
            parts = target if target.endswith("/") else target + ".partial"
            shutil.copytree(parts, keep, copy_function=os.link, ignore=shutil.ignore_patterns("*.tmp"))
        memory.reset()
        found["end"] = time.process_time()

    listing = GeneratedListing(rows, changed, (shard[0], shard[1]), reordered)
    run = GeneratedRun(listing, batch, width, at_end)
    command = "features" if width else "classify"
    output = Output(command, parse_target(target), Path(target).suffix[1:] or "parquet")
    started: list[float] = []
    real = run.batches

    def batches(earlier: RowOrder) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        started.append(time.process_time())
        yield from real(earlier)

    run.batches = batches  # type: ignore[method-assign]
    save(run, output, SaveOptions(**options))  # type: ignore[arg-type]
    return {
        "load": started[0] - begin,
        "keep": run.keeping,
        "append": run.appending,
        "finish": time.process_time() - found["end"],
        "computed": run.computed,
        "memory of the run": found["memory of the run"],
        "memory": memory.peak(),
    }


def verify_rows(target: str, *, rows: int) -> dict[str, float]:
    """Verifies a table against its sources."""
    from xcli.checks.findings import Findings
    from xcli.checks.verify import verify
    from xcli.tables.formats import open_table

    begin, memory = time.process_time(), Memory()
    verdict = verify(open_table(target), GeneratedListing(rows), Findings())  # type: ignore[arg-type]
    if verdict.counts.rows != rows or any(one.check != "provenance" for one in verdict.findings):
        raise RuntimeError(f"{verdict.counts.rows} rows: {verdict.findings}")
    return {"finish": time.process_time() - begin, "memory": memory.peak()}


def merge_rows(target: str, *, rows: int, shards: list[str]) -> dict[str, float]:
    """Merges shards."""
    from xcli.checks.findings import Findings
    from xcli.checks.merge import Shards, merge

    begin, memory = time.process_time(), Memory()
    form = Path(target).suffix[1:]
    merged = merge(Shards(shards), GeneratedListing(rows), form, target, overwrite=True, findings=Findings())  # type: ignore[arg-type]
    if merged.counts.rows != rows:
        raise RuntimeError(f"{merged.counts.rows} rows")
    return {"finish": time.process_time() - begin, "memory": memory.peak()}


STEPS = {"save": save_rows, "verify": verify_rows, "merge": merge_rows}


def main() -> None:
    """Runs the step that the command line names."""
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401 - imported before the clock starts

    from xcli.core.process import reuse_freed_memory

    reuse_freed_memory()  # as the command does
    step, arguments = sys.argv[1:]
    found: dict[str, float] = STEPS[step](**json.loads(arguments))  # type: ignore[operator]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
