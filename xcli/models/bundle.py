"""The bundle that `finetune` writes and `--model RUN` reads: a Keras model, its labels and its preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.tensorflow import load_keras, load_tensorflow
from xcli.models.hdf5_weights import TOP, assign
from xcli.models.loader import AVG_POOL, BUNDLE_LABELS, BUNDLE_MODEL, BUNDLE_RECIPE
from xcli.storage.streams import AtomicFile, finish, reported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xcli.images.preprocessing import Preprocessing
    from xcli.models.hdf5_weights import Weights


DROPOUT = "dropout"


def build_model(weights: Weights, classes: int, size: int, scaling: tuple[float, float], dropout: float) -> Any:
    """The Keras model of a bundle: raw pixels in, probabilities out.

    Its layers are those of `keras.applications.Xception`, by the same names, between a `Rescaling` and, behind the
    average pooling, a dropout and the classifier `predictions`.

    Args:
        weights: of the Xception and the classifier, by `layer/variable`.
        classes: number of classes.
        size: side of the input, in pixels.
        scaling: factor and offset for pixels of [0, 255].
        dropout: share of the dropout, which acts in training only.

    Returns:
        A `keras.Model` from float32[batch, size, size, 3] in [0, 255] to float32[batch, classes].
    """
    from xcli.models.architecture import Xception

    keras, tf = load_keras(), load_tensorflow()
    factor, offset = scaling
    with tf.device("/CPU:0"):
        image = keras.layers.Input((size, size, 3), name="image")
        scaled = keras.layers.Rescaling(factor, offset, name="rescaling")(image)
        backbone = Xception(include_top=False, weights=None, input_tensor=scaled)
        x = keras.layers.GlobalAveragePooling2D(name=AVG_POOL)(backbone.output)
        x = keras.layers.Dropout(dropout, name=DROPOUT)(x)
        x = keras.layers.Dense(classes, activation="softmax", name=TOP)(x)
        model = keras.Model(image, x, name="xception")
        assign(model, weights)
    return model


def write_bundle(
    folder: str | Path,
    model: Any,
    labels: tuple[str, ...],
    preprocessing: Preprocessing,
    record: Mapping[str, Any],
) -> None:
    """Writes what `--model RUN` reads: `model.keras`, `labels.json` and `run.json`.

    Args:
        folder: a directory; files in it are replaced.
        model: what `build_model` returned.
        labels: class names, in the order of its outputs.
        preprocessing: how images become its pixels.
        record: what made it, for `run.json`, beside the preprocessing.

    Raises:
        OutputError: a file cannot be written.
    """
    recipe = {
        "size": preprocessing.size,
        "resize": preprocessing.resize,
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_pct,
        "input_range": "raw",
    }
    path = Path(folder, BUNDLE_MODEL)
    with reported(str(path)):
        model.save(path)
    write_json(Path(folder, BUNDLE_LABELS), {"labels": list(labels)})
    write_json(Path(folder, BUNDLE_RECIPE), {**record, "preprocessing": recipe})


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people to read too; the file appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    file = AtomicFile(str(path), overwrite=True)
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        file.stream.write(text.encode("utf-8", "backslashreplace"))
        finish([file])
    except BaseException:
        file.discard()
        raise
