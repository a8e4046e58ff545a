"""`xception verify`."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from xcli.checks.verify import Verdict
from xcli.checks.verify import verify as check
from xcli.cli.check_output import described, report_argument, reporting, sources_if_given
from xcli.cli.display import open_console, print_facts, print_json
from xcli.cli.help import OUTPUT, Command, flag
from xcli.cli.options import source_arguments
from xcli.cli.progress import ROWS, Progress, Readings, progress_argument
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode
from xcli.sources.listing import list_images
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("xcli")


@click.command(cls=Command)
@click.argument("table", metavar="OUT", type=click.Path())
@source_arguments
@flag("--json", OUTPUT, "Print the findings as JSON.")
@report_argument
@progress_argument
@message_arguments
@click.pass_context
def verify(ctx: click.Context, /, **values: Any) -> int:
    """Check a table that classify or features wrote: its columns, provenance, counts, values and paths.

    OUT is the file, or the directory of parts. The findings are NaN and infinite values, scores that are not
    probabilities, error rows that hold results, and counts that differ from those in FILE.meta.json. Give SOURCE... (or
    --manifest), the filters and --shard as the run had them: then every source must have its row and every row its
    source. Without SOURCE, paths that occur twice are only mentioned, because a source may be listed twice.

    Exit status: 0 nothing is wrong, 2 usage, 6 something is.
    """
    messages = start_messages(ctx)
    sources = sources_if_given(values, "SOURCE")
    reader = open_table(values["table"])
    with reporting(values["report"]) as findings:
        readings = Readings([reader], lambda: 2)
        with (
            nullcontext() if sources is None else list_images(sources) as listing,
            Progress(values["progress"], quiet=messages.level < 0, total=readings.total, unit=ROWS) as progress,
        ):
            readings.show(progress)
            verdict = check(reader, listing, findings)
    if values["json"]:
        print_json(verdict.as_dict())
    else:
        _show(verdict)
    return ExitCode.OK if verdict.passed else ExitCode.CHECK


def _show(verdict: Verdict) -> None:
    from rich.text import Text

    console = open_console()
    print_facts(console, _facts(verdict))
    for line in described(verdict.findings):
        console.print(Text(line, style="" if verdict.passed else "red"), soft_wrap=True)
    console.print(Text(_conclusion(verdict), style="bold"), soft_wrap=True)


def _facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    counts, made = verdict.counts, verdict.provenance
    errors = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.errors.items()))
    yield "table", verdict.name
    unit = "predictions a row" if verdict.command == "classify" else "values a row"
    yield "holds", f"{verdict.command}, {verdict.width:,} {unit}"
    failed = f"{counts.failed:,} error{'s' if counts.failed != 1 else ''}" + (f" ({errors})" if errors else "")
    yield "rows", f"{counts.rows:,}: {counts.ok:,} ok, {failed}"
    if verdict.sources:
        yield "sources", f"{counts.listed:,}"
    if made:
        tool, model = made.get("tool") or {}, made.get("model") or {}
        yield "made by", f"{tool.get('name')} {tool.get('version')}, {model.get('name')}"
        yield "weights", str(model.get("sha256"))
        yield "computed", f"in {made.get('precision')} on {made.get('device')}"


def _conclusion(verdict: Verdict) -> str:
    rows = f"{verdict.counts.rows:,} row{'s' if verdict.counts.rows != 1 else ''}"
    if not verdict.passed:
        wrong = sum(not finding.warning for finding in verdict.findings)
        return f"{rows}: {wrong} check{'s' if wrong != 1 else ''} failed"
    repeated = any(finding.check == "repeated" for finding in verdict.findings)
    if verdict.sources:
        whole = "every source has its row, and every row its source; no duplicates"
    else:
        whole = "not compared with sources; " + ("some paths occur twice" if repeated else "no duplicates")
    return f"{rows}: {whole}; no NaN, no infinite values"
