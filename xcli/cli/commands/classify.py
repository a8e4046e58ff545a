"""`xception classify`."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from xcli.analysis.scores import ScoresRun
from xcli.analysis.stored import check_fit, open_stored
from xcli.cli.environment import beats
from xcli.cli.help import COUNT, INPUT, OUTPUT, Command, choice, flag, number, path
from xcli.cli.options import error_features, model_spec
from xcli.cli.stored_features import take_tables
from xcli.cli.table_run import run_table, table_arguments
from xcli.inference.tasks import ClassifyTask
from xcli.models.head import read_head
from xcli.models.labels import LABEL_TYPES
from xcli.tables.formats import CLASSIFY_FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xcli.cli.verbosity import Messages
    from xcli.inference.tasks import Labelled
    from xcli.outputs.options import TableRequest

_STORED = "Take the rows of TABLE, which features wrote, instead of images. Repeatable."


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
@path("--from-features", INPUT, "TABLE", _STORED, multiple=True)
@click.pass_context
def classify(ctx: click.Context, /, **values: Any) -> int:
    """Classify images: their best classes with probabilities, one row an image.

    SOURCE is a file, a directory (searched recursively), a .tar (also .gz, .bz2, .xz, .zst) or .zip archive
    (read without unpacking it to disk; its rows are named archive.tar::member), a quoted glob, one of these at an
    s3:// or gs:// URL, a file at an https:// URL, or - for a list of names on standard input. Without SOURCE, the
    current directory is taken.

    \b
    Columns: path, status, error, label_1, index_1, score_1, ..., label_N, index_N, score_N

    With --from-features, no SOURCE is given and no pixels are read: the rows are those of TABLE, which features wrote,
    and --model is a directory that finetune made. TensorFlow is not needed. See "Using tables" for which tables go with
    which models.

    Exit status: 0 all rows ok, 4 some rows are errors, 2 usage, 3 model, 5 output, 129, 130 and 143 interrupted.
    """
    beats(ctx, values, "sources", "from_features")
    stored = values["from_features"]
    if stored:
        take_tables(ctx, values)
    spec = model_spec(ctx, values, include_top=True)
    return run_table(
        ctx, values, spec, _task, CLASSIFY_FORMATS, partial(_open_scores, _task(values)) if stored else None
    )


def _task(values: dict[str, Any]) -> Callable[[Labelled], ClassifyTask]:
    settings = {name: values[name] for name in ("top", "min_score", "label_type", "raw_scores", "error_features")}
    return partial(ClassifyTask, with_features=values["features_out"] is not None, **settings)


@contextmanager
def _open_scores(
    make_task: Callable[[Labelled], ClassifyTask], request: TableRequest, messages: Messages
) -> Iterator[ScoresRun]:
    """Opens a run over the rows of tables of features."""
    stored = open_stored(request.sources.sources)
    assert request.spec.model is not None, "take_tables has refused a command without --model"
    head = read_head(request.spec.model, request.spec.labels)
    check_fit(stored, head, request.run.precision)
    yield ScoresRun(stored, head, make_task(head), request.sources)
