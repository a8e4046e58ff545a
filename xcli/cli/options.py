"""Options that several commands share: declared once, folded into the frozen dataclasses that hold their defaults."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from xcli.cli.help import (
    COUNT,
    INPUT,
    MODEL,
    OUTPUT,
    PIXELS,
    RUN,
    Decorator,
    choice,
    flag,
    fold,
    number,
    option,
    options,
    path,
)
from xcli.cli.verbosity import messages_of
from xcli.core.errors import UsageError
from xcli.core.finding_kinds import parse_kinds
from xcli.core.public_urls import without_secrets
from xcli.core.tensorflow import PRECISIONS
from xcli.images.decoders import DEFAULT_MAX_PIXELS
from xcli.images.preprocessing import DEFAULT_CROP_PCT, INTERPOLATIONS, RESIZE_MODES
from xcli.images.resampling import RESAMPLERS
from xcli.images.rgb import MAX_BIT_DEPTH, MIN_BIT_DEPTH
from xcli.inference.options import ENGINES, INT8, MAX_BATCH, MAX_CALIBRATION, MAX_TIMEOUT, MAX_WORKERS, RunOptions
from xcli.inference.tasks import ERROR_FEATURES
from xcli.models.folded import INPUT_RANGES
from xcli.models.spec import ModelSpec
from xcli.outputs.options import SaveOptions
from xcli.sources.exclusions import read_exclusions
from xcli.sources.options import SourceOptions, parse_shard

if TYPE_CHECKING:
    from xcli.sources.excluded import Exclusions


class ShardType(click.ParamType):  # type: ignore[type-arg]
    """`I/N`."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        return value if isinstance(value, tuple) else parse_shard(value)


class BatchSizeType(click.ParamType):  # type: ignore[type-arg]
    """`auto`, which becomes None, or a positive number."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto" or value is None:
            return None
        if isinstance(value, int):
            return value
        if not value.isdecimal() or not 1 <= int(value) <= MAX_BATCH:
            self.fail(f"{value!r} is neither 'auto' nor a number from 1 to {MAX_BATCH}", param, ctx)
        return int(value)


class KindsType(click.ParamType):  # type: ignore[type-arg]
    """`KIND,...`, kinds of findings."""

    name = "kinds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else parse_kinds(value)


_MANIFEST = "Read the paths from a CSV or Parquet table; its other columns are copied into the output."
_ESCAPED = r"The manifest's paths are escaped as in the path column of our tables (\xNN, \\)."
_ARCHIVES = "Also read .tar (.gz, .bz2, .xz, .zst) and .zip files found in directories, not only those named."
_SYSTEM = "Also read folders that belong to a system: @eaDir, #recycle, $RECYCLE.BIN, __MACOSX and the like."
_BASE = "Directory that the manifest's relative paths are relative to [default: the current directory]."
_EXCLUDE = "Leave out files and directories that match GLOB. Repeatable."
_EXCLUDE_FROM = (
    "Leave out the images that a table of audit names, those that duplicates does not keep, or those of any CSV, "
    "Parquet or JSONL file with a column path."
)
_EXCLUDE_KINDS = "Kinds of findings for which images are left out [default: all]."
_MISSING = "A SOURCE that does not exist is an error row. Without it, the command ends at once (exit 2)."
_PRIVATE = "Let http and https URLs lead to addresses of this machine and of private networks."
_SHARD = "Take only shard I of N (I from 1 to N). A hash of the path decides, so shards never overlap."

_FOLLOW = "Pass over symbolic links in directories and globs, which may lead anywhere: for directories of strangers."

manifest_base = path("--manifest-base", INPUT, "DIR", _BASE)
include_system = flag("--include-system", INPUT, _SYSTEM)
no_follow = flag("--no-follow", INPUT, _FOLLOW)
private_hosts = flag("--allow-private-hosts", INPUT, _PRIVATE)


def exclusions(name: str = "--exclude-from") -> Decorator:
    """Declares the table of images that are left out, with this name, and `--exclude-kinds`."""
    return options(
        path(name, INPUT, "FINDINGS", _EXCLUDE_FROM),
        option("--exclude-kinds", INPUT, _EXCLUDE_KINDS, metavar="KIND,...", type=KindsType()),
    )


def exclusions_of(values: dict[str, Any], excluded: str) -> Exclusions | None:
    """Returns the images that a command excludes, given the parameter that names their table; None for none."""
    source, kinds = values[excluded], values["exclude_kinds"]
    if source is None and kinds is not None:
        raise UsageError(f"--exclude-kinds is for --{excluded.replace('_', '-')} FINDINGS, which was not given")
    return None if source is None else read_exclusions(source, kinds)


source_filters = options(
    flag("-0 --null", INPUT, "With -: names in the list end in NUL, as `find -print0` writes them."),
    path("--manifest", INPUT, "FILE", _MANIFEST),
    option("--path-column", INPUT, "Column of the manifest that holds the paths.", metavar="NAME", of=SourceOptions),
    flag("--escaped-paths", INPUT, _ESCAPED),
    manifest_base,
    flag("--archives", INPUT, _ARCHIVES),
    option("--include", INPUT, "Take only files that match GLOB. Repeatable.", metavar="GLOB", multiple=True),
    option("--exclude", INPUT, _EXCLUDE, metavar="GLOB", multiple=True),
    exclusions(),
    include_system,
    no_follow,
    flag("--missing-ok", INPUT, _MISSING),
    private_hosts,
    number("--limit", INPUT, "N", click.IntRange(0, sys.maxsize), "Take only the first N images."),
    number("--shard", INPUT, "I/N", ShardType(), _SHARD),
)
"""What can be said of the sources besides their names; `fold(SourceOptions, values)` takes it."""

source_arguments = options(
    click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path()), source_filters
)
"""The sources and their filters."""

_MODEL = "Use a directory that finetune made, or a .keras file that contains an Xception, instead of --weights."
_SIZE = "Width and height of the network's input in pixels [default: 299, or the model file's]."
_RANGE = "Pixel range that the --model file expects: [-1, 1], [0, 1] or [0, 255]."
_WEIGHTS_DIR = "Look for the ImageNet weights here first."

weights_places = options(
    path("--weights-dir", MODEL, "DIR", _WEIGHTS_DIR, envvar="XCEPTION_WEIGHTS_DIR"),
    flag("--offline", MODEL, "Never use the network to download weights."),
)
"""Where the ImageNet weights are looked for."""


def model_arguments(*, classes: bool, labels: bool = True, seed: str = "Seed of the random weights.") -> Decorator:
    """The model; `model_spec(values)` folds it.

    Args:
        classes, labels: whether the command has a use for `--classes` and `--labels`.
        seed: the help of `--seed`.
    """
    weights = "ImageNet weights, random weights, or an HDF5 weights file."
    decorators = [
        path("--model", MODEL, "PATH", _MODEL),
        path("--weights", MODEL, "imagenet|none|PATH", weights, of=ModelSpec),
    ]
    if classes:
        decorators.append(number("--classes", MODEL, "N", COUNT, "Number of classes; needed only with --weights none."))
    if labels:
        decorators.append(path("--labels", MODEL, "FILE", "Class names: a text file with one on each line, or JSON."))
    return options(
        *decorators,
        number("--image-size", MODEL, "N", COUNT, _SIZE),
        choice("--input-range", MODEL, INPUT_RANGES, _RANGE),
        weights_places,
        number("--seed", MODEL, "N", click.IntRange(min=0), seed, of=ModelSpec),
    )


def model_spec(ctx: click.Context, values: dict[str, Any], **fixed: Any) -> ModelSpec:
    """Folds what `model_arguments` declared; `fixed` is what the command decides itself."""
    progress = messages_of(ctx).level >= 0 and sys.stderr.isatty() and values.get("progress", "auto") in ("auto", "bar")
    return fold(ModelSpec, values, **{"pooling": None, "progress": progress} | fixed)


_RESIZE = "Crop the centre, squash to a square, or pad to a square [default: crop, or the model's own]."
_INTERPOLATION = "Resampling filter [default: bicubic, or the model's own]."
_RESAMPLER = "What resizes. simd is faster and changes pixels slightly [default: simd, where it has the filter]."
_CROP = f"Share of the resized image's shorter side that crop keeps [default: {DEFAULT_CROP_PCT}]."
_SHRINK = "auto decodes large JPEGs at reduced size, which is faster and changes pixels slightly."
_BITS = "Bits that are used in samples of 16 bits, such as 12 [default: 16, or the model's own]."
_STRICT = "Make JPEGs whose data are damaged errors. Without it, they are counted as warnings."
_LARGEST = "Refuse images with more than N pixels."

pixel_arguments = options(
    choice("--resize", PIXELS, RESIZE_MODES, _RESIZE),
    choice("--interpolation", PIXELS, INTERPOLATIONS, _INTERPOLATION),
    choice("--resampler", PIXELS, RESAMPLERS, _RESAMPLER),
    number("--crop-pct", PIXELS, "SHARE", float, _CROP),
    choice("--jpeg-shrink", PIXELS, ["auto", "off"], _SHRINK, default="auto", show_default=True),
    number("--bit-depth", PIXELS, "N", click.IntRange(MIN_BIT_DEPTH, MAX_BIT_DEPTH), _BITS),
    flag("--strict", PIXELS, _STRICT),
    number("--max-pixels", PIXELS, "N", COUNT, _LARGEST, default=DEFAULT_MAX_PIXELS, show_default=True),
)
"""From file to pixels; `pixel_options(values)` folds them."""


def pixel_options(values: dict[str, Any]) -> dict[str, Any]:
    """Returns what `pixel_arguments` declared, as arguments of `preprocessing_for`."""
    names = ("resize", "interpolation", "crop_pct", "max_pixels", "bit_depth", "strict", "resampler")
    return {"jpeg_shrink": values["jpeg_shrink"] == "auto", **{name: values[name] for name in names}}


_DEVICE = "Where to compute. auto: all GPUs, or the CPU if there is none."
_ENGINE = "What computes. openvino is faster on a CPU and needs the extra [openvino]; auto is tensorflow."
_WORKERS = "Images to decode at the same time [default: one per processor]."
_TIMEOUT = "Longest time to read and decode one image."

_PRECISION = (
    "Arithmetic. auto: float32 on a CPU, float16 on a GPU with tensor cores. int8, with --engine openvino, is the "
    "fastest on a CPU; what it loses is measured on the images themselves, before the run."
)
_CALIBRATION = "Images of the listing that int8 is calibrated on, and as many others to measure its loss."
_CALIBRATION_MODEL = (
    "Keep what int8 was calibrated to in FILE, and use FILE if it is there: for lists on standard input, and for "
    "shards on several machines."
)
_AGREEMENT = (
    "Stop with 6 if int8 gives another best class than float32 for more than 1 - X of the images that are measured."
)

engine_option = choice("--engine", RUN, ENGINES, _ENGINE, of=RunOptions)
device_option = option("--device", RUN, _DEVICE, metavar="auto|cpu|gpu|gpu:I", of=RunOptions)
workers_option = number("--workers", RUN, "N", click.IntRange(1, MAX_WORKERS), _WORKERS)


def machine_options(precision: str, *more: str) -> Decorator:
    """Declares `--precision`, explained by this text, `--device`, `--workers` and `--image-timeout`.

    `more` are precisions that not every command has.
    """
    seconds = click.FloatRange(0, MAX_TIMEOUT, min_open=True)
    return options(
        choice("--precision", RUN, [*PRECISIONS, *more], precision, of=RunOptions),
        device_option,
        workers_option,
        number("--image-timeout", RUN, "SECONDS", seconds, _TIMEOUT, of=RunOptions),
    )


run_arguments = options(
    number("--batch-size", RUN, "auto|N", BatchSizeType(), "Images in a batch.", default="auto", show_default=True),
    engine_option,
    machine_options(_PRECISION, INT8),
    number("--calibration", RUN, "N", click.IntRange(1, MAX_CALIBRATION), _CALIBRATION, of=RunOptions),
    path("--calibration-model", RUN, "FILE", _CALIBRATION_MODEL),
    number("--min-agreement", RUN, "X", click.FloatRange(0, 1), _AGREEMENT, of=RunOptions),
    flag("--profile", RUN, "At the end, print a table of where the time went."),
)
"""Use of the machine; `fold(RunOptions, values)` takes it, and `profile` stays with the command."""

_OUTPUT = (
    "Write the table to a file, to a directory of Parquet parts, or with - to standard output [default: a table on a "
    "terminal, CSV on a pipe]."
)
_FORMAT = "Format of the table [default: from the extension of FILE; csv on a pipe]."
_CSV_SAFE = (
    "In CSV, put an apostrophe before texts that a spreadsheet would take for formulas. Irreversible: such files "
    "cannot be verified or merged."
)
csv_safe = flag(
    "--csv-safe", OUTPUT, "In CSV files, put an apostrophe before texts that a spreadsheet would take for formulas."
)
_ERRORS_OUT = "Write the paths of the images that failed to FILE, each ended by NUL, to be read again with - -0."
_MAX_ERRORS = "Stop once more than N images have failed. Finished rows are kept."
_RESTART = "Discard an unfinished run and start again. (To replace a finished file, use --overwrite.)"
_JSON = "Print what was written, or how a finished output differs from its sources, as JSON."
_RETRY = "When an unfinished run is continued, or with --update, try again the images that failed before."
_UPDATE = (
    "Bring a finished FILE or DIR up to date: compute new and changed images, drop the rows of images that are gone, "
    "and keep all other rows. Without a finished output, this is an ordinary run."
)
_DROP = "Let --update drop rows even if more than 10, and more than 1% of all, are of images that are gone."
_TRUST = "Let --update take the files as unchanged if FILE does not record their states."
_PART_SECONDS = "Save progress every S seconds, if that comes first."


def error_features(of: type) -> Decorator:
    """Declares `--error-features`, whose default is that of the task `of`."""
    text = (
        "Features in the error rows of Parquet: NaN in each place, or null in place of the list, which pyarrow 25 and "
        "older cannot read."
    )
    return choice("--error-features", OUTPUT, ERROR_FEATURES, text, of=of)


def output_arguments(formats: tuple[str, ...]) -> Decorator:
    """Where the rows go; `fold(SaveOptions, values)` takes how they are kept."""
    seconds = click.FloatRange(0, min_open=True)
    return options(
        path("-o --output", OUTPUT, "FILE|DIR/", _OUTPUT),
        choice("--format", OUTPUT, formats, _FORMAT),
        flag("--overwrite", OUTPUT, "Replace FILE or DIR if it exists."),
        flag("--csv-safe", OUTPUT, _CSV_SAFE),
        flag("--csv-bom", OUTPUT, "Begin CSV with a byte-order mark, so that Excel opens it as UTF-8."),
        path("--errors-out", OUTPUT, "FILE", _ERRORS_OUT),
        number("--max-errors", OUTPUT, "N", click.IntRange(0), _MAX_ERRORS),
        flag("--restart", OUTPUT, _RESTART),
        flag("--json", OUTPUT, _JSON),
        flag("--retry-errors", OUTPUT, _RETRY),
        flag("--update", OUTPUT, _UPDATE),
        flag("--drop-missing", OUTPUT, _DROP),
        flag("--trust-existing", OUTPUT, _TRUST),
        number("--part-rows", OUTPUT, "N", COUNT, "Save progress every N rows.", of=SaveOptions),
        number("--part-seconds", OUTPUT, "S", seconds, _PART_SECONDS, of=SaveOptions),
    )


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether a parameter was given on the command line, not by its default or the environment."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def command_line() -> str:
    """Returns the command that runs, as a shell would take it; URLs without their credentials."""
    return without_secrets(shlex.join(["xception", *sys.argv[1:]]))
