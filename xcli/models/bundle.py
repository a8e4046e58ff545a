"""What fine-tuning starts from and what it leaves: a backbone with its scaling, and the bundle for `--model RUN`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError
from xcli.core.tensorflow import load_keras, load_tensorflow
from xcli.models.hdf5_weights import TOP, assign, random_weights, read_weights
from xcli.models.loader import AVG_POOL, BUNDLE_LABELS, BUNDLE_MODEL, BUNDLE_RECIPE
from xcli.storage.streams import AtomicFile, finish, reported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xcli.images.preprocessing import Preprocessing
    from xcli.models.hdf5_weights import Weights
    from xcli.models.keras_graph import Graph, Node
    from xcli.models.labels import Labels
    from xcli.models.loader import LoadedModel, ModelSpec

SCALINGS = {"xception": (1 / 127.5, -1.0), "unit": (1 / 255, 0.0), "raw": (1.0, 0.0)}
"""Factor and offset that make of [0, 255] what each input range means."""

DROPOUT = "dropout"


@dataclass(frozen=True, slots=True)
class Base:
    """What fine-tuning starts from.

    Attributes:
        weights: of the Xception below its pooling, by `layer/variable`.
        scaling: factor and offset that make of [0, 255] what its first convolution was trained on.
        labels: of the classifier that it has now, which is left out; None where it has none.
    """

    weights: Weights
    scaling: tuple[float, float]
    labels: Labels | None


def read_base(model: LoadedModel, spec: ModelSpec) -> Base:
    """Takes the Xception out of a loaded model.

    Args:
        model: plain, or from a `.keras` file or bundle.
        spec: what it was loaded from.

    Raises:
        ModelError: something else than one scaling stands before the Xception.
    """
    from xcli.models.keras_network import ForeignNetwork

    network = model.network
    if isinstance(network, ForeignNetwork):
        factor, offset = SCALINGS[model.input_range]
        if network.rescales:
            inner = _rescaling(network.graph, model.name)
            factor, offset = factor * inner[0], offset * inner[0] + inner[1]
        return Base(dict(network.weights()), (factor, offset), model.labels)
    if model.path is None:
        # The backbone is drawn first, so that it is the same with any classifier.
        weights = random_weights(include_top=False, classes=1, seed=spec.seed)
    else:
        weights = read_weights(model.path, include_top=False)
    return Base(weights, SCALINGS[model.input_range], None)


def _rescaling(graph: Graph, name: str) -> tuple[float, float]:
    """Factor and offset of the one Rescaling layer in a model."""
    nodes: list[Node] = [node for one in graph.walk() for node in one.nodes if node.kind == "Rescaling"]
    if len(nodes) == 1:
        factor, offset = nodes[0].config.get("scale"), nodes[0].config.get("offset", 0.0)
        if isinstance(factor, (int, float)) and isinstance(offset, (int, float)):
            return float(factor), float(offset)
    raise ModelError(
        f"{name} scales its pixels in a way that cannot be carried over (one Rescaling layer with a number for scale "
        "and offset can); start from --weights imagenet, or from a directory made by finetune"
    )


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
