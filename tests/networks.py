"""Networks and weights for the tests of the model, and files in the layouts that Keras writes or wrote."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

from xcli.models.architecture import layers, weighted_layers
from xcli.models.hdf5_weights import BIAS, KERNEL, TOP, random_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

SIZE = 96
"""Side of the images in tests, in pixels: small, and every map in the network still has more than one pixel."""

CLASSES = 1000


def calibrated_weights(keras: Any) -> Weights:
    """Random weights whose batch norms normalise, so that activations keep their size through all layers.

    Gamma and beta are random, and the moving statistics are those of noise, shifted at random: a folding that
    confuses any two of them is far off.
    """
    import numpy as np

    weights = random_weights(include_top=True, classes=CLASSES, seed=11)
    random = np.random.default_rng(12)
    norms = [layer for layer in layers() if layer.kind == "bn"]
    for layer in norms:
        weights[f"{layer.name}/gamma"] = random.uniform(0.5, 1.5, layer.filters).astype(np.float32)
        weights[f"{layer.name}/beta"] = random.normal(0, 0.3, layer.filters).astype(np.float32)
    model = keras.applications.Xception(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    set_weights(model, weights)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(random.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32), training=True)
    for layer, arrays in zip(weighted_layers(), _split(model.get_weights()), strict=True):
        if layer.kind == "bn":
            _, _, mean, variance = arrays
            shift = random.normal(0, 0.1, mean.shape) * np.sqrt(variance)
            weights[f"{layer.name}/moving_mean"] = (mean + shift).astype(np.float32)
            scaled = variance * random.uniform(0.7, 1.4, variance.shape)
            weights[f"{layer.name}/moving_variance"] = scaled.astype(np.float32)
    weights[KERNEL] *= 4
    weights[BIAS] = random.normal(0, 0.5, CLASSES).astype(np.float32)
    return weights


def _split(arrays: list[NDArray[Any]]) -> list[list[NDArray[Any]]]:
    """Arrays of a model without top, by layer, in the order of `weighted_layers`."""
    rest = iter(arrays)
    return [[next(rest) for _ in layer.weights] for layer in weighted_layers()]


def ordered(weights: Mapping[str, NDArray[Any]], top: bool) -> list[NDArray[Any]]:
    """Arrays in the order in which a Keras model has them."""
    names = [f"{layer.name}/{variable}" for layer in weighted_layers() for variable, _ in layer.weights]
    return [weights[name] for name in names + ([KERNEL, BIAS] if top else [])]


def set_weights(model: Any, weights: Mapping[str, NDArray[Any]]) -> None:
    """Puts weights into any Keras Xception, by order alone."""
    model.set_weights(ordered(weights, model.layers[-1].name == TOP))


def write_legacy(path: str, weights: Mapping[str, NDArray[Any]], top: bool, first: int = 1) -> None:
    """Writes a file in Keras' older HDF5 layout: one group a layer, names in attributes.

    Args:
        path: of the file.
        weights: arrays by our names.
        top: with the classifier.
        first: number of the first automatic name; it depended on what else the process had built.
    """
    import h5py
    import numpy as np

    counts = {"conv2d": first, "batch_normalization": first}
    names = []
    with h5py.File(path, "w") as file:
        for layer in layers():
            name = layer.name
            if "_residual_" in name:
                kind = "conv2d" if layer.kind == "conv" else "batch_normalization"
                name = f"{kind}_{counts[kind]}"
                counts[kind] += 1
            names.append(name)
            _legacy_layer(file, name, {variable: weights[f"{layer.name}/{variable}"] for variable, _ in layer.weights})
        if top:
            names += ["avg_pool", TOP]
            _legacy_layer(file, "avg_pool", {})
            _legacy_layer(file, TOP, {"kernel": weights[KERNEL], "bias": weights[BIAS]})
        file.attrs["layer_names"] = np.array([name.encode() for name in names])
        file.attrs["backend"] = b"tensorflow"


def _legacy_layer(file: Any, name: str, variables: Mapping[str, NDArray[Any]]) -> None:
    import numpy as np

    group = file.create_group(name)
    group.attrs["weight_names"] = np.array([f"{name}/{variable}:0".encode() for variable in variables])
    for variable, array in variables.items():
        group[f"{name}/{variable}:0"] = array


def write_archive(path: str, config: Any, **members: bytes) -> str:
    """Writes a `.keras` file without weights worth the name; further members by name, `_` for `.`.

    Args:
        path: of the file.
        config: the configuration, as JSON or as bytes.
        members: further content.
    """
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", b"{}")
        archive.writestr("config.json", config if isinstance(config, bytes) else json.dumps(config))
        archive.writestr("model.weights.h5", b"")
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def config_of(path: str) -> Any:
    """The configuration in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def layer_of(config: Any, name: str) -> Any:
    """The layer of that name in a configuration, at any depth."""
    for layer in config["config"]["layers"]:
        if layer["config"]["name"] == name:
            return layer
        if "layers" in layer["config"]:
            try:
                return layer_of(layer, name)
            except KeyError:
                continue
    raise KeyError(name)
