"""Exports a model, then loads what was written in the format's own runtime and compares it with this program."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, UsageError
from xcli.core.levels import DETAIL
from xcli.core.text import one_line
from xcli.inference.engines.tensorflow import Engine
from xcli.inference.export_samples import Samples, made_pixels
from xcli.models.architecture import check_pooling
from xcli.models.export.card import CARD, describe, write_card, write_labels
from xcli.models.export.formats import choose_format
from xcli.models.export.traced import converting, trace
from xcli.storage.streams import write_errors
from xcli.storage.whole_directory import check_new_directory, whole_directory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcli.images.preprocessing import Preprocessing
    from xcli.models.export.format import ExportFormat, Run
    from xcli.models.network import ForwardPass, LoadedModel

_BATCH = 8
_SIZES = (1, 3, 16)
"""Sizes of the first batches that the exported model is given, and of all others."""

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export.

    Attributes:
        format: one of `xcli.models.export.formats.FORMATS`.
        precision: `float32`, or another one that the format has.
        features: export features even of a model that has a classifier.
        pooling: of features: `avg`, `max` or None; of maps only.
        layer: the layer whose output the features are; None is the last map.
    """

    format: str = "onnx"
    precision: str = "float32"
    features: bool = False
    pooling: str | None = "avg"
    layer: str | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        choose_format(self.format, self.precision)

    def check(self, target: str, overwrite: bool) -> None:
        """Refuses what can be refused before a model is loaded; see `check_new_directory`."""
        check_new_directory(target, overwrite, CARD)


def export_model(
    model: LoadedModel,
    target: str,
    options: ExportOptions,
    preprocessing: Preprocessing,
    *,
    samples: Samples | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a model into a directory, and returns its card.

    Args:
        model: the loaded model.
        target: the directory, which appears whole or not at all.
        options: what to write.
        preprocessing: stands in the card.
        samples: images on which the two are compared; None makes some.
        overwrite: whether an earlier export of that name may be replaced.

    Raises:
        UsageError: the format or the precision cannot be had here, or there is no such layer.
        ModelError: the model cannot be exported in the format.
        CheckError: what was written computes something else than this program; nothing is left of it.
        OutputError: it cannot be written.
    """
    options.check(target, overwrite)
    if preprocessing.size != model.size:
        received = f"received preprocessing of {preprocessing.size}"
        raise UsageError(f"the model takes images of {model.size} pixels; {received}")
    chosen = choose_format(options.format, options.precision)
    scores = model.output_name is not None and not options.features
    forward = model.scores() if scores else model.features(options.pooling, options.layer)
    output = "scores" if scores else "features"
    samples = samples or made_pixels(model.size)
    expected = _reference(model, forward, samples.pixels)
    with whole_directory(target, overwrite, CARD) as folder:
        _write(model, forward, chosen, options.precision, output, folder, target)
        found = _computed(chosen, os.path.join(folder, chosen.file), output, samples.pixels, one_line(model.name))
        compared = compare(expected, found, output)
        _require(compared, chosen, options.precision, target)
        tolerance = chosen.tolerances[options.precision]
        with write_errors(target):
            if scores:
                write_labels(folder, model)
            card = describe(
                model,
                chosen,
                precision=options.precision,
                output=output,
                shape=expected.shape[1:],
                computed=forward.description,
                preprocessing=preprocessing,
                folder=folder,
                comparison={"images": samples.description} | compared | {"tolerance": tolerance},
            )
            write_card(folder, card, chosen)
    return card


def _reference(model: LoadedModel, forward: ForwardPass, pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns what this program computes; refuses a model that takes too much memory or time, as every command does."""
    model.network.prepare("float32")
    return _in_batches(Engine(forward, size=model.size, batch_size=_BATCH), pixels, [_BATCH])


def _write(
    model: LoadedModel,
    forward: ForwardPass,
    chosen: ExportFormat,
    precision: str,
    output: str,
    folder: str,
    target: str,
) -> None:
    log.log(DETAIL, "converting the model to %s", chosen.name)
    name = one_line(model.name)
    with write_errors(target), converting(name, chosen.name):
        traced = trace(model, forward, output, precision if chosen.computes else "float32")  # type: ignore[arg-type]
        chosen.write(traced, folder, precision)


def _computed(chosen: ExportFormat, path: str, output: str, pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Runs what was written on the samples, in batches of several sizes."""
    log.log(DETAIL, "running it with %s", chosen.runtime)
    with converting(name, chosen.name, chosen.runtime):
        return _in_batches(chosen.load(path, output), pixels, list(_SIZES))


def _in_batches(run: Run, pixels: NDArray[Any], sizes: list[int]) -> NDArray[Any]:
    import numpy as np

    found, start = [], 0
    while start < len(pixels):
        size = sizes.pop(0) if sizes[1:] else sizes[0]
        result = run(pixels[start : start + size])
        found.append(np.array(result[0] if isinstance(result, tuple) else result))
        start += size
    return np.concatenate(found)


def compare(expected: NDArray[Any], found: NDArray[Any], output: str) -> dict[str, Any]:
    """Returns how far results are from those of this program, for JSON.

    Args:
        expected, found: float32[b, ...], of this program and of another one.
        output: `scores`, whose greatest difference is taken as it is, or `features`, where it is relative to the
            greatest of them.
    """
    import numpy as np

    if expected.shape != found.shape:
        raise CheckError(f"the {output} have the shape {list(found.shape)} instead of {list(expected.shape)}")
    ours, theirs = (array.reshape(len(array), -1).astype(np.float64) for array in (expected, found))
    with np.errstate(all="ignore"):
        difference = float(np.abs(ours - theirs).max())
        if output == "scores":
            same = int((ours.argmax(1) == theirs.argmax(1)).sum())
            return {"greatest_difference": difference, "same_best_class": f"{same} of {len(ours)}"}
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines = (ours * theirs).sum(1) / lengths
        return {
            "greatest_relative_difference": difference / max(float(np.abs(ours).max()), 1e-30),
            "lowest_cosine": float(cosines.min()),
        }


def _require(compared: dict[str, Any], chosen: ExportFormat, precision: str, target: str) -> None:
    """Raises CheckError if the first number of a comparison is beyond the tolerance, or is none."""
    name, difference = next(iter(compared.items()))
    allowed = chosen.tolerances[precision]
    if not difference <= allowed:
        raise CheckError(
            f"{chosen.runtime} does not compute what this program does: {name.replace('_', ' ')} {difference:.3g}, "
            f"beyond the {allowed:g} of {chosen.name} in {precision}; {one_line(target)} was not written"
        )
