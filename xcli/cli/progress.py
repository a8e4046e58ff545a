"""How far a run is: a bar on a terminal, plain lines in a log, JSON for a scheduler; all on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from contextlib import ExitStack, nullcontext
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Self

from xcli.cli.help import MESSAGES, choice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xcli.core.records import ImageBatch
    from xcli.reports.evaluation_files import EvaluationFiles
    from xcli.tables.base import TableReader

MODES = AUTO, BAR, LINES, JSON, NONE = "auto", "bar", "lines", "json", "none"

INTERVAL = 60.0
"""Seconds between two lines, and of which the rate is told."""

NARROW = 60
"""Columns of a terminal, below which the bar gives way to the numbers."""

IMAGES, ROWS, FILES, PAIRS, BANDS = "images", "rows", "files", "pairs", "bands"
"""What is counted: images that are computed, rows that are read, files that are put somewhere, pairs of rows that are
compared, or bands of these."""

_WITHOUT_ERRORS = ROWS, PAIRS, BANDS

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


class RecentRate:
    """How fast a number has grown lately.

    Args:
        now: seconds, at which the number was 0.
    """

    def __init__(self, now: float) -> None:
        self._points = deque([(now, 0)])
        self._lock = Lock()

    def add(self, now: float, number: int) -> None:
        """Takes the number of now."""
        with self._lock:
            if len(self._points) > 1 and now - self._points[-2][0] < INTERVAL / 1000:
                self._points.pop()  # so that many small steps take no memory
            self._points.append((now, number))
            self._forget(now)

    def per_second(self, now: float) -> float:
        """Returns the rate of the last `INTERVAL` seconds, or since the beginning."""
        with self._lock:
            self._forget(now)
            (begin, first), (_, last) = self._points[0], self._points[-1]
        return (last - first) / (now - begin) if now > begin else 0.0

    def _forget(self, now: float) -> None:
        while len(self._points) > 1 and self._points[1][0] <= now - INTERVAL:
            self._points.popleft()


class Progress:
    """Shows how far a run is while it is open.

    Args:
        mode: one of `MODES`.
        quiet: whether `-q` was given, beside which only JSON is shown.
        total: returns the number of images, or None while it is not known.
        kept: returns the number of rows from an earlier run, which are not counted by `count`.
        clock: returns seconds.
        unit: `IMAGES`, `ROWS`, `FILES`, `PAIRS` or `BANDS`; rows, pairs and bands have no
            errors.
    """

    def __init__(
        self,
        mode: str,
        *,
        quiet: bool = False,
        total: Callable[[], int | None] = _unknown,
        kept: Callable[[], int] = _nothing,
        clock: Callable[[], float] = time.monotonic,
        unit: str = IMAGES,
    ) -> None:
        self._mode = mode_of(mode, quiet=quiet)
        self._total, self._kept, self._clock, self._unit = total, kept, clock, unit
        self._bar: Any = None
        self._computed = self._failed = 0
        self._begin = clock()
        self._recent = RecentRate(self._begin)
        self._end = Event()
        self._thread: Thread | None = None

    def __enter__(self) -> Progress:
        self._begin = self._clock()
        self._recent = RecentRate(self._begin)
        if self._mode == BAR:
            self._bar = _bar(self._unit, lambda: self._recent.per_second(self._clock()))
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

    def begin(self, *, is_first: bool = True) -> None:
        """Says that the computing begins, from where on there is a rate; a log is told of the first stage only."""
        self._recent = RecentRate(self._clock())
        if self._mode == JSON or (self._mode == LINES and is_first):
            self.tell("start")

    def expect(self, total: int) -> None:
        """Says how many there will be, and that the work begins."""
        self._total = lambda: total
        self.begin()

    def advance(self, batch: ImageBatch) -> None:
        """Counts a batch."""
        self.count(len(batch.refs), sum(error is not None for error in batch.errors))

    def count(self, images: int, failed: int = 0) -> None:
        """Counts images, and how many of them have failed."""
        self._computed += images
        self._failed += failed
        self._recent.add(self._clock(), self._computed)
        if self._bar is not None:
            self._bar.total = self._total()
            if self._failed:
                self._bar.set_postfix_str(self._errors(), refresh=False)
            self._bar.update(self._kept() + self._computed - self._bar.n)

    def pause(self) -> Any:
        """Returns a context in which something else may write to the terminal."""
        return self._bar.external_write_mode(file=sys.stdout) if self._bar is not None else nullcontext()

    def tell(self, event: str) -> None:
        """Writes a line: of the start, of the last minute, or of the whole run at its end."""
        now, total = self._clock(), self._total()
        seconds = now - self._begin
        if event in ("end", "stopped"):
            rate = self._computed / seconds if seconds > 0 else 0.0
        else:
            rate = self._recent.per_second(now)
        done = self._computed + self._kept()
        if total is not None and done > total:
            total = None
        left = (total - done) / rate if total is not None and rate else None
        if self._mode == JSON:
            values = {
                "event": event,
                "seconds": round(seconds, 1),
                "done": done,
                "total": total,
                **({"errors": self._failed} if self._unit not in _WITHOUT_ERRORS else {}),
                f"{self._unit}_per_second": round(rate, 2),
                "seconds_left": None if left is None else round(left),
            }
            print(json.dumps(values), file=sys.stderr, flush=True)
        elif event == "start":
            log.info("started; progress is reported every %d s", INTERVAL)
        else:
            log.info("%s", self._line(done, total, rate, left))

    def _tell_at_times(self) -> None:
        while not self._end.wait(INTERVAL):
            self.tell("progress")

    def _errors(self) -> str:
        return f"{self._failed:,} error{'s' if self._failed != 1 else ''}"

    def _line(self, done: int, total: int | None, rate: float, left: float | None) -> str:
        unit = self._unit
        share = f" of {total:,} {unit} ({done * 100 // total} %)" if total else f" {unit}, total not known yet"
        parts = [f"{done:,}{share}", f"{rate:,.1f} {unit}/s"]
        if unit not in _WITHOUT_ERRORS:
            parts.append(self._errors())
        if left is not None:
            minutes, seconds = divmod(round(left), 60)
            hours, minutes = divmod(minutes, 60)
            parts.append(f"{hours}:{minutes:02}:{seconds:02} left")
        return ", ".join(parts)


def mode_of(mode: str, *, quiet: bool) -> str:
    """Returns what is shown for a choice among `MODES`: with `quiet`, nothing but JSON."""
    if mode == AUTO:
        mode = BAR if sys.stderr.isatty() else LINES
    return NONE if quiet and mode != JSON else mode


def _bar(unit: str, rate: Callable[[], float]) -> Any:
    """Opens a bar that tells this rate, and the time left at it."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        @property
        def format_dict(self) -> dict[str, Any]:
            found: dict[str, Any] = super().format_dict
            found["rate"] = rate() or None
            if (found["ncols"] or NARROW) < NARROW:
                numbers = "{n_fmt}/{total_fmt} [{remaining}, {rate_noinv_fmt}{postfix}] {bar}"
                large = max(found["total"] or 0, found["n"]) >= 100_000
                found |= {"bar_format": numbers, "unit": "", "unit_scale": large}
            return found

    return Bar(unit=f" {unit}", file=sys.stderr, dynamic_ncols=True, leave=False)


class Readings:
    """Counts the rows that are read from tables, each of them more than once.

    Args:
        readers: of the tables.
        times: returns how often each row is read.
    """

    def __init__(self, readers: Sequence[TableReader | EvaluationFiles], times: Callable[[], int]) -> None:
        self._readers, self._times = readers, times

    def total(self) -> int | None:
        """Returns the number of rows that will be read, if the tables tell theirs."""
        counts = [reader.row_count for reader in self._readers]
        return None if None in counts else self._times() * sum(filter(None, counts))

    def show(self, progress: Progress) -> None:
        """Has the rows counted from now on."""
        self.tell(progress.count)
        progress.begin()

    def tell(self, count: Callable[[int], object]) -> None:
        """Has this called with the number of rows whenever some are read."""
        for reader in self._readers:
            reader.on_rows = count


class TwoStages:
    """Shows how far a command is that first reads tables, then does something else; a context manager.

    Args:
        mode: one of `MODES`.
        quiet: whether `-q` was given.
        readings: of the tables.
        unit: of the second stage.
    """

    def __init__(self, mode: str, readings: Readings, *, quiet: bool, unit: str = IMAGES) -> None:
        self._mode, self._quiet, self._readings, self._unit = mode, quiet, readings, unit
        self._stack = ExitStack()

    def __enter__(self) -> TwoStages:
        self._show(self._readings.total, ROWS)
        self._readings.show(self._progress)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def begin_second(self, total: int) -> None:
        """Ends the reading, and begins with so many images, or files."""
        self._stack.close()
        self._show(lambda: total, self._unit)
        self._progress.begin(is_first=False)

    def count(self, images: int, failed: int) -> None:
        """Counts images or files, and how many of them have failed."""
        self._progress.count(images, failed)

    def _show(self, total: Callable[[], int | None], unit: str) -> None:
        self._progress = self._stack.enter_context(Progress(self._mode, quiet=self._quiet, total=total, unit=unit))


class Stages:
    """Shows how far each of several stages is, one at a time; a context manager.

    Args:
        mode: one of `MODES`.
        quiet: whether `-q` was given.
    """

    def __init__(self, mode: str, *, quiet: bool) -> None:
        self._mode, self._quiet = mode, quiet
        self._stack = ExitStack()
        self._unit, self._done, self._read = "", 0, 0
        self._of: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def begin(self, unit: str, of: int | None, kept: int = 0, *, is_first: bool = False) -> Progress:
        """Ends a stage, and begins the next one, of which some may be done."""
        self._stack.close()
        self._unit, self._done, self._of = unit, kept, of
        shown = Progress(self._mode, quiet=self._quiet, total=lambda: of, kept=lambda: kept, unit=unit)
        self._progress = self._stack.enter_context(shown)
        self._progress.begin(is_first=is_first)
        return self._progress

    def tell(self, unit: str, done: int, of: int | None) -> None:
        """Says how many are done in a stage."""
        if (unit, of) != (self._unit, self._of):
            self.begin(unit, of)
        self._progress.count(done - self._done)
        self._done = done

    def show(self, readings: Readings) -> None:
        """Begins with the reading of tables, which goes on as a stage whenever another one has come between."""
        total = readings.total()

        def count(rows: int) -> None:
            if self._unit != ROWS:
                self.begin(ROWS, total, self._read)
            self._read += rows
            self.tell(ROWS, self._read, total)

        readings.tell(count)
        self.begin(ROWS, total, is_first=True)
