"""`xception search`."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from xcli.analysis.queries import Queries, answer_rows, answer_schema, find_queries
from xcli.analysis.search import Answers, fit_space, most_alike
from xcli.analysis.vectors import FeatureTables, open_features
from xcli.cli.answer_table import FORMATS, check_answer_table
from xcli.cli.display import lacking_pictures, open_console
from xcli.cli.help import INPUT, MODEL, OUTPUT, RUN, Command, choice, flag, fold, number, path
from xcli.cli.options import device_option, engine_option, weights_places, workers_option
from xcli.cli.progress import ROWS, Progress, Readings, progress_argument
from xcli.cli.table_run import quiet_libraries
from xcli.cli.verbosity import message_arguments, messages_of, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.inference.options import RunOptions
from xcli.inference.recorded import recorded_features
from xcli.models.spec import ModelSpec
from xcli.outputs.target import File, parse_target
from xcli.reports.options import MAX_PAGE_MB, ReportOptions
from xcli.reports.search_part import ROWS_SHARE, SearchPart, write_search_page
from xcli.storage.atomic import open_output
from xcli.tables.formats import create_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.sources.listing import Listing

log = logging.getLogger("xcli")

MAX_ANSWERS = 10_000_000

_ALSO = "Search in TABLE too, as if its rows followed those of FEATURES. Repeatable."
_WHITEN = (
    "Compare after centring and whitening by the table's own covariance: finds copies of an image rather than images "
    "of its kind."
)
_SELF = "Let a query that is a row of the table be its own first answer."
_MODEL = "The model that the table was made with, if it is no longer where it was."
_WEIGHTS = "The weights file that the table was made with, likewise."
_OUTPUT = (
    "Write the answers to FILE (.csv, .parquet, .jsonl); - is standard output [default: a table on a terminal, CSV on "
    "a pipe]."
)
_HTML = "Also make a page with the pictures, to look at in a browser; of each query at most 100 answers."
_MAX_SIZE = "Size of the page of --html; when it is reached, further images have no thumbnail."
_SHOWN = 100


@click.command(cls=Command)
@click.argument("table", metavar="FEATURES", type=click.Path())
@click.argument("queries", metavar="QUERY...", nargs=-1, required=True, type=click.Path())
@path("--also", INPUT, "TABLE", _ALSO, multiple=True)
@number("--top", OUTPUT, "N", click.IntRange(1, MAX_ANSWERS), "Answers to each query.", default=10, show_default=True)
@flag("--include-self", OUTPUT, _SELF)
@flag("--whiten", RUN, _WHITEN)
@path("-o --output", OUTPUT, "FILE", _OUTPUT)
@path("--html", OUTPUT, "FILE", _HTML)
@path("--images", INPUT, "DIR", "For --html: look for the images of the table in DIR: they have been moved there.")
@number("--max-size", OUTPUT, "MB", click.FloatRange(0.1, MAX_PAGE_MB), _MAX_SIZE, of=ReportOptions)
@choice("--format", OUTPUT, FORMATS, "Format of the table [default: from the extension of FILE; csv on a pipe].")
@flag("--overwrite", OUTPUT, "Replace FILE, and that of --html, if it exists.")
@path("--model", MODEL, "PATH", _MODEL)
@path("--weights", MODEL, "imagenet|none|PATH", _WEIGHTS)
@weights_places
@engine_option
@device_option
@workers_option
@progress_argument
@message_arguments
@click.pass_context
def search(ctx: click.Context, /, **values: Any) -> int:
    """Find the images of a table that are most like others, by the cosine of their features.

    FEATURES is a table that features wrote, in any format. A QUERY is the path of one of its rows, an NPY file of
    vectors (float, [queries, width]), or an image that is not in the table; directories, globs, archives and URLs of
    images are taken as by features. An image is embedded as the rows of the table were, by the same model, which is
    refused if it is another one; only for that a network runs. Every row is compared: the answers are exact. Rows of
    equal scores are in the order of the table, and error rows are no answers.

    \b
    CSV, Parquet, JSONL: query, rank, path, score

    Exit status: 0 all queries have answers, 2 usage, 3 model, 4 some queries cannot be embedded, 5 output.
    """
    begin = time.monotonic()
    start_messages(ctx)
    target = values["output"]
    form = check_answer_table("search", values)
    options = _page_options(values)
    tables = open_features([values["table"], *values["also"]])
    queries = find_queries(tables, values["queries"], lambda listing: _embedded(ctx, tables, listing, values))
    if len(queries.found) * values["top"] > MAX_ANSWERS:
        count, top = f"{len(queries.found):,}", f"{values['top']:,}"
        raise UsageError(f"{count} queries with --top {top} would have more than {MAX_ANSWERS:,} answers")
    answers = _answers(ctx, tables, queries, values)
    for name, problem in queries.problems:
        log.error("no answers to %s: %s", name, problem)
    if target is None and values["format"] is None and sys.stdout.isatty():
        _show(queries, answers)
    else:
        with create_table(form, target, answer_schema(), {}, values["overwrite"]) as table:
            table.write(answer_rows(queries, answers))
    if options is not None:
        _write_page(tables, queries, answers, values, options)
    log.info("%s", _closing(queries, answers, time.monotonic() - begin))
    return ExitCode.ROW_ERRORS if queries.problems else ExitCode.OK


def _page_options(values: dict[str, Any]) -> ReportOptions | None:
    """Returns how the page is made, whose file can be written; None where none is wanted."""
    target, images = values["html"], values["images"]
    if target is None:
        if images is not None:
            raise UsageError("--images is for the page of --html")
        return None
    if not isinstance(parse_target(target), File):
        raise UsageError(f"--html takes the name of a file; received {target!r}")
    if images is not None and not os.path.isdir(images):
        raise UsageError(f"--images takes a directory on this machine, and {images!r} is none")
    open_output(target, values["overwrite"]).discard()
    return fold(ReportOptions, values, top_images=_SHOWN)


def _write_page(
    tables: FeatureTables, queries: Queries, answers: Answers, values: dict[str, Any], options: ReportOptions
) -> None:
    room = int(options.max_size * 1_000_000 * ROWS_SHARE)
    part = SearchPart(queries, answers, whitened=values["whiten"], top_images=_SHOWN, room=room)
    made = write_search_page(part, tables.readers[0], values["html"], options, overwrite=values["overwrite"])
    parts = [f"{len(part.shown):,} queries with {len(made.made):,} thumbnails"]
    parts += lacking_pictures(len(made.missing), made.left_out)
    log.info("%s: %s", one_line(values["html"]), ", ".join(parts))


def _embedded(ctx: click.Context, tables: FeatureTables, listing: Listing, values: dict[str, Any]) -> Iterator[Any]:
    """Computes the vectors of images as those of the tables were."""
    recorded = recorded_features(tables.readers[0])
    messages = messages_of(ctx)
    quiet_libraries(debug=messages.debug)
    spec = ModelSpec(
        model=values["model"],
        weights=values["weights"] or "imagenet",
        include_top=False,
        weights_dir=values["weights_dir"],
        offline=values["offline"],
        progress=messages.level >= 0 and sys.stderr.isatty(),
    )
    model = recorded.load(spec, chosen=bool(values["model"] or values["weights"]))
    return recorded.embed(listing, model, fold(RunOptions, values))


def _answers(ctx: click.Context, tables: FeatureTables, queries: Queries, values: dict[str, Any]) -> Answers:
    """Reads the tables, and shows how far it is."""
    whiten = values["whiten"]
    readings = Readings(tables.readers, lambda: 2 if whiten else 1)
    quiet = messages_of(ctx).level < 0
    with Progress(values["progress"], quiet=quiet, total=readings.total, unit=ROWS) as progress:
        readings.show(progress)
        space = fit_space(tables, whiten=whiten)
        queries.drop_without_direction(space)
        excluded = None if values["include_self"] else queries.excluded()
        return most_alike(tables.blocks(), queries.matrix(tables.width), values["top"], space, excluded)


def _show(queries: Queries, answers: Answers) -> None:
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    for place, query in enumerate(queries.found):
        console.print(Text(one_line(query.name), style="bold"), soft_wrap=True)
        table = Table(box=None, pad_edge=False, show_header=False)
        for justify in ("right", "right", "left"):
            table.add_column(justify=justify)
        for rank, (found, score) in enumerate(answers.of(place), 1):
            table.add_row(str(rank), f"{score:.4f}", Text(one_line(found), overflow="fold"))
        console.print(table)


def _closing(queries: Queries, answers: Answers, seconds: float) -> str:
    count = len(queries.found) + len(queries.problems)
    parts = [f"{count:,} quer{'ies' if count != 1 else 'y'}"]
    if queries.problems:
        parts.append(f"{len(queries.problems):,} without a vector")
    return f"{', '.join(parts)}: compared with {answers.compared:,} rows in {seconds:.1f} s"
