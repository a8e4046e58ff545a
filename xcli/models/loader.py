"""Loads models: from a `ModelSpec` to a `LoadedModel` that every command can run, with its preprocessing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcli.core.errors import LabelsError, ModelError, UsageError, WeightsError
from xcli.core.levels import DETAIL
from xcli.core.text import short_text
from xcli.images.preprocessing import Preprocessing
from xcli.models.architecture import IMAGE_SIZE, IMAGENET_CLASSES, MIN_SIZE, layers
from xcli.models.backbone import backbone_digest
from xcli.models.bundle import BUNDLE_MODEL, BUNDLE_RECIPE, read_bundle
from xcli.models.download import sha256_of
from xcli.models.hdf5_weights import TOP, random_weights, read_weights
from xcli.models.labels import Labels, fit_labels, read_labels
from xcli.models.network import AVG_POOL, LOGITS, LoadedModel, PlainNetwork
from xcli.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGE_SIZE = 2_048
"""Images above this many pixels a side are computed only where the user says so, and not where a file does."""

log = logging.getLogger("xcli")


def load_model(spec: ModelSpec | None = None, **options: Any) -> LoadedModel:
    """Loads the model that a spec, or the fields of one as keyword arguments, describes.

    Raises:
        UsageError: the options contradict each other.
        ModelError: the model, its weights or its labels cannot be read, or do not fit.
    """
    spec = spec or ModelSpec(**options)
    model = _load_plain(spec) if spec.model is None else _load_keras_file(spec, spec.model)
    file = f"{model.path}, SHA-256 {model.digest}" if model.path else "without a file"
    log.log(DETAIL, "model: %s, %s parameters, %s", model.name, f"{model.parameters:,}", file)
    return model


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
        backbone=backbone_digest(weights),
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


def _load_keras_file(spec: ModelSpec, path: str) -> LoadedModel:
    from xcli.models.keras_facts import find_facts
    from xcli.models.keras_network import KerasNetwork

    recipe: dict[str, Any] = {}
    name, label_file = path, spec.labels
    if Path(path).is_dir():
        recipe, label_file = read_bundle(path, spec.labels)
        path = str(Path(path, BUNDLE_MODEL))
    labels = read_labels(label_file) if label_file else None
    network = KerasNetwork(path)
    input_range = spec.input_range or recipe.get("input_range") or ("raw" if network.rescales else "xception")
    facts = find_facts(network, input_range)
    size = _input_size(spec, facts.size, recipe, name)
    units, activation = facts.units, network.activation
    labels = _labels_for(labels, units, name) if units else None
    if spec.classes is not None and (labels is None or len(labels.names) != spec.classes):
        have = f"{len(labels.names)} classes" if labels else "no classifier"
        raise ModelError(f"{name} has {have}, but --classes {spec.classes} were asked for; leave that out")
    notes = []
    if not recipe:
        notes.append(
            f"{name} records no preprocessing; using --input-range {input_range}, and --resize squash --interpolation "
            "nearest where you give no others. Override them if predictions look wrong"
        )
    notes += _head_notes(name, units, activation)
    return LoadedModel(
        name=name,
        path=path,
        digest=network.digest,
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
        bit_depth=recipe.get("bit_depth"),
        notes=tuple(notes),
        parameters=facts.parameters,
        backbone=facts.backbone,
    )


def _input_size(spec: ModelSpec, fixed: int | None, recipe: Mapping[str, Any], name: str) -> int:
    asked, trained = spec.image_size, recipe.get("size")
    if fixed and trained not in (None, fixed):
        raise ModelError(f"{name} takes images of {fixed} pixels, but its {BUNDLE_RECIPE} says {trained}")
    if fixed and asked not in (None, fixed):
        raise UsageError(f"{name} takes images of {fixed} pixels; received --image-size {asked}")
    if (fixed or trained or 0) > LARGE_SIZE and asked is None:
        raise ModelError(
            f"{name} takes images of {fixed or trained} pixels, which is far more than usual and takes much memory; if "
            f"that is right, give --image-size {fixed or trained}"
        )
    if asked is not None and asked < MIN_SIZE and not fixed:
        raise UsageError(f"the image size must be at least {MIN_SIZE}; received {asked}")
    return int(fixed or asked or trained or IMAGE_SIZE)


def _head_notes(name: str, units: int | None, activation: str) -> list[str]:
    if units is None or activation in ("softmax", "sigmoid"):
        return []
    if activation in LOGITS:
        how = "softmax" if units > 1 else "sigmoid"
        return [f"{name} outputs logits; applying {how} (--raw-scores keeps the logits)"]
    return [f"{name} ends in the activation {short_text(activation)!r}: its scores are not changed"]


def _labels_for(labels: Labels | None, units: int, name: str) -> Labels:
    if units > 1:
        return fit_labels(labels, units)
    if labels is not None and len(labels.names) not in (1, 2):
        raise LabelsError(
            f"{labels.source} has {len(labels.names)} labels, but {name} has one output, "
            "which distinguishes two classes"
        )
    return labels or fit_labels(None, 2)


def preprocessing_for(
    model: LoadedModel,
    *,
    resize: str | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    jpeg_shrink: bool = True,
    max_pixels: int | None = None,
    bit_depth: int | None = None,
    strict: bool = False,
    resampler: str | None = None,
) -> Preprocessing:
    """Returns the preprocessing for a model: the user's choice, else that of the model, else the default.

    Raises:
        UsageError: a value is out of range, or the resampler is not installed.
    """
    defaults = Preprocessing()
    return Preprocessing(
        size=model.size,
        resize=resize or model.resize,
        interpolation=interpolation or model.interpolation,
        crop_pct=crop_pct if crop_pct is not None else model.crop_pct or defaults.crop_pct,
        jpeg_shrink=jpeg_shrink,
        max_pixels=max_pixels if max_pixels is not None else defaults.max_pixels,
        bit_depth=bit_depth or model.bit_depth or defaults.bit_depth,
        strict=strict,
        resampler=resampler,
    )
