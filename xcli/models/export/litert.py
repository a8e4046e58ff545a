"""LiteRT, once TensorFlow Lite: one file, for telephones and small machines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xcli.core.process import processor_count
from xcli.core.tensorflow import load_tensorflow
from xcli.models.export.format import ExportFormat, Run
from xcli.models.export.savedmodel import SIGNATURE
from xcli.models.export.traced import INPUT
from xcli.storage import disk

if TYPE_CHECKING:
    from xcli.models.export.traced import TracedModel


def write(model: TracedModel, folder: str, precision: str) -> None:
    """Writes the model; float16 rounds the weights, and leaves the arithmetic to the runtime. Raises OSError."""
    tf = load_tensorflow()
    module = tf.Module()
    module.call = model.function
    # With the module, the file gets a signature, with the names of input and output.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.function], module)
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    try:
        converted = converter.convert()
    except tf.errors.OpError as error:  # of the temporary file that it makes
        raise OSError(None, error.message) from error
    with disk.create(os.path.join(folder, LITERT.file)) as file:
        file.write(converted)


def load(path: str, output: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path, num_threads=processor_count()).get_signature_runner(SIGNATURE)

    def run(pixels: Any) -> Any:
        return runner(**{INPUT: pixels})[output]

    return run


LITERT = ExportFormat(
    name="litert",
    file="model.tflite",
    runtime="ai-edge-litert",
    packages=("ai_edge_litert",),
    extra="litert",
    tolerances={"float32": 1e-4, "float16": 0.01},
    write=write,
    load=load,
    usage="""\
from ai_edge_litert.interpreter import Interpreter

model = Interpreter("{folder}/model.tflite", num_threads=2).get_signature_runner()
{output} = model(pixels=pixels)["{output}"]
""",
)
