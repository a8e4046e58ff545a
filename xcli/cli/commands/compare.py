"""`xception compare`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from xcli.analysis.compare import compare as compare_tables
from xcli.analysis.compare import readings, write_differences
from xcli.cli.answer_table import check_answer_table
from xcli.cli.display import open_console, print_facts, print_json
from xcli.cli.help import OUTPUT, RUN, Command, flag, number, path
from xcli.cli.progress import ROWS, Progress, Readings, progress_argument
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("xcli")

_SHOWN = 10
_WIDE = 1 << 14
_AGREEMENT = (
    "Exit with 6 if less than this share of the images has the same best class. Images that are missing or failed in "
    "one table count as different."
)
_COSINE = (
    "Exit with 6 if the cosine of any image is lower, or cannot be computed, or if an image is missing or failed in "
    "one table."
)
_MISSING = "Let the assertions leave out images that are missing or failed in one table."
_OUTPUT = "Write each image that differs to FILE (.csv, .parquet, .jsonl); - is standard output."


@click.command(cls=Command)
@click.argument("first", metavar="A", type=click.Path())
@click.argument("second", metavar="B", type=click.Path())
@flag("--json", OUTPUT, "Print the figures as JSON.")
@path(
    "-o --output",
    OUTPUT,
    "FILE",
    "Write each image that differs to FILE (.csv, .parquet, .jsonl); - is standard output.",
)
@flag("--overwrite", OUTPUT, "Replace FILE if it exists.")
@number("--assert-agreement", RUN, "P", click.FloatRange(0, 1), _AGREEMENT)
@number("--assert-cosine", RUN, "C", click.FloatRange(-1, 1), _COSINE)
@flag("--missing-ok", RUN, _MISSING)
@progress_argument
@message_arguments
@click.pass_context
def compare(ctx: click.Context, /, **values: Any) -> int:
    """Compare two tables of the same images, such as those of an older and a newer model.

    A and B are tables that classify, or features, wrote, of any two formats and in any order. Rows are matched by their
    paths; rows with the same path in their order. Shown are rows in one table only, rows whose status has changed, best
    classes that have changed, by pairs, the drift of the scores of the others or the cosines of the features, and the
    images that have changed most. Images that failed in both tables have nothing to compare, and count nowhere.

    Exit status: 0 compared, 2 usage, 5 output, 6 a table is damaged, or an assertion failed.
    """
    messages = start_messages(ctx)
    first, second = (open_table(values[name], escaped="restore") for name in ("first", "second"))
    of_features = first.command == "features"
    wrong, command = ("--assert-agreement", "classify") if of_features else ("--assert-cosine", "features")
    if values[wrong[2:].replace("-", "_")] is not None:
        raise UsageError(f"{wrong} is for tables of {command}, and {one_line(first.name)} is of {first.command}")
    if values["missing_ok"] and values["assert_agreement"] is None and values["assert_cosine"] is None:
        raise UsageError("--missing-ok is for --assert-agreement and --assert-cosine, and neither was given")
    target, form = values["output"], check_answer_table("compare", values)
    times = readings(first.command, written=target is not None)
    rows = Readings([first] * times[0] + [second] * times[1], lambda: 1)
    with Progress(values["progress"], quiet=messages.level < 0, total=rows.total, unit=ROWS) as progress:
        rows.show(progress)
        result = compare_tables(first, second)
        if target is not None:
            write_differences(result, first, second, target, form, overwrite=values["overwrite"])
    if values["json"]:
        print_json(result.summary)
    elif target != "-":
        _show(result.summary)
    return _check(result.summary, values)


def _check(summary: dict[str, Any], values: dict[str, Any]) -> int:
    """Returns the exit code that the assertions give."""
    missing = 0 if values["missing_ok"] else summary["missing_or_failed_in_one"]
    left_out = f"{missing:,} missing or failed in one table (--missing-ok leaves these out)"
    if (least := values["assert_agreement"]) is not None:
        found = summary["agreement_of_all" if missing else "agreement"]
        if found is None:
            log.error(
                "--assert-agreement asks for %s, and there is no image to compare%s",
                least,
                f": {left_out}" if missing else "",
            )
            return ExitCode.CHECK
        if found < least:
            same, changed = summary["compared"] - summary["changed"], summary["changed"]
            log.error(
                "the agreement is %s, less than the %s that --assert-agreement asks for: of %s images, %s have the "
                "same best class, %s another one%s",
                f"{found:.6f}",
                least,
                f"{summary['compared'] + missing:,}",
                f"{same:,}",
                f"{changed:,}",
                f", {left_out}" if missing else "",
            )
            return ExitCode.CHECK
    if (least := values["assert_cosine"]) is not None:
        worst, without = summary["cosine"]["worst"], summary["cosine"]["not_comparable"]
        if worst is None or worst < least or without or missing:
            shown = "unknown" if worst is None else f"{worst:.6f}"
            more = f"; {without:,} images have none, as a vector is zero or holds NaN" if without else ""
            more += f"; {left_out}" if missing else ""
            log.error("--assert-cosine asks for %s, and the lowest cosine is %s%s", least, shown, more)
            return ExitCode.CHECK
    return ExitCode.OK


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    if not console.is_terminal:
        console.width = _WIDE  # other programs find each row on a line
    print_facts(console, _facts(summary))
    for title, rows in (
        ("best classes that changed", summary.get("changed_classes", [])),
        ("changed most", summary["most_changed"]),
    ):
        if not rows:
            continue
        console.print(Text(title, style="bold"))
        table = Table(box=None, pad_edge=False)
        for name in rows[0]:
            table.add_column(name, justify="left" if name in ("path", "a", "b") or "label" in name else "right")
        for row in rows[:_SHOWN]:
            table.add_row(*(Text(_cell(value), overflow="fold") for value in row.values()))
        console.print(table)
        if len(rows) > _SHOWN:
            console.print(f"... and {len(rows) - _SHOWN:,} more (--json lists them)", soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else one_line(value)


def _facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "rows", f"{summary['rows']['a']:,} in A, {summary['rows']['b']:,} in B"
    yield "in one only", f"{summary['only_a']:,} in A, {summary['only_b']:,} in B"
    status = summary["status"]
    yield "status", ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in status.items())
    if "agreement" in summary:
        share = "" if summary["agreement"] is None else f" ({summary['agreement']:.2%})"
        same = summary["compared"] - summary["changed"]
        yield "same class", f"{same:,} of {summary['compared']:,}{share}"
        if missing := summary["missing_or_failed_in_one"]:
            images = f"{same:,} of {summary['compared'] + missing:,} ({summary['agreement_of_all']:.2%})"
            yield "of all", f"{images}, with the {missing:,} images that are missing or failed in one table"
        yield "score drift", _spread(summary["score_drift"])
    else:
        yield "cosine", f"{_spread(summary['cosine'])}, of {summary['compared']:,} images"


def _spread(spread: dict[str, Any]) -> str:
    if spread["median"] is None:
        return "none"
    texts = [f"{name} {spread[name]:.6f}" for name in ("median", "p1", "p99", "worst")]
    missing = spread["not_comparable"]
    return ", ".join(texts) + (f", {missing:,} not comparable" if missing else "")
