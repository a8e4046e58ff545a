"""Runs `classify` and `features`: joins sources, model and output, and shows progress and the closing line."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.cluster_run import RAY, cluster_arguments, is_on_cluster, run_on_cluster
from xcli.cli.display import TerminalTable, log_summary, show_profile
from xcli.cli.environment import beats
from xcli.cli.help import Decorator, fold, options
from xcli.cli.options import (
    command_line,
    is_given,
    model_arguments,
    output_arguments,
    pixel_arguments,
    pixel_options,
    run_arguments,
    source_arguments,
)
from xcli.cli.progress import Progress, progress_argument
from xcli.cli.verbosity import Messages, message_arguments, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.process import hide_library_output, may_have_gpu, reuse_freed_memory
from xcli.core.shortage import require_resources
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.models.loader import load_model, preprocessing_for
from xcli.outputs.options import Output, SaveOptions, TableRequest, check_output_options
from xcli.outputs.save import save
from xcli.outputs.target import Directory, Stream, parse_target
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.storage.urls import is_url
from xcli.tables.formats import CSV_SAFE_FORMATS, FEATURES_FORMATS, format_of_extension

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from xcli.core.records import RunCounts
    from xcli.inference.run import TableRun
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.outputs.comparison import Comparison
    from xcli.outputs.save import OnComparison
    from xcli.outputs.target import Target

    MakeTask = Callable[[dict[str, Any]], Callable[[LoadedModel], Task]]
    OpenRun = Callable[[TableRequest, Messages], AbstractContextManager[TableRun]]

log = logging.getLogger("xcli")


def table_arguments(formats: tuple[str, ...], *own: Decorator, classes: bool) -> Decorator:
    """Declares the options of `classify` and `features`.

    Args:
        formats: formats of the table.
        own: options of the command itself.
        classes: whether the model is to have a classifier, with its number of classes and their names.
    """
    model = model_arguments(classes=classes, labels=classes)
    output = output_arguments(formats)
    return options(
        source_arguments,
        output,
        *own,
        model,
        pixel_arguments,
        run_arguments,
        cluster_arguments,
        progress_argument,
        message_arguments,
    )


def run_table(
    ctx: click.Context,
    values: dict[str, Any],
    spec: ModelSpec,
    make_task: MakeTask,
    formats: tuple[str, ...],
    open_run: OpenRun | None = None,
) -> int:
    """Runs a command that writes a table in one of `formats`; returns its exit code.

    `make_task` makes, of the values of the command, what makes the task for the loaded model; `open_run` opens a run of
    other things than images, on one machine.

    Checks that are cheap come first: options, then the output, then the sources, then the model.
    """
    begin = time.monotonic()
    messages = start_messages(ctx)
    target = parse_target(values["output"])
    _set_aside(ctx, values, target)
    on_cluster = is_on_cluster(ctx, values)
    request = _parse_request(ctx, values, spec, make_task, target, formats)
    found: dict[str, Any] = {}  # by a comparison, for --json

    def on_comparison(comparison: Comparison) -> None:
        found.update(comparison.as_dict())

    try:
        if on_cluster:
            return _close(*run_on_cluster(ctx, request, values, on_comparison), found)
        _check_request(request)
        opened = (open_run or _images_run)(request, messages)
        run, seconds = _run(request, opened, messages, values, on_comparison)
        code = _close(run.report, seconds, found)
    finally:
        if values["json"] and found:
            click.echo(json.dumps(found))
    if values["profile"] and seconds is not None:
        show_profile(run.profile, time.monotonic() - begin - seconds)
    return code


def _run(
    request: TableRequest,
    opened: AbstractContextManager[TableRun],
    messages: Messages,
    values: dict[str, Any],
    on_comparison: OnComparison,
) -> tuple[TableRun, float | None]:
    """Computes and saves the rows; returns the run, and its seconds (None: finished before)."""
    with opened as run:
        total, kept = (lambda: run.listing.total), (lambda: run.report.resumed)
        with Progress(values["progress"], quiet=messages.level < 0, total=total, kept=kept) as progress:
            on_terminal = _is_on_terminal(values)
            show = (lambda schema: nullcontext(TerminalTable(schema, progress))) if on_terminal else None
            saved = save(
                run,
                request.output,
                request.save,
                command_line=command_line(),
                on_begin=progress.begin,
                on_batch=progress.advance,
                show=show,
                on_comparison=on_comparison,
            )
            return run, saved


@contextmanager
def _images_run(request: TableRequest, messages: Messages) -> Iterator[Run]:
    """Opens a run of the network over the images of the sources."""
    # Only Parquet has types; in other formats a number stays as the manifest spells it.
    with list_images(request.sources, numbers=request.output.format == "parquet") as listing:
        quiet_libraries(debug=messages.debug)
        model = load_model(request.spec)
        for note in model.notes:
            log.warning("%s", note)
        yield Run(listing, model, request.make_task(model), preprocessing_for(model, **request.pixels), request.run)


def quiet_libraries(debug: bool) -> None:
    """Prepares this process for libraries: hides what they write to standard error.

    The C library's allocator is set up first, while this process has one thread. TensorFlow is not imported: whatever
    can be checked without it comes before.
    """
    # XLA compiles for a GPU in as many threads as there are processors. A limit on the pools cannot be lifted later.
    reuse_freed_memory(one_pool=not may_have_gpu())
    require_resources()
    hide_library_output(debug=debug)


def _close(report: RunCounts, seconds: float | None, found: dict[str, Any]) -> int:
    """Sums up a run that has written its output, also in `found`, and returns the exit code."""
    if seconds is not None:
        log_summary(report, seconds)
        computed, errors = report.rows - report.resumed, dict(report.errors)
        found.update({"up_to_date": True, "rows": report.rows, "computed": computed, "errors": errors})
    return ExitCode.ROW_ERRORS if report.failed else ExitCode.OK


def _parse_request(
    ctx: click.Context,
    values: dict[str, Any],
    spec: ModelSpec,
    make_task: MakeTask,
    target: Target,
    formats: tuple[str, ...],
) -> TableRequest:
    format, save = values["format"], fold(SaveOptions, values, of_images=not values.get("from_features"))
    for name in save.csv_style() if _is_on_terminal(values) else ():
        raise UsageError(f"--{name.replace('_', '-')} is for CSV; give --format csv, or -o FILE")
    format = format or target.format(formats, "csv")
    if values["error_features"] == "null":
        second = save.features_file()
        holding = format if ctx.info_name == "features" else second and second.format(FEATURES_FORMATS, "parquet")
        if holding != "parquet":
            raise UsageError("--error-features null is for features in Parquet; in CSV they are empty, in NPY NaN")
    if isinstance(target, Stream):
        if values["json"]:
            raise UsageError("--json needs -o FILE: the rows themselves go to standard output")
        for option in ("part_rows", "part_seconds"):
            if is_given(ctx, option):
                raise UsageError(f"--{option.replace('_', '-')} needs -o FILE: what goes elsewhere has no parts")
    return TableRequest(
        sources=fold(SourceOptions, values),
        spec=spec,
        make_task=make_task(values),
        pixels=pixel_options(values),
        run=fold(RunOptions, values),
        output=Output(ctx.info_name or "", target, format, values["overwrite"]),
        save=save,
    )


def _set_aside(ctx: click.Context, values: dict[str, Any], target: Target) -> None:
    """Sets variables aside that do not go with what was typed: with the output, its format, the cluster."""
    if isinstance(target, Stream):
        update = ("update", "drop_missing", "trust_existing")
        beats(ctx, values, "output", "features_out", "restart", "retry_errors", "json", *update)
    elif isinstance(target, Directory):
        beats(ctx, values, "output", "features_out", "format")
    elif format_of_extension(target.name) is not None:
        beats(ctx, values, "output", "format")
    form = "parquet" if isinstance(target, Directory) else values["format"] or format_of_extension(target.name or "")
    if form not in (None, *CSV_SAFE_FORMATS) and values.get("features_out") is None:
        for typed in ("output", "format"):
            beats(ctx, values, typed, "csv_safe", "csv_bom")
    if not isinstance(target, Directory):
        beats(ctx, values, "output", "runner")
    if values["runner"] == RAY:
        beats(ctx, values, "runner", "profile", "features_out")
        if values["device"].startswith("gpu:"):
            beats(ctx, values, "runner", "device")


def _is_on_terminal(values: dict[str, Any]) -> bool:
    """Whether the rows are shown to a person instead of written."""
    return values["output"] is None and values["format"] is None and sys.stdout.isatty()


def _check_request(request: TableRequest) -> None:
    """Checks that the output can be written, before a model is loaded."""
    check_output_options(request.output, request.save)
    tables = {"the manifest": request.sources.manifest, "--exclude-from": request.sources.exclude_from}
    for name in (request.output.target.name, request.save.features_out):
        for what, table in tables.items():
            if name is not None and table is not None and _same_file(name, table):
                raise UsageError(f"{name} is {what} and the output at once; give the output another name")


def _same_file(one: str, other: str) -> bool:
    if is_url(one) or is_url(other):
        return one == other
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
