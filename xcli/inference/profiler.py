"""Measures how a run spends its time: which stage it waited for, and how fast each stage is by itself."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STAGES = ("listing", "decode", "engine", "output")
COMPILING = "compiling"
"""The stage of the first batch on a GPU, for which XLA compiles the network: after `STAGES`, and only where it
took place."""

_ALL = (*STAGES, COMPILING)
_PRECEDENCE = ("engine", COMPILING, "output", "decode", "listing")
"""A moment is counted for the first of these stages that is at work: the stages before the engine cost time only
while the engine is idle."""

_ADVICE = {
    "listing": "the listing of the sources: a faster file system, or a manifest of the paths",
    "decode": "reading and decoding: more processors, faster storage, or smaller images",
    "engine": "the network: a GPU, more or faster processors, or a lower --precision",
    "output": "writing: a faster disk, or Parquet instead of text",
    COMPILING: "compiling the network for the GPU, which every run does once: more images in one run, or a directory "
    "that keeps what is compiled (see the page on performance)",
}


@dataclass(frozen=True, slots=True)
class StageTimes:
    """One line of the closing table.

    Attributes:
        stage: one of `STAGES`, or `COMPILING`.
        waited: seconds that the run spent waiting for this stage; all stages together add up to the run's.
        busy: seconds in which the stage was at work, alone or beside others.
        rate: images a second if nothing else limited the stage; None where it did nothing.
    """

    stage: str
    waited: float
    busy: float
    rate: float | None


class Profile:
    """Measures the stages of a run, from any number of threads; `workers` images are decoded at a time."""

    def __init__(self, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers = workers
        self._clock = clock
        self._lock = threading.Lock()
        self._active = dict.fromkeys(_ALL, 0)
        self._waited = dict.fromkeys(_ALL, 0.0)
        self._busy = dict.fromkeys(_ALL, 0.0)
        self._work = dict.fromkeys(_ALL, 0.0)
        self._images = dict.fromkeys(_ALL, 0)
        self._last: float | None = None

    @contextmanager
    def stage(self, name: str, images: int = 1) -> Iterator[None]:
        """Marks a stage as at work on so many images, for the duration of the context."""
        begin = self._change(name, 1)
        try:
            yield
        finally:
            end = self._change(name, -1)
            with self._lock:
                self._work[name] += end - begin
            self.count(name, images)

    def count(self, name: str, images: int) -> None:
        with self._lock:
            self._images[name] += images

    def _change(self, name: str, by: int) -> float:
        with self._lock:
            now = self._clock()
            self._advance(now)
            self._active[name] += by
            return now

    def _advance(self, now: float) -> None:
        if self._last is not None:
            passed = now - self._last
            for name, count in self._active.items():
                if count:
                    self._busy[name] += passed
            # If no stage is at work, tf.data is assembling a batch.
            waiting = next((name for name in _PRECEDENCE if self._active[name]), "decode")
            self._waited[waiting] += passed
        self._last = now

    def finish(self) -> None:
        """Stops the clock."""
        with self._lock:
            self._advance(self._clock())
            self._last = None

    def times(self) -> list[StageTimes]:
        with self._lock:
            if self._last is not None:
                self._advance(self._clock())
            found = []
            for name in _ALL if self._work[COMPILING] else STAGES:
                # Decoders work in parallel, each on an image of its own; the batches of the engine share one device.
                seconds = self._work[name] / self.workers if name == "decode" else self._busy[name]
                rate = self._images[name] / seconds if self._images[name] and seconds > 0 else None
                found.append(StageTimes(name, self._waited[name], self._busy[name], rate))
            return found

    def bottleneck(self) -> str:
        """Returns the stage that the run waited for most, and what helps."""
        return _ADVICE[max(self.times(), key=lambda one: one.waited).stage]

    def as_dict(self) -> dict[str, Any]:
        return {
            one.stage: {
                "waited": round(one.waited, 3),
                "busy": round(one.busy, 3),
                "images_per_second": None if one.rate is None else round(one.rate, 2),
            }
            for one in self.times()
        }
