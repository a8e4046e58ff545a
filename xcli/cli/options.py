"""Options that several commands share: declared once, folded into the frozen dataclasses that hold their defaults."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from xcli.cli.help import INPUT, MODEL, OUTPUT, PIXELS, RUN, F, option, stack
from xcli.cli.verbosity import messages_of
from xcli.core.records import default
from xcli.core.tensorflow import PRECISIONS
from xcli.images.decoders import DEFAULT_MAX_PIXELS
from xcli.images.preprocessing import DEFAULT_CROP_PCT, INTERPOLATIONS, RESIZE_MODES
from xcli.inference.options import MAX_BATCH, MAX_TIMEOUT, MAX_WORKERS, RunOptions
from xcli.models.folded import INPUT_RANGES
from xcli.models.spec import ModelSpec
from xcli.outputs.options import SaveOptions
from xcli.sources.options import SourceOptions, parse_shard

if TYPE_CHECKING:
    from collections.abc import Callable


class ShardType(click.ParamType):  # type: ignore[type-arg]
    """`I/N`."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        return value if isinstance(value, tuple) else parse_shard(value)


class BatchSizeType(click.ParamType):  # type: ignore[type-arg]
    """`auto`, or a positive number; auto is None."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto" or value is None:
            return None
        if isinstance(value, int):
            return value
        if not value.isdecimal() or not 1 <= int(value) <= MAX_BATCH:
            self.fail(f"{value!r} is neither 'auto' nor a number from 1 to {MAX_BATCH}", param, ctx)
        return int(value)


def source_arguments(function: F) -> F:
    """The sources and what narrows them down; `source_options(values)` folds them."""
    sources = click.argument("sources", metavar="[SOURCE]...", nargs=-1, type=click.Path())
    return stack([sources], source_filters(function))


def source_filters(function: F) -> F:
    """What is said of the sources besides their names, for commands that take those by an option `sources`."""
    return stack(
        [
            option("-0", "--null", section=INPUT, is_flag=True, help="With -: names end in NUL (find -print0)."),
            option(
                "--manifest",
                section=INPUT,
                metavar="FILE",
                type=click.Path(),
                help="A CSV or Parquet table of paths; its other columns are carried into the output.",
            ),
            option(
                "--path-column",
                section=INPUT,
                metavar="NAME",
                default=default(SourceOptions, "path_column"),
                show_default=True,
                help="The manifest's column of paths.",
            ),
            option(
                "--escaped-paths",
                section=INPUT,
                is_flag=True,
                help=r"Paths in the manifest are escaped as in our output (\xNN, \\).",
            ),
            option(
                "--archives",
                section=INPUT,
                is_flag=True,
                help="List .tar, .tar.gz, .tar.zst and .zip files found in directories too, not only those named.",
            ),
            option("--include", section=INPUT, metavar="GLOB", multiple=True, help="Only these, of what is found."),
            option("--exclude", section=INPUT, metavar="GLOB", multiple=True, help="Not these, of what is found."),
            option(
                "--limit",
                section=INPUT,
                metavar="N",
                type=click.IntRange(0, sys.maxsize),
                help="At most N images, the first.",
            ),
            option(
                "--shard",
                section=INPUT,
                metavar="I/N",
                type=ShardType(),
                help="Only the I-th of N parts, by a stable hash of the path (I from 1 to N).",
            ),
        ],
        function,
    )


def source_options(values: dict[str, Any]) -> SourceOptions:
    """Takes what `source_arguments` declared out of a command's values."""
    return SourceOptions(
        **{name: values.pop(name) for name in ("sources", "null", "manifest", "path_column", "escaped_paths")},
        archives=values.pop("archives"),
        **{name: values.pop(name) for name in ("include", "exclude", "limit", "shard")},
    )


def model_arguments(*, classes: bool, labels: bool = True) -> Callable[[F], F]:
    """The model; `model_spec(values)` folds it. `classes` and `labels` are for commands that have a use for them."""
    decorators: list[Callable[[Any], Any]] = [
        option(
            "--model",
            section=MODEL,
            metavar="PATH",
            type=click.Path(),
            help="A .keras file with an Xception in it, or a directory made by finetune, instead of --weights.",
        ),
        option(
            "--weights",
            section=MODEL,
            metavar="imagenet|none|PATH",
            default=default(ModelSpec, "weights"),
            show_default=True,
            type=click.Path(),
            help="ImageNet weights, random ones, or an HDF5 weights file.",
        ),
    ]
    if classes:
        decorators.append(
            option(
                "--classes",
                section=MODEL,
                metavar="N",
                type=click.IntRange(min=1),
                help="Number of classes; needed only with --weights none.",
            )
        )
    if labels:
        decorators.append(
            option(
                "--labels",
                section=MODEL,
                metavar="FILE",
                type=click.Path(),
                help="Class names: one a line, or JSON.",
            )
        )
    decorators += [
        option(
            "--image-size",
            section=MODEL,
            metavar="N",
            type=click.IntRange(min=1),
            help="Side of the network's input in pixels [default: 299, or what the model file says].",
        ),
        option(
            "--input-range",
            section=MODEL,
            type=click.Choice(INPUT_RANGES),
            help="What a foreign model was fed: [-1, 1], [0, 1] or [0, 255].",
        ),
        option(
            "--weights-dir",
            section=MODEL,
            metavar="DIR",
            type=click.Path(),
            envvar="XCEPTION_WEIGHTS_DIR",
            help="Look here first for the ImageNet weights.",
        ),
        option("--offline", section=MODEL, is_flag=True, help="Never download anything."),
        option(
            "--seed",
            section=MODEL,
            metavar="N",
            type=click.IntRange(min=0),
            default=default(ModelSpec, "seed"),
            show_default=True,
            help="Of the random weights.",
        ),
    ]
    return lambda function: stack(decorators, function)


def model_spec(ctx: click.Context, values: dict[str, Any], **fixed: Any) -> ModelSpec:
    """Takes what `model_arguments` declared out of a command's values; `fixed` is what the command decides itself."""
    names = ("model", "weights", "classes", "labels", "image_size", "input_range", "weights_dir", "offline", "seed")
    chosen = {name: values.pop(name) for name in names if name in values}
    return ModelSpec(**chosen, progress=messages_of(ctx).level >= 0 and sys.stderr.isatty(), **fixed)


def pixel_arguments(function: F) -> F:
    """From file to pixels; `pixel_options(values)` folds them."""
    return stack(
        [
            option(
                "--resize",
                section=PIXELS,
                type=click.Choice(RESIZE_MODES),
                help="Crop the centre, squash to a square, or pad [default: crop, or what goes with the model].",
            ),
            option(
                "--interpolation",
                section=PIXELS,
                type=click.Choice(INTERPOLATIONS),
                help="Filter [default: bicubic, or what goes with the model].",
            ),
            option(
                "--crop-pct",
                section=PIXELS,
                metavar="SHARE",
                type=float,
                help=f"Share of the shorter side that crop keeps [default: {DEFAULT_CROP_PCT}].",
            ),
            option(
                "--jpeg-shrink",
                section=PIXELS,
                type=click.Choice(["auto", "off"]),
                default="auto",
                show_default=True,
                help="Let large JPEGs be shrunk while they are decoded.",
            ),
            option(
                "--max-pixels",
                section=PIXELS,
                metavar="N",
                type=click.IntRange(min=1),
                default=DEFAULT_MAX_PIXELS,
                show_default=True,
                help="Refuse larger images.",
            ),
        ],
        function,
    )


def pixel_options(values: dict[str, Any]) -> dict[str, Any]:
    """Takes what `pixel_arguments` declared out of a command's values."""
    names = ("resize", "interpolation", "crop_pct", "max_pixels")
    return {"jpeg_shrink": values.pop("jpeg_shrink") == "auto", **{name: values.pop(name) for name in names}}


def run_arguments(function: F) -> F:
    """Use of the machine; `run_options(values)` folds them, and `profile` stays in the command's values."""
    batch_size = option(
        "--batch-size",
        section=RUN,
        metavar="auto|N",
        type=BatchSizeType(),
        default="auto",
        show_default=True,
        help="Images in a batch.",
    )
    profile = option(
        "--profile",
        section=RUN,
        is_flag=True,
        help="Close with a table of where the time went, and what would help.",
    )
    precision = "Arithmetic; auto is float32 on a CPU and float16 on a GPU with tensor cores."
    return stack([batch_size, *machine_options(precision), profile], function)


def machine_options(precision: str) -> list[Callable[[Any], Any]]:
    """`--precision`, explained by this text, `--device`, `--workers` and `--image-timeout`."""
    return [
        option(
            "--precision",
            section=RUN,
            type=click.Choice(PRECISIONS),
            default=default(RunOptions, "precision"),
            show_default=True,
            help=precision,
        ),
        option(
            "--device",
            section=RUN,
            metavar="auto|cpu|gpu|gpu:I",
            default=default(RunOptions, "device"),
            show_default=True,
            help="Where to compute; auto takes all GPUs, or the CPU where there is none.",
        ),
        option(
            "--workers",
            section=RUN,
            metavar="N",
            type=click.IntRange(1, MAX_WORKERS),
            help="Images decoded at a time [default: one a processor].",
        ),
        option(
            "--image-timeout",
            section=RUN,
            metavar="SECONDS",
            type=click.FloatRange(0, MAX_TIMEOUT, min_open=True),
            default=default(RunOptions, "image_timeout"),
            show_default=True,
            help="For reading and decoding one image.",
        ),
    ]


def run_options(values: dict[str, Any]) -> RunOptions:
    """Takes what `run_arguments` declared out of a command's values."""
    return RunOptions(
        **{name: values.pop(name) for name in ("batch_size", "precision", "device", "workers", "image_timeout")}
    )


def output_arguments(formats: tuple[str, ...]) -> Callable[[F], F]:
    """Where the rows go; they stay in the command's values as `output`, `format` and `overwrite`."""
    decorators: list[Callable[[Any], Any]] = [
        option(
            "-o",
            "--output",
            section=OUTPUT,
            metavar="FILE|DIR/",
            type=click.Path(),
            help="The table: a file, a directory of Parquet parts, or - for standard output. Without it: a table on a "
            "terminal, CSV on a pipe.",
        ),
        option(
            "--format",
            section=OUTPUT,
            type=click.Choice(formats),
            help="Of the table [default: from the extension of FILE; csv on a pipe].",
        ),
        option("--overwrite", section=OUTPUT, is_flag=True, help="Replace FILE if it exists."),
        option(
            "--csv-safe",
            section=OUTPUT,
            is_flag=True,
            help="In CSV, put ' before texts that spreadsheets take for formulas; not to be undone.",
        ),
        option(
            "--errors-out",
            section=OUTPUT,
            metavar="FILE",
            type=click.Path(),
            help="Write the paths of the images that failed to FILE, each ended by NUL, for - -0.",
        ),
        option(
            "--max-errors",
            section=OUTPUT,
            metavar="N",
            type=click.IntRange(0),
            help="Stop once more than N images have failed; what was done is kept.",
        ),
        option("--restart", section=OUTPUT, is_flag=True, help="Start over, whatever an earlier run has left."),
        option("--retry-errors", section=OUTPUT, is_flag=True, help="Continuing, try images again that failed before."),
        option(
            "--part-rows",
            section=OUTPUT,
            metavar="N",
            type=click.IntRange(1),
            default=default(SaveOptions, "part_rows"),
            show_default=True,
            help="Rows after which work is on the disk for good.",
        ),
        option(
            "--part-seconds",
            section=OUTPUT,
            metavar="S",
            type=click.FloatRange(0, min_open=True),
            default=default(SaveOptions, "part_seconds"),
            show_default=True,
            help="Or seconds, whichever comes first.",
        ),
    ]
    return lambda function: stack(decorators, function)


def record_options(values: dict[str, Any]) -> SaveOptions:
    """Takes what `output_arguments` declared about keeping and errors out of a command's values."""
    names = ("part_rows", "part_seconds", "restart", "retry_errors", "max_errors", "errors_out", "csv_safe")
    return SaveOptions(**{name: values.pop(name) for name in names}, features_out=values.pop("features_out", None))
