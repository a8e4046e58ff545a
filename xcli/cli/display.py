"""Output for people: tables on a terminal, the closing line."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from xcli.core.records import ERROR, ERROR_STATUS, FEATURES, PATH, STATUS, RunCounts
from xcli.core.text import one_line
from xcli.images.formats import IMAGE_EXTENSIONS
from xcli.images.warnings import HINTS
from xcli.sources.excluded import EXCLUDED
from xcli.sources.patterns import NO_EXTENSION, NOT_IMAGE
from xcli.sources.selection import OTHER_SHARD
from xcli.sources.system_folders import SYSTEM_FOLDER
from xcli.tables.schema import prediction_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa
    from rich.console import Console
    from rich.text import Text

    from xcli.cli.progress import Progress
    from xcli.inference.profiler import Profile

MIN_CELL = 24
"""Smallest width of a prediction, in columns of the terminal; where there is less room, they stand below each other."""

MIN_PATH = 24
"""Smallest width of the paths beside them."""

log = logging.getLogger("xcli")


def summary(report: RunCounts, seconds: float) -> str:
    """Returns the closing line: `341 images: 340 ok, 1 error (1 truncated) in 32.1 s, 10.6 images/s`."""
    skipped = {reason: count for reason, count in report.skipped.items() if reason != OTHER_SHARD}
    others = report.skipped.get(OTHER_SHARD, 0)
    if not report.listed and not others:
        hint = f"; {_taken(skipped)}" if skipped.keys() - {EXCLUDED} else ""
        return "no images found" + (f" (skipped: {_reasons(skipped)}){hint}" if skipped else "")
    parts = [f"{report.ok:,} ok"]
    if report.failed:
        parts.append(f"{report.failed:,} error{'s' if report.failed != 1 else ''} ({_reasons(report.errors)})")
    if report.warnings:
        count = report.warnings.total()
        parts.append(f"{count:,} warning{'s' if count != 1 else ''} ({_reasons(report.warnings)})")
    if skipped:
        parts.append(f"{sum(skipped.values()):,} skipped ({_reasons(skipped)})")
    if report.resumed:
        parts.append(f"{report.resumed:,} kept from before")
    images = f"{report.listed:,} image{'s' if report.listed != 1 else ''}"
    if others:
        images = f"this shard: {report.listed:,} of {report.listed + others:,} images"
    rate = (report.listed - report.resumed) / max(seconds, 1e-9)
    return f"{images}: {', '.join(parts)} in {seconds:.1f} s, {rate:.1f} images/s"


def _taken(skipped: Mapping[str, int]) -> str:
    """Says what would be taken of a source of which everything was skipped."""
    ways = ["images are files that end in " + ", ".join(sorted(name.decode() for name in IMAGE_EXTENSIONS))]
    if NOT_IMAGE in skipped or NO_EXTENSION in skipped:
        ways.append("--include PATTERN takes others, and --archives takes those in archives")
    if SYSTEM_FOLDER in skipped:
        ways.append("--include-system takes folders of a system")
    return "; ".join(ways)


def log_summary(report: RunCounts, seconds: float) -> None:
    """Logs the closing line, after what each kind of warning means."""
    for kind in sorted(report.warnings):
        log.warning("%s: %s", kind, HINTS[kind])
    log.info("%s", summary(report, seconds))


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


def open_console() -> Console:
    """Returns a console on standard output that raises BrokenPipeError if the pipe is closed, where rich would exit."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PlainConsole(highlight=False)


def shorten(text: str, width: int) -> str:
    """Cuts text in the middle to a width in columns of a terminal: both ends of a name tell it from others."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    head = set_cell_size(text, (width - 1) // 3)
    tail = text[max(0, len(text) - width) :]
    while cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"


def print_facts(console: Console, facts: Iterable[tuple[str, str]]) -> None:
    """Prints names in bold with their values beside them, which are not wrapped: paths and addresses stay whole."""
    from rich.text import Text

    facts = list(facts)
    width = max(len(name) for name, _ in facts) + 1
    for name, value in facts:
        console.print(Text.assemble((name.ljust(width), "bold"), one_line(value)), soft_wrap=True)


def show_profile(profile: Profile, start: float) -> None:
    """Prints the closing table of `--profile` on standard error.

    Args:
        profile: of a run that has ended.
        start: seconds before the first image was asked for.
    """
    from rich.console import Console
    from rich.table import Table

    times = profile.times()
    total = sum(one.waited for one in times) or 1e-9
    table = Table("stage", title="where the time went", title_justify="left", box=None, pad_edge=False)
    for heading in ("waited for, s", "share", "at work, s", "images/s alone"):
        table.add_column(heading, justify="right")
    for one in times:
        rate = "" if one.rate is None else f"{one.rate:,.1f}"
        table.add_row(one.stage, f"{one.waited:.2f}", f"{one.waited / total:.0%}", f"{one.busy:.2f}", rate)
    console = Console(file=sys.stderr, highlight=False)
    console.print(table)
    console.print(f"Start (TensorFlow, weights, tracing) and finish: {start:.2f} s.", soft_wrap=True)
    console.print(f"Most of the time went into {profile.bottleneck()}.", soft_wrap=True)


class TerminalTable:
    """Prints rows on a terminal, batch by batch, in columns of fixed width."""

    def __init__(self, schema: pa.Schema, progress: Progress) -> None:
        self._progress = progress
        self._console = open_console()
        width = self._console.width
        self._top = prediction_count(schema)
        self._beside = width >= MIN_PATH + self._top * MIN_CELL
        widest = width - self._top * MIN_CELL if self._beside else width
        self._path = max(16, min(width * 2 // 5, widest))
        self._rest = max(8, width - self._path)
        names = [f"label {k}" for k in range(1, self._top + 1)] if self._beside else ["labels"]
        with progress.pause():
            self._console.print(self._line("image", names if self._top else ["norm and first values"], "bold"))

    def write(self, batch: pa.RecordBatch) -> None:
        """Prints a batch."""
        lines = []
        for row in range(batch.num_rows):
            path, style = one_line(batch.column(PATH)[row].as_py()), ""
            if batch.column(STATUS)[row].as_py() == ERROR_STATUS:
                reason, style = batch.column(ERROR)[row].as_py(), "red"
                cells = [[part] for part in textwrap.wrap(reason, self._rest - 1)]
            elif self._beside:
                cells = [self._predicted(batch, row) if self._top else [_vector(batch, row)]]
            else:
                cells = [[cell] for cell in self._predicted(batch, row) if cell] or [[""]]
            lines += [self._line("" if number else path, some, style) for number, some in enumerate(cells)]
        with self._progress.pause():
            for line in lines:
                self._console.print(line)

    def _line(self, path: str, cells: list[str], style: str = "") -> Text:
        from rich.cells import set_cell_size
        from rich.text import Text

        widths = [self._path, *[self._rest // len(cells)] * len(cells)]
        fitted = (set_cell_size(shorten(text, n - 1), n) for text, n in zip([path, *cells], widths, strict=True))
        return Text("".join(fitted).rstrip(), style=style, no_wrap=True, end="")

    def _predicted(self, batch: pa.RecordBatch, row: int) -> list[str]:
        cells = []
        for k in range(1, self._top + 1):
            label, score = batch.column(f"label_{k}")[row].as_py(), batch.column(f"score_{k}")[row].as_py()
            cells.append("" if label is None else f"{score:.3f} {one_line(label)}")
        return cells


def _vector(batch: pa.RecordBatch, row: int) -> str:
    import numpy as np

    column = batch.column(FEATURES)
    values = np.asarray((column.storage if hasattr(column, "storage") else column)[row].values, np.float32)
    return f"{np.linalg.norm(values):<9.4g} " + " ".join(f"{value:.4f}" for value in values[:8])


def print_json(value: object) -> None:
    """Prints a value as JSON in UTF-8, whatever the encoding of the terminal; names that are no text with escapes."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def lacking_pictures(missing: int, left_out: int) -> list[str]:
    """Returns what the closing line of a page says of images without a thumbnail: not found, or without room."""
    parts = []
    if missing:
        parts.append(f"{missing:,} images not found or not readable (--images says where they are now)")
    if left_out:
        parts.append(f"{left_out:,} left out for --max-size")
    return parts
