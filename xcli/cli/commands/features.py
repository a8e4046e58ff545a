"""`xception features`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from xcli.cli.help import OUTPUT, Command, choice, flag, fold, option
from xcli.cli.options import error_features, model_spec
from xcli.cli.table_run import run_table, table_arguments
from xcli.inference.tasks import FEATURE_TYPES, FeaturesTask
from xcli.models.hdf5_weights import TOP
from xcli.tables.formats import FEATURES_FORMATS


@click.command(cls=Command)
@table_arguments(
    FEATURES_FORMATS,
    choice(
        "--pooling",
        OUTPUT,
        ["avg", "max", "none"],
        "Average or maximum of each channel over the image; none keeps the whole map (not in CSV).",
        of=FeaturesTask,
    ),
    option("--layer", OUTPUT, "Take the output of this layer; info --layers lists the names.", metavar="NAME"),
    choice("--dtype", OUTPUT, FEATURE_TYPES, "Type of the numbers.", of=FeaturesTask),
    flag("--normalize", OUTPUT, "Scale each vector to unit length."),
    error_features(FeaturesTask),
    classes=False,
)
@click.pass_context
def features(ctx: click.Context, /, **values: Any) -> int:
    """Compute an embedding of each image: by default 2048 numbers, one row an image.

    SOURCE is a file, a directory (searched recursively), a .tar (also .gz, .bz2, .xz, .zst) or .zip archive
    (read without unpacking it to disk; its rows are named archive.tar::member), a quoted glob, one of these at an
    s3:// or gs:// URL, a file at an https:// URL, or - for a list of names on standard input. Without SOURCE, the
    current directory is taken.

    \b
    Parquet: path, status, error, features (fixed-size list; a fixed-shape tensor for maps)
    CSV:     path, status, error, f0, ..., f2047
    NPY:     OUT.npy, readable with mmap_mode, and OUT.npy.csv with path, status, error in the same order

    Exit status: 0 all rows ok, 4 some rows are errors, 2 usage, 3 model, 5 output, 129, 130 and 143 interrupted.
    """
    pooling = values["pooling"]
    task = fold(FeaturesTask, values, pooling=None if pooling == "none" else pooling)
    spec = model_spec(ctx, values, include_top=False)
    if task.layer == TOP and spec.model is None:
        spec = replace(spec, include_top=True)
    return run_table(ctx, values, spec, lambda _: task.for_model, FEATURES_FORMATS)
