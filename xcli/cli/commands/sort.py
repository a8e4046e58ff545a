"""`xception sort`."""

from __future__ import annotations

import csv
import logging
import shlex
import sys
from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from xcli.analysis.sort import Sorted, foresee, sort_files, undo
from xcli.analysis.sort_plan import MODES, SortOptions, plan_sort
from xcli.cli.help import INPUT, OUTPUT, Command, choice, flag, fold, number, option, path
from xcli.cli.progress import FILES, Progress, Readings, TwoStages, progress_argument
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import escape_path, one_line
from xcli.storage.urls import is_url
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from xcli.analysis.sort_plan import Plan

log = logging.getLogger("xcli")

_SHOWN = 20
_BY = "Column whose values name the folders."
_MIN = "Put rows with a score below P, or without one, into _unsure/."
_RENAME = "New names, such as '{class}-{row:06}': {name}, {stem}, {ext}, {row}, {class} and columns of the table."
_MODE = "What becomes of the files. copy also takes members of archives and objects of stores."


@click.command(cls=Command)
@click.argument("table", required=False, type=click.Path())
@click.argument("dest", required=False, type=click.Path())
@option("--by", INPUT, _BY, metavar="COLUMN", of=SortOptions)
@number("--min-score", INPUT, "P", float, _MIN)
@flag("--errors", INPUT, "Put the files of error rows into _errors/; without it, they stay where they are.")
@choice("--mode", OUTPUT, MODES, _MODE, of=SortOptions)
@option("--rename", OUTPUT, _RENAME, metavar="TEMPLATE")
@flag("--dry-run", OUTPUT, "Print what would be done, as a table, and change nothing.")
@path("--undo", OUTPUT, "LOG", "Take back what a sort has done, by its log, DEST/_sort-....jsonl.")
@progress_argument
@message_arguments
@click.pass_context
def sort(ctx: click.Context, /, **values: Any) -> int:
    """Put the files of a table into a folder for each class.

    TABLE is what classify or features wrote, in any format; DEST is made if it is missing. A file keeps its name; where
    DEST has that name already, a digest of its path is added: cat~1a2b3c4d.jpg. Nothing is overwritten, and no symbolic
    link in DEST is followed. Everything is logged in DEST before the first file is touched: if the command is
    interrupted, the same command goes on, and --undo LOG takes it back. Relative paths are relative to the current
    directory, as they were when the table was made.

    Exit status: 0 all files are in their places, 2 usage, 4 some files could not be placed, 5 output.
    """
    quiet = start_messages(ctx).level < 0
    options = fold(SortOptions, values)
    table, dest = values["table"], values["dest"]
    if values["undo"] is not None:
        _check_undo(ctx)
        with Progress(values["progress"], quiet=quiet, unit=FILES) as progress:
            taken = undo(values["undo"], progress=progress.count, on_total=progress.expect)
        return _report(taken, "taken back")
    if table is None or dest is None:
        raise UsageError("give TABLE and DEST: xception sort labels.csv sorted/")
    if is_url(dest):
        raise UsageError(f"DEST is {dest!r}; files are sorted into a directory of this machine")
    reader = open_table(table, escaped="restore")
    with TwoStages(values["progress"], Readings([reader], lambda: 1), quiet=quiet, unit=FILES) as stages:
        plan = plan_sort(reader, options)
        if not values["dry_run"]:
            result = sort_files(plan, dest, options, progress=stages.count, on_total=stages.begin_second)
    if values["dry_run"]:
        foresee(plan, dest, options)
        _show(plan, options.mode)
        return _report(Sorted("", len(plan.placements), plan.problems, plan.passed_over), "to be put into their places")
    return _report(result, "in their places")


def _check_undo(ctx: click.Context) -> None:
    """Raises UsageError if anything was given beside --undo that says how to sort."""
    for one in ctx.command.params:
        typed = ctx.get_parameter_source(one.name or "") is ParameterSource.COMMANDLINE
        if typed and one.name in ("table", "dest", "dry_run", *(field.name for field in fields(SortOptions))):
            name = one.opts[0] if isinstance(one, click.Option) else one.human_readable_name
            raise UsageError(f"--undo takes the log alone, which says what was done; {name} was given too")


def _show(plan: Plan, mode: str) -> None:
    """Prints a line for each file: a table on a terminal, CSV on a pipe."""
    rows = [(mode, escape_path(one.source), escape_path(f"{one.folder}/{one.name}")) for one in plan.placements]
    if not sys.stdout.isatty():
        csv.writer(sys.stdout, lineterminator="\n").writerows([("mode", "path", "to"), *rows])
        return
    from rich.table import Table
    from rich.text import Text

    from xcli.cli.display import open_console

    shown = Table("mode", "path", "to", box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*(Text(one_line(cell), overflow="fold") for cell in row))
    open_console().print(shown)


def _report(result: Sorted, what: str) -> int:
    for source, problem in result.problems[:_SHOWN]:
        log.warning("%s: %s", one_line(source), problem)
    if len(result.problems) > _SHOWN:
        log.warning("... and %s files more", f"{len(result.problems) - _SHOWN:,}")
    parts = [f"{result.done:,} file{'s' if result.done != 1 else ''} {what}"]
    if result.problems:
        reasons = Counter(problem.reason for _, problem in result.problems)
        named = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
        parts.append(f"{len(result.problems):,} not ({named})")
    others = [f"; {reason}: {count:,}" for reason, count in sorted(result.passed_over.items())]
    log.info("%s%s", ", ".join(parts), "".join(others))
    if result.log and what == "in their places":
        log.info("to take it back: %s", one_line(shlex.join(["xception", "sort", "--undo", result.log])))
    return ExitCode.ROW_ERRORS if result.problems else ExitCode.OK
