"""Small graphs of OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xcli.core.openvino import load_openvino
from xcli.inference.quantization.observer import Observer

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH, CHANNELS, WIDE, OUTPUTS, SIDE = 2, 128, 256, 24, 12


def graph(
    *, bias: str = "vector", stride: int = 1, side: int = 1, channels: int = CHANNELS, times: int = 1, padding: int = 0
) -> Any:
    """Makes convolutions float32[2, channels, 12, 12] -> [2, 24, ...], side by side, with the same weights."""
    ops = load_openvino().opset13
    random = np.random.default_rng(4)
    x = ops.parameter([BATCH, channels, SIDE, SIDE], np.float32)
    weights = random.normal(0, 1, (OUTPUTS, channels, side, side)).astype(np.float32)
    results = []
    for _ in range(times):
        y = ops.convolution(x, ops.constant(weights.copy()), [stride] * 2, [padding] * 2, [padding] * 2, [1, 1])
        shape = {"vector": (1, OUTPUTS, 1, 1), "scalar": (), "none": None}[bias]
        if shape is not None:
            y = ops.add(y, ops.constant(random.normal(0, 1, shape).astype(np.float32)))
        results.append(ops.relu(y))
    return load_openvino().Model(results, [x], "graph")


def made_inputs(channels: int = CHANNELS, seed: int = 0) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    values = random.normal(0.5, 1, (BATCH, channels, SIDE, SIDE)) * np.geomspace(0.1, 10, channels)[:, None, None]
    return values.astype(np.float32)


def run(model: Any, values: NDArray[Any]) -> list[NDArray[Any]]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = load_openvino().Core().compile_model(model, "CPU", settings)
    found = compiled({0: values})
    return [found[index].copy() for index in range(len(compiled.outputs))]


def observed(model: Any, values: NDArray[Any]) -> Observer:
    observer = Observer(model)
    observer.add(run(model, values))
    return observer


def chain(*, relu: bool = True, depthwise: bool = True, integers_before: bool = True, shared: bool = False) -> Any:
    """Makes float32[2, 128, 12, 12] -> [2, 24, 12, 12]: a convolution, 256 channels, and a separable convolution.

    Args:
        relu: before the separable convolution.
        depthwise: without it, the other two convolutions are left.
        integers_before: the first convolution can be one of integers: it has no padding.
        shared: what comes into the last convolution is an output, too.
    """
    ops = load_openvino().opset13
    random = np.random.default_rng(4)
    x = ops.parameter([BATCH, CHANNELS, SIDE, SIDE], np.float32)
    side, pad = (1, 0) if integers_before else (3, 1)
    weights = random.normal(0, 1 / side, (WIDE, CHANNELS, side, side)).astype(np.float32)
    y = ops.convolution(x, ops.constant(weights), [1, 1], [pad, pad], [pad, pad], [1, 1])
    y = ops.add(y, ops.constant(random.normal(0, 1, (1, WIDE, 1, 1)).astype(np.float32)))
    y = ops.relu(y) if relu else y
    if depthwise:
        kernels = random.normal(0, 1, (WIDE, 1, 1, 3, 3)).astype(np.float32)
        y = ops.group_convolution(y, ops.constant(kernels), [1, 1], [1, 1], [1, 1], [1, 1])
    last = ops.constant(random.normal(0, 1, (OUTPUTS, WIDE, 1, 1)).astype(np.float32))
    results = [ops.relu(ops.convolution(y, last, [1, 1], [0, 0], [0, 0], [1, 1]))]
    return load_openvino().Model([*results, y] if shared else results, [x], "chain")
