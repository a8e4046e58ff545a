"""The same road from Python: two functions over the parts that the command line uses.

>>> from xcli import classify, extract_features
>>> table = classify("photos", top=3)                      # a pyarrow.Table, one row an image
>>> report = extract_features("photos", output="features.parquet")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError, UsageError
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.inference.tasks import ClassifyTask, FeaturesTask, Task
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.spec import ModelSpec
from xcli.outputs.options import Output, SaveOptions, check_output_options
from xcli.outputs.save import save
from xcli.outputs.target import KeptTarget, parse_target
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.tables.formats import CLASSIFY_FORMATS, FEATURES_FORMATS

Source = str | os.PathLike[str]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pyarrow as pa

    from xcli.core.records import RunCounts
    from xcli.images.preprocessing import Preprocessing
    from xcli.models.network import LoadedModel


def classify(
    sources: Source | Iterable[Source],
    *,
    model: LoadedModel | None = None,
    top: int = 5,
    min_score: float | None = None,
    label_type: str = "name",
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    output: Source | None = None,
    overwrite: bool = False,
) -> pa.Table | RunCounts:
    """Classifies images.

    Args:
        sources: a file, directory or glob, or several.
        model: from `load_model`; None is Xception with its ImageNet weights.
        top: predictions a row, at most the number of classes.
        min_score: predictions below it are null.
        label_type: `name`, `wnid` or `both`.
        preprocessing: None is what goes with the model.
        options: how to use the machine.
        output: a `.csv`, `.parquet` or `.jsonl` file to stream the rows to, instead of keeping them; or a directory,
            its name ending in `/`, for parts in Parquet.
        overwrite: replace an existing output.

    Returns:
        A table with the columns path, status, error, label_1, index_1, score_1, ..., one row an image; with `output`
        the `RunCounts` of the run.

    Raises:
        XcliError: what the command line would end with; images that fail are rows, never errors.
    """

    def table(loaded: LoadedModel) -> Task:
        return ClassifyTask(loaded, top=top, min_score=min_score, label_type=label_type)

    spec = ModelSpec()
    return _run("classify", sources, model or spec, table, preprocessing, options, output, overwrite)


def extract_features(
    sources: Source | Iterable[Source],
    *,
    model: LoadedModel | None = None,
    pooling: str | None = "avg",
    layer: str | None = None,
    dtype: str = "float32",
    normalize: bool = False,
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    output: Source | None = None,
    overwrite: bool = False,
) -> pa.Table | RunCounts:
    """Computes an embedding of each image.

    Args:
        sources: a file, directory or glob, or several.
        model: from `load_model`; None is Xception without its top and with its ImageNet weights.
        pooling: `avg`, `max` or None (the map itself).
        layer: name of the layer to take; None is the last map.
        dtype: `float32` or `float16`.
        normalize: scale each vector to unit length.
        preprocessing, options, overwrite: as for `classify`.
        output: a `.parquet`, `.csv` or `.npy` file to stream the rows to, instead of keeping them.

    Returns:
        A table with the columns path, status, error and features (float32[2048] by default), one row an image; with
        `output` the `RunCounts` of the run.

    Raises:
        XcliError: what the command line would end with; images that fail are rows, never errors.
    """
    table = FeaturesTask(pooling, layer, dtype, normalize)
    spec = ModelSpec(include_top=False)
    return _run("features", sources, model or spec, lambda _: table, preprocessing, options, output, overwrite)


def _run(
    command: str,
    sources: Source | Iterable[Source],
    model: LoadedModel | ModelSpec,
    make_table: Callable[[LoadedModel], Task],
    preprocessing: Preprocessing | None,
    options: RunOptions | None,
    output: Source | None,
    overwrite: bool,
) -> Any:
    import pyarrow as pa

    names = (sources,) if isinstance(sources, (str, os.PathLike)) else tuple(sources)
    if not names:
        raise UsageError("no sources: give a file, a directory or a glob, or several")
    formats = CLASSIFY_FORMATS if command == "classify" else FEATURES_FORMATS
    target = None if output is None else _output(command, os.fspath(output), formats, overwrite)
    with list_images(SourceOptions(sources=tuple(os.fspath(name) for name in names))) as listing:
        loaded = load_model(model) if isinstance(model, ModelSpec) else model
        pixels = preprocessing or preprocessing_for(loaded)
        if pixels.size != loaded.size:
            raise UsageError(f"the model takes images of {loaded.size} pixels; received preprocessing of {pixels.size}")
        run = Run(listing, loaded, make_table(loaded), pixels, options or RunOptions())
        if target is None:
            schema = run.start()
            return pa.Table.from_batches([rows for _, rows in run.batches()], schema)
        save(run, target)
        return run.report


def _output(command: str, name: str, formats: tuple[str, ...], overwrite: bool) -> Output:
    target = parse_target(name)
    output = Output(command, target, target.format(formats, formats[0]), overwrite)
    check_output_options(output, SaveOptions())
    if not overwrite and isinstance(target, KeptTarget) and target.finished_run() is not None:
        raise OutputError(f"{name} exists; pass overwrite=True to replace it")
    return output
