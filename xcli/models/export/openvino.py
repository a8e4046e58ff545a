"""OpenVINO's IR: a file of the structure and one of the weights."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError
from xcli.core.openvino import PACKAGE, load_openvino, openvino_reason
from xcli.core.process import processor_count
from xcli.core.shortage import raise_shortage
from xcli.models.export.format import ExportFormat, Run
from xcli.models.export.traced import INPUT
from xcli.storage import disk
from xcli.storage.temporary import TemporaryDirectory

if TYPE_CHECKING:
    from xcli.models.export.traced import TracedModel


def write(model: TracedModel, folder: str, precision: str) -> None:
    """Writes the model; float16 rounds the weights, and leaves the arithmetic to the runtime.

    Raises:
        ModelError: OpenVINO does not know an operation of the model.
        OSError: it cannot be written.
    """
    openvino = load_openvino()
    scratch = TemporaryDirectory(model.name)  # OpenVINO reads graphs of TensorFlow from files
    try:
        path = os.path.join(scratch.path, "graph.pb")
        with disk.create(path) as file:
            file.write(model.graph())
        try:
            converted = openvino.Core().read_model(path)
        except RuntimeError as error:
            raise_shortage(error)
            raise ModelError(f"{model.name} cannot be exported as openvino: {openvino_reason(error)}") from error
        # OpenVINO takes everything for an output that nothing reads, such as what guards the classifier of a model.
        wanted = converted.output(model.function.outputs[0].name).node.input_value(0)
        converted = openvino.Model([wanted], converted.get_parameters(), "xception")
        converted.input(0).get_tensor().set_names({INPUT})
        converted.output(0).get_tensor().set_names({model.output})
        try:
            openvino.save_model(converted, os.path.join(folder, OPENVINO.file), compress_to_fp16=precision == "float16")
        except RuntimeError as error:
            raise OSError(None, openvino_reason(error)) from error
    finally:
        scratch.close()


def load(path: str, output: str) -> Run:
    openvino = load_openvino()
    # By default it computes in bfloat16 on processors that have it.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": processor_count()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(pixels: Any) -> Any:
        return compiled({INPUT: pixels})[output]

    return run


OPENVINO = ExportFormat(
    name="openvino",
    file="model.xml",
    runtime=PACKAGE,
    packages=(PACKAGE,),
    extra="openvino",
    tolerances={"float32": 1e-4, "float16": 0.01},
    write=write,
    load=load,
    usage="""\
import sys

sys.modules["openvino.tools.ovc"] = None  # its converter, which reports its use to the maker when it is imported
import openvino

# Without the setting, OpenVINO computes in bfloat16 on processors that have it: faster, and less exact.
model = openvino.Core().compile_model("{folder}/model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
{output} = model({{"pixels": pixels}})["{output}"]
""",
)
