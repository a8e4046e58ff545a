"""Models in `.keras` files, computed with their Xception replaced by the folded one.

The file's graph is walked layer by layer: whatever stands before, beside or behind the Xception runs as the Keras
layer that the file describes, and the Xception itself runs in `xcli.engine.Backbone`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.architecture import layers, weighted_layers
from xcli.archive import Graph, Key, Node, read_config, tensor_key
from xcli.engine import Backbone
from xcli.errors import ModelError
from xcli.runtime import Precision, load_keras, load_tensorflow

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from xcli.h5weights import Weights

_RESCALING = {"Rescaling", "Normalization", "TrueDivide", "Divide", "Subtract", "Multiply", "BatchNormalization"}


class ForeignNetwork:
    """A model from a `.keras` file around exactly one Xception.

    Args:
        path: the file.

    Raises:
        ModelError: the file is unsafe, damaged, of another architecture, or has several inputs or outputs.
    """

    def __init__(self, path: str) -> None:
        self.graph = read_config(path)
        if len(self.graph.inputs) != 1 or len(self.graph.outputs) != 1:
            raise ModelError(
                f"{path} has {len(self.graph.inputs)} inputs and {len(self.graph.outputs)} outputs; "
                "a model with one of each is needed"
            )
        keras = load_keras()
        try:
            self._model = keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:
            text = " ".join(str(error).split())
            raise ModelError(f"Keras cannot load {path}: {text[:300]}") from error
        self._holder = next(graph for graph in self.graph.walk() if graph.backbone)
        self._names = {theirs: ours for ours, theirs in self._holder.backbone.items()}
        self._backbone: Backbone | None = None
        shape = tuple(self._model.input_shape)
        if len(shape) != 4 or shape[-1] not in (3, None):
            raise ModelError(f"{path} takes inputs of shape {shape}; images of shape (None, size, size, 3) are needed")
        if shape[1] != shape[2]:
            raise ModelError(f"{path} takes images of {shape[2]}x{shape[1]}; only square inputs are supported")
        self.size: int | None = shape[1]
        self.output_shape: tuple[int | None, ...] = tuple(self._model.output_shape)[1:]

    @property
    def output_name(self) -> str:
        """Name of the layer that makes the model's output."""
        return self.graph.outputs[0][0]

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole model."""
        return int(self._model.count_params())

    @property
    def rescales(self) -> bool:
        """Whether the graph scales its pixels itself, before the Xception."""
        return any(node.kind in _RESCALING for node in _ancestors(self.graph, self._holder))

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the layers that are not of the Xception, in order."""
        skip = {"InputLayer"}
        return tuple(
            node.name
            for graph in self.graph.walk()
            for node in graph.nodes
            if node.graph is None and node.kind not in skip and not (graph is self._holder and node.name in self._names)
        )

    def weights(self) -> Weights:
        """The Xception's weights, by our names."""
        model = self._find_model(self.graph, self._model)
        found: Weights = {}
        for layer in weighted_layers():
            arrays = model.get_layer(self._holder.backbone[layer.name]).get_weights()
            for (variable, shape), array in zip(layer.weights, arrays, strict=True):
                if array.shape != shape:
                    raise ModelError(f"layer {layer.name!r} has {variable} of shape {array.shape}, expected {shape}")
                found[f"{layer.name}/{variable}"] = array
        return found

    def _find_model(self, graph: Graph, model: Any) -> Any:
        if graph is self._holder:
            return model
        for node in graph.nodes:
            if node.graph is not None and self._holder in list(node.graph.walk()):
                return self._find_model(node.graph, model.get_layer(node.name))
        raise AssertionError("the graph that holds the backbone is always among those walked")

    def prepare(self, precision: Precision) -> None:
        """Folds the Xception for arithmetic in `precision`."""
        self._backbone = Backbone(self.weights(), precision)

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        """Outputs of the layers in `taps`, for float32[b, size, size, 3] as the model's input wants it."""
        found: dict[str, Any] = {}
        self._run(self.graph, self._model, [x], {self._names.get(tap, tap) for tap in taps}, found)
        return {tap: found[self._names.get(tap, tap)] for tap in taps}

    def _run(self, graph: Graph, model: Any, inputs: list[Any], taps: set[str], found: dict[str, Any]) -> list[Any]:
        values: dict[Key, Any] = dict(zip(graph.inputs, inputs, strict=True))
        operations = {one.name: one for one in getattr(model, "operations", None) or model.layers}
        inside = self._names if graph is self._holder else {}
        for node in graph.nodes:
            if node.name in inside:
                if inside[node.name] == layers()[0].name:
                    values.update(self._xception(graph, values[node.calls[0].inputs[0]], taps, found))
                continue
            if node.kind == "InputLayer":
                continue
            for number, call in enumerate(node.calls):
                if node.graph is not None:
                    nested = [values[key] for key in call.inputs]
                    results = self._run(node.graph, operations[node.name], nested, taps, found)
                else:
                    results = _as_list(_apply(operations[node.name], call.args, call.kwargs, values))
                for index, result in enumerate(results):
                    values[(node.name, number, index)] = result
            if node.name in taps:
                found[node.name] = values[(node.name, 0, 0)]
        return [values[key] for key in graph.outputs]

    def _xception(self, graph: Graph, x: Any, taps: set[str], found: dict[str, Any]) -> dict[Key, Any]:
        """Computes the Xception up to what the rest of the graph reads, and what is tapped."""
        assert self._backbone is not None, "prepare() comes first"
        readers = [key for node in graph.nodes if node.name not in self._names for c in node.calls for key in c.inputs]
        read = {self._names[key[0]] for key in (*readers, *graph.outputs) if key[0] in self._names}
        outputs = self._backbone(x, read | (taps & self._backbone.names))
        found.update({name: value for name, value in outputs.items() if name in taps})
        tf = load_tensorflow()
        return {(self._holder.backbone[name], 0, 0): tf.cast(outputs[name], tf.float32) for name in read}


def _ancestors(graph: Graph, holder: Graph) -> list[Node]:
    """The layers between the model's input and the Xception's, nested models included."""
    if graph is holder:
        start = next(node for node in graph.nodes if node.name == graph.backbone[layers()[0].name])
        inner: list[Node] = []
    else:
        start = next(node for node in graph.nodes if node.graph is not None and holder in list(node.graph.walk()))
        assert start.graph is not None
        inner = _ancestors(start.graph, holder)
    nodes = {node.name: node for node in graph.nodes}
    names, stack = set[str](), [start.name]
    while stack:
        for call in nodes[stack.pop()].calls:
            new = {key[0] for key in call.inputs if key[0] in nodes} - names
            names |= new
            stack.extend(new)
    before = [nodes[name] for name in names]
    nested = [node for one in before if one.graph is not None for g in one.graph.walk() for node in g.nodes]
    return before + nested + inner


def _apply(operation: Any, args: Any, kwargs: Mapping[str, Any], values: Mapping[Key, Any]) -> Any:
    def fill(value: Any) -> Any:
        key = tensor_key(value)
        if key is not None:
            return values[key]
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, dict):
            if "class_name" in value:
                raise ModelError(f"layer {operation.name!r} is called with a constant of kind {value['class_name']!r}")
            return {name: fill(item) for name, item in value.items()}
        return value

    # Outside of training every layer takes the road of inference by itself; masks play no part with images.
    named = {name: fill(value) for name, value in kwargs.items() if name not in ("training", "mask")}
    return operation(*fill(list(args)), **named)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
