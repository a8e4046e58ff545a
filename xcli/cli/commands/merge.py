"""`xception merge`."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from xcli.checks.merge import MergeError, Shards, was_cut_short
from xcli.checks.merge import merge as join
from xcli.cli.check_output import described, report_argument, reporting, sources_if_given
from xcli.cli.help import INPUT, OUTPUT, Command, choice, flag, path
from xcli.cli.options import command_line, source_filters
from xcli.cli.progress import ROWS, Progress, Readings, progress_argument
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.outputs.target import Directory, parse_target
from xcli.sources.listing import list_images
from xcli.tables.formats import CLASSIFY_FORMATS, FEATURES_FORMATS, FORMATS, check_output

if TYPE_CHECKING:
    from xcli.checks.merge import Merged

log = logging.getLogger("xcli")


@click.command(cls=Command)
@click.argument("shards", metavar="SHARD...", nargs=-1, required=True, type=click.Path())
@path(
    "--source sources",
    INPUT,
    "SOURCE",
    "A source that the runs were given. Repeat it for each, in the same order.",
    multiple=True,
)
@source_filters
@path("-o --output", OUTPUT, "FILE", "Write the merged table to FILE; - is standard output.", required=True)
@choice(
    "--format",
    OUTPUT,
    tuple(FORMATS),
    "Format of the merged table [default: from the extension of FILE]. Only Parquet shards can be converted.",
)
@flag("--overwrite", OUTPUT, "Replace FILE if it exists.")
@flag(
    "--mixed-machines",
    OUTPUT,
    "Merge even if the runs differ in device or batch size; their values then agree only within the precision.",
)
@report_argument
@progress_argument
@message_arguments
@click.pass_context
def merge(ctx: click.Context, /, **values: Any) -> int:
    """Merge the outputs of runs with --shard, and check that no image is missing or duplicated.

    SHARD... are files of one format that classify or features wrote with the same model, weights, labels,
    preprocessing, precision and options. Give --source (or --manifest) and filters (--include, --exclude, --archives,
    --limit) as the runs had them: then every source must have exactly one row, rows are in the order of the sources,
    and the file is byte-identical to that of one run without --shard. Without --source, the same is done by what the
    shards have recorded of the images that their runs listed. Shards that have not recorded it, from older versions or
    from --runner ray, are then appended to one another in the order given, and only the counts that they record are
    checked.

    Exit status: 0 merged, 2 usage, 5 output, 6 the shards do not fit together or do not cover the sources.
    """
    messages = start_messages(ctx)
    names = values["shards"]
    sources = sources_if_given(values, "--source")
    target, overwrite = values["output"], values["overwrite"]
    parsed = parse_target(target)
    shards = Shards(names, mixed_machines=values["mixed_machines"])
    formats = CLASSIFY_FORMATS if shards.command == "classify" else FEATURES_FORMATS
    form = values["format"] or parsed.format(formats, shards.format)
    if form not in formats:
        raise UsageError(f"{form} is no format of {shards.command}; give one of {', '.join(formats)}")
    shards.check_format(form)
    _check_target(target, names)
    if isinstance(parsed, Directory):
        raise UsageError(
            f"merge writes one file, and {target!r} is a directory; readers take the parts of several as one"
        )
    overwrite = overwrite or was_cut_short(target, names)
    check_output(form, target, overwrite)

    readings = Readings(shards.readers, lambda: shards.readings)
    how: dict[str, Any] = {"overwrite": overwrite, "command_line": command_line()}
    try:
        with (
            reporting(values["report"]) as findings,
            nullcontext() if sources is None else list_images(sources) as listing,
            Progress(values["progress"], quiet=messages.level < 0, total=readings.total, unit=ROWS) as progress,
        ):
            readings.show(progress)
            merged = join(shards, listing, form, target, findings=findings, **how)
    except MergeError as error:
        for line in described(error.findings):
            log.error("%s", line)
        raise
    log.info("%s", _summary(merged, sources is not None))
    return ExitCode.OK


def _check_target(target: str, names: tuple[str, ...]) -> None:
    for name in names:
        if os.path.realpath(target) == os.path.realpath(name):
            raise UsageError(f"{one_line(target)} is a shard and the output at once; give the output another name")


def _summary(merged: Merged, sources: bool) -> str:
    numbers = ((merged.counts.rows, "row"), (merged.shards, "shard"), (merged.counts.failed, "error"))
    rows, shards, errors = (f"{number:,} {word}{'s' if number != 1 else ''}" for number, word in numbers)
    return f"{rows} of {shards} ({merged.counts.ok:,} ok, {errors}){_order(merged, sources)}"


def _order(merged: Merged, sources: bool) -> str:
    if merged.ordered and not sources:
        return ": every image that the shards listed has its row, in the order of one run"
    if merged.ordered:
        return ": every source has its row, in the order of the sources"
    return ", one behind the other as given; --source restores the order of the sources and proves that none is missing"
