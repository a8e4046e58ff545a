"""`xception classify`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from xcli.cli.cluster_run import cluster_arguments
from xcli.cli.help import OUTPUT, Command, option
from xcli.cli.options import (
    model_arguments,
    model_spec,
    output_arguments,
    pixel_arguments,
    run_arguments,
    source_arguments,
)
from xcli.cli.table_run import run_table
from xcli.cli.verbosity import message_arguments
from xcli.core.records import default
from xcli.inference.tasks import ClassifyTask
from xcli.models.labels import LABEL_TYPES
from xcli.tables.formats import CLASSIFY_FORMATS


@click.command(cls=Command, short_help="Best classes of each image, with probabilities.")
@source_arguments
@output_arguments(CLASSIFY_FORMATS)
@option(
    "--top",
    section=OUTPUT,
    metavar="N",
    type=click.IntRange(min=1),
    default=default(ClassifyTask, "top"),
    show_default=True,
    help="Predictions a row.",
)
@option("--min-score", section=OUTPUT, metavar="P", type=float, help="Leave out predictions below P; the row stays.")
@option(
    "--label-type",
    section=OUTPUT,
    type=click.Choice(LABEL_TYPES),
    default=default(ClassifyTask, "label_type"),
    show_default=True,
    help="Names, WordNet ids, or both.",
)
@option(
    "--features-out",
    section=OUTPUT,
    metavar="FILE",
    type=click.Path(),
    help="Write the embeddings of the same pass to FILE, as features does.",
)
@option("--raw-scores", section=OUTPUT, is_flag=True, help="The head's output as it is, not made probabilities.")
@model_arguments(classes=True)
@pixel_arguments
@run_arguments
@cluster_arguments
@message_arguments
@click.pass_context
def classify(ctx: click.Context, /, **values: Any) -> int:
    """Classify images: their best classes with probabilities, one row an image.

    SOURCE is a file, a directory (searched recursively), a .tar, .tar.gz, .tar.zst or .zip archive (never unpacked to
    disk; its rows are named archive.tar::member), a quoted glob, one of these at an s3:// or gs:// URL, a file at an
    https:// URL, or - for a list of names on standard input; nothing at all is the current directory.

    \b
    Columns: path, status, error, label_1, index_1, score_1, ..., label_N, index_N, score_N

    Exit status: 0 all rows ok, 4 some rows are errors, 2 usage, 3 model, 5 output, 130 and 143 interrupted.
    """
    chosen = {name: values.pop(name) for name in ("top", "min_score", "label_type", "raw_scores")}
    chosen["with_features"] = values["features_out"] is not None
    spec = model_spec(ctx, values, include_top=True)
    return run_table(ctx, "classify", values, spec, partial(ClassifyTask, **chosen), CLASSIFY_FORMATS)
