"""What `classify` and `features` do alike: sources, model and output joined, progress, the closing line."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from click.core import ParameterSource

from xcli.cli.cluster_run import check_cluster_options, is_on_cluster, run_on_cluster
from xcli.cli.display import Progress, TerminalTable, show_profile, summary
from xcli.cli.options import pixel_options, record_options, run_options, source_options
from xcli.cli.verbosity import messages_of
from xcli.core.errors import ExitCode, UsageError
from xcli.core.process import hide_library_output, reuse_freed_memory
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.run import Run
from xcli.models.loader import load_model, preprocessing_for
from xcli.outputs.options import Output, check_output_options
from xcli.outputs.save import save
from xcli.outputs.target import Stream, parse_target
from xcli.sources.listing import list_images
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from xcli.core.records import RunCounts
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec

log = logging.getLogger("xcli")


def run_table(
    ctx: click.Context,
    command: str,
    values: dict[str, Any],
    spec: ModelSpec,
    make_table: Callable[[LoadedModel], Task],
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
    if is_on_cluster(ctx, values):
        folder = check_cluster_options(ctx, values, recording, options)
        report, seconds = run_on_cluster(
            folder,
            command,
            values,
            spec,
            make_table,
            pixels,
            options,
            sources,
            recording,
            show_progress=messages.level >= 0,
            debug=messages.debug,
        )
        return ExitCode.OK if seconds is None else _close(report, seconds)
    name = values["output"]
    on_terminal = name is None and values["format"] is None and sys.stdout.isatty()
    target = parse_target(name)
    output = Output(command, target, values["format"] or target.format(formats, "csv"), values["overwrite"])
    if on_terminal and recording.csv_safe:
        raise UsageError("--csv-safe is for CSV; give --format csv, or -o FILE")
    if isinstance(target, Stream):
        _check_unkept(ctx)
    check_output_options(output, recording)
    for file in (name, recording.features_out):
        if file is not None and sources.manifest is not None and _same_file(file, sources.manifest):
            raise UsageError(f"{file} is the manifest and the output at once; give the output another name")
    with list_images(sources) as listing:
        if listing.default_directory:
            log.warning("no SOURCE given: taking the current directory")
        quiet_libraries(debug=messages.debug)
        model = load_model(spec)
        for note in model.notes:
            log.warning("%s", note)
        run = Run(listing, model, make_table(model), preprocessing_for(model, **pixels), options)
        with Progress(enabled=messages.level >= 0) as progress:
            seconds = save(
                run,
                output,
                recording,
                command_line=shlex.join(["xception", *sys.argv[1:]]),
                on_batch=progress.advance,
                show=(lambda schema: nullcontext(TerminalTable(schema, progress))) if on_terminal else None,
            )
    if seconds is None:
        return ExitCode.OK
    code = _close(run.report, seconds)
    if values["profile"]:
        show_profile(run.profile, time.monotonic() - begin - seconds)
    return code


def _check_unkept(ctx: click.Context) -> None:
    for name in ("part_rows", "part_seconds"):
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('_', '-')} needs -o FILE: what goes elsewhere has no parts")


def _same_file(one: str, other: str) -> bool:
    if is_url(one) or is_url(other):
        return one == other
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def quiet_libraries(debug: bool) -> None:
    """Imports TensorFlow with everything that it and its like say on standard error kept back.

    Before it, while this process has one thread, the C library's allocator is set up.
    """
    reuse_freed_memory()
    hide_library_output(debug=debug)
    load_tensorflow()


def _close(report: RunCounts, seconds: float) -> int:
    if report.listed:
        log.warning("%s", summary(report, seconds))
    else:
        log.warning("no images found%s", _skipped(report.skipped))
    return ExitCode.ROW_ERRORS if report.failed else ExitCode.OK


def _skipped(skipped: Any) -> str:
    return " (skipped: " + ", ".join(f"{count} {reason}" for reason, count in skipped.items()) + ")" if skipped else ""
