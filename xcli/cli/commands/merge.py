"""`xception merge`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from xcli.checks.merge import Merged, MergeError, Shards
from xcli.checks.merge import merge as join
from xcli.cli.check_output import described, report_argument, reporting, sources_if_given
from xcli.cli.help import INPUT, OUTPUT, Command, option
from xcli.cli.options import source_filters
from xcli.cli.verbosity import message_arguments, messages_of
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.outputs.target import Directory, parse_target
from xcli.sources.listing import list_images
from xcli.tables.formats import CLASSIFY_FORMATS, FEATURES_FORMATS, SINKS, check_output

if TYPE_CHECKING:
    from xcli.checks.findings import Findings
    from xcli.sources.listing import Listing

log = logging.getLogger("xcli")


@click.command(cls=Command, short_help="The outputs of --shard runs joined to one, and proven whole.")
@click.argument("shards", metavar="SHARD...", nargs=-1, required=True, type=click.Path())
@option(
    "--source",
    "sources",
    section=INPUT,
    metavar="SOURCE",
    multiple=True,
    type=click.Path(),
    help="A source of the runs, as they were given it; again for each, in the same order.",
)
@source_filters
@option(
    "-o",
    "--output",
    section=OUTPUT,
    metavar="FILE",
    required=True,
    type=click.Path(),
    help="The whole table; - is standard output.",
)
@option(
    "--format",
    section=OUTPUT,
    type=click.Choice(tuple(SINKS)),
    help="Of the table [default: from the extension of FILE]; another than the shards' only if those are Parquet.",
)
@option("--overwrite", section=OUTPUT, is_flag=True, help="Replace FILE if it exists.")
@option(
    "--mixed-machines",
    section=OUTPUT,
    is_flag=True,
    help="Join even if device or batch size differ: values agree within the precision, not bit for bit.",
)
@report_argument
@message_arguments
@click.pass_context
def merge(ctx: click.Context, /, **values: Any) -> int:
    """Join the outputs of runs with --shard, and prove that no image is missing and none is there twice.

    SHARD... are files that classify or features wrote, of one format; all must come from the same model, weights,
    labels, preprocessing, precision and options. With --source (or --manifest) as the runs had it, rows are in the
    order of the sources, and every source has exactly one row, or nothing is written; the file is then byte for byte
    that of one run without --shard. Without, the shards are joined one behind the other in the order given, and only
    what they say of themselves is checked. Filters (--include, --exclude, --archives, --limit) are those of the runs.

    Exit status: 0 joined, 2 usage, 5 output, 6 the shards do not fit together or do not cover the sources.
    """
    messages_of(ctx).apply()
    names = values.pop("shards")
    sources = sources_if_given(values, "--source")
    target, overwrite = values["output"], values["overwrite"]
    parsed = parse_target(target)
    shards = Shards(names, mixed_machines=values["mixed_machines"])
    formats = CLASSIFY_FORMATS if shards.kind == "classify" else FEATURES_FORMATS
    form = values["format"] or parsed.format(formats, shards.format)
    if form not in formats:
        raise UsageError(f"{form} is no format of {shards.kind}; give one of {', '.join(formats)}")
    shards.check_format(form)
    _check_target(target, names)
    if isinstance(parsed, Directory):
        raise UsageError(
            f"merge writes one file, and {target!r} is a directory; readers take the parts of several as one"
        )
    check_output(form, target, overwrite)

    def run(listing: Listing | None, findings: Findings) -> Merged:
        line = shlex.join(["xception", *sys.argv[1:]])
        return join(shards, listing, form, target, overwrite=overwrite, findings=findings, command_line=line)

    try:
        with reporting(values["report"]) as findings:
            if sources is None:
                merged = run(None, findings)
            else:
                with list_images(sources) as listing:
                    merged = run(listing, findings)
    except MergeError as error:
        for line in described(error.findings):
            log.error("%s", line)
        raise
    log.warning("%s", _summary(merged))
    return ExitCode.OK


def _check_target(target: str, names: tuple[str, ...]) -> None:
    for name in names:
        if os.path.realpath(target) == os.path.realpath(name):
            raise UsageError(f"{one_line(target)} is a shard and the output at once; give the output another name")


def _summary(merged: Merged) -> str:
    numbers = ((merged.report.rows, "row"), (merged.shards, "shard"), (merged.report.failed, "error"))
    rows, shards, errors = (f"{number:,} {word}{'s' if number != 1 else ''}" for number, word in numbers)
    return f"{rows} of {shards} ({merged.report.ok:,} ok, {errors}){_order(merged)}"


def _order(merged: Merged) -> str:
    if merged.ordered:
        return ": every source has its row, in the order of the sources"
    return ", one behind the other as given; --source restores the order of the sources and proves that none is missing"
