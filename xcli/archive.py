"""Reads the configuration of a `.keras` file: is it safe, and where in it is the Xception?

Only JSON is read here, without Keras. Every object that the file names must be on a list of known, harmless ones
before Keras is asked to build anything, and the backbone is found by its structure (kinds, sizes and connections of
its layers), never by name.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.architecture import BN_EPSILON, Layer, layers
from xcli.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_CONFIG_BYTES = 64 << 20
MAX_MODEL_BYTES = 8 << 30

_MODELS = {"Functional", "Model", "Sequential"}
_LAYERS = frozenset(
    """
    InputLayer Dense Dropout SpatialDropout2D AlphaDropout GaussianDropout GaussianNoise ActivityRegularization
    Activation ReLU LeakyReLU PReLU ELU Softmax Identity Flatten Reshape Permute RepeatVector
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    Conv1D Conv2D Conv2DTranspose DepthwiseConv2D SeparableConv2D
    MaxPooling2D AveragePooling2D GlobalAveragePooling2D GlobalMaxPooling2D
    ZeroPadding2D Cropping2D UpSampling2D Resizing CenterCrop Rescaling Normalization
    BatchNormalization LayerNormalization GroupNormalization UnitNormalization RMSNormalization
    Attention AdditiveAttention MultiHeadAttention
    RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomCrop RandomHeight
    RandomWidth RandomHue RandomSaturation RandomColorJitter RandomSharpness RandomShear RandomGrayscale RandomInvert
    RandomPosterization RandomErasing RandomGaussianBlur RandomPerspective RandomElasticTransform AutoContrast
    Equalization Solarization
    """.split()
)
_OPERATIONS = frozenset("Add Subtract Multiply Divide TrueDivide Maximum Minimum Negative Reshape Mean Max".split())
_FUNCTIONS = frozenset(
    """
    linear relu relu6 leaky_relu elu selu gelu silu swish mish softplus softsign sigmoid log_sigmoid hard_sigmoid
    hard_silu hard_swish tanh exponential softmax log_softmax
    """.split()
)
_NAMESPACES = ("keras.initializers", "keras.regularizers", "keras.constraints", "keras.dtype_policies")

Key = tuple[str, int, int]
"""A tensor: name of the layer that made it, number of the call, number of the output."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer: its arguments as in the file, and the tensors among them."""

    args: Any
    kwargs: Mapping[str, Any]
    inputs: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One layer of a graph.

    Attributes:
        name: its name in the file.
        kind: its class.
        config: its own configuration.
        calls: its calls, in order.
        graph: for a nested model, its graph.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    calls: tuple[Call, ...]
    graph: Graph | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A model: its layers in an order in which they can be computed.

    Attributes:
        name: the model's name.
        nodes: its layers.
        inputs, outputs: its input and output tensors.
        backbone: names in the file of the Xception's layers by our names, where this graph itself holds them.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    backbone: dict[str, str] = field(default_factory=dict)

    def walk(self) -> Iterator[Graph]:
        """This graph and those nested in it."""
        yield self
        for node in self.nodes:
            if node.graph is not None:
                yield from node.graph.walk()


def read_config(path: str) -> Graph:
    """Reads and checks the configuration in a `.keras` file, and finds the Xception in it.

    Raises:
        ModelError: the file is not a `.keras` file, names an object that is not on the list of harmless ones, or
            does not hold exactly one Xception.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_MODEL_BYTES:
                raise ModelError(f"{path} would unpack to more than {MAX_MODEL_BYTES >> 30} GiB and is not loaded")
            if archive.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
                raise ModelError(f"{path} has a configuration above {MAX_CONFIG_BYTES >> 20} MiB and is not loaded")
            archive.getinfo("model.weights.h5")
            config = json.loads(archive.read("config.json"))
    except FileNotFoundError as error:
        raise ModelError(f"no such model: {path}") from error
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RecursionError) as error:
        raise ModelError(f"{path} is not a .keras model (a zip of config.json and model.weights.h5)") from error
    try:
        _check_objects(config.get("config"), path)
        _check_object(config, path)
        graph = _graph(config, path)
        found = [graph for graph in graph.walk() if _find_backbone(graph)]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} has a configuration that Keras does not write ({error!r})") from error
    if len(found) != 1:
        raise ModelError(_not_xception(path, graph, len(found)))
    return graph


def _not_xception(path: str, graph: Graph, found: int) -> str:
    if found:
        return f"{path} holds {found} Xception networks; a model with exactly one is needed"
    inner = max(graph.walk(), key=lambda one: len(one.nodes))
    return (
        f"{path} holds {inner.name!r} ({len(inner.nodes)} layers), which is not an Xception; "
        "only models with an Xception backbone can be used"
    )


def _check_objects(value: Any, path: str) -> None:
    """Checks every object that a configuration names, at any depth."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if "class_name" in item and "config" in item:
                _check_object(item, path)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_object(item: Mapping[str, Any], path: str) -> None:
    name, module, config = item["class_name"], item.get("module") or "", item["config"]
    registered = item.get("registered_name")
    if name in ("__keras_tensor__", "__tensor__", "__numpy__", "__tuple__", "__bytes__"):
        return
    known = False
    if name == "function":
        known = module in ("builtins", "") and config in _FUNCTIONS
    elif name in _LAYERS:
        known = module == "keras.layers" or module.startswith("keras.src.layers.")
    elif name in _MODELS:
        known = module in ("keras", "keras.models") or module.startswith(("keras.src.models.", "keras.src.engine."))
    elif module.startswith("keras.src.ops."):
        known = name in _OPERATIONS
    elif module in _NAMESPACES or (module == "keras" and name.endswith("DTypePolicy")):
        known = str(name).isidentifier()
    if not known or registered not in (None, name, "function"):
        what = f"{module}.{name}" if module else str(name)
        extra = f" ({config!r})" if name == "function" else ""
        raise ModelError(
            f"{path} contains {what}{extra}, which is not among the layers that are loaded from files of others; "
            "nothing of it was run"
        )


def _graph(item: Mapping[str, Any], path: str) -> Graph:
    config = item["config"]
    nodes = []
    previous: Key | None = None
    sequential = item["class_name"] == "Sequential"
    if not sequential and "input_layers" not in config:
        raise ModelError(f"{path} is a {item['class_name']} that is neither functional nor sequential")
    for layer in config["layers"]:
        nested = _graph(layer, path) if layer["class_name"] in _MODELS else None
        name = layer.get("name") or layer["config"]["name"]
        if sequential:
            inputs = () if previous is None else (previous,)
            calls = (Call([_tensor(key) for key in inputs], {}, inputs),)
            previous = (name, 0, 0)
        else:
            calls = tuple(_call(node) for node in layer["inbound_nodes"])
        nodes.append(Node(name, layer["class_name"], layer["config"], calls, nested))
    if not sequential:
        return Graph(config["name"], tuple(nodes), _keys(config["input_layers"]), _keys(config["output_layers"]))
    first = nodes[0]
    if first.kind != "InputLayer":
        # A Sequential without an InputLayer: its first layer reads a tensor that we name ourselves.
        key = ("", 0, 0)
        nodes[0] = Node(first.name, first.kind, first.config, (Call([_tensor(key)], {}, (key,)),), first.graph)
        return Graph(config["name"], tuple(nodes), (key,), ((nodes[-1].name, 0, 0),))
    return Graph(config["name"], tuple(nodes), ((first.name, 0, 0),), ((nodes[-1].name, 0, 0),))


def _tensor(key: Key) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"keras_history": list(key)}}


def _call(node: Any) -> Call:
    if isinstance(node, list):  # as Keras 2 wrote it: a list of [layer, call, output, keyword arguments]
        args = [_tensor((entry[0], entry[1], entry[2])) for entry in node]
        kwargs = node[0][3] if node and len(node[0]) > 3 else {}
        return Call(args if len(args) == 1 else [args], kwargs, tuple(_tensors([args, kwargs])))
    return Call(node["args"], node["kwargs"], tuple(_tensors([node["args"], node["kwargs"]])))


def tensor_key(value: Any) -> Key | None:
    """The tensor that a value of a configuration stands for, or None where it stands for none."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        layer, call, output = value["config"]["keras_history"]
        return (str(layer), int(call), int(output))
    return None


def _tensors(value: Any) -> Iterator[Key]:
    key = tensor_key(value)
    if key is not None:
        yield key
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)


def _keys(value: Any) -> tuple[Key, ...]:
    if len(value) == 3 and isinstance(value[0], str):
        value = [value]
    return tuple((str(layer), int(call), int(output)) for layer, call, output in value)


def _find_backbone(graph: Graph) -> bool:
    """Finds the Xception among the layers of one graph and notes it in `graph.backbone`."""
    readers: dict[Key, list[Node]] = {}
    for node in graph.nodes:
        if len(node.calls) == 1:
            for key in node.calls[0].inputs:
                readers.setdefault(key, []).append(node)
    starts = [node for node in graph.nodes if _same(layers()[0], node)]
    for start in starts:
        found = _follow(start, readers)
        if found is not None:
            graph.backbone.update(found)
            return True
    return False


def _follow(start: Node, readers: Mapping[Key, list[Node]]) -> dict[str, str] | None:
    found = {layers()[0].name: start.name}
    for layer in layers()[1:]:
        inputs = {(found[name], 0, 0) for name in layer.inputs}
        candidates = [
            node
            for node in readers.get((found[layer.inputs[0]], 0, 0), [])
            if set(node.calls[0].inputs) == inputs and _same(layer, node)
        ]
        if len(candidates) != 1:
            return None
        found[layer.name] = candidates[0].name
    return found


def _same(layer: Layer, node: Node) -> bool:
    """Whether a layer of a file computes what ours does."""
    c = node.config
    if layer.kind in ("conv", "sepconv"):
        return (
            node.kind == ("Conv2D" if layer.kind == "conv" else "SeparableConv2D")
            and c["filters"] == layer.filters
            and list(c["kernel_size"]) == [layer.kernel] * 2
            and list(c["strides"]) == [layer.stride] * 2
            and list(c["dilation_rate"]) == [1, 1]
            and c.get("groups", 1) == 1
            and c.get("depth_multiplier", 1) == 1
            and c["padding"] == layer.padding
            and not c["use_bias"]
            and _activation(c) == "linear"
            and c.get("data_format") in (None, "channels_last")
        )
    if layer.kind == "bn":
        axis = c["axis"][0] if isinstance(c["axis"], list) else c["axis"]
        plain = axis in (-1, 3) and c["center"] and c["scale"]
        return bool(node.kind == "BatchNormalization" and plain and abs(c["epsilon"] - BN_EPSILON) < 1e-9)
    if layer.kind == "relu":
        if node.kind == "ReLU":
            return not c.get("max_value") and not c.get("negative_slope") and not c.get("threshold")
        return node.kind == "Activation" and _activation(c) == "relu"
    if layer.kind == "maxpool":
        window = list(c.get("pool_size", ())) == [layer.kernel] * 2 and list(c.get("strides", ())) == [layer.stride] * 2
        return node.kind == "MaxPooling2D" and window and c["padding"] == layer.padding
    return node.kind == "Add"


def _activation(config: Mapping[str, Any]) -> str:
    """Name of an activation function, however it is written."""
    value = config.get("activation") or "linear"
    return str(value["config"]) if isinstance(value, dict) else str(value)


def final_activation(graph: Graph) -> str:
    """Name of the activation function that makes the graph's (only) output."""
    node = next(node for node in graph.nodes if node.name == graph.outputs[0][0])
    if node.graph is not None:
        return final_activation(node.graph)
    if node.kind == "Softmax":
        return "softmax"
    return _activation(node.config)
