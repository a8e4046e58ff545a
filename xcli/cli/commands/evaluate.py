"""`xception evaluate`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.display import log_summary, open_console, print_facts, print_json, show_profile
from xcli.cli.help import INPUT, OUTPUT, Command, choice, flag, fold, number, option, options, path
from xcli.cli.options import (
    csv_safe,
    exclusions,
    exclusions_of,
    include_system,
    manifest_base,
    model_arguments,
    model_spec,
    no_follow,
    pixel_arguments,
    pixel_options,
    private_hosts,
    run_arguments,
)
from xcli.cli.progress import Progress, progress_argument
from xcli.cli.table_run import quiet_libraries
from xcli.cli.verbosity import message_arguments, messages_of, start_messages
from xcli.core.errors import CheckError, ExitCode, Terminated, UsageError
from xcli.core.records import PATH, ImageBatch
from xcli.core.text import one_line
from xcli.evaluation.evaluate import SPLIT_CHOICES, Evaluation, choose_split, split_of
from xcli.evaluation.evaluate import evaluate as measure
from xcli.evaluation.report import check_folder, is_within, write_report
from xcli.inference.options import RunOptions
from xcli.models.loader import load_model, preprocessing_for
from xcli.sources.labelled import LABEL, LabelledImages, Sample, leave_out, read_labelled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from xcli.evaluation.metrics import Metrics
    from xcli.models.spec import ModelSpec

MAX_CLASSES = 40
"""Classes that the terminal's table shows; of more it shows the worst."""

WORST = 20

log = logging.getLogger("xcli")

_PATHS = "Column of the manifest that holds the paths."
_LABELS = "Column of the manifest that holds the labels."

label_columns = options(
    option("--path-column", INPUT, _PATHS, metavar="NAME", default=PATH, show_default=True),
    option("--label-column", INPUT, _LABELS, metavar="NAME", default=LABEL, show_default=True),
    manifest_base,
    include_system,
    no_follow,
    private_hosts,
)
"""How labelled images are read; `labelled_images(values)` reads them."""


def labelled_images(values: dict[str, Any]) -> LabelledImages:
    """Lists the labelled images that a command was given."""
    names = ("path_column", "label_column", "manifest_base", "include_system", "no_follow", "allow_private_hosts")
    return read_labelled(values["data"], **{name: values[name] for name in names})


def chosen_images(values: dict[str, Any], excluded: str, *, trains: bool = False) -> LabelledImages:
    """Lists the labelled images that a command was given, without those that it excludes.

    Args:
        values: of the command.
        excluded: the parameter that names the table of the latter.
        trains: whether each class has to keep an image.
    """
    found = exclusions_of(values, excluded)
    data = labelled_images(values)
    return data if found is None else leave_out(data, found, trains=trains)


@click.command(cls=Command)
@click.argument("data", metavar="DATA", type=click.Path())
@choice(
    "--split",
    INPUT,
    SPLIT_CHOICES,
    "Which part of DATA to use [default: test if there is one, else validation, else all].",
)
@label_columns
@exclusions()
@path(
    "-o --output",
    OUTPUT,
    "DIR",
    "Write metrics.json, per_class.csv, confusion_matrix.csv and .png, predictions.csv and mistakes.png to DIR.",
)
@flag("--overwrite", OUTPUT, "Replace these files in DIR.")
@csv_safe
@flag("--json", OUTPUT, "Print the metrics as JSON.")
@number("--assert-top1", OUTPUT, "X", click.FloatRange(0, 1), "Exit with 6 if the top-1 accuracy is below X (0 to 1).")
@model_arguments(classes=True)
@pixel_arguments
@run_arguments
@progress_argument
@message_arguments
@click.pass_context
def evaluate(ctx: click.Context, /, **values: Any) -> int:
    """Measure a model on labelled images: accuracies, figures for each class, the confusion matrix, calibration.

    DATA is a directory with a folder for each class; or a directory with train/, validation/ (or val/) or test/, each
    with a folder for each class; or a manifest (CSV or Parquet) with the columns path and label, and optionally split.
    Folders and labels carry the names of the model's classes or their WordNet ids; case, and underscores instead of
    spaces, do not matter. A name that the model does not know is an error.

    Images that cannot be read are counted and left out of the figures. All scores are kept in memory: 4 bytes for each
    image and class.

    \b
    xception evaluate clothes/ --model RUN                   the validation split, where DATA has one
    xception evaluate clothes/ --model RUN -o report/        with tables and pictures
    xception evaluate clothes/ --model RUN --assert-top1 0.9 for pipelines

    Exit status: 0 all images read, 4 some could not be, 2 usage, 3 model, 5 output, 6 below --assert-top1.
    """
    begin = time.monotonic()
    start_messages(ctx)
    options, pixels = fold(RunOptions, values), pixel_options(values)
    spec = model_spec(ctx, values, include_top=True)
    data, folder = values["data"], values["output"]
    if values["csv_safe"] and folder is None:
        raise UsageError("--csv-safe was given without -o DIR; only files there are CSV")
    if folder is not None:
        if is_within(folder, data):
            raise UsageError(f"{folder} lies in {data}, where it would be a class next time; give another directory")
        check_folder(folder, values["overwrite"])
    images = chosen_images(values, "exclude_from")
    samples = choose_split(images, values["split"])
    split = split_of(samples)
    if images.splits and values["split"] is None:
        log.info("taking the %s split of %s; --split takes another", split, data)
    result = _measure(ctx, values["progress"], samples, spec, pixels, options, images.skipped)
    metrics = result.metrics()
    if folder is not None:
        write_report(
            folder,
            metrics,
            result.predictions(),
            extra={"split": split, "provenance": result.provenance},
            overwrite=values["overwrite"],
            escape_formulas=values["csv_safe"],
        )
    if values["json"]:
        print_json(metrics.as_dict() | {"errors": result.report.failed})
    else:
        show(metrics)
    log_summary(result.report, result.seconds)
    if values["profile"]:
        show_profile(result.profile, time.monotonic() - begin - result.seconds)
    wanted = values["assert_top1"]
    if wanted is not None and (metrics.top1 is None or metrics.top1 < wanted):
        got = "there is no top-1 accuracy" if metrics.top1 is None else f"the top-1 accuracy is {metrics.top1:.6g}"
        raise CheckError(f"{got}, below --assert-top1 {wanted:g}")
    return ExitCode.ROW_ERRORS if result.report.failed else ExitCode.OK


def _measure(
    ctx: click.Context,
    mode: str,
    samples: Sequence[Sample],
    spec: ModelSpec,
    pixels: dict[str, Any],
    options: RunOptions,
    skipped: Mapping[str, int],
) -> Evaluation:
    """Loads the model and computes the scores, with what is to be seen of that."""
    messages = messages_of(ctx)
    quiet_libraries(debug=messages.debug)
    model = load_model(spec)
    for note in model.notes:
        log.warning("%s", note)
    done = 0
    with Progress(mode, quiet=messages.level < 0, total=lambda: len(samples)) as progress:

        def advance(batch: ImageBatch) -> None:
            nonlocal done
            done += len(batch.refs)
            progress.advance(batch)

        progress.begin()
        try:
            settings = preprocessing_for(model, **pixels)
            return measure(samples, model, settings, options, skipped=skipped, on_batch=advance)
        except (KeyboardInterrupt, Terminated):
            log.error("stopped after %d of %d images; nothing was written", done, len(samples))
            raise


def show(metrics: Metrics, elsewhere: str = "-o DIR and --json have them all") -> None:
    """Prints a summary and a table by class on standard output.

    Args:
        metrics: what to print.
        elsewhere: says where classes are that the table leaves out.
    """
    console = open_console()
    facts = [("images", f"{metrics.n:,}"), ("top-1", _share(metrics.top1))]
    if len(metrics.labels) > 5:
        facts.append(("top-5", _share(metrics.top5)))
    for name, values in (("macro average", metrics.macro), ("weighted average", metrics.weighted)):
        shown = f"precision {values['precision']:.4f}, recall {values['recall']:.4f}, F1 {values['f1']:.4f}"
        facts.append((name, shown))
    ece = "none: the scores are no probabilities" if metrics.n and metrics.ece is None else _share(metrics.ece)
    print_facts(console, [*facts, ("calibration error", ece)])
    console.print()
    show_classes(console, metrics, elsewhere)


def show_classes(console: Console, metrics: Metrics, elsewhere: str) -> None:
    """Prints the table by class: of many classes the worst by F1, and how many others there are."""
    from rich.table import Table
    from rich.text import Text

    occurring = [int(index) for index in metrics.occurring()]
    chosen = occurring
    if len(occurring) > MAX_CLASSES:
        with_images = [index for index in occurring if metrics.support[index]]
        chosen = sorted(with_images, key=lambda index: (metrics.f1[index], -metrics.support[index], index))[:WORST]
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    for index in chosen:
        figures = (metrics.precision[index], metrics.recall[index], metrics.f1[index])
        name = Text(one_line(metrics.labels[index]))
        table.add_row(name, *(f"{value:.3f}" for value in figures), f"{metrics.support[index]:,}")
    console.print(table)
    left = len(metrics.labels) - len(occurring)
    if len(chosen) < len(occurring):
        line = f"The {len(chosen)} worst of {len(occurring):,} classes by F1; {one_line(elsewhere)}."
        console.print(line, soft_wrap=True, markup=False)
    elif left:
        console.print(f"{left:,} more classes have no image and were never predicted.")


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
