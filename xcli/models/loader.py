"""The shared loader: from what the user asked for to a model that every command can run.

Two kinds of network stand behind one interface: the plain Xception with its weights (`PlainNetwork`), and a `.keras`
file with an Xception in it (`xcli.models.keras_network.ForeignNetwork`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import LabelsError, ModelError, UsageError, WeightsError
from xcli.core.tensorflow import Precision, load_tensorflow
from xcli.models.architecture import (
    FEATURE_WIDTH,
    IMAGE_SIZE,
    IMAGENET_CLASSES,
    MIN_SIZE,
    check_pooling,
    layers,
)
from xcli.models.folded import INPUT_RANGES, Backbone, Forward, constant, pool, scale_pixels
from xcli.models.hdf5_weights import BIAS, KERNEL, TOP, Weights, random_weights, read_weights
from xcli.models.keras_file import shown
from xcli.models.labels import Labels, fit_labels, read_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

AVG_POOL = "avg_pool"
LAST_MAP = "block14_sepconv2_act"

BUNDLE_MODEL, BUNDLE_LABELS, BUNDLE_RECIPE = "model.keras", "labels.json", "run.json"
"""What `xception finetune` leaves in a directory, as far as it is read here."""

_LOGITS = ("linear", "log_softmax")
"""Outputs of which softmax makes probabilities."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the user asked for.

    Attributes:
        model: a `.keras` file, or a directory that `xception finetune` made; instead of `weights`.
        weights: `imagenet`, `none` (random) or the path of an HDF5 weights file.
        include_top: with the classifier.
        pooling: of features: `avg`, `max` or None.
        classes: number of classes; None takes those of the weights (1,000 for `imagenet` and `none`).
        labels: a label file.
        image_size: side of the input in pixels; None is 299, or what the model file says.
        input_range: what a foreign model was fed: `xception`, `unit` or `raw`; None decides by its graph.
        weights_dir: where to look for the ImageNet weights first.
        offline: never download.
        progress: show the progress of a download.
        seed: of random weights.
    """

    model: str | None = None
    weights: str = "imagenet"
    include_top: bool = True
    pooling: str | None = None
    classes: int | None = None
    labels: str | None = None
    image_size: int | None = None
    input_range: str | None = None
    weights_dir: str | None = None
    offline: bool = False
    progress: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if self.include_top and self.pooling is not None:
            raise UsageError(f"pooling goes only without the top; received pooling={self.pooling!r} with the top")
        if self.classes is not None and self.classes < 1:
            raise UsageError(f"classes must be a positive integer; received {self.classes}")
        if self.input_range not in (None, *INPUT_RANGES):
            raise UsageError(f"the input range is one of {', '.join(INPUT_RANGES)}; received {self.input_range!r}")
        if self.model is None:
            self._check_plain()
        elif self.weights != "imagenet":
            raise UsageError(f"--model and --weights exclude each other; received --weights {self.weights}")

    def _check_plain(self) -> None:
        if self.input_range is not None:
            raise UsageError("--input-range goes with --model: the network itself always takes [-1, 1]")
        size = self.image_size
        if self.include_top and size not in (None, IMAGE_SIZE):
            raise UsageError(
                f"with the top the image size is {IMAGE_SIZE}; received {size}: use features (no top) or --model"
            )
        if size is not None and size < MIN_SIZE:
            raise UsageError(f"the image size must be at least {MIN_SIZE}; received {size}")
        if self.classes is None:
            return
        if not self.include_top:
            raise UsageError(f"classes goes only with the top; received classes={self.classes} without it")
        if self.weights == "imagenet" and self.classes != IMAGENET_CLASSES:
            raise UsageError(f"the ImageNet weights have {IMAGENET_CLASSES} classes; received classes={self.classes}")


class Network(Protocol):
    """A traceable network whose layers can be tapped by name."""

    def prepare(self, precision: Precision) -> None:
        """Makes the constants for arithmetic in `precision`; before the first call."""

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Outputs of the layers in `taps` for scaled pixels float32[b, size, size, 3]."""


class PlainNetwork:
    """Xception with or without its top, from weights.

    Args:
        weights: arrays by `layer/variable`; with `predictions/...` it has a top.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._backbone: Backbone | None = None

    @property
    def classes(self) -> int | None:
        """Number of classes, or None without a top."""
        return int(self._weights[BIAS].shape[0]) if BIAS in self._weights else None

    def prepare(self, precision: Precision) -> None:
        """Folds the weights for arithmetic in `precision`."""
        self._backbone = Backbone(self._weights, precision)

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Outputs of the layers in `taps`; the pooling and the classifier compute in float32."""
        assert self._backbone is not None, "prepare() comes first"
        tf = load_tensorflow()
        above = {AVG_POOL, TOP} & set(taps)
        found = self._backbone(x, (set(taps) - above) | ({LAST_MAP} if above else set()))
        if above:
            found[AVG_POOL] = pool(found[LAST_MAP], "avg")
        if TOP in above:
            logits = tf.linalg.matmul(found[AVG_POOL], constant(self._weights[KERNEL], tf.float32))
            found[TOP] = tf.nn.softmax(logits + constant(self._weights[BIAS], tf.float32))
        return {tap: found[tap] for tap in taps}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, ready to be built into an engine.

    Attributes:
        name: what to call it in messages and provenance.
        path: the file that it came from; None for random weights.
        digest: SHA-256 of that file, or of nothing but the seed.
        network: computes it.
        size: side of the input, in pixels.
        input_range: how its pixels are scaled.
        labels: names of its classes; None where it has no classifier.
        output_name: layer that makes the scores; None where it has no classifier.
        activation: of that layer.
        layer_names: every name that `features` can tap.
        resize, interpolation, crop_pct: preprocessing that goes with it, unless the user says otherwise.
        notes: assumptions made, one line each, for the user to see once.
    """

    name: str
    path: str | None
    digest: str
    network: Network
    size: int
    input_range: str
    labels: Labels | None
    output_name: str | None
    activation: str
    layer_names: tuple[str, ...]
    resize: str = "crop"
    interpolation: str = "bicubic"
    crop_pct: float | None = None
    notes: tuple[str, ...] = ()
    parameters: int | None = field(default=None)

    def scores(self, raw: bool = False, *, with_features: bool = False) -> Forward:
        """A traceable function from uint8[b, size, size, 3] to (float32[b, classes],).

        Args:
            raw: leave the head's output as it is, instead of making probabilities of it.
            with_features: return float32[b, channels] besides: the last map, average-pooled.

        Raises:
            ModelError: the model has no classifier.
        """
        if self.output_name is None or self.labels is None:
            raise ModelError(f"{self.name} has no classifier on top; use `xception features`")
        tap, units = self.output_name, None if raw else len(self.labels.names)

        def forward(pixels: Any) -> Sequence[Any]:
            tf = load_tensorflow()
            x = scale_pixels(pixels, self.input_range, tf.float32)
            taps = self.network(x, [tap, LAST_MAP] if with_features else [tap])
            output = tf.cast(taps[tap], tf.float32)
            scores = output if units is None else probabilities(output, self.activation, units)
            return (scores, pool(taps[LAST_MAP], "avg")) if with_features else (scores,)

        return forward

    def features(self, pooling: str | None, layer: str | None = None) -> Forward:
        """A traceable function from uint8[b, size, size, 3] to (float32[b, ...],).

        Args:
            pooling: `avg`, `max` or None; of maps only.
            layer: name of the layer; None is the last map.

        Raises:
            UsageError: there is no such layer.
        """
        tap = layer or LAST_MAP
        if tap not in self.layer_names:
            from difflib import get_close_matches

            close = get_close_matches(tap, self.layer_names, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            if tap == TOP and self.output_name is None:
                hint = "it was loaded without its top; "
            raise UsageError(f"{self.name} has no layer {tap!r}; {hint}`xception info --layers` lists them")

        def forward(pixels: Any) -> Sequence[Any]:
            tf = load_tensorflow()
            x = scale_pixels(pixels, self.input_range, tf.float32)
            output = self.network(x, [tap])[tap]
            return (pool(output, pooling if len(output.shape) == 4 else None),)

        return forward


def probabilities(output: Any, activation: str, classes: int) -> Any:
    """Turns a head's output into probabilities.

    Args:
        output: float32[b, units].
        activation: what the head has applied already.
        classes: number of classes; one unit with two classes is taken as the probability of the second.

    Returns:
        float32[b, classes].
    """
    tf = load_tensorflow()
    if output.shape[-1] == 1:
        one = tf.nn.sigmoid(output) if activation == "linear" else output
        return tf.concat([1 - one, one], -1) if classes == 2 else one
    return tf.nn.softmax(output) if activation in _LOGITS else output


def load_model(spec: ModelSpec | None = None, **options: Any) -> LoadedModel:
    """Loads the model that a spec, or the fields of one, describe.

    Args:
        spec: what to load; or give the fields of `ModelSpec` as keyword arguments.

    Raises:
        UsageError: the options contradict each other.
        ModelError: the model, its weights or its labels cannot be had, or do not fit.
    """
    spec = spec or ModelSpec(**options)
    return _load_plain(spec) if spec.model is None else _load_foreign(spec, spec.model)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _load_plain(spec: ModelSpec) -> LoadedModel:
    labels = read_labels(spec.labels) if spec.labels else None
    path: str | None = None
    if spec.weights == "none":
        wanted = spec.classes or (len(labels.names) if labels else IMAGENET_CLASSES)
        weights = random_weights(include_top=spec.include_top, classes=wanted, seed=spec.seed)
        name, digest = f"Xception (random weights, seed {spec.seed})", f"random-{spec.seed}"
    else:
        path = _weights_path(spec)
        weights = read_weights(path, include_top=spec.include_top, classes=spec.classes)
        name, digest = f"Xception ({spec.weights})", sha256_of(path)
    network = PlainNetwork(weights)
    top = (AVG_POOL, TOP) if spec.include_top else (AVG_POOL,)
    return LoadedModel(
        name=name,
        path=path,
        digest=digest,
        network=network,
        size=spec.image_size or IMAGE_SIZE,
        input_range="xception",
        labels=fit_labels(labels, network.classes) if network.classes is not None else None,
        output_name=TOP if spec.include_top else None,
        activation="softmax",
        layer_names=(*(layer.name for layer in layers()), *top),
        parameters=sum(array.size for array in weights.values()),
    )


def _weights_path(spec: ModelSpec) -> str:
    if spec.weights == "imagenet":
        from xcli.models.imagenet_weights import locate_imagenet

        found = locate_imagenet(
            spec.include_top, weights_dir=spec.weights_dir, offline=spec.offline, progress=spec.progress
        )
        return str(found)
    if spec.weights.endswith(".keras") or Path(spec.weights).is_dir():
        raise WeightsError(f"{spec.weights} is a model, not a weights file; give it with --model {spec.weights}")
    return spec.weights


def _load_foreign(spec: ModelSpec, path: str) -> LoadedModel:
    from xcli.models.keras_network import ForeignNetwork

    recipe: dict[str, Any] = {}
    name, label_file = path, spec.labels
    if Path(path).is_dir():
        recipe, label_file = _read_bundle(path, spec.labels)
        path = str(Path(path, BUNDLE_MODEL))
    network = ForeignNetwork(path)
    size = _foreign_size(spec, network.size, recipe, name)
    units, activation = network.units, network.activation
    labels = _foreign_labels(label_file, units, name) if units else None
    if spec.classes is not None and (labels is None or len(labels.names) != spec.classes):
        have = f"{len(labels.names)} classes" if labels else "no classifier"
        raise ModelError(f"{name} has {have}, but --classes {spec.classes} were asked for")
    input_range = spec.input_range or recipe.get("input_range") or ("raw" if network.rescales else "xception")
    notes = []
    if not recipe:
        notes.append(
            f"{name} says nothing of its preprocessing: assuming --input-range {input_range}, and --resize squash "
            "--interpolation nearest where they are not given"
        )
    notes += _head_notes(name, units, activation)
    return LoadedModel(
        name=name,
        path=path,
        digest=sha256_of(path),
        network=network,
        size=size,
        input_range=input_range,
        labels=labels,
        output_name=network.output_name if units else None,
        activation=activation,
        layer_names=(*(layer.name for layer in layers()), *network.head_names),
        resize=recipe.get("resize", "squash"),
        interpolation=recipe.get("interpolation", "nearest"),
        crop_pct=recipe.get("crop_pct"),
        notes=tuple(notes),
        parameters=network.parameters,
    )


def _foreign_size(spec: ModelSpec, fixed: int | None, recipe: Mapping[str, Any], name: str) -> int:
    """Side of the input of a model from a file, which may leave it open."""
    asked, trained = spec.image_size, recipe.get("size")
    if fixed and trained not in (None, fixed):
        raise ModelError(f"{name} takes images of {fixed} pixels, but its {BUNDLE_RECIPE} says {trained}")
    if fixed and asked not in (None, fixed):
        raise UsageError(f"{name} takes images of {fixed} pixels; received --image-size {asked}")
    if asked is not None and asked < MIN_SIZE and not fixed:
        raise UsageError(f"the image size must be at least {MIN_SIZE}; received {asked}")
    return int(fixed or asked or trained or IMAGE_SIZE)


def _head_notes(name: str, units: int | None, activation: str) -> list[str]:
    if units is None or activation in ("softmax", "sigmoid"):
        return []
    if activation in _LOGITS:
        how = "softmax" if units > 1 else "sigmoid"
        return [f"the head of {name} is linear: scores are its {how} (--raw-scores leaves them)"]
    return [f"the head of {name} ends in {shown(activation)!r}: its scores are left as they are"]


def _foreign_labels(path: str | None, units: int, name: str) -> Labels:
    labels = read_labels(path) if path else None
    if units > 1:
        return fit_labels(labels, units)
    if labels is not None and len(labels.names) not in (1, 2):
        raise LabelsError(f"{path} has {len(labels.names)} labels, but {name} has one unit, which tells two classes")
    return labels or fit_labels(None, 2)


def _read_bundle(path: str, labels: str | None) -> tuple[dict[str, Any], str | None]:
    """Preprocessing and label file of a directory that `xception finetune` made."""
    if Path(path, "saved_model.pb").is_file():
        raise ModelError(
            f"{path} is in TensorFlow's SavedModel format, which carries code and is not loaded; convert it where you "
            "trust it: keras.models.load_model(DIRECTORY).save('model.keras'), with the Keras that saved it"
        )
    if not Path(path, BUNDLE_MODEL).is_file():
        raise ModelError(f"{path} is no model directory: it has no {BUNDLE_MODEL}")
    if labels is None and Path(path, BUNDLE_LABELS).is_file():
        labels = str(Path(path, BUNDLE_LABELS))
    recipe = Path(path, BUNDLE_RECIPE)
    if not recipe.is_file():
        return {}, labels
    try:
        value = json.loads(recipe.read_text(encoding="utf-8"))["preprocessing"]
        return _checked_recipe(value), labels
    except OSError as error:
        raise ModelError(f"cannot read {recipe}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{recipe} is damaged: {shown(error)}") from error


def _checked_recipe(value: Any) -> dict[str, Any]:
    """The preprocessing of a bundle; ValueError or KeyError where it is none."""
    from xcli.images.preprocessing import DEFAULT_CROP_PCT, Preprocessing

    size, crop_pct, input_range = value["size"], value["crop_pct"], value["input_range"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a number of pixels; received {size!r}")
    if crop_pct is not None and (not isinstance(crop_pct, (int, float)) or isinstance(crop_pct, bool)):
        raise ValueError(f"crop_pct must be a number or null; received {crop_pct!r}")
    if input_range not in INPUT_RANGES:
        raise ValueError(f"input_range must be one of {', '.join(INPUT_RANGES)}; received {input_range!r}")
    # It checks the rest: its UsageError is a ValueError.
    Preprocessing(size, value["resize"], value["interpolation"], DEFAULT_CROP_PCT if crop_pct is None else crop_pct)
    return dict(value)


__all__ = ["FEATURE_WIDTH", "LoadedModel", "ModelSpec", "load_model"]
