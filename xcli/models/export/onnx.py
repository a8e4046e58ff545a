"""ONNX: one file, for ONNX Runtime and many other programs."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError
from xcli.core.levels import DETAIL
from xcli.core.process import processor_count
from xcli.core.tensorflow import load_tensorflow
from xcli.models.export.format import ExportFormat, Run
from xcli.models.export.traced import INPUT
from xcli.storage import disk

if TYPE_CHECKING:
    from xcli.models.export.traced import TracedModel

OPSET = 17
"""The version of ONNX' operations: old enough for runtimes since 2022."""

_SMALL = 64
"""Numbers of an array that stays in float32: limits and factors, which float16 may not hold."""


def write(model: TracedModel, folder: str, precision: str) -> None:
    """Writes the model; float16 rounds the weights, and leaves the arithmetic in float32.

    Raises:
        ModelError: weights are too large for float16.
        OSError: it cannot be written.
    """
    load_tensorflow()
    # Otherwise it keeps a copy of all weights before each of its two dozen steps, to go back if one fails.
    os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"
    import onnx
    from tf2onnx.convert import from_graph_def

    logging.addLevelName(DETAIL, "DETAIL")  # the import has given the level another name
    function = model.function
    source, result = function.inputs[0].name, function.outputs[0].name
    converted, _ = from_graph_def(
        function.graph.as_graph_def(),
        name="xception",
        input_names=[source],
        output_names=[result],
        opset=OPSET,
        tensors_to_rename={source: INPUT, result: model.output},
    )
    for value in (converted.graph.input[0], converted.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    if precision == "float16":
        _round_weights(converted, model.name)
    onnx.checker.check_model(converted)
    with disk.create(os.path.join(folder, ONNX.file)) as file:
        file.write(converted.SerializeToString())


def _round_weights(converted: Any, name: str) -> None:
    """Stores arrays of float32 as float16, each with a cast back, which runtimes compute once when they load it."""
    import numpy as np
    import onnx

    graph = converted.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        with np.errstate(over="ignore"):
            rounded = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(rounded).all():
            raise ModelError(f"the weights of {name} are too large for --precision float16; use float32")
        kept, stored = tensor.name, f"{tensor.name}/float16"
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [kept], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def load(path: str, output: str) -> Run:
    # Otherwise it records its use, and sends that to its maker.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processor_count()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(pixels: Any) -> Any:
        return session.run([output], {INPUT: pixels})[0]

    return run


ONNX = ExportFormat(
    name="onnx",
    file="model.onnx",
    runtime="onnxruntime",
    packages=("onnx", "onnxruntime", "tf2onnx"),
    extra="onnx",
    tolerances={"float32": 1e-4, "float16": 0.01},
    write=write,
    load=load,
    usage="""\
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: ONNX Runtime reports its use to the maker
import onnxruntime

model = onnxruntime.InferenceSession("{folder}/model.onnx", providers=["CPUExecutionProvider"])
({output},) = model.run(["{output}"], {{"pixels": pixels}})
""",
)
