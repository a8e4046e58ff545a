"""What `classify` and `features` do alike: sources, model and output joined, progress, the closing line."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from xcli.cli.display import Progress, TerminalTable, show_profile, summary
from xcli.cli.messages import messages_of
from xcli.cli.options import pixel_options, record_options, run_options, source_options
from xcli.errors import ExitCode, Terminated, UsageError
from xcli.inference import Run, Table, preprocessing_for
from xcli.model import LoadedModel, ModelSpec, load_model
from xcli.output import is_direct
from xcli.recording import finished, record
from xcli.runtime import NativeStderr, keep_freed_memory, load_tensorflow
from xcli.sinks import check_output, format_from_name
from xcli.sources import list_images

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from xcli.records import Report

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

    What can be found wrong cheaply is found first: options, then the output, then the sources, then the model.
    """
    begin = time.monotonic()
    messages = messages_of(ctx)
    messages.apply()
    options, pixels, sources = run_options(values), pixel_options(values), source_options(values)
    recording = record_options(values)
    target, overwrite = values["output"], values["overwrite"]
    on_terminal = target is None and values["format"] is None and sys.stdout.isatty()
    form = values["format"] or format_from_name(target, formats, "csv")
    # What a run finished is not replaced, but may be the very file that is asked for; `record` finds out.
    check_output(form, target, overwrite or (target is not None and finished(target) is not None))
    if target is not None and sources.manifest is not None and _same_file(target, sources.manifest):
        raise UsageError(f"{target} is the manifest and the output at once; give the output another name")
    with list_images(sources) as listing:
        if listing.default_directory:
            log.warning("no SOURCE given: taking the current directory")
        quiet_libraries(debug=messages.debug)
        model = load_model(spec)
        for note in model.notes:
            log.warning("%s", note)
        run = Run(listing, model, make_table(model), preprocessing_for(model, **pixels), options)
        with Progress(enabled=messages.level >= 0) as progress:
            try:
                seconds: float | None
                if on_terminal:
                    seconds = _show(run, progress)
                else:
                    seconds = record(
                        run,
                        command,
                        form,
                        target,
                        overwrite=overwrite,
                        options=recording,
                        command_line=shlex.join(["xception", *sys.argv[1:]]),
                        on_batch=progress.advance,
                    )
            except (KeyboardInterrupt, Terminated):
                kept = "" if run.published or is_direct(target) else "; the same command goes on from there"
                log.error("stopped after %d images%s", run.report.rows, kept)
                raise
    if seconds is None:
        return ExitCode.OK
    code = _close(run.report, seconds)
    if values["profile"]:
        show_profile(run.profile, time.monotonic() - begin - seconds)
    return code


def _same_file(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def quiet_libraries(debug: bool) -> None:
    """Imports TensorFlow with everything that it and its like say on standard error kept back.

    Before it, while this process has one thread, the C library's allocator is set up.
    """
    keep_freed_memory()
    if not debug:
        NativeStderr().capture()
        warnings.simplefilter("ignore")
    load_tensorflow()


def _show(run: Run, progress: Progress) -> float:
    """Runs to the end and shows the rows on the terminal; returns the seconds it took."""
    table = TerminalTable(run.start(), progress)
    begin = time.monotonic()
    for batch, rows in run.batches():
        table.write(rows)
        progress.advance(batch)
    return time.monotonic() - begin


def _close(report: Report, seconds: float) -> int:
    if report.listed:
        log.warning("%s", summary(report, seconds))
    else:
        log.warning("no images found%s", _skipped(report.skipped))
    return ExitCode.ROW_ERRORS if report.failed else ExitCode.OK


def _skipped(skipped: Any) -> str:
    return " (skipped: " + ", ".join(f"{count} {reason}" for reason, count in skipped.items()) + ")" if skipped else ""
