"""`xception classify`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.help import COUNT, OUTPUT, Command, choice, flag, number, path
from xcli.cli.options import error_features, model_spec
from xcli.cli.table_run import run_table, table_arguments
from xcli.inference.tasks import ClassifyTask
from xcli.models.labels import LABEL_TYPES
from xcli.tables.formats import CLASSIFY_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable

    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel


@click.command(cls=Command)
@table_arguments(
    CLASSIFY_FORMATS,
    number("--top", OUTPUT, "N", COUNT, "Predictions in each row.", of=ClassifyTask),
    number("--min-score", OUTPUT, "P", float, "Leave predictions with a lower score than P empty; the row stays."),
    choice("--label-type", OUTPUT, LABEL_TYPES, "Labels as names, as WordNet ids, or both.", of=ClassifyTask),
    path("--features-out", OUTPUT, "FILE", "Also write the embeddings of the same pass to FILE, as features does."),
    error_features(ClassifyTask),
    flag("--raw-scores", OUTPUT, "Keep the model's output as it is, instead of turning it into probabilities."),
    classes=True,
)
@click.pass_context
def classify(ctx: click.Context, /, **values: Any) -> int:
    """Classify images: their best classes with probabilities, one row an image.

    SOURCE is a file, a directory (searched recursively), a .tar (also .gz, .bz2, .xz, .zst) or .zip archive
    (read without unpacking it to disk; its rows are named archive.tar::member), a quoted glob, one of these at an
    s3:// or gs:// URL, a file at an https:// URL, or - for a list of names on standard input. Without SOURCE, the
    current directory is taken.

    \b
    Columns: path, status, error, label_1, index_1, score_1, ..., label_N, index_N, score_N

    Exit status: 0 all rows ok, 4 some rows are errors, 2 usage, 3 model, 5 output, 129, 130 and 143 interrupted.
    """
    return run_table(ctx, values, model_spec(ctx, values, include_top=True), _task, CLASSIFY_FORMATS)


def _task(values: dict[str, Any]) -> Callable[[LoadedModel], Task]:
    settings = {name: values[name] for name in ("top", "min_score", "label_type", "raw_scores", "error_features")}
    return partial(ClassifyTask, with_features=values["features_out"] is not None, **settings)
