"""The bundle that `finetune` writes and `--model RUN` reads: a Keras model, its labels and its preprocessing."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, Schema, parse_object
from xcli.core.errors import ModelError
from xcli.core.tensorflow import default_keras_settings, load_keras, load_tensorflow
from xcli.core.text import short_text
from xcli.models.folded import INPUT_RANGES
from xcli.models.hdf5_weights import TOP, Weights, assign
from xcli.models.network import AVG_POOL
from xcli.models.xception import Xception
from xcli.storage import disk
from xcli.storage.atomic import write_atomically
from xcli.storage.streams import write_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xcli.images.preprocessing import Preprocessing

BUNDLE_MODEL, BUNDLE_LABELS, BUNDLE_RECIPE = "model.keras", "labels.json", "run.json"
"""The files of a bundle; `finetune` writes more files beside them, which are not read."""

_RECIPE: Schema = {"preprocessing": {"bit_depth": int}}
_RECORD: Schema = {
    "fingerprint": str,
    "settings": {
        "precision": str,
        "preprocessing": dict,
        "recipe": {"unfreeze": str},
        "model": {"sha256": str, "input_range": str},
    },
}
"""Of `run.json`."""
_MAX_SIZE = 100_000  # pixels
_MIN_CROP_PCT = 0.01  # images are resized to a hundred times the size at most

DROPOUT = "dropout"


def build_model(weights: Weights, classes: int, size: int, scaling: tuple[float, float], dropout: float) -> Any:
    """Builds the Keras model of a bundle: a `Rescaling`, the layers of `keras.applications.Xception`, and a head.

    Args:
        weights: of the Xception and the classifier, by `layer/variable`.
        classes: number of classes.
        size: side of the input, in pixels.
        scaling: factor and offset for pixels in [0, 255].
        dropout: rate of the dropout, which acts in training only.

    Returns:
        A `keras.Model` from float32[batch, size, size, 3] in [0, 255] to probabilities, float32[batch, classes].
    """
    keras, tf = load_keras(), load_tensorflow()
    factor, offset = scaling
    with tf.device("/CPU:0"), default_keras_settings():
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
    folder: str | Path, model: Any, labels: tuple[str, ...], preprocessing: Preprocessing, record: Mapping[str, Any]
) -> None:
    """Writes the files that `--model RUN` reads: `model.keras`, `labels.json` and `run.json`.

    Args:
        folder: a directory; files in it are replaced.
        model: returned by `build_model`.
        labels: class names, in the order of its outputs.
        preprocessing: how images become the pixels of its input.
        record: further members of `run.json`, beside the preprocessing.

    Raises:
        OutputError: a file cannot be written.
    """
    recipe = {name: getattr(preprocessing, name) for name in ("size", "resize", "interpolation", "crop_pct")}
    recipe |= {name: value for name, value in preprocessing.as_dict().items() if name == "bit_depth"}
    path = Path(folder, BUNDLE_MODEL)
    with write_errors(str(path)), default_keras_settings():
        model.save(path)
    _write_json(Path(folder, BUNDLE_LABELS), {"labels": list(labels)})
    _write_json(Path(folder, BUNDLE_RECIPE), {**record, "preprocessing": {**recipe, "input_range": "raw"}})


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(str(path), text.encode("utf-8", "backslashreplace"))


def read_bundle(path: str, labels: str | None) -> tuple[dict[str, Any], str | None]:
    """Returns the preprocessing (empty where there is none) and the label file, else `labels`, of a bundle.

    Raises:
        ModelError: it is not such a directory, or its preprocessing cannot be read.
    """
    if Path(path, "saved_model.pb").is_file():
        raise ModelError(
            f"{path} is in TensorFlow's SavedModel format, which carries code and is not loaded; convert it where you "
            "trust it: keras.models.load_model(DIRECTORY).save('model.keras'), with the Keras that saved it"
        )
    if not os.path.lexists(Path(path, BUNDLE_MODEL)):
        raise ModelError(f"{path} is not a model directory: it has no {BUNDLE_MODEL}")
    for name in (BUNDLE_LABELS, BUNDLE_RECIPE):
        _check_file(Path(path, name))
    own = Path(path, BUNDLE_LABELS)
    if labels is None and own.is_file():
        labels = str(own)
        _check_json(own)
    recipe = Path(path, BUNDLE_RECIPE)
    if not recipe.is_file():
        return {}, labels
    with _reading(recipe):
        return _checked_recipe(parse_object(disk.read_file(recipe, MAX_BYTES + 1), _RECIPE)["preprocessing"]), labels


def read_record(path: str) -> dict[str, Any]:
    """Returns what the `run.json` of a bundle, which is there, says of its training.

    Raises:
        ModelError: it cannot be read.
    """
    recipe = Path(path, BUNDLE_RECIPE)
    with _reading(recipe):
        return parse_object(disk.read_file(recipe, MAX_BYTES + 1), _RECORD)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns what reading a file of a bundle raises into a ModelError."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise ModelError(f"{file} is damaged: {short_text(error)}") from error


def _check_file(path: Path) -> None:
    """Raises ModelError unless a file of a bundle, if it is there, is a regular file in it of at most 64 MiB.

    A link out of a bundle of a stranger could show any file of the user as labels.
    """
    if not os.path.lexists(path):
        return
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise ModelError(f"{path} is a link to a file outside of {path.parent}; copy that file there")
    if not path.is_file():
        raise ModelError(f"{path} is not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path} has more than {MAX_BYTES:,} bytes, which no model needs")


def _check_json(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    if head[:1] not in (b"{", b"["):
        raise ModelError(f"{path} is not JSON; to use a text file of labels, give it with --labels")


def _checked_recipe(value: Any) -> dict[str, Any]:
    """Returns the preprocessing of a bundle; raises ValueError or KeyError where it is invalid."""
    from xcli.images.preprocessing import DEFAULT_CROP_PCT, Preprocessing
    from xcli.images.rgb import MAX_BIT_DEPTH

    size, crop_pct, input_range = value["size"], value["crop_pct"], value["input_range"]
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _MAX_SIZE:
        raise ValueError(f"size must be a number of pixels; received {size!r}")
    if crop_pct is not None and (not isinstance(crop_pct, (int, float)) or isinstance(crop_pct, bool)):
        raise ValueError(f"crop_pct must be a number or null; received {crop_pct!r}")
    if crop_pct is not None and not crop_pct >= _MIN_CROP_PCT:
        raise ValueError(f"crop_pct must be at least {_MIN_CROP_PCT}; received {crop_pct}")
    if input_range not in INPUT_RANGES:
        raise ValueError(f"input_range must be one of {', '.join(INPUT_RANGES)}; received {input_range!r}")
    # This checks the rest; its UsageError is a ValueError.
    Preprocessing(
        size,
        value["resize"],
        value["interpolation"],
        DEFAULT_CROP_PCT if crop_pct is None else crop_pct,
        bit_depth=value.get("bit_depth", MAX_BIT_DEPTH),
    )
    return dict(value)
