"""How far a run is: a bar on a terminal, plain lines in a log, JSON for a scheduler; all on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import nullcontext
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from xcli.cli.help import MESSAGES, choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.core.records import ImageBatch

MODES = AUTO, BAR, LINES, JSON, NONE = "auto", "bar", "lines", "json", "none"

INTERVAL = 60.0
"""Seconds between two lines."""

log = logging.getLogger("xcli")

_PROGRESS = (
    "Show on standard error how far the run is. lines: at the start and every minute. json: the same, as one JSON "
    "object a line. auto: bar on a terminal, else lines."
)

progress_argument = choice("--progress", MESSAGES, MODES, _PROGRESS, default=AUTO, show_default=True)


def _unknown() -> int | None:
    return None


def _nothing() -> int:
    return 0


class Progress:
    """Shows how far a run is while it is open.

    Args:
        mode: one of `MODES`.
        quiet: whether `-q` was given, beside which only JSON is shown.
        total: returns the number of images, or None while it is not known.
        kept: returns the number of rows from an earlier run, which are not counted by `count`.
        clock: returns seconds.
    """

    def __init__(
        self,
        mode: str,
        *,
        quiet: bool = False,
        total: Callable[[], int | None] = _unknown,
        kept: Callable[[], int] = _nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if mode == AUTO:
            mode = BAR if sys.stderr.isatty() else LINES
        self._mode = NONE if quiet and mode != JSON else mode
        self._total, self._kept, self._clock = total, kept, clock
        self._bar: Any = None
        self._computed = self._failed = self._computed_before = 0
        self._begin = self._before = clock()
        self._end = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Progress:
        self._begin = self._before = self._clock()
        if self._mode == BAR:
            from tqdm import tqdm

            self._bar = tqdm(unit=" images", file=sys.stderr, dynamic_ncols=True, leave=False, smoothing=0.1)
        elif self._mode in (LINES, JSON):
            self._thread = Thread(target=self._tell_at_times, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._thread is not None:
            self._end.set()
            self._thread.join()
            if self._mode == JSON:  # In a log, the closing line of the run says it.
                self.tell("end" if kind is None else "stopped")

    def begin(self) -> None:
        """Says that the computing begins."""
        if self._mode in (LINES, JSON):
            self.tell("start")

    def advance(self, batch: ImageBatch) -> None:
        """Counts a batch."""
        self.count(len(batch.refs), sum(error is not None for error in batch.errors))

    def count(self, images: int, failed: int) -> None:
        """Counts images, and how many of them have failed."""
        self._computed += images
        self._failed += failed
        if self._bar is not None:
            self._bar.total = self._total()
            if self._failed:
                self._bar.set_postfix_str(f"{self._failed} errors", refresh=False)
            self._bar.update(self._kept() + self._computed - self._bar.n)

    def pause(self) -> Any:
        """Returns a context in which something else may write to the terminal."""
        return self._bar.external_write_mode(file=sys.stdout) if self._bar is not None else nullcontext()

    def tell(self, event: str) -> None:
        """Writes a line: of the start, of the time since the line before, or of the whole run at its end."""
        now, computed, total = self._clock(), self._computed, self._total()
        whole = event in ("end", "stopped")
        seconds = now - (self._begin if whole else self._before)
        rate = (computed - (0 if whole else self._computed_before)) / seconds if seconds > 0 else 0.0
        self._before, self._computed_before = now, computed
        done = computed + self._kept()
        left = (total - done) / rate if total is not None and rate else None
        if self._mode == JSON:
            values = {
                "event": event,
                "seconds": round(now - self._begin, 1),
                "done": done,
                "total": total,
                "errors": self._failed,
                "images_per_second": round(rate, 2),
                "seconds_left": None if left is None else round(left),
            }
            print(json.dumps(values), file=sys.stderr, flush=True)
        elif event == "start":
            log.info("started; progress is reported every %d s", INTERVAL)
        else:
            log.info("%s", _line(done, total, self._failed, rate, left))

    def _tell_at_times(self) -> None:
        while not self._end.wait(INTERVAL):
            self.tell("progress")


def _line(done: int, total: int | None, failed: int, rate: float, left: float | None) -> str:
    share = f" of {total:,} images ({done * 100 // total} %)" if total else " images, total not known yet"
    parts = [f"{done:,}{share}", f"{rate:.1f} images/s", f"{failed:,} error{'s' if failed != 1 else ''}"]
    if left is not None:
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{hours}:{minutes:02}:{seconds:02} left")
    return ", ".join(parts)
