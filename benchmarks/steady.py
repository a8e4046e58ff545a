"""Whether a long run stays as it began: memory and speed, window by window."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.photographs import find, tile
from benchmarks.timing import Data, Save, group

if TYPE_CHECKING:
    from benchmarks.settings import Settings
    from xcli.core.records import ImageBatch

WINDOW = 1000
"""Rows in a window; fewer where the run has less than five of them."""


def resident() -> int:
    """Bytes of main memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Sampler:
    """Samples resident memory at even intervals, for as long as the process lives.

    Not once a batch: how much of a batch is in memory when another one ends depends on how they happen to be staggered.
    """

    def __init__(self, seconds: float = 0.1) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._samples = [resident()]
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            time.sleep(self._seconds)
            sample = resident()
            with self._lock:
                self._samples.append(sample)

    def take(self) -> list[int]:
        """Bytes, since the last call."""
        with self._lock:
            taken, self._samples = self._samples, []
        return taken


@dataclass(slots=True)
class Windows:
    """Time and memory of every `size` rows, counted from the end of the first batch: what is before is start-up."""

    size: int
    rates: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    _samples: list[float] = field(default_factory=list)
    _rows: int = 0
    _begin: float | None = None

    def add(self, rows: int, now: float, memory: list[int]) -> None:
        """Counts a batch.

        Args:
            rows: in it.
            now: seconds, when it was written.
            memory: bytes, at several moments since the batch before.
        """
        if self._begin is None:
            self._begin = now
            return
        self._rows += rows
        self._samples += [sample / 2**20 for sample in memory]
        if self._rows >= self.size:
            self.rates.append(self._rows / (now - self._begin))
            self.memory.append(median(self._samples))
            self._rows, self._begin, self._samples = 0, now, []


def measure(settings: Settings, save: Save) -> Data:
    """One run over `steady_images` photographs to a Parquet file; for a child process, which does nothing else."""
    begin = time.perf_counter()
    from xcli.core.process import reuse_freed_memory
    from xcli.inference.options import RunOptions
    from xcli.inference.run import Run
    from xcli.inference.tasks import FeaturesTask
    from xcli.models.loader import load_model, preprocessing_for
    from xcli.outputs.options import Output
    from xcli.outputs.save import save as save_run
    from xcli.outputs.target import File
    from xcli.sources.listing import list_images
    from xcli.sources.options import SourceOptions

    reuse_freed_memory()  # as the command line does
    folder = Path(settings.scratch, "steady")
    tile(find(settings.photographs), folder, settings.steady_images)
    windows = Windows(max(1, min(WINDOW, settings.steady_images // 5)))
    model = load_model(weights=settings.weights, include_top=False)
    options = RunOptions(device="cpu", precision=settings.precisions[-1])
    first: list[float] = []
    sampler = Sampler()

    def result() -> Data:
        title = f"One run over {settings.steady_images:,} photographs, in windows of {windows.size:,} rows"
        tables = [
            group(f"{title}: speed", "images/s", {"all windows": windows.rates}),
            group(f"{title}: resident memory", "MiB", {"all windows": windows.memory}),
        ]
        return {"groups": tables, "facts": facts(windows, first[0])}

    def on_batch(batch: ImageBatch) -> None:
        now, count = time.perf_counter(), len(windows.rates)
        if not first:
            first.append(now - begin)
        windows.add(len(batch.refs), now, sampler.take())
        if len(windows.rates) > count:
            save(result())

    with list_images(SourceOptions(sources=(str(folder),))) as listing:
        run = Run(listing, model, FeaturesTask(), preprocessing_for(model), options)
        target = File(str(Path(settings.scratch, "steady.parquet")))
        save_run(run, Output("features", target, "parquet", overwrite=True), on_batch=on_batch)
    return result()


def facts(windows: Windows, start: float) -> list[Data]:
    """What the last window has more than the first, in per cent of the first; `start` is in seconds."""
    found: list[Data] = [{"name": "start-up, to the end of the first batch", "value": start, "unit": "s"}]
    for name, values in (("resident memory", windows.memory), ("speed", windows.rates)):
        if len(values) > 1:
            change = 100 * (values[-1] / values[0] - 1)
            found.append({"name": f"{name}, last window against first", "value": change, "unit": "%"})
    return found
