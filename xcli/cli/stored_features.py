"""`--from-features` of `classify` and `finetune`: which options go with tables of features in place of images."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from xcli.cli.environment import beats
from xcli.cli.help import fold
from xcli.cli.options import exclusions_of, is_given, model_spec
from xcli.cli.progress import ROWS, Progress, Readings
from xcli.core.errors import UsageError
from xcli.core.levels import DETAIL
from xcli.core.text import one_line
from xcli.inference.options import INT8, OPENVINO

if TYPE_CHECKING:
    import click

    from xcli.training.head_fit import Trial
    from xcli.training.run_directory import RunPaths
    from xcli.training.run_result import FineTuneResult

log = logging.getLogger("xcli")

_EVERYWHERE = ("from_features", "help", "verbose", "quiet", "debug", "log_file", "progress", "output", "overwrite")
_FINETUNE = (
    *("truth", "val_split", "class_weights", "calibrate", "seed", "restart", "csv_safe"),
    *("model", "weights", "weights_dir", "offline", "exclude", "exclude_kinds"),
)
_CLASSIFY = (
    *("model", "labels", "top", "min_score", "label_type", "raw_scores", "limit", "shard", "precision", "profile"),
    *("exclude_from", "exclude_kinds"),
    *("format", "csv_safe", "csv_bom", "errors_out", "max_errors", "restart", "json", "part_rows", "part_seconds"),
)


def refuse_others(ctx: click.Context, values: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """Refuses what was typed and is for images; variables that set such options are set aside.

    Raises:
        UsageError: an option, or an argument, that would do nothing.
    """
    for one in ctx.command.params:
        name = str(one.name)
        if name in (*_EVERYWHERE, *allowed):
            continue
        if is_given(ctx, name) and values.get(name) not in (None, ()):
            option = max(one.opts, key=len)
            if not option.startswith("-"):
                shown = values[name] if isinstance(values[name], str) else values[name][0]
                raise UsageError(f"both --from-features and {one_line(shown)!r} were given: give tables, or images")
            raise UsageError(f"{option} is for images, and --from-features takes tables of features")
        beats(ctx, values, "from_features", name)


def take_tables(ctx: click.Context, values: dict[str, Any]) -> None:
    """Makes the tables of `classify --from-features` its sources.

    Raises:
        UsageError: there is no `--model`, or another option does not go with tables.
    """
    refuse_others(ctx, values, _CLASSIFY)
    if values["model"] is None:
        raise UsageError("--from-features needs the head that scores them: --model RUN, a directory that finetune made")
    output = values["output"]
    if output is not None and any(os.path.realpath(output) == os.path.realpath(one) for one in values["from_features"]):
        raise UsageError(f"{one_line(output)} is the table of features and the output at once; give another -o")
    values["sources"] = values["from_features"]
    if values["precision"] == INT8:
        values["engine"] = OPENVINO  # it was: no other engine makes features in int8


def train_head(ctx: click.Context, values: dict[str, Any], paths: RunPaths, *, quiet: bool) -> FineTuneResult:
    """Trains a head on the tables of `finetune --from-features`.

    Raises:
        UsageError: there is no `--truth`, or another option does not go with tables.
        XcliError: as `HeadTraining.run`.
    """
    from xcli.analysis.stored import open_stored
    from xcli.analysis.truth import read_truth
    from xcli.training.labelled_rows import read_rows
    from xcli.training.stored_training import HeadRecipe, HeadTraining

    chosen = bool(values["model"]) or is_given(ctx, "weights")
    spec = model_spec(ctx, values, include_top=False)
    excluded = exclusions_of(values, "exclude")
    stored = open_stored(values["from_features"])
    truth = read_truth(values["truth"])
    readings = Readings(stored.readers, lambda: 1)
    with Progress(values["progress"], quiet=quiet, total=readings.total, unit=ROWS) as progress:
        readings.show(progress)
        rows = read_rows(stored, truth, values["truth"], excluded)
    return HeadTraining(stored, rows, spec, chosen, fold(HeadRecipe, values), paths, _tell).run()


def check_head_options(ctx: click.Context, values: dict[str, Any]) -> None:
    """Checks the options of `finetune` with and without tables.

    Raises:
        UsageError: something is missing, or does not go together.
    """
    beats(ctx, values, "data", "from_features", "truth")
    if not values["from_features"]:
        if values["truth"] is not None:
            raise UsageError("--truth goes with --from-features; labelled images have their classes with them")
        if values["data"] is None:
            raise UsageError("give DATA, labelled images, or tables of features with --from-features and --truth")
        return
    refuse_others(ctx, values, _FINETUNE)
    if values["truth"] is None:
        raise UsageError("--from-features needs the classes: --truth FILE, with the columns path and label")


def _tell(trial: Trial) -> None:
    of = "training" if trial.val_accuracy is None else "validation"
    accuracy = trial.accuracy if trial.val_accuracy is None else trial.val_accuracy
    log.log(DETAIL, "regularisation 1/%g: %s accuracy %.4f", trial.strength, of, accuracy)
