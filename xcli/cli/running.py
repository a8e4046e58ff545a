"""What `classify` and `features` do alike: sources, model and output joined, progress, the closing line."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
import warnings
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.display import Progress, TerminalTable, summary
from xcli.cli.options import messages_of, pixel_options, run_options, source_options
from xcli.errors import ExitCode, Terminated
from xcli.inference import Run, Table, preprocessing_for
from xcli.model import LoadedModel, ModelSpec, load_model
from xcli.output import is_direct
from xcli.runtime import NativeStderr, load_tensorflow
from xcli.sinks import METADATA_KEY, check_output, format_from_name, open_sink, write_meta
from xcli.sources import Listing, list_images

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

log = logging.getLogger("xcli")


def run_table(
    ctx: click.Context,
    command: str,
    values: dict[str, Any],
    spec: ModelSpec,
    make_table: Callable[[LoadedModel], Table],
    formats: tuple[str, ...],
) -> int:
    """Runs a command that writes a table in one of `formats`; returns its exit code.

    What can be found wrong cheaply is found first: options, then sources, then the output, then the model.
    """
    messages = messages_of(ctx)
    messages.apply()
    options, pixels, sources = run_options(values), pixel_options(values), source_options(values)
    target, overwrite = values["output"], values["overwrite"]
    on_terminal = target is None and values["format"] is None and sys.stdout.isatty()
    form = values["format"] or format_from_name(target, formats, "csv")
    check_output(form, target, overwrite)
    with list_images(sources) as listing:
        if listing.default_directory:
            log.warning("no SOURCE given: taking the current directory")
        started = datetime.now(UTC)
        quiet_libraries(debug=messages.debug)
        model = load_model(spec)
        for note in model.notes:
            log.warning("%s", note)
        run = Run(listing, model, make_table(model), preprocessing_for(model, **pixels), options)
        with Progress(enabled=messages.level >= 0) as progress:
            try:
                seconds = _write(run, command, None if on_terminal else form, target, overwrite, started, progress)
            except (KeyboardInterrupt, Terminated):
                kept = "" if is_direct(target) else f"; {target} was not written"
                log.error("stopped after %d images%s", run.report.rows, kept)
                raise
    return _close(run, listing, seconds, messages.level)


def quiet_libraries(debug: bool) -> None:
    """Imports TensorFlow with everything that it and its like say on standard error kept back."""
    if not debug:
        NativeStderr().capture()
        warnings.simplefilter("ignore")
    load_tensorflow()


def _write(
    run: Run,
    command: str,
    form: str | None,
    target: str | None,
    overwrite: bool,
    started: datetime,
    progress: Progress,
) -> float:
    """Runs to the end; returns the seconds from the first batch asked for to the last row written."""
    schema = run.start()
    provenance = run.provenance(command)
    metadata = {METADATA_KEY: json.dumps(provenance, sort_keys=True, ensure_ascii=False)}
    table = TerminalTable(schema, progress) if form is None else None
    output = nullcontext() if form is None else open_sink(form, target, schema, metadata, overwrite)
    begin = time.monotonic()
    with output as sink:
        write: Callable[[pa.RecordBatch], None] = table.write if table else sink.write  # type: ignore[union-attr]
        for batch, rows in run.batches():
            write(rows)
            progress.advance(len(batch.refs), sum(error is not None for error in batch.errors))
    seconds = time.monotonic() - begin
    write_meta(
        target,
        provenance
        | {
            "command_line": shlex.join(["xception", *sys.argv[1:]]),
            "started": started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "images": {
                "listed": run.report.listed,
                "ok": run.report.ok,
                "errors": run.report.errors,
                "skipped": dict(run.report.skipped),
            },
        },
    )
    return seconds


def _close(run: Run, listing: Listing, seconds: float, level: int) -> int:
    report = run.report
    if report.listed == 0:
        log.warning("no images found%s", _skipped(report.skipped))
    elif level >= 0:
        click.echo(f"xception: {summary(report, seconds)}", err=True)
    return ExitCode.ROW_ERRORS if report.failed else ExitCode.OK


def _skipped(skipped: Any) -> str:
    return " (skipped: " + ", ".join(f"{count} {reason}" for reason, count in skipped.items()) + ")" if skipped else ""
