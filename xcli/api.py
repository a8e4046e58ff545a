"""The same road from Python: two functions over the parts that the command line uses.

>>> from xcli import classify, extract_features
>>> table = classify("photos", top=3)                      # a pyarrow.Table, one row an image
>>> report = extract_features("photos", output="features.parquet")
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xcli.inference import ClassifyTable, FeaturesTable, Run, RunOptions, Table, preprocessing_for
from xcli.model import LoadedModel, ModelSpec, load_model
from xcli.sinks import CLASSIFY_FORMATS, FEATURES_FORMATS, METADATA_KEY, format_from_name, open_sink
from xcli.sources import SourceOptions, list_images

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from xcli.images import Preprocessing
    from xcli.records import Report


def classify(
    sources: str | Iterable[str],
    *,
    model: LoadedModel | None = None,
    top: int = 5,
    min_score: float | None = None,
    label_type: str = "name",
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    output: str | None = None,
    overwrite: bool = False,
) -> pa.Table | Report:
    """Classifies images.

    Args:
        sources: a file, directory or glob, or several.
        model: from `load_model`; None is Xception with its ImageNet weights.
        top: predictions a row, at most the number of classes.
        min_score: predictions below it are null.
        label_type: `name`, `wnid` or `both`.
        preprocessing: None is what goes with the model.
        options: how to use the machine.
        output: a `.csv`, `.parquet` or `.jsonl` file to stream the rows to, instead of keeping them.
        overwrite: replace an existing output.

    Returns:
        A table with the columns path, status, error, label_1, index_1, score_1, ..., one row an image; with `output`
        the `Report` of the run.

    Raises:
        XcliError: what the command line would end with; images that fail are rows, never errors.
    """
    model = model or load_model(ModelSpec())
    table = ClassifyTable(model, top=top, min_score=min_score, label_type=label_type)
    return _run("classify", sources, model, table, preprocessing, options, output, overwrite)


def extract_features(
    sources: str | Iterable[str],
    *,
    model: LoadedModel | None = None,
    pooling: str | None = "avg",
    layer: str | None = None,
    dtype: str = "float32",
    normalize: bool = False,
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    output: str | None = None,
    overwrite: bool = False,
) -> pa.Table | Report:
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
        `output` the `Report` of the run.

    Raises:
        XcliError: what the command line would end with; images that fail are rows, never errors.
    """
    model = model or load_model(ModelSpec(include_top=False))
    table = FeaturesTable(pooling, layer, dtype, normalize)
    return _run("features", sources, model, table, preprocessing, options, output, overwrite)


def _run(
    command: str,
    sources: str | Iterable[str],
    model: LoadedModel,
    table: Table,
    preprocessing: Preprocessing | None,
    options: RunOptions | None,
    output: str | None,
    overwrite: bool,
) -> Any:
    import pyarrow as pa

    names = (sources,) if isinstance(sources, str) else tuple(sources)
    with list_images(SourceOptions(sources=names)) as listing:
        run = Run(listing, model, table, preprocessing or preprocessing_for(model), options or RunOptions())
        schema = run.start()
        if output is None:
            return pa.Table.from_batches([rows for _, rows in run.batches()], schema)
        formats = CLASSIFY_FORMATS if command == "classify" else FEATURES_FORMATS
        metadata = {METADATA_KEY: json.dumps(run.provenance(command), sort_keys=True)}
        with open_sink(format_from_name(output, formats, formats[0]), output, schema, metadata, overwrite) as sink:
            for _, rows in run.batches():
                sink.write(rows)
        return run.report
