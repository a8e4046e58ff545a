"""The forward pass of a model as one graph with its weights, for batches of any size: what every format is made of."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import MachineError, ModelError, XcliError
from xcli.core.shortage import has_memory, raise_shortage
from xcli.core.tensorflow import Precision, load_tensorflow
from xcli.core.text import one_line, short_text
from xcli.models.folded import MAX_GRAPH_BYTES, embedding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.models.network import ForwardPass, LoadedModel

INPUT = "pixels"
"""The name of the input of every exported model."""

_COPIES = 16
"""Of the weights: for so many a converter must find room, measured."""

_MEMORY = "there is not enough memory to convert the model: end other programs, or raise the limit (ulimit -v)"
_NO_ROOM = re.compile(r"Failed to allocate memory|Failed to serialize proto")
_FAULT = re.compile(r"\d: error: (.+)")  # of the converter of LiteRT, behind a place in its own graph
_LOGGERS = ("tensorflow", "absl", "tf2onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class TracedModel:
    """A pass from uint8[b, size, size, 3] to one float32[b, ...], for any b.

    Attributes:
        function: the traced function; its only argument is named `INPUT`, and its result is {`output`: tensor}.
        name: of the model, for messages.
        output: name of the output.
    """

    function: Any
    name: str
    output: str

    def graph(self) -> bytes:
        """Returns the graph with its weights, as TensorFlow writes it."""
        written: bytes = self.function.graph.as_graph_def().SerializeToString()
        return written


def trace(model: LoadedModel, forward: ForwardPass, output: str, precision: Precision) -> TracedModel:
    """Traces what `forward` computes of a model.

    Raises:
        MachineError: there is not enough memory for converters.
        ModelError: its weights are too large for the precision, or too many for a graph of TensorFlow; or it keeps a
            state, or cannot be traced for batches of any size.
    """
    name = one_line(model.name)
    if 4 * (model.parameters or 0) > MAX_GRAPH_BYTES:
        raise ModelError(f"{name} has {model.parameters:,} parameters, more than TensorFlow hands over in one graph")
    # Where memory runs out, some converters end the process.
    room = _COPIES * 4 * (model.parameters or 0)
    if room and not has_memory(room):
        raise MachineError(_MEMORY)
    tf = load_tensorflow()
    model.network.prepare(precision)

    def call(pixels: Any) -> dict[str, Any]:
        return {output: tf.identity(forward(pixels)[0], name=output)}

    spec = tf.TensorSpec((None, model.size, model.size, 3), tf.uint8, name=INPUT)
    token = embedding.set(True)
    try:
        # Without a device: an exported model runs on any.
        function = tf.function(call, input_signature=[spec], autograph=False).get_concrete_function()
    finally:
        embedding.reset(token)
    if function.captured_inputs:
        raise ModelError(f"{name} has layers that keep a state of their own, which cannot be exported")
    return TracedModel(function, name, output)


@contextmanager
def converting(name: str, to: str, runtime: str = "") -> Iterator[None]:
    """A context in which converters say nothing, and whatever they raise for a model becomes a ModelError.

    Args:
        name: of the model.
        to: the format.
        runtime: what runs the converted model in this context, if that is done.
    """
    loggers = [logging.getLogger(one) for one in _LOGGERS]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    except (XcliError, OSError):
        raise
    except Exception as error:
        raise_shortage(error)
        if _NO_ROOM.search(str(error)):
            raise MachineError(_MEMORY) from error
        reason = _reason(error)
        if runtime:
            reason = f"{runtime} does not run what it was converted to ({reason}); use another --format"
        raise ModelError(f"{name} cannot be exported as {to}: {reason}") from error
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


def _reason(error: Exception) -> str:
    """Returns what a converter says, without the traces that it puts before or behind."""
    if found := _FAULT.search(str(error)):
        return short_text(found[1])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return short_text(lines[0] if lines else type(error).__name__)
