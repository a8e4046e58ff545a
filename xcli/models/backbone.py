"""Which network computed features: what a digest of the Xception below its pooling tells, whatever file holds it.

The official weights with and without their top, and a bundle whose head alone was trained, are different files with one
backbone: their features of the same pixels are the same.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from xcli.models.architecture import layers, weighted_layers

if TYPE_CHECKING:
    from xcli.models.hdf5_weights import Weights
    from xcli.models.keras_graph import Graph, Node

Scaling = tuple[float, float]
"""Factor and offset that turn pixels of [0, 255] into the input of the first convolution."""

SCALINGS: dict[str, Scaling] = {"xception": (1 / 127.5, -1.0), "unit": (1 / 255, 0.0), "raw": (1.0, 0.0)}
"""Of each input range."""

RESCALING = {"Rescaling", "Normalization", "TrueDivide", "Divide", "Subtract", "Multiply", "BatchNormalization"}
"""Kinds of layers before the Xception that may scale the pixels."""


def layers_before(graph: Graph) -> list[Node]:
    """Returns the layers between the input of a model and that of its Xception, also of nested models."""
    return _ancestors(graph, next(one for one in graph.walk() if one.backbone))


def scaling_before(graph: Graph, input_range: str) -> Scaling | None:
    """Returns how a model scales pixels in all; None if that is not one Rescaling layer with numbers, or no layer."""
    factor, offset = SCALINGS[input_range]
    if not any(node.kind in RESCALING for node in layers_before(graph)):
        return factor, offset
    configs = [node.config for one in graph.walk() for node in one.nodes if node.kind == "Rescaling"]
    only = configs[0] if len(configs) == 1 else {}
    inner, shift = only.get("scale"), only.get("offset", 0.0)
    if not isinstance(inner, (int, float)) or not isinstance(shift, (int, float)):
        return None
    return factor * inner, offset * inner + shift


def backbone_digest(weights: Weights, input_range: str = "xception", graph: Graph | None = None) -> str | None:
    """Returns the SHA-256 of the weights of an Xception and of how its pixels are scaled, in hexadecimal.

    Args:
        weights: arrays by `layer/variable`; those of a classifier do not count.
        input_range: how pixels are scaled before they enter the model.
        graph: of the model that holds the Xception; None is the Xception itself.

    Returns:
        None if layers of the model do other things to pixels than to scale them.
    """
    scaling = SCALINGS[input_range] if graph is None else scaling_before(graph, input_range)
    kinds = set[str]() if graph is None else {node.kind for node in layers_before(graph)}
    if scaling is None or kinds - RESCALING - {"InputLayer"}:
        return None
    factor, offset = scaling
    content = sha256(f"scaling {factor:.7g} {offset:.7g}".encode())  # 1 / 127.5 is another number in float32
    for layer in weighted_layers():
        for variable, _ in layer.weights:
            name = f"{layer.name}/{variable}"
            content.update(name.encode())
            content.update(weights[name].astype("<f4", order="C", copy=False).data.cast("B"))
    return content.hexdigest()


def _ancestors(graph: Graph, holder: Graph) -> list[Node]:
    if graph is holder:
        start = graph.node(graph.backbone[layers()[0].name])
        inner: list[Node] = []
    else:
        start = next(
            node for node in graph.nodes if node.graph is not None and any(one is holder for one in node.graph.walk())
        )
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
