"""Activations of images at a cut of the network, computed once for each view and read from memory-mapped files.

Each view of the images is an entry of the cache (`xcli.training.activation_cache`). It holds the pooled features,
float32[n, 2048], and, unless the cut is at them, maps: float16[n, h, w, c] at a cut within the network, or the pixels,
uint8[n, size, size, 3], at the input. An unfinished entry is continued with the first image that it lacks.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, parse_object
from xcli.core.levels import DETAIL
from xcli.core.process import processor_count
from xcli.core.tensorflow import Precision, apply_precision, kind_of, load_tensorflow
from xcli.inference.batch_size import default_batch_size
from xcli.inference.engines.openvino import OpenVinoEngines
from xcli.inference.engines.tensorflow import Engines
from xcli.inference.finite import refuse_not_finite
from xcli.inference.options import LONG_RUN, RunOptions
from xcli.inference.ordered_map import OrderedMap
from xcli.inference.pipeline import PixelPipeline
from xcli.models.architecture import FEATURE_WIDTH
from xcli.models.folded import pool, scale_pixels
from xcli.models.network import LAST_MAP, ForwardPass, LoadedModel
from xcli.storage import disk
from xcli.storage.atomic import write_atomically
from xcli.training.activation_cache import ActivationCache, entry_key
from xcli.training.augmentation import view_spec
from xcli.training.freezing import PIXELS, Cut, cut_below

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import ImageBatch
    from xcli.images.preprocessing import Preprocessing
    from xcli.training.callbacks import Callbacks
    from xcli.training.recipe import Recipe
    from xcli.training.split import Example

log = logging.getLogger("xcli")

_FORMAT = 1
"""Of the entries; to be raised when their contents change, so that older entries are not used."""

_SYNC_BATCHES = 32
"""Batches between two writes of the progress to disk."""

_MAX_FLOAT16 = 65504.0
POOLED, MAPS, PROGRESS = "pooled.npy", "maps.npy", "progress.json"


@dataclass(frozen=True, slots=True)
class ViewActivations:
    """The activations of one view of n images.

    Attributes:
        pooled: float32[n, 2048], average-pooled features; zeros for images with an error.
        maps: float16[n, h, w, c] at the cut, or uint8[n, size, size, 3] at the input; None for a cut at the features.
        errors: of the images that cannot be read, by index: `reason: message`.
        reused: whether the entry was already complete in the cache.
        size: bytes on disk.
    """

    pooled: NDArray[np.float32]
    maps: NDArray[Any] | None
    errors: dict[int, str]
    reused: bool
    size: int


@dataclass(slots=True)
class ActivationExtractor:
    """Computes activations, or takes them from the cache.

    Attributes:
        model: the loaded model; only the part below its pooling is used.
        recipe: tells where it is cut and how views beyond the first differ.
        preprocessing: how images become pixels.
        cache: where activations are kept.
        devices: that compute, of one kind.
        precision: of the arithmetic.
        options: tell the engine, the workers and the time limit of one image.
    """

    model: LoadedModel
    recipe: Recipe
    preprocessing: Preprocessing
    cache: ActivationCache
    devices: tuple[str, ...]
    precision: Precision
    options: RunOptions = field(default_factory=RunOptions)
    cut: Cut = field(init=False)
    _engines: Engines | OpenVinoEngines | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.cut = cut_below(self.recipe.unfreeze)

    def key(self, examples: Sequence[Example], view: int) -> str:
        """Returns the key of the cache entry for one view of these images."""
        contents = (one.digest or f"error {one.sample.ref.path} {one.error}" for one in examples)
        return entry_key(
            {
                "format": _FORMAT,
                "weights": self.model.digest,
                "input_range": self.model.input_range,
                "cut": self.cut.tap,
                "preprocessing": self.preprocessing.as_dict(),
                "precision": self.precision,
                "device": kind_of(self.devices[0]),
                **self.options.named_engine(),
                "images": sha256("\n".join(contents).encode()).hexdigest(),
                **self.recipe.augmentation.describe(view, self.recipe.seed),
            }
        )

    def extract(self, image_lists: Sequence[Sequence[Example]], callbacks: Callbacks) -> list[ViewActivations]:
        """Returns the activations of the images of view 0, of view 1, and so on, after reserving room in the cache.

        Raises:
            UsageError: the activations take more than the cache may.
            OutputError: the cache cannot be written.
            XcliError: too many images hang.
        """
        keys = [self.key(images, view) for view, images in enumerate(image_lists)]
        image_size = self.cut.bytes_per_image(self.preprocessing.size)
        self.cache.reserve(keys, image_size * sum(map(len, image_lists)))
        pairs = zip(keys, image_lists, strict=True)
        missing = sum(len(images) for key, images in pairs if self.cache.description(key) is None)
        if missing:
            callbacks.on_extraction_begin(missing)
        views = [
            self.view(images, view, callbacks.on_images_extracted, optimize_for_throughput=missing >= LONG_RUN)
            for view, images in enumerate(image_lists)
        ]
        reused, size = sum(view.reused for view in views), sum(view.size for view in views)
        callbacks.on_extraction_end(reused, len(views), size, self.cache)
        return views

    def view(
        self,
        examples: Sequence[Example],
        view: int,
        on_images: Callable[[int], None] = lambda count: None,
        *,
        optimize_for_throughput: bool = False,
    ) -> ViewActivations:
        """Returns the activations of one view of images, in their order; its number is as in `augmentation`.

        `on_images` is called with the number of images of each batch that was computed. To optimize for throughput
        means to use engines that take longer to start and run faster.
        """
        key = self.key(examples, view)
        found = self._stored(key, len(examples), reused=True)
        if found is None:
            with self.cache.exclusive(key) as folder:
                found = self._stored(
                    key, len(examples), reused=True
                )  # another process may have completed it in the meantime
                if found is None:
                    engines = self._start_engines(optimize_for_throughput)
                    errors = self._compute(engines, folder, examples, view, on_images)
                    self.cache.mark_complete(key, {"images": len(examples), "errors": errors})
                    disk.unlink(folder / PROGRESS)
                    found = self._stored(key, len(examples), reused=False)
        assert found is not None, "the entry was marked complete"
        self.cache.touch(key)
        return found

    def _stored(self, key: str, count: int, reused: bool) -> ViewActivations | None:
        """Returns a complete entry of `count` images, or None if there is none, or its files are not as it was made."""
        import numpy as np

        folder, description = self.cache.folder / key, self.cache.description(key)
        try:
            if description is None:
                return None
            pooled, *maps = (np.load(folder / name, mmap_mode="r") for name in self._arrays())
            errors = _errors_by_index(description["errors"], count)
            size = sum(entry.stat().st_size for entry in folder.iterdir())
            if [(array.shape, array.dtype) for array in (pooled, *maps)] != self._shapes(count):
                return None
        except (OSError, ValueError, KeyError, EOFError):
            return None
        return ViewActivations(pooled, maps[0] if maps else None, errors, reused, size)

    def _compute(
        self,
        engines: Engines | OpenVinoEngines,
        folder: Path,
        examples: Sequence[Example],
        view: int,
        on_images: Callable[[int], None],
    ) -> dict[str, str]:
        """Fills the arrays of an entry, from where an earlier process stopped; returns the errors by index."""
        files = self._arrays()
        done, errors = (
            _read_progress(folder, len(examples)) if all((folder / name).exists() for name in files) else (0, {})
        )
        shapes = list(engines.output_shapes)
        if self.cut.tap == PIXELS:
            shapes.append(self.cut.shape(self.preprocessing.size))
        arrays = [
            _open_array(folder / name, (len(examples), *shape), dtype)
            for (name, dtype), shape in zip(files.items(), shapes, strict=True)
        ]
        pipeline = PixelPipeline(
            (example.sample.ref for example in islice(examples, done, None)),
            self.preprocessing,
            batch_size=engines.batch_size,
            workers=self.options.workers or processor_count(),
            timeout=self.options.image_timeout,
            decoder=view_spec(self.recipe.augmentation, view, self.recipe.seed),
        )
        computes = [partial(self._results, engine) for engine in engines.streams]
        batches = pipeline.arrays() if self.options.on_openvino else iter(pipeline)
        for number, (batch, results) in enumerate(OrderedMap(batches, computes, pipeline.stop), start=1):
            batch = refuse_not_finite(batch, results, results, self.precision)
            bad = {done + row: str(error) for row, error in enumerate(batch.errors) if error is not None}
            for index, text in bad.items():
                log.log(DETAIL, "%s: %s", examples[index].sample.ref.path, text)
                errors[str(index)] = text
            for array, result in zip(arrays, results, strict=True):
                array[done : done + len(result)] = result
                array[list(bad)] = 0
            done += len(batch.refs)
            on_images(len(batch.refs))
            if number % _SYNC_BATCHES == 0:
                _write_progress(folder, arrays, done, errors)
        _write_progress(folder, arrays, done, errors)
        return errors

    def _results(self, engine: Any, batch: ImageBatch) -> tuple[NDArray[Any], ...]:
        """Returns the arrays of a batch: what the engine computes, and the pixels where they are the maps."""
        found: tuple[NDArray[Any], ...] = engine(batch.pixels)
        return (*found, batch.pixels.copy()) if self.cut.tap == PIXELS else found

    def _arrays(self) -> dict[str, str]:
        """Returns the dtype of each array of an entry, by the name of its file."""
        maps = {} if self.cut.tap is None else {MAPS: "uint8" if self.cut.tap == PIXELS else "float16"}
        return {POOLED: "float32", **maps}

    def _shapes(self, count: int) -> list[tuple[tuple[int, ...], Any]]:
        """Returns the shape and the dtype of each array of an entry of `count` images."""
        import numpy as np

        shapes = ((count, FEATURE_WIDTH), (count, *self.cut.shape(self.preprocessing.size)))
        return [(shape, np.dtype(dtype)) for shape, dtype in zip(shapes, self._arrays().values(), strict=False)]

    def _start_engines(self, optimize_for_throughput: bool = False) -> Engines | OpenVinoEngines:
        """Returns the engines, which are made at the first call: a run that finds all in the cache needs none."""
        if self._engines is None:
            size = default_batch_size(self.devices[0], self.model.size, self.precision)
            self._engines = self._make_engines(size, optimize_for_throughput)
        return self._engines

    def _make_engines(self, batch_size: int, optimize_for_throughput: bool) -> Engines | OpenVinoEngines:
        if self.options.on_openvino:
            network = self.model.features("avg").description
            forward = ForwardPass(self._forward, {**network, "cut": self.cut.tap})
            return OpenVinoEngines(self.model, forward, precision=self.precision, batch_size=batch_size)
        apply_precision(self.precision)
        self.model.network.prepare(self.precision)
        embedded = optimize_for_throughput and kind_of(self.devices[0]) == "CPU"
        return Engines(
            self._forward, size=self.model.size, batch_size=batch_size, devices=self.devices, embedded=embedded
        )

    def _forward(self, pixels: Any) -> Sequence[Any]:
        tf = load_tensorflow()
        tap = self.cut.tap
        x = scale_pixels(pixels, self.model.input_range, tf.float32)
        found = self.model.network(x, [LAST_MAP] if tap in (None, PIXELS) else [tap, LAST_MAP])
        pooled = pool(found[LAST_MAP], "avg")
        if tap in (None, PIXELS):
            return (pooled,)
        maps = tf.clip_by_value(tf.cast(found[tap], tf.float32), -_MAX_FLOAT16, _MAX_FLOAT16)
        return (pooled, tf.cast(maps, tf.float16))


def _open_array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """Opens a memory-mapped array, or makes it if there is none of this shape and dtype."""
    import numpy as np

    with suppress(OSError, ValueError, EOFError):
        array = None if path.is_symlink() else np.load(path, mmap_mode="r+")
        if array is not None and array.shape == shape and array.dtype == dtype:
            return array
    disk.unlink(path)  # which may be a link to a file of somebody
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _read_progress(folder: Path, count: int) -> tuple[int, dict[str, str]]:
    try:
        content = disk.read_file(folder / PROGRESS, MAX_BYTES + 1)
        value = parse_object(content, {"done": range(count + 1), "errors": {str: str}}, free="errors")
        _errors_by_index(value["errors"], value["done"])
        return value["done"], value["errors"]
    except (OSError, ValueError, KeyError):
        return 0, {}


def _errors_by_index(errors: Mapping[str, str], count: int) -> dict[int, str]:
    """Returns errors by the indices of `count` images; raises ValueError where one is not among them."""
    found = {int(index): text for index, text in errors.items()}
    if not all(0 <= index < count for index in found):
        raise ValueError("there are no such images")
    return found


def _write_progress(folder: Path, arrays: Sequence[Any], done: int, errors: dict[str, str]) -> None:
    for array in arrays:
        array.flush()
    text = json.dumps({"done": done, "errors": errors})
    write_atomically(str(folder / PROGRESS), text.encode())
