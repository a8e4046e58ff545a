"""The network layer by layer, as `xception info` lists it: names, shapes, parameters and multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.models.architecture import FEATURE_WIDTH, IMAGE_SIZE, IMAGENET_CLASSES, layers, output_sizes
from xcli.models.hdf5_weights import TOP
from xcli.models.network import AVG_POOL

if TYPE_CHECKING:
    from xcli.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer: its name for `--layer`, its kind, and its costs for one image.

    Attributes:
        output_shape: of its output for one image, without the batch.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def describe_network(spec: ModelSpec) -> list[LayerInfo]:
    """Lists the layers of the plain network that a spec asks for, without building it."""
    size = spec.image_size or IMAGE_SIZE
    sizes = output_sizes(size)
    described = [
        LayerInfo(
            layer.name,
            layer.kind,
            (sizes[layer.name], sizes[layer.name], layer.filters),
            layer.parameters,
            layer.multiply_adds(sizes[layer.name], sizes[layer.name]),
        )
        for layer in layers()
    ]
    if spec.include_top:
        classes = spec.classes or IMAGENET_CLASSES
        weights = FEATURE_WIDTH * classes
        described.append(LayerInfo(AVG_POOL, "avg pool", (FEATURE_WIDTH,), 0, 0))
        described.append(LayerInfo(TOP, "dense", (classes,), weights + classes, weights))
    elif spec.pooling is not None:
        described.append(LayerInfo(f"{spec.pooling}_pool", f"{spec.pooling} pool", (FEATURE_WIDTH,), 0, 0))
    return described
