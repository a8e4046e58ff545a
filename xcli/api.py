"""The commands `classify`, `features` and `export` as functions; the first two also for images in memory.

>>> import xcli
>>> table = xcli.classify("photos", top=3)                    # a pyarrow.Table, one row for each image
>>> counts = xcli.features("photos", output="vectors.parquet")
>>> vectors = xcli.features(images)                           # uint8[n, h, w, 3] to float32[n, 2048]
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputExistsError, SourceNotFoundError, UsageError, XcliError
from xcli.core.process import silent_libraries
from xcli.core.records import STATUS_COLUMNS, ImageRef, RunCounts
from xcli.inference.export import ExportOptions, export_model
from xcli.inference.export_samples import DEFAULT_SAMPLES, choose_samples
from xcli.inference.options import RunOptions
from xcli.inference.predictor import Predictor
from xcli.inference.run import Run
from xcli.inference.tasks import ClassifyTask, FeaturesTask, Task
from xcli.models import loader
from xcli.models.loader import preprocessing_for
from xcli.models.network import LoadedModel
from xcli.models.spec import ModelSpec
from xcli.outputs.options import Output, SaveOptions, check_output_options
from xcli.outputs.save import save
from xcli.outputs.target import KeptTarget, parse_target
from xcli.sources.exclusions import with_exclusions
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.sources.patterns import has_magic
from xcli.storage.local import LocalFile
from xcli.storage.urls import is_url
from xcli.tables.formats import CLASSIFY_FORMATS, FEATURES_FORMATS
from xcli.tables.rows import fill_error_features
from xcli.tables.schema import feature_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.images.preprocessing import Preprocessing

    Path = str | os.PathLike[str]
    Pixels = NDArray[np.uint8]
    Model = LoadedModel | Path


def classify(
    source: Path | Iterable[Path] | Pixels | Iterable[Pixels],
    *,
    weights: Path = "imagenet",
    model: Model | None = None,
    labels: Path | None = None,
    top: int = 5,
    min_score: float | None = None,
    label_type: str = "name",
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    no_follow: bool = False,
    allow_private_hosts: bool = False,
    exclude_from: Path | None = None,
    exclude_kinds: Iterable[str] | None = None,
) -> pa.Table | RunCounts:
    """Classifies images.

    Args:
        source: a path, glob or URL, or several; or images: uint8[n, h, w, 3] in RGB, or a list of uint8[h, w, 3].
        weights: `imagenet`, `none` (random) or the path of an HDF5 weights file.
        model: what `load_model` returned, or the path of a `.keras` file or of a directory that `finetune` made;
            instead of `weights`.
        labels: path of a label file.
        top: predictions in each row, at most the number of classes.
        min_score: predictions with a lower score are null.
        label_type: `name`, `wnid` or `both`.
        preprocessing: None is what goes with the model.
        options: how to use the machine.
        output: a `.csv`, `.parquet` or `.jsonl` file to stream the rows to, or a directory, whose name ends in `/` or
            which exists, for Parquet parts. The same call continues an interrupted one.
        overwrite: whether an existing output may be replaced.
        no_follow: whether symbolic links in directories and globs are passed over, which may lead anywhere.
        allow_private_hosts: whether http and https URLs may lead to addresses of this machine and of private networks.
        exclude_from: a table of `audit` or `duplicates`, or any CSV, Parquet or JSONL file with a column path; the
            images that it names, of `duplicates` those that it does not keep, are left out.
        exclude_kinds: of the findings of `audit`; None is all.

    Returns:
        A table with one row for each image. The columns are path, status, error (not for images in memory), then
        label_1, index_1, score_1, and so on. With `output`, the `RunCounts` of the run.

    Raises:
        ValueError: an argument is wrong, or an image in memory cannot be classified.
        FileNotFoundError: `source` is one path, and does not exist; one of several is a row with the status `error`.
        FileExistsError: the output exists.
        XcliError: what else would end the command; the three above are `XcliError`s too. Images that cannot be read
            are rows with the status `error`.
    """
    task = partial(ClassifyTask, top=top, min_score=min_score, label_type=label_type)
    with _python_errors():
        listed = _listing_options(source, no_follow, allow_private_hosts, exclude_from, exclude_kinds)
        names = None if labels is None else os.fspath(labels)
        loaded = _load(model, ModelSpec(weights=os.fspath(weights), labels=names))
        request = _Request("classify", loaded, task(loaded), preprocessing, options or RunOptions(), listed)
        if _are_pixels(source):
            rows = request.rows_of(source)
            return rows.drop_columns(list(STATUS_COLUMNS))
        return request.run(source, output, overwrite, CLASSIFY_FORMATS)


def features(
    source: Path | Iterable[Path] | Pixels | Iterable[Pixels],
    *,
    weights: Path = "imagenet",
    model: Model | None = None,
    pooling: str | None = "avg",
    layer: str | None = None,
    dtype: str = "float32",
    normalize: bool = False,
    preprocessing: Preprocessing | None = None,
    options: RunOptions | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    no_follow: bool = False,
    allow_private_hosts: bool = False,
    exclude_from: Path | None = None,
    exclude_kinds: Iterable[str] | None = None,
) -> pa.Table | RunCounts | NDArray[Any]:
    """Computes an embedding of each image.

    Args:
        source, weights, model, preprocessing, options, overwrite: as for `classify`.
        no_follow, allow_private_hosts, exclude_from, exclude_kinds: as for `classify`.
        pooling: `avg`, `max` or None (the map itself).
        layer: name of the layer whose output to take; None is the last map.
        dtype: `float32` or `float16`.
        normalize: scale each vector to unit length.
        output: a `.parquet`, `.csv` or `.npy` file to stream the rows to, or a directory for Parquet parts.

    Returns:
        A table with the columns path, status, error and features (float32[2048] by default, NaN in error rows), one row
        for each image.
        For images in memory an array, float32[n, 2048] by default. With `output`, the `RunCounts` of the run.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, XcliError: as `classify`.
    """
    with _python_errors():
        listed = _listing_options(source, no_follow, allow_private_hosts, exclude_from, exclude_kinds)
        task = FeaturesTask(pooling, layer, dtype, normalize)
        loaded = _load(model, ModelSpec(weights=os.fspath(weights), include_top=False))
        request = _Request("features", loaded, task, preprocessing, options or RunOptions(), listed)
        if _are_pixels(source):
            column = request.rows_of(source)["features"].combine_chunks()
            return _array(column)
        return request.run(source, output, overwrite, FEATURES_FORMATS)


extract_features = features


def export(
    output: Path,
    *,
    format: str,
    precision: str = "float32",
    weights: Path = "imagenet",
    model: Model | None = None,
    labels: Path | None = None,
    include_top: bool = True,
    pooling: str | None = "avg",
    layer: str | None = None,
    images: Path | Iterable[Path] | None = None,
    samples: int = DEFAULT_SAMPLES,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a model for another program, and compares what it computes there with this one.

    Args:
        output: the directory to write, which appears whole or not at all.
        format: `savedmodel`, `onnx`, `openvino` or `litert`.
        precision: `float32`, `float16` or, of a savedmodel, `bfloat16`.
        weights, model, labels: as for `classify`.
        include_top: export scores, if the model has a classifier; else features, of which `pooling` and `layer` say
            more, as for `features`.
        images: files, directories or globs with the images to compare on; None makes some.
        samples: how many.
        preprocessing: None is what goes with the model; for `images`, and for the card.
        overwrite: whether an earlier export may be replaced.

    Returns:
        The content of `model_card.json`.

    Raises:
        ValueError, FileExistsError, XcliError: as `classify`. A CheckError says that the results differ by more than
            the format may; then nothing is written.
    """
    with _python_errors():
        options = ExportOptions(format, precision, features=not include_top, pooling=pooling, layer=layer)
        target = os.fspath(output)
        options.check(target, overwrite)
        names = None if labels is None else os.fspath(labels)
        loaded = _load(model, ModelSpec(weights=os.fspath(weights), labels=names, include_top=include_top))
        chosen = preprocessing or preprocessing_for(loaded)
        paths = (images,) if isinstance(images, str | os.PathLike) else images
        with silent_libraries():
            found = choose_samples(None if paths is None else [os.fspath(one) for one in paths], chosen, samples)
            return export_model(loaded, target, options, chosen, samples=found, overwrite=overwrite)


def load_model(spec: ModelSpec | None = None, **options: Any) -> LoadedModel:
    """Loads a model, to be used in several calls.

    Args:
        spec: what to load; else it is made from `options`.
        options: as for `ModelSpec`: `model`, `weights`, `include_top`, `pooling`, `classes`, `labels`, `image_size`,
            `input_range`, `weights_dir`, `offline`, `seed`.

    Raises:
        ValueError: an argument is wrong.
        XcliError: the model cannot be had, or does not fit.
    """
    with _python_errors(), silent_libraries():
        return loader.load_model(spec, **options)


def _listing_options(
    source: Any,
    no_follow: bool,
    allow_private_hosts: bool,
    exclude_from: Path | None,
    exclude_kinds: Iterable[str] | None,
) -> SourceOptions:
    """Returns what a call says of its images besides their names; raises UsageError or SourceError."""
    if exclude_from is not None and _are_pixels(source):
        raise UsageError("exclude_from is for images that are named; images in memory have no paths")
    options = SourceOptions(
        no_follow=no_follow,
        allow_private_hosts=allow_private_hosts,
        exclude_from=None if exclude_from is None else os.fspath(exclude_from),
        exclude_kinds=None if exclude_kinds is None else tuple(exclude_kinds),
    )
    return with_exclusions(options)


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of a call, without its images."""

    command: str
    model: LoadedModel
    task: Task
    preprocessing: Preprocessing | None
    options: RunOptions
    listed: SourceOptions

    def _pixels(self) -> Preprocessing:
        chosen = self.preprocessing or preprocessing_for(self.model)
        size = self.model.size
        if chosen.size != size:
            raise UsageError(f"the model takes images of {size} pixels; received preprocessing of {chosen.size}")
        return chosen

    def run(self, source: Any, output: Path | None, overwrite: bool, formats: tuple[str, ...]) -> pa.Table | RunCounts:
        """Computes the rows of images that are named; see `classify`."""
        import pyarrow as pa

        single = isinstance(source, (str, os.PathLike))
        names = (source,) if single else tuple(source)
        if single and not _may_exist(os.fspath(source)):
            raise SourceNotFoundError(f"no such file or directory: {os.fspath(source)!r}")
        if not names:
            raise UsageError("no sources: give a file, a directory or a glob, or several")
        target = None if output is None else _output(self.command, os.fspath(output), formats, overwrite)
        paths = tuple(map(os.fspath, names))
        with list_images(replace(self.listed, sources=paths, missing_ok=True)) as listing:
            run = Run(listing, self.model, self.task, self._pixels(), self.options)
            if target is not None:
                save(run, target)
                return run.report
            with silent_libraries():
                schema = run.start()
            batches = [rows for _, rows in run.batches()]
            if feature_shape(schema) is not None:
                batches = [fill_error_features(rows, "nan") for rows in batches]
            return pa.Table.from_batches(batches, schema)

    def rows_of(self, images: Any) -> pa.Table:
        """Computes the rows of images in memory."""
        import pyarrow as pa

        files = map(_as_bitmap, images)
        refs = [ImageRef(f"image {number}", _MemoryImage("", file), b"") for number, file in enumerate(files)]
        predictor = Predictor(self.model, self.task, self._pixels(), self.options)
        with silent_libraries():
            schema = predictor.start(max(1, min(predictor.choose(), len(refs))))
        table = pa.Table.from_batches([rows for _, rows in predictor.rows(iter(refs))], schema)
        for name, error in zip(table["path"].to_pylist(), table["error"].to_pylist(), strict=True):
            if error is not None:
                raise UsageError(f"{name}: {error}")
        return table


@dataclass(frozen=True, slots=True)
class _MemoryImage(LocalFile):
    """An image in memory, as the `Location` of an image."""

    data: bytes

    def read(self, max_bytes: int) -> bytes:
        return self.data

    def state(self) -> None:
        return None


def _as_bitmap(image: Any) -> bytes:
    """Returns an array as a BMP file, which is read back without loss, so that arrays are treated as files are."""
    import numpy as np
    from PIL import Image

    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UsageError(f"an image in memory is an array of uint8[height, width, 3]; received {found}")
    data = BytesIO()
    Image.fromarray(image).save(data, "BMP")
    return data.getvalue()


def _are_pixels(source: Any) -> bool:
    """Whether a source is an array, or a sequence of arrays."""
    first = source[0] if isinstance(source, (list, tuple)) and source else source
    return hasattr(first, "__array__")


def _array(column: pa.Array) -> NDArray[Any]:
    """Returns a column of features as an array with a row for each image."""
    if hasattr(column, "to_numpy_ndarray"):
        return column.to_numpy_ndarray()  # type: ignore[no-any-return]
    return column.values.to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)  # type: ignore[no-any-return]


def _may_exist(name: str) -> bool:
    """Whether a source exists, or is of a kind that only listing it can tell."""
    return os.path.exists(name) or has_magic(name) or is_url(name) or "::" in name


def _load(model: Model | None, spec: ModelSpec) -> LoadedModel:
    if isinstance(model, LoadedModel):
        if spec.weights != "imagenet" or spec.labels is not None:
            raise UsageError("model and weights or labels exclude each other: the model is loaded already")
        return model
    with silent_libraries():
        return loader.load_model(spec if model is None else replace(spec, model=os.fspath(model)))


def _output(command: str, name: str, formats: tuple[str, ...], overwrite: bool) -> Output:
    target = parse_target(name)
    output = Output(command, target, target.format(formats, formats[0]), overwrite)
    check_output_options(output, SaveOptions())
    if not overwrite and isinstance(target, KeptTarget) and target.finished_run() is not None:
        raise OutputExistsError(f"{name} exists; pass --overwrite to replace it")
    return output


class _SourceNotFoundError(SourceNotFoundError, FileNotFoundError):
    """A source does not exist."""


class _OutputExistsError(OutputExistsError, FileExistsError):
    """The output exists."""


_PYTHON_TYPES = {SourceNotFoundError: _SourceNotFoundError, OutputExistsError: _OutputExistsError}


@contextmanager
def _python_errors() -> Iterator[None]:
    """A context in which errors name arguments instead of options, and have Python's types if there are any."""
    try:
        yield
    except XcliError as error:
        text = str(error).replace("--overwrite", "overwrite=True")
        text = re.sub(r"`xception ([a-z]+)`", r"`xcli.\1`", text)
        text = re.sub(r"--([a-z][a-z0-9-]*)", lambda match: match[1].replace("-", "_"), text)
        raise _PYTHON_TYPES.get(type(error), type(error))(text) from error
