"""Activations at a cut of the network, of every image and view, computed once and read from memory-mapped files.

What a view of the images gives is one entry of the cache (`xcli.training.activation_cache`): the pooled features,
float32[n, 2048], and at a cut within the network its map, float16[n, h, w, c], or at the input the pixels, uint8[n,
size, size, 3]. An entry that was begun is continued at the image where its process died.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from xcli.core.process import processor_count
from xcli.core.tensorflow import apply_precision, kind_of, load_tensorflow
from xcli.inference.batch_size import default_batch_size
from xcli.inference.engine import Engines
from xcli.inference.options import DEFAULT_TIMEOUT
from xcli.inference.ordered_map import OrderedMap
from xcli.inference.pipeline import PixelPipeline
from xcli.models.folded import pool, scale_pixels
from xcli.models.network import LAST_MAP
from xcli.training.activation_cache import fingerprint
from xcli.training.augmentation import Augmentation, view_decoder
from xcli.training.freezing import PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.records import ImageBatch
    from xcli.core.tensorflow import Precision
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.engine import Engine
    from xcli.models.network import LoadedModel
    from xcli.training.activation_cache import ActivationCache
    from xcli.training.freezing import Cut
    from xcli.training.split import Example

_FORMAT = 1
"""Of the entries; a change of what they hold makes all older ones strangers."""

_SYNC_BATCHES = 32
"""Batches after which progress is on the disk."""

_MAX_FLOAT16 = 65504.0
POOLED, MAPS, PROGRESS = "pooled.npy", "maps.npy", "progress.json"


@dataclass(frozen=True, slots=True)
class View:
    """The activations of one view of some images.

    Attributes:
        pooled: float32[n, 2048], average-pooled features; zeros where there is an error.
        maps: float16[n, h, w, c] at the cut, or uint8[n, size, size, 3] at the input; None where the cut is above.
        errors: what is wrong with images, by number: `reason: message`.
        reused: whether it was in the cache, whole.
        size: bytes on the disk.
    """

    pooled: NDArray[np.float32]
    maps: NDArray[Any] | None
    errors: dict[int, str]
    reused: bool
    size: int


@dataclass(slots=True)
class ActivationExtractor:
    """Computes views, or takes them from the cache.

    Attributes:
        model: the loaded model; only what lies below its pooling is used.
        cut: where it is cut.
        preprocessing: how images become pixels.
        augmentation: what may change in views beyond the first.
        seed: of the augmentation.
        cache: where activations are kept.
        devices: that compute, of one kind.
        precision: of the arithmetic.
        workers: decodes at a time.
        timeout: seconds for one image.
        long: whether there is so much to compute that an engine which starts later and runs faster pays.
        on_batch: called with the number of images of each batch that was computed.
        computed: images computed so far, views counted each.
    """

    model: LoadedModel
    cut: Cut
    preprocessing: Preprocessing
    augmentation: Augmentation
    seed: int
    cache: ActivationCache
    devices: tuple[str, ...]
    precision: Precision
    workers: int | None = None
    timeout: float = DEFAULT_TIMEOUT
    long: bool = False
    on_batch: Callable[[int], None] = lambda count: None
    computed: int = 0
    _engines: Engines | None = field(default=None, init=False)

    def key(self, examples: Sequence[Example], view: int) -> str:
        """Name of the entry for one view of these images."""
        content = sha256("\n".join(_identity(example) for example in examples).encode()).hexdigest()
        return fingerprint(
            {
                "format": _FORMAT,
                "weights": self.model.digest,
                "input_range": self.model.input_range,
                "cut": self.cut.tap,
                "preprocessing": self.preprocessing.as_dict(),
                "precision": self.precision,
                "device": kind_of(self.devices[0]),
                "images": content,
                **self.augmentation.describe(view, self.seed),
            }
        )

    def view(self, examples: Sequence[Example], view: int) -> View:
        """The activations of one view of images, in their order.

        Args:
            examples: the images.
            view: its number; see `xcli.training.augmentation`.

        Raises:
            OutputError: the cache cannot be written.
            XcliError: too many images hang.
        """
        key = self.key(examples, view)
        found = self._stored(key, reused=True)
        if found is None:
            with self.cache.exclusive(key) as folder:
                found = self._stored(key, reused=True)  # another process may have made it while this one waited
                if found is None:
                    errors = self._compute(folder, examples, view)
                    self.cache.mark_complete(key, {"images": len(examples), "errors": errors})
                    (folder / PROGRESS).unlink(missing_ok=True)
                    found = self._stored(key, reused=False)
        assert found is not None, "finish() has declared it whole"
        self.cache.touch(key)
        return found

    def _stored(self, key: str, reused: bool) -> View | None:
        """A finished entry; None where there is none, or files of it are missing or cut short."""
        import numpy as np

        folder, description = self.cache.folder / key, self.cache.description(key)
        try:
            if description is None:
                return None
            pooled, *maps = (np.load(folder / name, mmap_mode="r") for name in self._names())
            errors = {int(number): str(text) for number, text in description["errors"].items()}
            size = sum(entry.stat().st_size for entry in folder.iterdir())
        except (OSError, ValueError, KeyError, EOFError):
            return None
        return View(pooled, maps[0] if maps else None, errors, reused, size)

    def _compute(self, folder: Path, examples: Sequence[Example], view: int) -> dict[str, str]:
        """Fills the arrays of an entry, from where an earlier process has left them."""
        engines = self._started()
        whole = all((folder / name).exists() for name in self._names())
        arrays = [
            _array(folder / name, (len(examples), *shape), dtype)
            for name, shape, dtype in zip(self._names(), engines.output_shapes, self._types(), strict=True)
        ]
        done, errors = _progress(folder) if whole else (0, {})
        pipeline = PixelPipeline(
            (example.sample.ref for example in islice(examples, done, None)),
            self.preprocessing,
            batch_size=engines.batch_size,
            workers=self.workers or processor_count(),
            timeout=self.timeout,
            decode=view_decoder(self.augmentation, view, self.seed),
        )
        computes = [partial(_computed, engine) for engine in engines.streams]
        streams = OrderedMap(iter(pipeline), computes, pipeline.stop)
        for number, (batch, results) in enumerate(streams, start=1):
            stop = done + len(batch.refs)
            for array, result in zip(arrays, results, strict=True):
                array[done:stop] = _without_errors(batch, result)
            errors |= {str(done + row): str(error) for row, error in enumerate(batch.errors) if error is not None}
            done = stop
            self.computed += len(batch.refs)
            self.on_batch(len(batch.refs))
            if number % _SYNC_BATCHES == 0:
                _flush(arrays)
                _write_progress(folder, done, errors)
        _flush(arrays)
        return errors

    def _names(self) -> tuple[str, ...]:
        return (POOLED,) if self.cut.tap is None else (POOLED, MAPS)

    def _types(self) -> tuple[str, ...]:
        return ("float32",) if self.cut.tap is None else ("float32", "uint8" if self.cut.tap == PIXELS else "float16")

    def _started(self) -> Engines:
        """The engines; traced at the first need, for a run that finds everything in the cache has none."""
        if self._engines is None:
            apply_precision(self.precision)
            self.model.network.prepare(self.precision)
            self._engines = Engines(
                self._forward,
                size=self.model.size,
                batch_size=default_batch_size(self.devices[0], self.model.size, self.precision),
                devices=self.devices,
                embedded=self.long and kind_of(self.devices[0]) == "CPU",
            )
        return self._engines

    def _forward(self, pixels: Any) -> Sequence[Any]:
        tf = load_tensorflow()
        tap = self.cut.tap
        x = scale_pixels(pixels, self.model.input_range, tf.float32)
        found = self.model.network(x, [LAST_MAP] if tap in (None, PIXELS) else [tap, LAST_MAP])
        pooled = pool(found[LAST_MAP], "avg")
        if tap is None:
            return (pooled,)
        if tap == PIXELS:
            return (pooled, tf.identity(pixels))
        maps = tf.clip_by_value(tf.cast(found[tap], tf.float32), -_MAX_FLOAT16, _MAX_FLOAT16)
        return (pooled, tf.cast(maps, tf.float16))


def _computed(engine: Engine, batch: ImageBatch) -> Sequence[NDArray[np.float32]]:
    return engine(batch.pixels)


def _identity(example: Example) -> str:
    return example.digest or f"error {example.sample.ref.path} {example.error}"


def _array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """A memory-mapped array on the disk, made where there is none of this shape."""
    import numpy as np

    with suppress(OSError, ValueError, EOFError):
        array = np.load(path, mmap_mode="r+")
        if array.shape == shape and array.dtype == dtype:
            return array
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _without_errors(batch: ImageBatch, result: NDArray[Any]) -> NDArray[Any]:
    """Zeros where there is no image."""
    bad = [row for row, error in enumerate(batch.errors) if error is not None]
    if bad:
        result = result.copy()
        result[bad] = 0
    return result


def _progress(folder: Path) -> tuple[int, dict[str, str]]:
    """How many images of an entry are done, and the errors among them."""
    try:
        value = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return int(value["done"]), dict(value["errors"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, {}


def _write_progress(folder: Path, done: int, errors: dict[str, str]) -> None:
    temporary = folder / f".{PROGRESS}"
    temporary.write_text(json.dumps({"done": done, "errors": errors}), encoding="utf-8")
    temporary.replace(folder / PROGRESS)


def _flush(arrays: Sequence[Any]) -> None:
    for array in arrays:
        array.flush()
