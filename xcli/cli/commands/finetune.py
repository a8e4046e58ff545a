"""`xception finetune`."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.commands.evaluate import label_columns, show
from xcli.cli.help import INPUT, OUTPUT, PIXELS, RUN, TRAINING, Command, F, option, stack
from xcli.cli.options import machine_options, model_arguments, model_spec, pixel_arguments, pixel_options
from xcli.cli.table_run import quiet_libraries
from xcli.cli.training_progress import TrainingDisplay
from xcli.cli.verbosity import message_arguments, messages_of
from xcli.core.errors import ExitCode, Terminated
from xcli.core.records import default
from xcli.inference.options import MAX_BATCH, RunOptions
from xcli.models.loader import load_model, preprocessing_for
from xcli.sources.labelled import read_labelled
from xcli.training.augmentation import MAX_VIEWS, Augmentation
from xcli.training.finetune import DEFAULT_CACHE_BYTES, RunPaths, check_paths
from xcli.training.finetune import finetune as train
from xcli.training.freezing import UNFREEZE
from xcli.training.recipe import (
    BLOCK_EPOCHS,
    BLOCK_RATE,
    BLOCK_VIEWS,
    CLASS_WEIGHTS,
    HEAD_EPOCHS,
    HEAD_RATE,
    HEAD_VIEWS,
    MAX_EPOCHS,
    Recipe,
)
from xcli.training.split import split_images

if TYPE_CHECKING:
    from xcli.training.finetune import FineTuneResult

GIB = 1 << 30
SHOWN_BAD = 10
"""Images left out that are named one by one."""

log = logging.getLogger("xcli")


def _data_arguments(function: F) -> F:
    return stack(
        [
            click.argument("data", metavar="DATA", type=click.Path()),
            *label_columns(),
            option(
                "--val-split",
                section=INPUT,
                metavar="SHARE",
                type=click.FloatRange(0, 1, max_open=True),
                default=default(Recipe, "val_split"),
                show_default=True,
                help="Share of each class to hold out for validation, where DATA has no such part; 0 holds out none.",
            ),
            option(
                "-o",
                "--output",
                section=OUTPUT,
                metavar="RUN",
                type=click.Path(),
                required=True,
                help="The directory to make; --model RUN takes it everywhere.",
            ),
            option("--overwrite", section=OUTPUT, is_flag=True, help="Replace RUN if it exists."),
            option("--restart", section=OUTPUT, is_flag=True, help="Start over, whatever an unfinished run has left."),
            option(
                "--tensorboard",
                section=OUTPUT,
                metavar="DIR",
                type=click.Path(),
                help="Write loss, accuracy and learning rate for TensorBoard to DIR.",
            ),
        ],
        function,
    )


def _augmentation_arguments(function: F) -> F:
    return stack(
        [
            option(
                "--views",
                section=PIXELS,
                metavar="N",
                type=click.IntRange(1, MAX_VIEWS),
                help="Views of each image, computed once and trained on in turn: plain, mirrored, then random ones "
                f"[default: {BLOCK_VIEWS}, or {HEAD_VIEWS} with --unfreeze none].",
            ),
            option(
                "--flip/--no-flip",
                section=PIXELS,
                default=default(Augmentation, "flip"),
                show_default=True,
                help="Mirror views left and right.",
            ),
            option(
                "--crop",
                section=PIXELS,
                metavar="SHARE",
                type=click.FloatRange(0, 1, min_open=True),
                default=default(Augmentation, "crop"),
                show_default=True,
                help="Least share of the area that random views keep; 1 crops nothing.",
            ),
            option(
                "--colour",
                section=PIXELS,
                metavar="SHARE",
                type=click.FloatRange(0, 1, max_open=True),
                default=default(Augmentation, "colour"),
                show_default=True,
                help="Most that brightness, contrast and saturation change in random views; 0 is not at all.",
            ),
        ],
        function,
    )


def _training_arguments(function: F) -> F:
    epochs, rate = click.IntRange(1, MAX_EPOCHS), click.FloatRange(0, 1, min_open=True)
    share = click.FloatRange(0, 1, max_open=True)
    return stack(
        [
            option(
                "--unfreeze",
                section=TRAINING,
                type=click.Choice(UNFREEZE),
                metavar="none|block14|...|block1|all",
                default=default(Recipe, "unfreeze"),
                show_default=True,
                help="Train the head alone, or with it this block and those above.",
            ),
            option(
                "--epochs",
                section=TRAINING,
                metavar="N",
                type=epochs,
                help=f"Of unfrozen blocks [default: {BLOCK_EPOCHS}] or of the head alone [default: {HEAD_EPOCHS}].",
            ),
            option(
                "--head-epochs",
                section=TRAINING,
                metavar="N",
                type=epochs,
                help=f"Of the head, before the blocks [default: {HEAD_EPOCHS}].",
            ),
            option(
                "--learning-rate",
                section=TRAINING,
                metavar="R",
                type=rate,
                help=f"Highest, of the unfrozen blocks [default: {BLOCK_RATE:g}], or of the head alone "
                f"[default: {HEAD_RATE:g}].",
            ),
            option(
                "--head-learning-rate",
                section=TRAINING,
                metavar="R",
                type=rate,
                help=f"Highest, of the head before the blocks [default: {HEAD_RATE:g}].",
            ),
            _number("--label-smoothing", "SHARE", share, "Share of the target that all classes have in common."),
            _number("--dropout", "SHARE", share, "Share of the pooled features dropped in training."),
            _number("--mixup", "ALPHA", click.FloatRange(0, 100), "How much pairs of examples are blended; 0 is not."),
            _number("--weight-decay", "W", click.FloatRange(0, 100), "Decoupled weight decay (AdamW) of kernels."),
            option(
                "--class-weights",
                section=TRAINING,
                type=click.Choice(CLASS_WEIGHTS),
                default=default(Recipe, "class_weights"),
                show_default=True,
                help="auto gives rare classes more weight, by the square root of their rarity.",
            ),
            option(
                "--calibrate/--no-calibrate",
                section=TRAINING,
                default=default(Recipe, "calibrate"),
                show_default=True,
                help="At the end, one temperature for all scores, by the validation images; no prediction changes.",
            ),
            _number("--batch-size", "N", click.IntRange(1, MAX_BATCH), "Examples in a step of training."),
            _number(
                "--patience", "N", click.IntRange(1, MAX_EPOCHS), "Epochs without a better one after which to stop."
            ),
        ],
        function,
    )


def _number(name: str, metavar: str, kind: Any, text: str) -> Any:
    value = default(Recipe, name.removeprefix("--").replace("-", "_"))
    return option(name, section=TRAINING, metavar=metavar, type=kind, default=value, show_default=True, help=text)


def _machine_arguments(function: F) -> F:
    return stack(
        [
            option(
                "--cache-dir",
                section=RUN,
                metavar="DIR",
                type=click.Path(),
                help="Where activations are kept for the next run [default: in the user's cache directory].",
            ),
            option(
                "--cache-size",
                section=RUN,
                metavar="GIB",
                type=click.FloatRange(0, min_open=True),
                default=DEFAULT_CACHE_BYTES / GIB,
                show_default=True,
                help="That they may take there; those used longest ago are dropped.",
            ),
            *machine_options("Arithmetic; auto is bfloat16 on a CPU with instructions for it, else as in classify."),
        ],
        function,
    )


@click.command(cls=Command, short_help="Train a classifier of your own on labelled images.")
@_data_arguments
@_training_arguments
@model_arguments(classes=False, labels=False)
@pixel_arguments
@_augmentation_arguments
@_machine_arguments
@message_arguments
@click.pass_context
def finetune(ctx: click.Context, /, **values: Any) -> int:
    """Train a classifier on labelled images: what is frozen is computed once, the rest in a few minutes.

    DATA is a directory with a folder for each class; one with train/ and validation/ (or val/) of such; or a manifest,
    CSV or Parquet, with the columns path and label, and perhaps split. A test/ beside them is only reported on, at the
    end. Images that cannot be read are left out, and listed.

    RUN/ holds the model (model.keras takes raw pixels and loads in plain Keras), its labels and preprocessing
    (labels.json, run.json), metrics.json, history.csv and .png, confusion_matrix.csv and .png, per_class.csv,
    predictions.csv, mistakes.png and split.csv. The same command continues a run that was interrupted.

    \b
    xception finetune clothes/ -o RUN                        the last two blocks and a new head
    xception finetune clothes/ -o RUN --unfreeze none        the head alone: faster
    xception finetune clothes/ -o RUN --model OLD            from an earlier run's network
    xception classify photos/ --model RUN

    Exit status: 0 done, 4 done without some images, 2 usage, 3 model, 5 output, 130 and 143 interrupted.
    """
    begin = time.monotonic()
    messages = messages_of(ctx)
    messages.apply()
    recipe, place = _recipe(values), _place(values)
    pixels, spec = pixel_options(values), model_spec(ctx, values, include_top=False)
    names = ("precision", "device", "workers", "image_timeout")
    options = RunOptions(**{name: values.pop(name) for name in names})
    check_paths(place)
    data = read_labelled(place.source, path_column=values["path_column"], label_column=values["label_column"])
    split = split_images(data, recipe.val_split, recipe.seed)
    quiet_libraries(debug=messages.debug)
    _be_repeatable()
    model = load_model(spec)
    with TrainingDisplay(enabled=messages.level >= 0, tensorboard=values["tensorboard"]) as course:
        try:
            outcome = train(split, model, spec, preprocessing_for(model, **pixels), recipe, place, options, course)
        except (KeyboardInterrupt, Terminated):
            course.close()
            log.error("stopped; the same command goes on from the last epoch, and uses what the cache holds")
            raise
    return _close(outcome, time.monotonic() - begin)


# It seeds more than what the shared help text names.
next(
    one for one in finetune.params if isinstance(one, click.Option) and one.name == "seed"
).help = "Of the split, the views, the order, the new head, and random weights."


def _recipe(values: dict[str, Any]) -> Recipe:
    augmentation = Augmentation(**{name: values.pop(name) for name in ("flip", "crop", "colour")})
    names = (
        "unfreeze",
        "views",
        "val_split",
        "epochs",
        "head_epochs",
        "learning_rate",
        "head_learning_rate",
        "label_smoothing",
        "dropout",
        "weight_decay",
        "mixup",
        "class_weights",
        "batch_size",
        "patience",
        "calibrate",
    )
    return Recipe(augmentation=augmentation, seed=values["seed"], **{name: values.pop(name) for name in names})


def _place(values: dict[str, Any]) -> RunPaths:
    return RunPaths(
        source=values.pop("data"),
        run=values.pop("output"),
        cache_dir=values.pop("cache_dir"),
        cache_bytes=int(values.pop("cache_size") * GIB),
        overwrite=values.pop("overwrite"),
        restart=values.pop("restart"),
        command_line=shlex.join(["xception", *sys.argv[1:]]),
    )


def _be_repeatable() -> None:
    """Has TensorFlow choose only operations that give the same bits every time: a continued run is to end in the
    weights of an undisturbed one."""
    from xcli.core.tensorflow import load_tensorflow

    load_tensorflow().config.experimental.enable_op_determinism()


def _close(outcome: FineTuneResult, seconds: float) -> int:
    if outcome.metrics is None:
        log.warning("%s is there already, of the same data and settings; nothing to do", outcome.run)
        return ExitCode.OK
    for path, reason in list(outcome.bad.items())[:SHOWN_BAD]:
        log.warning("left out: %s: %s", path, reason)
    if len(outcome.bad) > SHOWN_BAD:
        log.warning("left out: %d more, listed in predictions.csv", len(outcome.bad) - SHOWN_BAD)
    show(outcome.metrics, f"{outcome.run.rstrip('/')}/per_class.csv has them all")
    images = ", ".join(f"{count:,} {name}" for name, count in outcome.counts.items() if count)
    log.warning("%s: %s images, %d left out, in %.0f s", outcome.run, images, len(outcome.bad), seconds)
    if outcome.split != "validation":
        log.warning("there is no validation part: these figures are of the training images, and flatter the model")
    if outcome.test is not None:
        log.warning("test: top-1 %.4f of %d images", outcome.test.top1 or 0, outcome.test.n)
    return ExitCode.ROW_ERRORS if outcome.bad else ExitCode.OK
