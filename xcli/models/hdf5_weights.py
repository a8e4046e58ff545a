"""Reads Xception weights from HDF5 files directly into arrays, without building a Keras model.

Two layouts are understood: the older one of Keras (one group for each layer, as in the official files) and the
`.weights.h5` of Keras 3. The Xception may be within a larger model, whose other weights are ignored. Shapes and types
are checked before any data is read; see `hdf5_checks` for what is refused.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError, WeightsError
from xcli.models.architecture import BN_EPSILON, FEATURE_WIDTH, weighted_layers
from xcli.models.hdf5_checks import DAMAGE, MAX_NAMES, address, damage_reason, dataset_problem, require_file, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

Weights = dict[str, "NDArray[np.float32]"]
"""Arrays by `layer/variable`, with the layer names of `xcli.models.architecture`; `predictions/kernel` and
`predictions/bias` where there is a top."""

TOP = "predictions"
KERNEL, BIAS = f"{TOP}/kernel", f"{TOP}/bias"
_CONTAINERS = {"conv": "conv2d", "sepconv": "separable_conv2d", "bn": "batch_normalization"}
MAX_CLASSES = 1_000_000
_MAX_TEXT_BYTES = 256 << 20  # that all lists of names together may take


def read_weights(path: str | Path, *, include_top: bool, classes: int | None = None) -> Weights:
    """Reads the weights of an Xception from an HDF5 file.

    Args:
        path: an official file, or any file that `save_weights` of an Xception (of Keras or of this package), or of a
            model that contains one, wrote.
        include_top: also read the classifier, and refuse a file without one. Otherwise a classifier is ignored.
        classes: the number of classes that the file must have; None accepts any.

    Raises:
        WeightsError: the file cannot be read, is a whole model, or is not of this architecture.
    """
    import h5py

    try:
        if os.path.exists(f"{path}.index") or str(path).endswith(".index") or ".data-0" in str(path):
            raise WeightsError(
                f"{path} is a checkpoint of TensorFlow; load it into its model with Keras 2 (model.load_weights), then "
                "save that with model.save_weights('model.h5') or, for classes, model.save('model.keras')"
            )
        require_file(path)
    except OSError as error:
        raise WeightsError(f"cannot read weights from {path}: {error.strerror}") from error
    try:
        with h5py.File(path, "r") as file:
            return _read(_Source(file, str(path)), include_top, classes)
    except DAMAGE as error:
        raise WeightsError(f"cannot read weights from {path}: {damage_reason(error)}") from error


class _Source:
    """An open HDF5 file whose every part is checked before it is read."""

    def __init__(self, file: Any, path: str) -> None:
        self.file, self.path = file, path
        self._names_left, self._text_bytes_left = MAX_NAMES, _MAX_TEXT_BYTES

    def fail(self, problem: str) -> WeightsError:
        return WeightsError(f"{self.path} does not hold the weights of an Xception: {problem}")

    def node(self, name: str) -> Any:
        """Returns the group or dataset at `name`, or None; every step must be a hard link."""
        import h5py

        at: Any = self.file
        for step in name.split("/"):
            if not isinstance(at, h5py.Group):
                return None
            link = at.get(step, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise self.fail(f"{name!r} is a link to elsewhere, which a weights file never needs")
            at = at[step]
        return at

    def items(self) -> dict[str, Any]:
        """Returns the groups and datasets by their paths, but for links."""
        try:
            return {name: item for name, item in walk(self.file) if item is not None}
        except ModelError as error:
            raise self.fail(str(error)) from error

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the dataset at `name` as float32; its shape must be `shape`."""
        import numpy as np

        data = self.dataset(name)
        if data.shape != shape:
            raise self.fail(f"{name!r} has shape {data.shape}, expected {shape}")
        if data.dtype.kind != "f":
            raise self.fail(f"{name!r} has type {data.dtype}, expected floating point")
        with np.errstate(over="ignore"):
            return np.asarray(data[()], dtype=np.float32)

    def dataset(self, name: str) -> Any:
        import h5py

        data = self.node(name)
        if not isinstance(data, h5py.Dataset):
            raise self.fail(f"{name!r} is missing")
        if problem := dataset_problem(data):
            raise self.fail(f"{name!r} {problem}")
        return data

    @cached_property
    def _bytes_beside_data(self) -> int:
        arrays = {address(item): item for item in self.items().values() if hasattr(item, "dtype")}
        return max(0, os.path.getsize(self.path) - sum(int(one.id.get_storage_size()) for one in arrays.values()))

    def texts(self, node: Any, attribute: str) -> tuple[str, ...]:
        """Returns an attribute that is a list of names; its type is checked before it is read."""
        import h5py

        if attribute not in node.attrs:
            return ()
        values = node.attrs.get_id(attribute)
        if values.shape == (0,):  # an empty list has no type of its own
            return ()
        if values.shape is None or len(values.shape) != 1 or values.shape[0] > MAX_NAMES:
            raise self.fail(f"attribute {attribute!r} has shape {values.shape}, expected a list of names")
        kind = h5py.check_string_dtype(values.dtype)
        if kind is None or values.dtype.itemsize > 1024:
            raise self.fail(f"attribute {attribute!r} has type {values.dtype}, expected names")
        # A text without a fixed length may be all of the file that is not data, and all names may be that one text.
        self._names_left -= values.shape[0]
        self._text_bytes_left -= values.shape[0] * (self._bytes_beside_data if kind.length is None else kind.length)
        if min(self._names_left, self._text_bytes_left) < 0:
            raise self.fail(f"{attribute!r} and other lists of names could take more than {_MAX_TEXT_BYTES:,} bytes")
        read = node.attrs[attribute]
        return tuple(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in read)


def _read(source: _Source, include_top: bool, classes: int | None) -> Weights:
    attributes = source.file.attrs
    if "model_config" in attributes or "model_weights" in source.file:
        raise WeightsError(
            f"{source.path} is a whole model in Keras' old HDF5 format, which can carry code and is not loaded; "
            "convert it where you trust it: keras.models.load_model(FILE).save('model.keras'), then --model model.keras"
        )
    if "layer_names" in attributes:
        names = _legacy_names(source, include_top)
    elif source.node("layers") is not None:
        names = _keras3_names(source, include_top)
    else:
        raise source.fail("it is in neither of the layouts that Keras writes")
    weights: Weights = {}
    for layer in weighted_layers():
        for (variable, shape), name in zip(layer.weights, names[layer.name], strict=True):
            weights[f"{layer.name}/{variable}"] = source.array(name, shape)
    if include_top:
        weights |= _read_top(source, names.get(TOP), classes)
    if problem := values_problem(weights):
        raise source.fail(problem)
    return weights


def values_problem(weights: Mapping[str, NDArray[np.floating[Any]]], epsilon: float = BN_EPSILON) -> str | None:
    """Returns which values of a network would make its output NaN, as the end of a sentence; None if there are none.

    `epsilon` is what its batch norms add to the variances.
    """
    import numpy as np

    for name, array in weights.items():
        if not np.isfinite(array).all():
            return f"{name!r} holds values that are not finite"
        if name.endswith("/moving_variance") and float(array.min()) <= -epsilon:
            return f"{name!r} holds a negative variance"
    return None


def _read_top(source: _Source, names: tuple[str, ...] | None, classes: int | None) -> Weights:
    if names is None or source.node(names[0]) is None:
        raise WeightsError(
            f"{source.path} has no classifier on top ('{TOP}'), so it can give features but not classes; "
            "use `xception features` (or info --no-include-top), or give a weights file with the top"
        )
    kernel, bias = names
    shape = source.dataset(kernel).shape
    if len(shape) != 2 or shape[0] != FEATURE_WIDTH or not 1 <= shape[1] <= MAX_CLASSES:
        raise source.fail(f"{kernel!r} has shape {shape}, expected ({FEATURE_WIDTH}, classes)")
    if classes is not None and shape[1] != classes:
        raise WeightsError(f"{source.path} has {shape[1]} classes, but {classes} were asked for; leave --classes out")
    return {KERNEL: source.array(kernel, shape), BIAS: source.array(bias, shape[1:])}


def _head_unknown(source: _Source) -> WeightsError:
    return WeightsError(
        f"{source.path} holds weights of more than an Xception with its classifier, and not what the other layers are: "
        "`xception features` can use the Xception in it; for classes save the whole model, model.save('model.keras'), "
        "then --model model.keras"
    )


def _legacy_names(source: _Source, include_top: bool) -> dict[str, tuple[str, ...]]:
    """Returns dataset names by layer, for the older layout.

    The shortcut layers have numbered names there, which depend on the version of Keras. They are identified by kind
    and order, among the layers whose names are not ours; layers of a head come after them.
    """
    ours = {layer.name for layer in weighted_layers()} | {TOP}
    found: dict[str, tuple[str, ...]] = {}
    unnamed: dict[int, list[tuple[str, ...]]] = {}
    for layer_name, names in _legacy_layers(source):
        if layer_name in ours:
            found[layer_name] = names
        elif names:
            unnamed.setdefault(len(names), []).append(names)
    for kind, count in (("conv", 1), ("bn", 4)):
        candidates = unnamed.get(count, [])
        missing = [layer.name for layer in weighted_layers() if layer.kind == kind and layer.name not in found]
        # A head has batch norms of its own, but hardly convolutions.
        if len(missing) > len(candidates) or (kind == "conv" and len(missing) != len(candidates)):
            raise source.fail(f"expected {len(missing)} shortcut layers of kind {kind!r}, found {len(candidates)}")
        found.update(zip(missing, candidates, strict=False))
    for layer in weighted_layers():
        have = len(found.get(layer.name, ()))
        if have != len(layer.weights):
            raise source.fail(f"layer {layer.name!r} has {have} weights, expected {len(layer.weights)}")
    if TOP in found and len(found[TOP]) != 2:
        raise source.fail(f"layer {TOP!r} has {len(found[TOP])} weights, expected 2")
    if include_top and TOP not in found and unnamed.keys() - {1, 4}:
        raise _head_unknown(source)
    return found


def _legacy_layers(source: _Source) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the name of each layer and of its datasets; a model that is a layer is replaced by its own layers."""
    for layer_name in source.texts(source.file, "layer_names"):
        group = source.node(layer_name)
        if group is None:
            raise source.fail(f"layer {layer_name!r} is listed but missing")
        inner: dict[str, list[str]] = {}
        for weight in source.texts(group, "weight_names"):
            inner.setdefault(weight.rpartition("/")[0].rpartition("/")[2], []).append(f"{layer_name}/{weight}")
        if len(inner) > 1:
            yield from ((name, tuple(weights)) for name, weights in inner.items())
        else:
            yield layer_name, tuple(weight for weights in inner.values() for weight in weights)


def _keras3_names(source: _Source, include_top: bool) -> dict[str, tuple[str, ...]]:
    """Returns dataset names by layer in `.weights.h5`, where layers of a class are numbered in the model's order."""
    import h5py

    last = sum(layer.kind == "sepconv" for layer in weighted_layers()) - 1
    items = source.items()
    holders = [name for name, item in items.items() if f"{name}/separable_conv2d_{last}" in items]
    if len(holders) > 1:
        raise source.fail(f"it holds {len(holders)} of them")
    holder = holders[0] if holders else "layers"
    counts = Counter[str]()
    names: dict[str, tuple[str, ...]] = {}
    for layer in weighted_layers():
        container = _CONTAINERS[layer.kind]
        number = counts[container]
        counts[container] += 1
        group = f"{holder}/{container}_{number}" if number else f"{holder}/{container}"
        names[layer.name] = tuple(f"{group}/vars/{index}" for index in range(len(layer.weights)))
    names[TOP] = (f"{holder}/dense/vars/0", f"{holder}/dense/vars/1")
    known = {name for layer in names.values() for name in layer}
    arrays = {name for name, item in items.items() if isinstance(item, h5py.Dataset) and name.startswith("layers/")}
    if include_top and holders and any("/seed_generator/" not in name for name in arrays - known):
        raise _head_unknown(source)
    return names


def random_weights(*, include_top: bool, classes: int, seed: int) -> Weights:
    """Returns weights of an untrained network, distributed as by Keras (Glorot uniform; batch norms at identity)."""
    import numpy as np

    random = np.random.default_rng(seed)
    weights: Weights = {}

    def glorot(shape: tuple[int, ...]) -> NDArray[np.float32]:
        field = int(np.prod(shape[:-2]))
        limit = np.sqrt(6.0 / (field * (shape[-2] + shape[-1])))
        return random.uniform(-limit, limit, shape).astype(np.float32)

    ones = ("gamma", "moving_variance")
    for layer in weighted_layers():
        for variable, shape in layer.weights:
            value = glorot(shape) if layer.kind != "bn" else np.full(shape, float(variable in ones), np.float32)
            weights[f"{layer.name}/{variable}"] = value
    if include_top:
        weights[KERNEL] = glorot((FEATURE_WIDTH, classes))
        weights[BIAS] = np.zeros(classes, np.float32)
    return weights


def assign(model: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Sets the weights of a Keras model that `xcli.Xception` built."""
    for layer in weighted_layers():
        arrays = [weights[f"{layer.name}/{variable}"] for variable, _ in layer.weights]
        model.get_layer(layer.name).set_weights(arrays)
    if KERNEL in weights:
        model.get_layer(TOP).set_weights([weights[KERNEL], weights[BIAS]])
