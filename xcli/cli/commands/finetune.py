"""`xception finetune`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.commands.evaluate import chosen_images, label_columns, show
from xcli.cli.help import (
    INPUT,
    OUTPUT,
    PIXELS,
    RUN,
    TRAINING,
    Command,
    choice,
    flag,
    fold,
    number,
    option,
    options,
    path,
)
from xcli.cli.options import (
    command_line,
    csv_safe,
    engine_option,
    exclusions,
    machine_options,
    model_arguments,
    model_spec,
    pixel_arguments,
    pixel_options,
)
from xcli.cli.progress import mode_of, progress_argument
from xcli.cli.stored_features import check_head_options, train_head
from xcli.cli.table_run import quiet_libraries
from xcli.cli.training_progress import TrainingDisplay
from xcli.cli.verbosity import message_arguments, start_messages
from xcli.core.errors import ExitCode, Terminated
from xcli.inference.options import MAX_BATCH, RunOptions
from xcli.models.loader import load_model, preprocessing_for
from xcli.sources.splits import VALIDATION
from xcli.training.activation_cache import DEFAULT_CACHE_BYTES, GIB
from xcli.training.augmentation import MAX_VIEWS, Augmentation
from xcli.training.finetune import FineTuning
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
from xcli.training.run_directory import RunPaths, check_paths
from xcli.training.split import split_images

if TYPE_CHECKING:
    from xcli.training.run_result import FineTuneResult

SHOWN_BAD = 10
"""Images left out that are named one by one."""

log = logging.getLogger("xcli")

_VAL_SPLIT = "Share of each class to use for validation if DATA has no validation part; 0 uses none."
_TENSORBOARD = "Write loss, accuracy and learning rate to DIR for TensorBoard."

_STORED = "Train the head on the rows of TABLE, which features wrote, instead of images. Repeatable."
_TRUTH = "Classes of the rows of --from-features: CSV or Parquet with the columns path and label, or class folders."

_data_arguments = options(
    click.argument("data", metavar="DATA", type=click.Path(), required=False),
    path("--from-features", INPUT, "TABLE", _STORED, multiple=True),
    path("--truth", INPUT, "FILE", _TRUTH),
    label_columns,
    exclusions("--exclude"),
    number("--val-split", INPUT, "SHARE", click.FloatRange(0, 1, max_open=True), _VAL_SPLIT, of=Recipe),
    path("-o --output", OUTPUT, "RUN", "Directory to write; --model RUN uses it.", required=True),
    flag("--overwrite", OUTPUT, "Replace RUN if it exists."),
    flag("--restart", OUTPUT, "Discard an unfinished run and start again."),
    csv_safe,
    path("--tensorboard", OUTPUT, "DIR", _TENSORBOARD),
)

_VIEWS = (
    "Variants of each training image, computed once: the image, its mirror image, then random crops with changed "
    f"colours. Each epoch trains on one of them [default: {BLOCK_VIEWS}; {HEAD_VIEWS} with --unfreeze none]."
)
_CROP = "Smallest share of the image's area that a random crop keeps; 1 does not crop."
_COLOUR = "Largest change of brightness, contrast and saturation in random views: 0.3 is up to 30 %, 0 is none."

_augmentation_arguments = options(
    number("--views", PIXELS, "N", click.IntRange(1, MAX_VIEWS), _VIEWS),
    option("--flip/--no-flip", PIXELS, "Mirror views left to right.", of=Augmentation),
    number("--crop", PIXELS, "SHARE", click.FloatRange(0, 1, min_open=True), _CROP, of=Augmentation),
    number("--colour", PIXELS, "SHARE", click.FloatRange(0, 1, max_open=True), _COLOUR, of=Augmentation),
)

_EPOCHS, _RATE = click.IntRange(1, MAX_EPOCHS), click.FloatRange(0, 1, min_open=True)
_SHARE, _POSITIVE = click.FloatRange(0, 1, max_open=True), click.FloatRange(0, 100)

_UNFREEZE = "Train this block, those above it and the head; none trains the head alone, all the whole network."
_BLOCKS = "none|block14|...|block1|all"
_ALL_EPOCHS = f"Epochs of the unfrozen blocks [default: {BLOCK_EPOCHS}], or of the head alone [default: {HEAD_EPOCHS}]."
_HEAD_EPOCHS = f"Epochs of the head before the blocks are trained [default: {HEAD_EPOCHS}]."
_BLOCK_RATE = (
    f"Highest learning rate of the unfrozen blocks [default: {BLOCK_RATE:g}], or of the head alone [default: "
    f"{HEAD_RATE:g}]."
)
_HEAD_RATE = f"Highest learning rate of the head before the blocks are trained [default: {HEAD_RATE:g}]."
_CLASS_WEIGHTS = "auto gives rare classes more weight: one over the square root of their frequency."
_CALIBRATE = (
    "At the end, fit one temperature to the validation images, so that scores are calibrated. It changes no prediction."
)
_PATIENCE = "Stop after N epochs without an improvement on the validation images."

_training_arguments = options(
    choice("--unfreeze", TRAINING, UNFREEZE, _UNFREEZE, metavar=_BLOCKS, of=Recipe),
    number("--epochs", TRAINING, "N", _EPOCHS, _ALL_EPOCHS),
    number("--head-epochs", TRAINING, "N", _EPOCHS, _HEAD_EPOCHS),
    number("--learning-rate", TRAINING, "R", _RATE, _BLOCK_RATE),
    number("--head-learning-rate", TRAINING, "R", _RATE, _HEAD_RATE),
    number("--label-smoothing", TRAINING, "SHARE", _SHARE, "Label-smoothing factor.", of=Recipe),
    number("--dropout", TRAINING, "SHARE", _SHARE, "Dropout rate before the head.", of=Recipe),
    number("--mixup", TRAINING, "ALPHA", _POSITIVE, "Strength of mixup: alpha of its beta distribution.", of=Recipe),
    number("--weight-decay", TRAINING, "W", _POSITIVE, "Weight decay of the kernels (AdamW).", of=Recipe),
    choice("--class-weights", TRAINING, CLASS_WEIGHTS, _CLASS_WEIGHTS, of=Recipe),
    option("--calibrate/--no-calibrate", TRAINING, _CALIBRATE, of=Recipe),
    number("--batch-size", TRAINING, "N", click.IntRange(1, MAX_BATCH), "Examples in each step.", of=Recipe),
    number("--patience", TRAINING, "N", _EPOCHS, _PATIENCE, of=Recipe),
)

_CACHE_DIR = "Keep the activations of the frozen part below DIR for the next run [default: the user's cache directory]."
_CACHE_SIZE = "Maximum size of the cache in GiB; the least recently used entries are removed."
_GIB: dict[str, Any] = {"default": DEFAULT_CACHE_BYTES / GIB, "show_default": True}

_machine_arguments = options(
    path("--cache-dir", RUN, "DIR", _CACHE_DIR),
    number("--cache-size", RUN, "GIB", click.FloatRange(0, min_open=True), _CACHE_SIZE, **_GIB),
    engine_option,
    machine_options("Arithmetic. auto: bfloat16 on a CPU that has instructions for it, else as in classify."),
)


@click.command(cls=Command)
@_data_arguments
@_training_arguments
@model_arguments(
    classes=False, labels=False, seed="Seed of the split, the views, the order of examples, the new head and weights."
)
@pixel_arguments
@_augmentation_arguments
@_machine_arguments
@progress_argument
@message_arguments
@click.pass_context
def finetune(ctx: click.Context, /, **values: Any) -> int:
    """Train a classifier on labelled images. The frozen part of the network is computed only once.

    DATA is a directory with a folder for each class; or a directory with train/ and validation/ (or val/, valid/,
    dev/), each with a folder for each class; or a manifest (CSV or Parquet) with the columns path and label, and
    optionally split. If there is a test part, it is only used to report figures at the end. Images that cannot be read
    are left out and listed.

    With --from-features, no DATA is given and no pixels are read: the head alone is trained, in seconds, on the rows of
    TABLE, whose classes --truth tells. RUN takes images all the same.

    RUN/ holds the model (model.keras takes raw pixels and loads in plain Keras), its labels and preprocessing
    (labels.json, run.json), metrics.json, history.csv and .png, confusion_matrix.csv and .png, per_class.csv,
    predictions.csv, mistakes.png and split.csv. The same command continues a run that was interrupted.

    \b
    xception finetune clothes/ -o RUN                        the last two blocks and a new head
    xception finetune clothes/ -o RUN --unfreeze none        the head alone: faster
    xception finetune clothes/ -o RUN --model OLD            from an earlier run's network
    xception finetune clothes/ -o RUN --exclude findings.csv without what audit has found
    xception finetune --from-features f.parquet --truth labels.csv -o RUN
    xception classify photos/ --model RUN

    Exit status: 0 done, 4 done without some images, 2 usage, 3 model, 5 output, 129, 130 and 143 interrupted.
    """
    begin = time.monotonic()
    messages = start_messages(ctx)
    check_head_options(ctx, values)
    if values["from_features"]:
        paths = _paths(values)
        check_paths(paths)
        quiet_libraries(debug=messages.debug)
        return _close(train_head(ctx, values, paths, quiet=messages.level < 0), time.monotonic() - begin)
    recipe = fold(Recipe, values, augmentation=fold(Augmentation, values))
    paths, pixels = _paths(values), pixel_options(values)
    # --batch-size is that of training; activations are computed in batches of the default size.
    spec, options = model_spec(ctx, values, include_top=False), fold(RunOptions, values, batch_size=None)
    check_paths(paths)
    data = chosen_images(values, "exclude", trains=True)
    split = split_images(data, recipe.val_split, recipe.seed)
    quiet_libraries(debug=messages.debug)
    model = load_model(spec)
    _be_repeatable()
    mode = mode_of(values["progress"], quiet=messages.level < 0)
    with TrainingDisplay(mode, tensorboard=values["tensorboard"]) as display:
        try:
            preprocessing = preprocessing_for(model, **pixels)
            own = data if recipe.val_split and not data.part(VALIDATION) else None
            result = FineTuning(split, model, spec, preprocessing, recipe, paths, options, display, own).run()
        except (KeyboardInterrupt, Terminated):
            display.close()
            log.error("stopped; the same command continues from the last epoch, and uses the cached activations")
            raise
    return _close(result, time.monotonic() - begin)


def _paths(values: dict[str, Any]) -> RunPaths:
    return RunPaths(
        source=values["data"] or values["truth"],
        run=values["output"],
        cache_dir=values["cache_dir"],
        cache_bytes=int(values["cache_size"] * GIB),
        overwrite=values["overwrite"],
        restart=values["restart"],
        command_line=command_line(),
        csv_safe=values["csv_safe"],
    )


def _be_repeatable() -> None:
    """Makes TensorFlow deterministic, so that a continued run ends with the weights of an uninterrupted one."""
    from xcli.core.tensorflow import load_tensorflow

    load_tensorflow().config.experimental.enable_op_determinism()


def _close(result: FineTuneResult, seconds: float) -> int:
    if result.metrics is None:
        log.info("%s exists already, with the same data and settings; nothing to do", result.run)
        return ExitCode.OK
    for image, reason in list(result.bad.items())[:SHOWN_BAD]:
        log.warning("left out: %s: %s", image, reason)
    if len(result.bad) > SHOWN_BAD:
        log.warning("left out: %d more, listed in predictions.csv", len(result.bad) - SHOWN_BAD)
    show(result.metrics, f"{result.run.rstrip('/')}/per_class.csv has them all")
    images = ", ".join(f"{count:,} {name}" for name, count in result.counts.items() if count)
    log.info("%s: %s images, %d left out, in %.0f s", result.run, images, len(result.bad), seconds)
    if result.kept is not None and result.kept.rank is not None:
        phase, epoch = result.kept.phase, result.kept.epoch
        log.info("the model is that of epoch '%s %d', the best on the validation images", phase, epoch)
    if result.split != "validation":
        log.warning("there is no validation part: these figures are of the training images, and too good")
    if result.test is not None:
        log.info("test: top-1 %.4f of %d images", result.test.top1 or 0, result.test.n)
    return ExitCode.ROW_ERRORS if result.bad else ExitCode.OK
