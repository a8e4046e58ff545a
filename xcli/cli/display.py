"""What a person sees: progress on standard error, the table on a terminal, the closing line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from xcli.records import ERROR, ERROR_STATUS, FEATURES, PATH, STATUS, Report
from xcli.tables import one_line, prediction_count

if TYPE_CHECKING:
    from types import TracebackType

    import pyarrow as pa

MAX_SHOWN = 3
"""Predictions a row of the terminal's table; the files hold them all."""


def summary(report: Report, seconds: float) -> str:
    """The closing line: `341 images: 340 ok, 1 error (1 truncated) in 32.1 s, 10.6 images/s`."""
    parts = [f"{report.ok:,} ok"]
    if report.failed:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.errors.items()))
        parts.append(f"{report.failed:,} error{'s' if report.failed != 1 else ''} ({reasons})")
    skipped = sum(report.skipped.values())
    if skipped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.skipped.items()))
        parts.append(f"{skipped:,} skipped ({reasons})")
    images = f"{report.listed:,} image{'s' if report.listed != 1 else ''}"
    return f"{images}: {', '.join(parts)} in {seconds:.1f} s, {report.listed / max(seconds, 1e-9):.1f} images/s"


class Progress:
    """A tqdm bar on standard error, where that is a terminal."""

    def __init__(self, enabled: bool) -> None:
        self._bar: Any = None
        self._failed = 0
        self._enabled = enabled and sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if self._enabled:
            from tqdm import tqdm

            # The number of images is not known: they are listed while they are worked on.
            self._bar = tqdm(unit=" images", file=sys.stderr, dynamic_ncols=True, leave=False, smoothing=0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, images: int, failed: int) -> None:
        """Counts a batch."""
        self._failed += failed
        if self._bar is not None:
            if self._failed:
                self._bar.set_postfix_str(f"{self._failed} errors", refresh=False)
            self._bar.update(images)

    def pause(self) -> Any:
        """A context in which something else may write to the terminal."""
        from contextlib import nullcontext

        return self._bar.external_write_mode(file=sys.stdout) if self._bar is not None else nullcontext()


class TerminalTable:
    """Rows on a terminal, batch by batch, in columns that stay where they are."""

    def __init__(self, schema: pa.Schema, progress: Progress) -> None:
        from rich.console import Console

        self._progress = progress
        self._console = Console(highlight=False)
        self._first = True
        self._predictions = min(MAX_SHOWN, prediction_count(schema))
        self._path_width = max(20, self._console.width * 2 // 5)

    def write(self, batch: pa.RecordBatch) -> None:
        """Prints a batch."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=self._first, pad_edge=False, expand=True, header_style="bold")
        table.add_column("image", width=self._path_width, no_wrap=True, overflow="ellipsis")
        headings = [f"label {k + 1}" for k in range(self._predictions)] or ["norm", "first values"]
        for heading in headings:
            table.add_column(heading, ratio=1 if heading != "norm" else None, no_wrap=True, overflow="ellipsis")
        for row in range(batch.num_rows):
            path = Text(_from_the_end(one_line(batch.column(PATH)[row].as_py()), self._path_width))
            if batch.column(STATUS)[row].as_py() == ERROR_STATUS:
                table.add_row(path, Text(batch.column(ERROR)[row].as_py(), style="red"))
            else:
                cells = self._predicted(batch, row) if self._predictions else _vector(batch, row)
                table.add_row(path, *(Text(cell) for cell in cells))
        with self._progress.pause():
            self._console.print(table)
        self._first = False

    def _predicted(self, batch: pa.RecordBatch, row: int) -> list[str]:
        cells = []
        for k in range(1, self._predictions + 1):
            label, score = batch.column(f"label_{k}")[row].as_py(), batch.column(f"score_{k}")[row].as_py()
            cells.append("" if label is None else f"{score:.3f} {one_line(label)}")
        return cells


def _from_the_end(text: str, width: int) -> str:
    """The end of a path says more than its beginning."""
    return text if len(text) <= width else "…" + text[1 - width :]


def _vector(batch: pa.RecordBatch, row: int) -> list[str]:
    import numpy as np

    column = batch.column(FEATURES)
    values = np.asarray((column.storage if hasattr(column, "storage") else column)[row].values, np.float32)
    return [f"{np.linalg.norm(values):.4g}", " ".join(f"{value:.4f}" for value in values[:8])]
