"""Finds the integers of a model on images of the user, and measures on others what they lose.

listing --(the images whose paths have the smallest digests)--> sample
sample, first half   --> float32, observed --> statistics --> layers
sample, second half  --> float32, and the layers' integers --> loss
"""

from __future__ import annotations

import json
import logging
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, TypeAlias

from xcli.core.digests import json_digest
from xcli.core.errors import CheckError, UsageError
from xcli.core.levels import DETAIL
from xcli.core.openvino import load_openvino
from xcli.core.text import one_line
from xcli.inference.batch_size import CPU_BATCH, usual_batch_size
from xcli.inference.engines.openvino import OpenVinoEngine
from xcli.inference.engines.openvino_graph import convert, refused, settings
from xcli.inference.pipeline import PixelPipeline
from xcli.inference.quantization.files import read_or_make, read_quantization
from xcli.inference.quantization.graph import quantize_graph
from xcli.inference.quantization.layers import left_in_floats, quantize_layer
from xcli.inference.quantization.observer import Observer
from xcli.inference.quantization.quantization import Loss, Quantization, parse_quantization
from xcli.storage.model_cache import CacheEntry, ModelCache, user_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xcli.core.records import ImageRef
    from xcli.core.tensorflow import Precision
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.engines.openvino_graph import ConvertedGraph
    from xcli.inference.options import RunOptions
    from xcli.inference.quantization.layers import IntegerLayer
    from xcli.models.network import LoadedModel

Again: TypeAlias = "Callable[[], Iterator[ImageRef]]"
Results: TypeAlias = "dict[str, list[NDArray[Any]]]"

ALIKE = 0.985
"""Cosine between features from which on an image of a model without classes counts as one that agrees."""

FEWEST_IMAGES = 64
"""Half of them to calibrate and half to measure."""

_FORM = 2
"""Of the calibration; to be raised when another one is found on the same images."""

_FACT = "quantization"
"""Of an entry of `samples`: the digest that the quantization has as an entry of `quantizations`."""

_SAMPLES_LIMIT, _QUANTIZATIONS_LIMIT = 1 << 26, 1 << 28

log = logging.getLogger("xcli")


class CalibrationCache:
    """What was found before: which quantization belongs to a sample, and the quantizations by their digests.

    Args:
        folder: for a name, the directory to keep them in; None where nothing can be kept.
    """

    def __init__(self, folder: Callable[[str], Path | None] = user_folder) -> None:
        self._samples = ModelCache(folder("int8-samples"), "calibration", _SAMPLES_LIMIT)
        self._quantizations = ModelCache(folder("int8"), "calibration", _QUANTIZATIONS_LIMIT)

    def find(self, digest: str) -> Quantization | None:
        """Returns the quantization of a digest, if it is kept and whole."""
        found = self._quantizations.find(digest, {})
        try:
            return None if found is None else parse_quantization(found.content)
        except ValueError as error:
            log.warning("not using the calibration that was kept: %s; it is made again", error)
            return None

    def get(self, key: str, make: Callable[[], Quantization]) -> Quantization:
        """Returns the quantization of a sample; of several processes that ask at once, one makes it."""
        made: list[Quantization] = []

        def build() -> CacheEntry:
            made.append(make())
            self._quantizations.keep(made[0].digest, CacheEntry(made[0].content, {}))
            return CacheEntry(b"", {_FACT: made[0].digest})

        for _ in range(2):
            entry = self._samples.get(key, {_FACT: str}, build)
            found = made[0] if made else self.find(str(entry.facts[_FACT]))
            if found is not None:
                return found
            self._samples.remove(key)
        raise AssertionError("what was just made is there")


class Calibrator:
    """Gets the quantization of a run: from a file, from the cache, or from images of the listing.

    Args:
        model: the loaded model.
        preprocessing: how images become pixels.
        options: the number of images, the file, and the agreement that is asked for.
        cache: None is the user's cache directory.
    """

    def __init__(
        self,
        model: LoadedModel,
        preprocessing: Preprocessing,
        options: RunOptions,
        cache: CalibrationCache | None = None,
    ) -> None:
        self._model, self._preprocessing, self._options = model, preprocessing, options
        self._cache = cache or CalibrationCache()
        has_classes = model.output_name is not None and model.labels is not None
        self._forward = model.scores(with_features=True) if has_classes else model.features("avg")
        self._has_classes = has_classes

    def foreseen(self, record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Returns what the record of `get` would be, for the same `earlier` one; None if only calibrating can tell."""
        name = self._options.calibration_model
        if name is None:
            return self._recorded(record)
        found = read_quantization(name)
        return None if found is None else self._checked(found).record()

    def _recorded(self, record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Returns the record of an earlier run, if the options ask for the same calibration as that had."""
        fits = record is not None and record.get("requested") == self._options.calibration and "sha256" in record
        return record if fits else None

    def get(self, again: Again | None, earlier: Mapping[str, Any] | None = None) -> Quantization:
        """Returns the quantization; says what it loses.

        Args:
            again: lists the images of all shards, in the order of the sources; None where that can be done only once.
            earlier: the record of the run that this one continues.

        Raises:
            UsageError: there is neither a file nor a listing with enough images, or the file is of another model.
            CheckError: fewer images agree than the options ask for.
            ModelError: the file is damaged, or OpenVINO cannot take the model.
            OutputError: the file cannot be written.
        """
        name = self._options.calibration_model
        if name is not None:
            found = self._checked(read_or_make(name, lambda: self._listed(again, None)))
        else:
            found = self._listed(again, self._recorded(earlier))
        log.info("%s", said(found))
        loss = found.loss
        if loss.agreement < self._options.min_agreement:
            raise CheckError(
                f"int8 agrees with float32 on {loss.agreement:.3f} of {loss.images} images, less than --min-agreement "
                f"{self._options.min_agreement:g}: use --precision bfloat16 or float32, or calibrate on more images"
            )
        return found

    def _checked(self, found: Quantization) -> Quantization:
        """Returns a quantization of a file; raises UsageError unless it fits the model and the pixels."""
        name = one_line(self._options.calibration_model or "")
        for what, theirs, ours in (
            ("another model", found.model, self._forward.description["model"]),
            ("images that were prepared otherwise", found.preprocessing, self._preprocessing.as_dict()),
        ):
            if dict(theirs) != json.loads(json.dumps(ours)):
                raise UsageError(f"--calibration-model: {name} was made for {what}; give another file")
        return found

    def _listed(self, again: Again | None, earlier: Mapping[str, Any] | None) -> Quantization:
        if earlier is not None:
            if (found := self._cache.find(str(earlier["sha256"]))) is not None:
                return found
            log.info("the calibration of the earlier run is not in the cache any more; it is made again")
        sample = draw(again, 2 * self._options.calibration)
        description = {
            "form": _FORM,
            "calibration": self._options.calibration,
            "preprocessing": self._preprocessing.as_dict(),
            "images": [(ref.path, _state(ref)) for ref in sample],
            **self._forward.description,
        }
        return self._cache.get(json_digest(description), lambda: self._calibrate(sample))

    def _calibrate(self, sample: Sequence[ImageRef]) -> Quantization:
        count = min(self._options.calibration, len(sample) // 2)
        log.info(
            "int8: calibrating on %d images and measuring on %d others, which takes a minute or two; the next run "
            "finds it in the cache",
            count,
            len(sample) - count,
        )
        if count < self._options.calibration:
            log.warning("int8: there are only %d images to calibrate on, so the measured loss is a rough one", count)
        ours, others = sample[:count], sample[count:]
        batch = usual_batch_size(CPU_BATCH, self._model.size)
        converted = convert(self._model, self._forward, batch)
        layers, names, expected = self._observe(converted, ours, others)
        return Quantization(
            model=self._forward.description["model"],
            preprocessing=self._preprocessing.as_dict(),
            requested=self._options.calibration,
            images=tuple(names),
            loss=self._measure(converted, layers, others, expected),
            layers=layers,
        )

    def _observe(
        self, converted: ConvertedGraph, ours: Sequence[ImageRef], others: Sequence[ImageRef]
    ) -> tuple[dict[str, IntegerLayer | None], list[str], Results]:
        """Computes in float32; returns the layers, the paths of the images behind them, and the results of others."""
        graph = converted.graph.clone()
        observer = Observer(graph)
        names: list[str] = []
        with refused(self._model):
            compiled = _compiled(graph, "float32")
            engine = self._engine(converted, compiled, range(len(compiled.outputs)))
            for refs, pixels in self._batches(ours, engine.batch_size):
                observer.add(engine(pixels))
                names += [ref.path for ref in refs]
            expected = self._results(self._engine(converted, compiled, converted.outputs), others)
            del engine, compiled
        if len(names) < FEWEST_IMAGES // 2:
            raise _too_few(len(names), "of those that were drawn can be read")
        log.log(DETAIL, "int8: the float32 pass has ended; rounding %d layers", len(observer.layers))
        return _rounded(observer), names, expected

    def _measure(
        self,
        converted: ConvertedGraph,
        layers: Mapping[str, IntegerLayer | None],
        others: Sequence[ImageRef],
        expected: Results,
    ) -> Loss:
        """Computes with integers, and compares the results of the images that could be read both times."""
        import numpy as np

        with refused(self._model):
            quantize_graph(converted.graph, layers)
            compiled = _compiled(converted.graph, "int8")
            found = self._results(self._engine(converted, compiled, converted.outputs), others)
        shared = [path for path in expected if path in found]
        if not shared:
            raise _too_few(0, "can be read twice to measure the loss")
        both = [[np.stack(rows) for rows in zip(*map(one.get, shared), strict=True)] for one in (expected, found)]
        return _loss(both[0], both[1], has_classes=self._has_classes)

    def _engine(self, converted: ConvertedGraph, compiled: Any, outputs: Sequence[str | int]) -> OpenVinoEngine:
        return OpenVinoEngine(compiled, outputs, self._model.size, converted.batch_size, converted.batch_size)

    def _results(self, engine: OpenVinoEngine, refs: Sequence[ImageRef]) -> Results:
        """Returns the outputs for each image that can be read, by its path."""
        return {
            ref.path: outputs
            for taken, pixels in self._batches(refs, engine.batch_size)
            for ref, *outputs in zip(taken, *engine(pixels), strict=True)
        }

    def _batches(self, refs: Sequence[ImageRef], batch: int) -> Iterator[tuple[list[ImageRef], NDArray[Any]]]:
        """Yields the images of each batch that can be read, and uint8[b, size, size, 3]."""
        pipeline = PixelPipeline(
            iter(refs),
            self._preprocessing,
            batch_size=batch,
            workers=self._options.workers,
            timeout=self._options.image_timeout,
        )
        for found in pipeline.arrays():
            good = [index for index, error in enumerate(found.errors) if error is None]
            if good:
                yield [found.refs[index] for index in good], found.pixels[good]


def _compiled(graph: Any, precision: Precision) -> Any:
    return load_openvino().Core().compile_model(graph, "CPU", settings(precision, streams=1))


def draw(again: Again | None, count: int) -> list[ImageRef]:
    """Draws images of a listing: those whose paths have the smallest digests, in the order of these.

    Raises:
        UsageError: the listing can be read only once, or has too few images.
    """
    from xxhash import xxh3_64_intdigest

    if again is None:
        raise UsageError(
            "--precision int8 is calibrated before the run, on images of a listing that can be read twice, which "
            "standard input, images in memory and a cluster do not give: give --calibration-model FILE, made by a run "
            "over files or directories"
        )
    known = (ref for ref in again() if ref.error is None)
    drawn = nsmallest(count, ((xxh3_64_intdigest(ref.key), index, ref) for index, ref in enumerate(known)))
    if len(drawn) < FEWEST_IMAGES:
        raise _too_few(len(drawn), "are listed")
    return [ref for _, _, ref in drawn]


def _too_few(count: int, what: str) -> UsageError:
    return UsageError(
        f"--precision int8 is calibrated and measured on at least {FEWEST_IMAGES} images, and {count} {what}: use "
        "--precision bfloat16 or float32, or --calibration-model FILE, which another run has made"
    )


def _state(ref: ImageRef) -> Any:
    """Returns what changes with the content of an image, as far as that takes no request to a server."""
    return ref.location.size if ref.location.remote else ref.location.state()


def _rounded(observer: Observer) -> dict[str, IntegerLayer | None]:
    """Rounds the layers, but for those that are better left in floating point."""
    layers: dict[str, IntegerLayer | None] = {}
    errors: dict[str, float] = {}
    for layer, inputs in zip(observer.layers, observer.statistics(), strict=True):
        found = quantize_layer(layer.weights, inputs, layer.extra)
        layers[layer.name] = None if found is None else found[0]
        errors |= {} if found is None else {layer.name: found[1]}
    left = left_in_floats(errors, {layer.name: layer.work for layer in observer.layers})
    for name in left:
        log.log(DETAIL, "int8: a layer with %.4f of its variance in error stays in floating point", errors[name])
    return layers | dict.fromkeys(left)


def _loss(expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]], *, has_classes: bool) -> Loss:
    """Compares results (scores and features, or features alone) of float32 with those of integers."""
    import numpy as np

    one, other = (array[-1].reshape(len(array[-1]), -1).astype(np.float64) for array in (expected, found))
    with np.errstate(all="ignore"):  # of features that are not finite, which have no cosine
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = np.nan_to_num(np.divide((one * other).sum(1), norms, out=np.zeros(len(one)), where=norms > 0))
    if has_classes:
        agree = (_best(expected[0]) == _best(found[0])) & np.isfinite(found[0]).all(1)
    else:
        agree = cosines >= ALIKE
    return Loss(
        images=len(cosines),
        cosine_median=round(float(np.median(cosines)), 6),
        cosine_percentile_1=round(float(np.percentile(cosines, 1)), 6),
        cosine_min=round(float(cosines.min()), 6),
        agreement=round(float(np.mean(agree)), 6),
        classes=has_classes,
    )


def _best(scores: NDArray[Any]) -> NDArray[Any]:
    """Returns the class of each row; of a single score, whether it is above one half."""
    return scores.argmax(1) if scores.shape[1] > 1 else scores[:, 0] > 0.5


def said(found: Quantization) -> str:
    """Returns the loss as a sentence."""
    loss = found.loss
    what = "the same best class" if loss.classes else f"features with a cosine of at least {ALIKE}"
    return (
        f"int8, calibrated on {len(found.images)} images; against float32 on {loss.images} others: {what} on "
        f"{loss.agreement:.1%}; cosine of the features {loss.cosine_median:.4f} (median), "
        f"{loss.cosine_percentile_1:.4f} (1st percentile), {loss.cosine_min:.4f} (lowest)"
    )
