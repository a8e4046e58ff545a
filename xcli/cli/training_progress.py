"""The progress of a training on standard error: a live table on a terminal, plain lines on a pipe."""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from xcli.cli.progress import BAR, INTERVAL, JSON, LINES, NARROW
from xcli.training.callbacks import Callbacks, EpochMetrics

if TYPE_CHECKING:
    from xcli.training.activation_cache import ActivationCache
    from xcli.training.recipe import Phase

_REDRAWS = 4
"""Updates of the live table in a second, at most."""

log = logging.getLogger("xcli")


class TrainingDisplay(Callbacks):
    """Shows a fine-tuning while it runs.

    Args:
        mode: `BAR`, a live table; `LINES`, `JSON` or `NONE`.
        tensorboard: a directory for event files, or None.
    """

    def __init__(self, mode: str, tensorboard: str | None = None) -> None:
        self._mode, self._enabled, self._live = mode, mode in (BAR, LINES), mode == BAR
        self._bar: Any = None
        self._display: Any = None
        self._rows: list[tuple[str, ...]] = []
        self._status = ""
        self._begin = self._drawn = self._started = 0.0
        self._epochs = self._done = 0
        self._images, self._total, self._reported = 0, 0, 0.0
        self._tensorboard, self._number = tensorboard, 0
        self._writer: Any = None

    def __enter__(self) -> TrainingDisplay:
        self._started = time.monotonic()
        self._tell("start")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        self._tell("end" if kind is None else "stopped")

    def _tell(self, event: str, **values: Any) -> None:
        """Writes an object for a scheduler, if that is wanted."""
        if self._mode == JSON:
            seconds = round(time.monotonic() - self._started, 1)
            print(json.dumps({"event": event, "seconds": seconds} | values), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar, the table and the event file; may be called twice."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._display is not None:
            self._status = ""
            self._display.update(self._table(), refresh=True)
            self._display.stop()
            self._display = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_extraction_begin(self, images: int) -> None:
        log.info("computing the activations of %s views of images", f"{images:,}")
        self._images, self._total, self._reported = 0, images, time.monotonic()
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(total=images, unit=" views", file=sys.stderr, dynamic_ncols=True, leave=False)

    def on_images_extracted(self, images: int) -> None:
        self._images += images
        if self._bar is not None:
            self._bar.update(images)
        elif time.monotonic() - self._reported >= INTERVAL:
            self._reported = time.monotonic()
            self._tell("views", done=self._images, total=self._total)
            if self._enabled:
                self._say(f"{self._images:,} of {self._total:,} views")

    def on_extraction_end(self, reused: int, views: int, size: int, cache: ActivationCache) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        log.info(
            "activations: %.2f GB, %d of %d sets of views were cached; the cache holds %.2f GB in %s",
            size / 1e9,
            reused,
            views,
            cache.size() / 1e9,
            cache.folder,
        )

    def on_phase_begin(self, phase: Phase, done: int) -> None:
        self._begin, self._done, self._epochs = time.monotonic(), 0, phase.epochs - done
        if done:
            log.info("continuing: %d epochs of the phase '%s' are done", done, phase.name)
        if self._live and self._display is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stderr, highlight=False)
            self._display = Live(console=console, auto_refresh=False)
            self._display.start()
            self._display.update(self._table(), refresh=True)
        elif self._enabled and not self._live and not self._rows:
            self._say("  ".join(_HEADINGS))

    def on_step_end(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if not self._live and now - self._reported >= INTERVAL:
            self._reported = now
            self._tell("steps", done=step, total=steps, epochs_done=self._done, epochs=self._epochs)
            if self._enabled:
                self._say(f"step {step} of {steps}{self._left(self._done + step / steps)}")
        if self._display is None or now - self._drawn < 1 / _REDRAWS:
            return
        self._drawn = now
        self._status = f"step {step} of {steps}{self._left(self._done + step / steps)}"
        self._display.update(self._table(), refresh=True)

    def _left(self, done: float) -> str:
        """Returns the time left in the phase, if it is not stopped early, as text."""
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._begin) / done * (self._epochs - done)
        return f", {int(seconds) // 60}:{int(seconds) % 60:02d} left at most"

    def on_epoch_end(self, metrics: EpochMetrics, phase: Phase) -> None:
        self._done += 1
        cells = (
            f"{metrics.phase} {metrics.epoch}/{phase.epochs}",
            f"{metrics.loss:.4f}",
            f"{metrics.accuracy:.4f}",
            "" if metrics.val_loss is None else f"{metrics.val_loss:.4f}",
            "" if metrics.val_accuracy is None else f"{metrics.val_accuracy:.4f}",
            f"{metrics.seconds:.1f}",
        )
        self._rows.append(cells)
        self._reported = time.monotonic()
        values = asdict(metrics)
        self._tell("epoch", epochs=phase.epochs, epoch_seconds=round(values.pop("seconds"), 1), **values)
        self._write_events(metrics)
        if self._display is not None:
            self._status = self._left(self._done).removeprefix(", ")
            self._display.update(self._table(), refresh=True)
        elif self._enabled:
            line = "  ".join(cell.rjust(len(heading)) for cell, heading in zip(cells, _HEADINGS, strict=True))
            self._say(line + self._left(self._done))

    def on_evaluation_begin(self) -> None:
        self._tell("evaluation")
        if self._display is not None:
            self._status = "evaluating the finished model"
            self._display.update(self._table(), refresh=True)
        elif self._enabled:
            log.info("evaluating the finished model")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        shown = _NARROW_COLUMNS if self._display and self._display.console.width < NARROW else range(len(_HEADINGS))
        table = Table(box=None, pad_edge=False, caption=Text(self._status), caption_justify="left")
        for number in shown:
            table.add_column(_HEADINGS[number].strip(), justify="right" if number else "left", no_wrap=True)
        for cells in self._rows:
            table.add_row(*(cells[number] for number in shown))
        return table

    def _write_events(self, metrics: EpochMetrics) -> None:
        if self._tensorboard is None:
            return
        from xcli.core.tensorflow import load_tensorflow

        tf = load_tensorflow()
        if self._writer is None:
            # Nobody can plant a link to another file under a name that cannot be guessed.
            self._writer = tf.summary.create_file_writer(self._tensorboard, filename_suffix=f".{token_hex(8)}.v2")
        # tf.summary.scalar needs the package tensorboard, which TensorFlow does not install; tf.summary.write does not.
        proto = tf.compat.v1.SummaryMetadata
        metadata = proto(plugin_data=proto.PluginData(plugin_name="scalars"))
        self._number += 1
        with self._writer.as_default(step=self._number):
            for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
                value = getattr(metrics, name)
                if value is not None:
                    tf.summary.write(f"{metrics.phase}/{name}", tf.constant(value, tf.float32), metadata=metadata)
        self._writer.flush()


_NARROW_COLUMNS = 0, 2, 4
"""Of `_HEADINGS`, those that a narrow terminal has room for."""

_HEADINGS = ("epoch       ", "  loss", "accuracy", "val loss", "val accuracy", "seconds")
