"""Runs models from `.keras` files layer by layer, with their Xception replaced by `xcli.models.folded.Backbone`."""

from __future__ import annotations

import inspect
import json
import logging
import math
import warnings
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ModelError
from xcli.core.tensorflow import Precision, default_keras_settings, load_keras, load_tensorflow
from xcli.core.text import short_text
from xcli.models.architecture import layers, weighted_layers
from xcli.models.backbone import RESCALING, layers_before
from xcli.models.download import sha256_of
from xcli.models.folded import Backbone, constant
from xcli.models.hdf5_weights import MAX_CLASSES, Weights, values_problem
from xcli.models.keras_file import CONFIG, open_archive
from xcli.models.keras_graph import Call, Graph, Key, Node, final_activation, has_classifier, tensor_key
from xcli.storage import disk
from xcli.storage.temporary import TemporaryDirectory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

log = logging.getLogger(__name__)

_UNSAVED_NUMBERS = 1 << 20
"""Numbers that a model may have beside those in its file, which older versions of Keras did not save, as of seeds."""

_FINITE = "/finite"
"""Among outputs by name: whether the Xception's output is finite, bool[b]. No layer has a name with a slash."""


class _Loaded(NamedTuple):
    """A model as Keras loads it.

    Attributes:
        model: the whole model.
        holder: the model in it that has the layers of the Xception.
        weights: those of the Xception, by our names.
        size: side of the input in pixels; None where it is open.
    """

    model: Any
    holder: Any
    weights: Weights
    size: int | None


class KerasNetwork:
    """A model from a `.keras` file that contains exactly one Xception.

    Its graph is read at once. `load`, or whatever needs more of the file than that, imports Keras and checks the rest.

    Attributes:
        output_name: name of the layer that computes the output.

    Raises:
        ModelError: the file is unsafe, damaged, of another architecture, or has several inputs or outputs.
    """

    def __init__(self, path: str) -> None:
        self._archive = open_archive(path)
        self.path, self.graph = path, self._archive.graph
        self._holder = next(graph for graph in self.graph.walk() if graph.backbone)
        self._names = {theirs: ours for ours, theirs in self._holder.backbone.items()}
        self._backbone: Backbone | None = None
        self._state: list[tuple[Any, Any]] = []
        self.output_name = self.graph.outputs[0][0]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    def load(self) -> None:
        """Loads the model with Keras, unless that has been done, and checks it; raises ModelError as the class does."""
        _ = self._loaded

    @cached_property
    def _loaded(self) -> _Loaded:
        path, digest = self.path, self.digest
        scratch = TemporaryDirectory(path)  # Keras reads the parts of a model from files
        try:
            numbers = self._archive.unpack(scratch.path)
            if sha256_of(path) != digest:
                raise ModelError(f"{path} has changed while it was read")
            _check_declared(scratch.path, path, numbers)
            model = _load(scratch.path, path)
        finally:
            scratch.close()
        shape = tuple(model.inputs[0].shape)
        if len(shape) != 4 or shape[-1] not in (3, None):
            raise ModelError(f"{path} takes inputs of shape {shape}; images of shape (None, size, size, 3) are needed")
        if shape[1] != shape[2]:
            raise ModelError(f"{path} takes images of {shape[2]}x{shape[1]}; only square inputs are supported")
        holder = self._find_model(self.graph, model)
        weights = self._read_weights(holder)
        others = {one.path: one.numpy() for one in model.variables if "float" in str(one.dtype)}
        problem = values_problem(weights) or values_problem(others, epsilon=math.inf)
        if problem:
            raise ModelError(f"{path}: {problem}")
        units = self._units(model) or 0
        if units > MAX_CLASSES:
            raise ModelError(f"{path} has {units:,} classes; at most {MAX_CLASSES:,} are possible")
        if self.output_name in {layer.name for layer in layers()} and self._names.get(self.output_name) is None:
            raise ModelError(f"{path}: its output {self.output_name!r} has the name of another layer of the Xception")
        return _Loaded(model, holder, weights, shape[1])

    @property
    def size(self) -> int | None:
        """Side of the input in pixels; None where it is open."""
        return self._loaded.size

    @property
    def weights(self) -> Weights:
        """Those of the Xception, by our names."""
        return self._loaded.weights

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole model."""
        return int(self._loaded.model.count_params())

    @property
    def units(self) -> int | None:
        """Number of units of the classifier; None where the output is maps or pooled features."""
        return self._units(self._loaded.model)

    def _units(self, model: Any) -> int | None:
        _, *shape = model.outputs[0].shape
        return shape[0] if len(shape) == 1 and has_classifier(self.graph) else None

    @property
    def activation(self) -> str:
        return final_activation(self.graph)

    @property
    def rescales(self) -> bool:
        """Whether layers before the Xception scale the pixels."""
        return any(node.kind in RESCALING for node in layers_before(self.graph))

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the layers outside of the Xception, in order, each once."""
        names = dict.fromkeys(
            node.name
            for graph in self.graph.walk()
            for node in graph.nodes
            if node.graph is None and node.kind != "InputLayer" and not (graph is self._holder and self._ours(node))
        )
        ours = {layer.name for layer in layers()}
        return tuple(name for name in names if name not in ours)

    def _ours(self, node: Node) -> str | None:
        return self._names.get(node.name)

    def _read_weights(self, holder: Any) -> Weights:
        import numpy as np

        found: Weights = {}
        for layer in weighted_layers():
            arrays = holder.get_layer(self._holder.backbone[layer.name]).get_weights()
            shapes = [array.shape for array in arrays]
            if shapes != [shape for _, shape in layer.weights]:
                raise ModelError(f"{self.path}: layer {layer.name!r} has weights of shapes {shapes}, not an Xception's")
            for (variable, _), array in zip(layer.weights, arrays, strict=True):
                found[f"{layer.name}/{variable}"] = np.asarray(array, np.float32)
        return found

    def _find_model(self, graph: Graph, model: Any) -> Any:
        if graph is self._holder:
            return model
        for node in graph.nodes:
            if node.graph is not None and any(one is self._holder for one in node.graph.walk()):
                return self._find_model(node.graph, model.get_layer(node.name))
        raise AssertionError("the graph that holds the backbone is always among those walked")

    def prepare(self, precision: Precision) -> None:
        self._backbone = Backbone(self.weights, precision)
        model, holder, *_ = self._loaded
        folded = {id(variable) for name in self._names for variable in holder.get_layer(name).variables}
        self._state = [(variable, variable.numpy()) for variable in model.variables if id(variable) not in folded]

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Returns the outputs of the layers in `taps`: our names of the Xception's layers, or names in the file."""
        found: dict[str, Any] = {}
        # The variables of the other layers become constants too, on the engine's device, wherever Keras keeps them.
        state = [(variable, constant(value, variable.dtype)) for variable, value in self._state]
        with default_keras_settings(), load_keras().StatelessScope(state_mapping=state):
            (output,) = self._run(self.graph, self._loaded.model, [x], set(taps), found)
        layer_names = {layer.name for layer in layers()}
        if self.output_name in taps and self.output_name not in self._holder.backbone:
            found[self.output_name] = output
        finite = found[_FINITE]
        return {tap: found[tap] if tap in layer_names else _spoil(found[tap], finite) for tap in taps}

    def _run(self, graph: Graph, model: Any, inputs: list[Any], taps: set[str], found: dict[str, Any]) -> list[Any]:
        values: dict[Key, Any] = dict(zip(graph.inputs, inputs, strict=True))
        operations = {one.name: one for one in getattr(model, "operations", None) or model.layers}
        first = graph.backbone.get(layers()[0].name)
        pending = [
            (node, number, call)
            for node in graph.nodes
            if node.name == first or not (graph is self._holder and self._ours(node))
            for number, call in enumerate(node.calls)
            if node.kind != "InputLayer"
        ]
        while pending:
            # A layer that is called twice can depend on others between its calls.
            blocked = []
            for node, number, call in pending:
                if any(key not in values for key in call.inputs):
                    blocked.append((node, number, call))
                    continue
                if node.name == first:
                    values.update(self._xception(graph, values[call.inputs[0]], taps, found))
                    continue
                if node.graph is not None:
                    nested = [values[key] for key in call.inputs]
                    results = self._run(node.graph, operations[node.name], nested, taps, found)
                else:
                    with _keras_errors(self.path, "run"):
                        result = _apply(operations[node.name], call, values)
                    results = list(result) if isinstance(result, (list, tuple)) else [result]
                values.update({(node.name, number, index): result for index, result in enumerate(results)})
                if node.name in taps:
                    found.setdefault(node.name, results[0])
            if len(blocked) == len(pending):
                raise ModelError(
                    f"{self.path}: the layers {[short_text(one[0].name) for one in blocked][:3]} wait for each other"
                )
            pending = blocked
        return [values[key] for key in graph.outputs]

    def _xception(self, graph: Graph, x: Any, taps: set[str], found: dict[str, Any]) -> dict[Key, Any]:
        """Computes the layers of the Xception that the rest of the graph reads or that are tapped."""
        assert self._backbone is not None, "prepare() comes first"
        readers = [key for node in graph.nodes if not self._ours(node) for call in node.calls for key in call.inputs]
        read = {self._names[key[0]] for key in (*readers, *graph.outputs) if key[0] in self._names}
        outputs = self._backbone(x, read | (taps & self._backbone.names))
        for name in outputs.keys() & taps:
            found.setdefault(name, outputs[name])
        tf = load_tensorflow()
        floats = {name: tf.cast(outputs[name], tf.float32) for name in read}
        # As `is_finite` would say, but in operations that every exported format has.
        checks = [tf.reduce_all(tf.abs(x) <= x.dtype.max, list(range(1, len(x.shape)))) for x in floats.values()]
        found[_FINITE] = tf.reduce_all(checks, 0)
        return {(self._holder.backbone[name], 0, 0): x for name, x in floats.items()}


@contextmanager
def _keras_errors(path: str, what: str = "load") -> Iterator[None]:
    """Turns whatever Keras raises for a model into a ModelError."""
    try:
        yield
    except Exception as error:
        # Keras puts the configurations of all surrounding layers before the actual error.
        cause = str(error).rpartition("Exception encountered: ")[2]
        raise ModelError(f"Keras cannot {what} {path}: {type(error).__name__}: {short_text(cause)}") from error


def _check_declared(folder: str, path: str, numbers: int) -> None:
    """Refuses a configuration that declares more than its file holds, before any of it takes memory.

    The model is built as a graph of TensorFlow that nothing runs, and so makes no arrays.

    Args:
        folder: the unpacked model.
        path: of its file, for messages.
        numbers: how many the arrays in the file hold.
    """
    keras, tf = load_keras(), load_tensorflow()
    file = Path(folder, CONFIG)
    config = json.loads(file.read_bytes(), object_hook=_start_at_zero)
    disk.replace_file(file, json.dumps(config).encode())
    with warnings.catch_warnings(), _keras_errors(path), default_keras_settings(), tf.Graph().as_default() as graph:
        warnings.simplefilter("ignore")
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        declared = sum(math.prod(one.shape) for one in model.variables)
    if declared > numbers + _UNSAVED_NUMBERS:
        raise ModelError(f"{path} declares layers with {declared:,} weights, but holds only {numbers:,}; not loaded")
    made = sum(output.shape.num_elements() or 0 for one in graph.get_operations() for output in one.outputs)
    if made > 8 * (numbers + _UNSAVED_NUMBERS):  # a variable and what initialises it are counted too
        raise ModelError(f"{path} has layers that make far larger arrays than it holds, so not loaded")


def _start_at_zero(item: dict[str, Any]) -> dict[str, Any]:
    """Replaces initializers: all values come from the file, and some initializers take minutes for large arrays."""
    if item.get("module") != "keras.initializers":
        return item
    return {"module": item["module"], "class_name": "Zeros", "config": {}, "registered_name": None}


def _load(folder: str, path: str) -> Any:
    """Loads the unpacked model; warnings go to the log, except the one about missing weights."""
    keras, tf = load_keras(), load_tensorflow()
    with (
        warnings.catch_warnings(record=True) as said,
        _keras_errors(path),
        tf.device("/CPU:0"),
        default_keras_settings(),
    ):
        warnings.simplefilter("always")
        model = keras.models.load_model(folder, compile=False, safe_mode=True)
    for warning in said:
        log.debug("Keras on %s: %s", path, short_text(warning.message))
        if "freshly-initialized" in str(warning.message):
            raise ModelError(f"{path} does not hold all of its weights: {short_text(warning.message)}")
    return model


def _spoil(output: Any, finite: Any) -> Any:
    """Returns the output of a layer of the head with NaN for images whose output of the Xception is not `finite`.

    A sigmoid, say, makes a number of infinity that looks sound.
    """
    tf = load_tensorflow()
    finite = tf.reshape(finite, [-1] + [1] * (len(output.shape) - 1))
    return tf.where(finite, tf.cast(output, tf.float32), math.nan)


def _apply(operation: Any, call: Call, values: Mapping[Key, Any]) -> Any:
    def fill(value: Any) -> Any:
        key = tensor_key(value)
        if key is not None:
            return values[key]
        if isinstance(value, list):
            filled = [fill(item) for item in value]
            # JSON has no tuples, but an index with slices must be one.
            return tuple(filled) if any(isinstance(item, slice) or item is Ellipsis for item in filled) else filled
        if isinstance(value, dict):
            if "class_name" in value:
                return _constant(value)
            return {name: fill(item) for name, item in value.items()}
        return value

    named = {name: fill(value) for name, value in call.kwargs.items()}
    if "training" in inspect.signature(operation.call).parameters:
        named["training"] = False  # augmentation layers default to training
    return operation(*fill(list(call.args)), **named)


def _constant(value: Mapping[str, Any]) -> Any:
    """Returns a value other than a tensor with which a layer is called."""
    tf = load_tensorflow()
    config = value["config"]
    if value["class_name"] in ("__tensor__", "__numpy__"):
        return tf.constant(config["value"], tf.dtypes.as_dtype(config["dtype"]))
    if value["class_name"] == "__slice__":
        return slice(config["start"], config["stop"], config["step"])
    if value["class_name"] == "__ellipsis__":
        return Ellipsis
    raise ModelError(f"a layer is called with a constant of kind {short_text(value['class_name'])!r}")
