"""The graph of a Keras model, read from its configuration (JSON): layers, calls, and which layers form an Xception.

The Xception is found by its structure (kinds, sizes and connections of layers), never by names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcli.models.architecture import BN_EPSILON, Layer, layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODELS = ("Functional", "Model", "Sequential")
MAX_STEPS = 100_000  # limit to the layers visited by a search, for malicious graphs that are ambiguous or circular
MAX_LAYERS, MAX_CALLS = 1_500, 3_000
"""Most layers in a file, and most calls of them for an image, as `_EFFORT` counts them: four milliseconds each, to
build and to trace. The largest network of Keras Applications has 1,039 layers, which are worth 2,500 calls."""
_EFFORT = dict.fromkeys(
    """
    Dense EinsumDense Conv1D Conv2D Conv2DTranspose DepthwiseConv1D DepthwiseConv2D PReLU RMSNormalization Normalization
    AdditiveAttention RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomCrop
    """.split(),
    3,
)
_EFFORT |= dict.fromkeys("SeparableConv1D SeparableConv2D LayerNormalization UnitNormalization".split(), 4)
_EFFORT |= {"BatchNormalization": 4, "GroupNormalization": 7, "MultiHeadAttention": 20}
"""Calls that one of a kind is worth, from the times of models with 150 layers of it; 1 otherwise."""
_MAX_SWEEPS = 32  # over layers that are listed after those that read them, as some shared layers are

_KERNELS = """
    Dense EinsumDense Conv1D Conv2D Conv2DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D
    MultiHeadAttention
""".split()
_ACTIVATION_KINDS = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "ReLU": "relu",
    "Relu": "relu",
    "PReLU": "prelu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "Tanh": "tanh",
    "Exp": "exponential",
}

Key = tuple[str, int, int]
"""A tensor: name of the layer that computes it, number of the call, number of the output."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer: its arguments as in the file, and the tensors among them."""

    args: Any
    kwargs: Mapping[str, Any]
    inputs: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One layer of a graph: its name in the file, its class, its configuration and its calls in order.

    Attributes:
        graph: for a nested model, its graph.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    calls: tuple[Call, ...]
    graph: Graph | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A model.

    Attributes:
        nodes: its layers, roughly in the order of computation (a shared layer has the place of its first call).
        backbone: maps our names of the Xception's layers to those in the file, if this graph contains them.
        by_name: the nodes.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    backbone: dict[str, str] = field(default_factory=dict)
    by_name: dict[str, Node] = field(default_factory=dict)

    def walk(self) -> Iterator[Graph]:
        """Yields this graph and those nested in it."""
        yield self
        for node in self.nodes:
            if node.graph is not None:
                yield from node.graph.walk()

    def node(self, name: str) -> Node:
        """Returns the layer of that name; raises KeyError where there is none."""
        return self.by_name[name]

    def calls(self) -> int:
        """Returns how many calls of layers an image takes, with those of nested models; many inputs count as calls."""
        total = 0
        for node in self.nodes:
            inner = node.graph.calls() if node.graph else _EFFORT.get(node.kind, 1)
            total += inner * len(node.calls) + sum(len(call.inputs) // 4 for call in node.calls)
        return total


def read_graph(item: Mapping[str, Any]) -> Graph:
    """Reads a functional or sequential model as `serialize_keras_object` writes it.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: it is not a configuration that Keras writes.
    """
    config = item["config"]
    sequential = item["class_name"] == "Sequential"
    if not sequential and "input_layers" not in config:
        raise ValueError(f"a {item['class_name']} that is neither functional nor sequential")
    nodes: list[Node] = []
    by_name: dict[str, Node] = {}
    for layer in config["layers"]:
        name = str(layer["config"]["name"])
        if layer.get("name", name) != name or name in by_name:
            raise ValueError(f"the layer name {name!r} stands for two layers")
        nested = read_graph(layer) if layer["class_name"] in MODELS else None
        if not sequential:
            calls = tuple(_call(node) for node in layer["inbound_nodes"])
        elif nodes or layer["class_name"] != "InputLayer":
            # The first layer of a Sequential without an InputLayer reads a tensor to which we give a name.
            source = (nodes[-1].name if nodes else "", 0, 0)
            calls = (Call([_tensor(source)], {}, (source,)),)
        else:
            calls = (Call([], {}, ()),)
        by_name[name] = Node(name, str(layer["class_name"]), layer["config"], calls, nested)
        nodes.append(by_name[name])
    title = str(config["name"])
    if sequential:
        start = nodes[0].name if nodes[0].kind == "InputLayer" else ""
        return Graph(title, tuple(nodes), ((start, 0, 0),), ((nodes[-1].name, 0, 0),), by_name=by_name)
    functional = {node.name for node in nodes if node.graph is not None and node.kind != "Sequential"}
    # Here, and only here, Keras counts the construction of a functional model as its first call.
    outputs = ((name, call - (name in functional), output) for name, call, output in _keys(config["output_layers"]))
    return Graph(title, tuple(nodes), _keys(config["input_layers"]), tuple(outputs), by_name=by_name)


def effort_problem(graph: Graph) -> str | None:
    """Returns why it would take too long to build a model and to trace it; None where it would not."""
    layers, calls = sum(len(one.nodes) for one in graph.walk()), graph.calls()
    if layers > MAX_LAYERS:
        return f"has {layers:,} layers; at most {MAX_LAYERS:,} are loaded"
    if calls > MAX_CALLS:
        return f"calls {calls:,} layers for an image; at most {MAX_CALLS:,} are loaded"
    if not all(map(_in_order, graph.walk())):
        return "does not list its layers in the order of their calls, so it is not loaded"
    return None


def _in_order(graph: Graph) -> bool:
    """Returns whether a few sweeps over the layers, by Keras or by us, can call all of them."""
    done = {key[:2] for key in graph.inputs}
    pending = [((node.name, number), call) for node in graph.nodes for number, call in enumerate(node.calls)]
    for _ in range(_MAX_SWEEPS):
        blocked = []
        for made, call in pending:
            if all(key[:2] in done for key in call.inputs):
                done.add(made)
            else:
                blocked.append((made, call))
        if len(blocked) in (0, len(pending)):  # those that wait for one another are told when they are called
            return True
        pending = blocked
    return False


def _tensor(key: Key) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"keras_history": list(key)}}


def _call(node: Any) -> Call:
    if isinstance(node, list):  # as Keras 2 wrote it: a list of [layer, call, output, keyword arguments]
        args: Any = [_tensor((entry[0], entry[1], entry[2])) for entry in node]
        args = args if len(args) == 1 else [args]
        kwargs = node[0][3] if node and len(node[0]) > 3 else {}
    else:
        args, kwargs = node["args"], node["kwargs"]
    # Layers are called for inference by default, and images have no masks.
    kwargs = {name: value for name, value in kwargs.items() if name not in ("training", "mask")}
    return Call(args, kwargs, tuple(_tensors([args, kwargs])))


def tensor_key(value: Any) -> Key | None:
    """Returns the tensor that a value of a configuration stands for, if any."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        layer, call, output = value["config"]["keras_history"]
        return (str(layer), int(call), int(output))
    return None


def _tensors(value: Any) -> Iterator[Key]:
    key = tensor_key(value)
    if key is not None:
        yield key
    elif isinstance(value, dict):
        for name in sorted(value):  # as Keras sorts them
            yield from _tensors(value[name])
    elif isinstance(value, list):
        for item in value:
            yield from _tensors(item)


def _keys(value: Any) -> tuple[Key, ...]:
    """Returns the tensors of a model's inputs or outputs: one, a list, or a dictionary (which Keras sorts by name)."""
    if isinstance(value, dict):
        return tuple(key for name in sorted(value) for key in _keys(value[name]))
    if len(value) == 3 and isinstance(value[0], str):
        return ((value[0], int(value[1]), int(value[2])),)
    return tuple(key for item in value for key in _keys(item))


def find_backbones(graph: Graph, steps: list[int] | None = None) -> list[dict[str, str]]:
    """Finds every Xception among the layers of one graph, without nested ones; maps our names to those in the file.

    Args:
        graph: where to look.
        steps: how many layers may still be visited, counted down over the graphs of a file; None is `[MAX_STEPS]`.
    """
    steps = [MAX_STEPS] if steps is None else steps
    readers: dict[Key, list[Node]] = {}
    for node in graph.nodes:
        if len(node.calls) == 1:
            for key in dict.fromkeys(node.calls[0].inputs):
                readers.setdefault(key, []).append(node)
    found = []
    for start in graph.nodes:
        names = {layers()[0].name: start.name}
        if len(start.calls) == 1 and _same(layers()[0], start) and _match(names, 1, readers, steps):
            found.append(names)
    return found


def _match(names: dict[str, str], index: int, readers: Mapping[Key, list[Node]], steps: list[int]) -> bool:
    """Matches the layers from number `index` on; tries each candidate where several fit."""
    if index == len(layers()):
        return True
    layer = layers()[index]
    inputs = sorted((names[name], 0, 0) for name in layer.inputs)
    for node in readers.get(inputs[0], ()):
        steps[0] -= 1
        if steps[0] < 0:
            raise ValueError("too many layers look like those of an Xception")
        given = node.calls[0].inputs
        if len(given) == len(inputs) and sorted(given) == inputs and _same(layer, node):
            names[layer.name] = node.name
            if _match(names, index + 1, readers, steps):
                return True
            del names[layer.name]
    return False


def _same(layer: Layer, node: Node) -> bool:
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
        if node.kind != "BatchNormalization":
            return False
        axis = c["axis"][0] if isinstance(c["axis"], list) else c["axis"]
        plain = axis in (-1, 3) and c["center"] and c["scale"] and not c.get("renorm")
        return bool(plain and abs(c["epsilon"] - BN_EPSILON) < 1e-9)
    if layer.kind == "relu":
        if node.kind == "ReLU":
            return c.get("max_value") is None and not c.get("negative_slope") and not c.get("threshold")
        return node.kind == "Relu" or (node.kind == "Activation" and _activation(c) == "relu")
    if layer.kind == "maxpool":
        window = list(c.get("pool_size", ())) == [layer.kernel] * 2 and list(c.get("strides", ())) == [layer.stride] * 2
        plain = c.get("padding") == layer.padding and c.get("data_format") in (None, "channels_last")
        return bool(node.kind == "MaxPooling2D" and window and plain)
    return node.kind == "Add"


def _activation(config: Mapping[str, Any]) -> str:
    """Returns the name of a layer's activation function, in whichever form it is written."""
    value = config.get("activation") or "linear"
    if not isinstance(value, dict):
        return str(value)
    if value.get("class_name") == "function":
        return str(value["config"])
    return _ACTIVATION_KINDS.get(str(value["class_name"]), str(value["class_name"]))


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor in a graph, and the calls of the nested models around it, innermost first."""

    graph: Graph
    key: Key
    outer: tuple[tuple[Graph, Call], ...] = ()

    def maker(self) -> tuple[Node, _Tensor] | None:
        """Returns the layer that computes the tensor, across nested models; None for the input of the whole model."""
        graph, key, outer = self.graph, self.key, self.outer
        for _ in range(MAX_STEPS):
            if key in graph.inputs:
                if not outer:
                    return None
                position = graph.inputs.index(key)
                (graph, call), *rest = outer
                key, outer = call.inputs[position], tuple(rest)
                continue
            node = graph.node(key[0])
            if node.graph is None:
                return node, _Tensor(graph, key, outer)
            outer = ((graph, node.calls[key[1]]), *outer)
            graph, key = node.graph, node.graph.outputs[key[2]]
        raise ValueError("nested models form a circle")

    def inputs(self, node: Node) -> list[_Tensor]:
        """Returns the tensors from which `node` computes this one."""
        return [_Tensor(self.graph, key, self.outer) for key in node.calls[self.key[1]].inputs]

    @property
    def in_backbone(self) -> bool:
        return self.key[0] in self.graph.backbone.values()


def has_classifier(graph: Graph) -> bool:
    """Returns whether there is a layer with a kernel between the Xception and the only output."""
    stack, seen = [_Tensor(graph, graph.outputs[0])], set()
    while stack:
        source = stack.pop().maker()
        if source is None or source[1].in_backbone or (id(source[1].graph), source[1].key) in seen:
            continue
        node, tensor = source
        seen.add((id(tensor.graph), tensor.key))
        if node.kind in _KERNELS:
            return True
        stack.extend(tensor.inputs(node))
    return False


def final_activation(graph: Graph) -> str:
    """Returns the name of the last activation function before the only output.

    `linear` where there is none after the last layer with a kernel, so that the output is logits; `mixed` where
    several are combined, or a later layer changes their values.
    """
    seen: dict[tuple[int, Key], str] = {}

    def last_activation(tensor: _Tensor) -> str:
        source = tensor.maker()
        if source is None or source[1].in_backbone:
            return "linear"
        node, tensor = source
        mark = (id(tensor.graph), tensor.key)
        if mark not in seen:
            seen[mark] = "mixed"  # for a circle, which only a malicious file has
            seen[mark] = of_layer(node, tensor)
        return seen[mark]

    def of_layer(node: Node, tensor: _Tensor) -> str:
        name = _ACTIVATION_KINDS.get(node.kind) or _activation(node.config)
        if name != "linear" or node.kind in _KERNELS:
            return name
        names = {last_activation(one) for one in tensor.inputs(node)}
        if len(names) != 1:
            return "mixed" if names else "linear"
        name = names.pop()
        return name if name == "linear" or node.kind in _PRESERVING else "mixed"

    try:
        return last_activation(_Tensor(graph, graph.outputs[0]))
    except RecursionError:
        return "mixed"


_PRESERVING = """
    Activation Dropout SpatialDropout2D AlphaDropout GaussianDropout GaussianNoise ActivityRegularization Identity
    Flatten Reshape Permute Average Maximum Minimum Concatenate Cast GetItem Squeeze ExpandDims Mean Max
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D
""".split()
"""Layers whose output is still probabilities if their input is."""
