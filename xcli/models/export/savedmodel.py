"""TensorFlow's SavedModel: the traced function itself, with its arithmetic in the precision."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xcli.core.tensorflow import load_tensorflow
from xcli.models.export.format import ExportFormat, Run
from xcli.models.export.traced import INPUT

if TYPE_CHECKING:
    from xcli.models.export.traced import TracedModel

SIGNATURE = "serving_default"


def write(model: TracedModel, folder: str, precision: str) -> None:
    """Writes the model, whose graph is in the precision already; raises OSError."""
    tf = load_tensorflow()
    module = tf.Module()
    module.call = model.function
    try:
        tf.saved_model.save(module, os.path.join(folder, SAVEDMODEL.file), signatures={SIGNATURE: model.function})
    except tf.errors.OpError as error:  # of its own way to write files
        raise OSError(None, error.message) from error


def load(path: str, output: str) -> Run:
    tf = load_tensorflow()
    with tf.device("/CPU:0"):
        model = tf.saved_model.load(path)
    call = model.signatures[SIGNATURE]

    def run(pixels: Any) -> Any:
        with tf.device("/CPU:0"):
            return call(**{INPUT: tf.constant(pixels)})[output].numpy()

    run.model = model  # type: ignore[attr-defined]  # which the signature does not keep alive
    return run


SAVEDMODEL = ExportFormat(
    name="savedmodel",
    file="saved_model",
    runtime="tensorflow",
    packages=(),
    extra=None,
    tolerances={"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01},
    write=write,
    load=load,
    usage="""\
import tensorflow as tf

model = tf.saved_model.load("{folder}/saved_model")
call = model.signatures["serving_default"]
{output} = call(pixels=tf.constant(pixels))["{output}"].numpy()
""",
    computes=True,
)
