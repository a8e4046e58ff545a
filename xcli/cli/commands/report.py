"""`xception report`."""

from __future__ import annotations

import logging
import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.display import lacking_pictures
from xcli.cli.help import INPUT, OUTPUT, RUN, Command, flag, fold, number, path
from xcli.cli.progress import Readings, TwoStages, progress_argument
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode, UsageError
from xcli.core.text import one_line
from xcli.inference.options import MAX_WORKERS
from xcli.outputs.target import File, parse_target
from xcli.reports.options import MAX_CLUSTERS, MAX_PAGE_MB, ReportOptions
from xcli.reports.report import open_input, open_map_table, readings_of, write_report
from xcli.storage.urls import is_url
from xcli.tables.formats import open_table

if TYPE_CHECKING:
    from xcli.reports.report import Made

log = logging.getLogger("xcli")


@click.command(cls=Command)
@click.argument("table", metavar="TABLE", type=click.Path())
@path(
    "--truth",
    INPUT,
    "FILE",
    "True classes of the images of TABLE: CSV or Parquet with the columns path and label, or class folders. Adds the "
    "confusion matrix, figures by class, calibration and mistakes.",
)
@path("--compare", INPUT, "B", "A second table of the same images: the page begins with what changes from TABLE to B.")
@path(
    "--features",
    INPUT,
    "FEATURES",
    "A table of features of the same images: the page of a table of classify also shows them on a map, coloured by "
    "class.",
)
@path("--images", INPUT, "DIR", "Look for the images in DIR, by the ends of their paths: they have been moved there.")
@path("-o --output", OUTPUT, "FILE", "Write the page to FILE; - is standard output.", required=True)
@number(
    "--top-images",
    OUTPUT,
    "N",
    click.IntRange(min=1),
    "Images of each class to show because their scores are highest, and as many because they are lowest; of features, "
    "those of each cluster that are nearest to its centre.",
    of=ReportOptions,
)
@number(
    "--clusters",
    OUTPUT,
    "N",
    click.IntRange(1, MAX_CLUSTERS),
    "Clusters to divide features into [default: a fifth of the square root of the number of images, 2 to 40].",
)
@number(
    "--max-size",
    OUTPUT,
    "MB",
    click.FloatRange(0.1, MAX_PAGE_MB),
    "Size of the page; when it is reached, further images have no thumbnail, and the page says how many.",
    of=ReportOptions,
)
@flag("--open", OUTPUT, "Open the page in the browser when it is finished.")
@flag("--overwrite", OUTPUT, "Replace FILE if it exists.")
@number("--workers", RUN, "N", click.IntRange(1, MAX_WORKERS), "Images to decode at a time [default: one per CPU].")
@progress_argument
@message_arguments
@click.pass_context
def report(ctx: click.Context, /, **values: Any) -> int:
    """Make a page of a table of classify or features, or of an evaluation, to look through it in a browser.

    TABLE is the file, or the directory of parts; or a directory that evaluate -o or finetune -o wrote. The page is one
    file that opens without a network.

    Of a table of classify it shows counts, throughput, errors and their reasons, the distributions of the best score
    and of its distance to the second, and for each class the images of which the model is surest and least sure. Images
    can be filtered by class, score and path; the address of the page (`report.html#class=cat`) keeps the filter.

    Of a table of features it shows a map on which images that are alike to the network are near each other, and
    clusters with their most typical images. They can be filtered by cluster and path (`report.html#cluster=3`).

    Of an evaluation it shows the confusion matrix, where a cell opens its images
    (`report.html#truth=cat&predicted=dog`), figures for each class, calibration, and the surest mistakes; of a
    fine-tuned run also its history. With --truth, the page of a table has these sections, too. Labels are the names of
    the classes or their WordNet ids, as for evaluate.

    --features adds a map of the images of a table of classify, on which those that are alike to the network are near
    each other, coloured by their best classes; the filters of the page apply to it. Rows are matched by their paths.

    --compare adds what changes from TABLE to B: images in one table only, status, best classes by pairs, scores, and
    the images that change most, with the candidates of both tables (`report.html#from=cat&to=dog`). With it TABLE and B
    may also be tables of features, of which the page shows the cosines and the images that change most.

    All numbers are those of all rows. Of a large table the page shows some rows: those of --top-images (for each class,
    cell of the matrix, or cluster), and 3,000 drawn at random, on a map 10,000. An image that is not found is a grey
    tile.

    Exit status: 0 the page is written, 2 usage, 5 output, 6 the table is damaged, or none of which a page is made.
    """
    messages = start_messages(ctx)
    target = values["output"]
    if not isinstance(parse_target(target), File) and values["open"]:
        raise UsageError("--open needs the page in a file; give its name with -o")
    if is_url(target) and values["open"]:
        raise UsageError("--open needs the page on this machine; give a local file with -o")
    options = fold(ReportOptions, values)
    if options.images is not None and not os.path.isdir(options.images):
        raise UsageError(f"--images takes a directory on this machine, and {options.images!r} is none")
    other = None if values["compare"] is None else open_table(values["compare"], escaped="restore")
    source = open_input(values["table"], options, other)
    features = None if values["features"] is None else open_map_table(values["features"], source)
    both = [source] if other is None else [source, other]
    if features is None:
        readings = Readings(both, lambda: readings_of(source, other, options))
    else:  # for which the first table is read once more
        readings = Readings([*both * readings_of(source, other, options), source, features], lambda: 1)
    with TwoStages(values["progress"], readings, quiet=messages.level < 0) as stages:
        made = write_report(
            source,
            target,
            options,
            other=other,
            features=features,
            overwrite=values["overwrite"],
            progress=stages.count,
            on_total=stages.begin_second,
        )
    log.info("%s", _closing(target, made))
    if values["open"]:
        _show(target)
    return ExitCode.OK


def _show(page: str) -> None:
    """Opens a page in the browser, or says that there is none: the page is written all the same."""
    if not webbrowser.open(Path(page).absolute().as_uri()):
        log.warning("no browser was found that opens %s; open it yourself, or name one in BROWSER", one_line(page))


def _closing(target: str, made: Made) -> str:
    parts = [f"{made.rows:,} rows, {made.shown:,} of them shown", f"{made.thumbnails:,} thumbnails"]
    parts += lacking_pictures(made.missing, made.left_out)
    return f"{one_line(target)}: {', '.join(parts)}; {made.bytes / 1e6:.1f} MB"
