"""From a forward pass of TensorFlow to a graph of OpenVINO, and how OpenVINO computes it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import ModelError
from xcli.core.openvino import load_openvino, openvino_reason
from xcli.core.process import has_bfloat16, processor_count
from xcli.core.shortage import raise_shortage
from xcli.core.text import one_line
from xcli.models.folded import MAX_GRAPH_BYTES
from xcli.storage import disk
from xcli.storage.temporary import TemporaryDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.core.tensorflow import Precision
    from xcli.models.network import ForwardPass, LoadedModel

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class ConvertedGraph(NamedTuple):
    """A graph of OpenVINO, not compiled yet.

    Attributes:
        graph: takes uint8[batch_size, size, size, 3].
        outputs: the names of its outputs, in the order of the forward pass.
        batch_size: images that it computes at a time.
    """

    graph: Any
    outputs: list[str]
    batch_size: int


def convert(model: LoadedModel, forward: ForwardPass, batch_size: int) -> ConvertedGraph:
    """Traces a forward pass in float32 with TensorFlow, and converts it.

    Raises:
        ModelError: OpenVINO cannot take it, or it is refused as with TensorFlow.
    """
    graph, outputs, computed = _traced(model, forward, batch_size)
    scratch = TemporaryDirectory(model.name)  # OpenVINO reads graphs of TensorFlow from files
    try:
        path = os.path.join(scratch.path, "graph.pb")
        with disk.create(path) as file:
            file.write(graph)
        del graph
        with refused(model):
            converted = load_openvino().Core().read_model(path)
            unknown = [output for output in converted.outputs if output.partial_shape.is_dynamic]
            if unknown:
                raise RuntimeError(f"the size of {unknown[0].any_name!r} cannot be told before it runs")
        return ConvertedGraph(converted, outputs, computed)
    finally:
        scratch.close()


def _traced(model: LoadedModel, forward: ForwardPass, batch_size: int) -> tuple[bytes, list[str], int]:
    """Returns the graph with its constants, the names of its outputs, and the images that it computes."""
    from xcli.inference.engines.tensorflow import Engine

    if 4 * (model.parameters or 0) > MAX_GRAPH_BYTES:
        raise ModelError(
            f"{model.name} has {model.parameters:,} parameters, more than OpenVINO takes from TensorFlow; use "
            "--engine tensorflow"
        )
    model.network.prepare("float32")  # OpenVINO itself rounds to the precision
    engine = Engine(forward, size=model.size, batch_size=batch_size, embedded=True)
    function = engine.function
    graph: bytes = function.graph.as_graph_def().SerializeToString()
    return graph, [output.name for output in function.outputs], engine.computed_batch_size


@contextmanager
def refused(model: LoadedModel) -> Iterator[None]:
    """A context in which an error of OpenVINO is a ModelError that names the model."""
    try:
        yield
    except RuntimeError as error:
        raise_shortage(error)
        raise refusal(model, error) from error


def refusal(model: LoadedModel, error: Exception) -> ModelError:
    """Returns what says that OpenVINO cannot take a model."""
    return ModelError(f"OpenVINO cannot take {one_line(model.name)}: {openvino_reason(error)}; use --engine tensorflow")


def float_precision(precision: Precision) -> Precision:
    """Returns the precision of what is computed in floating point: for int8, the fastest that the processor has."""
    if precision == "int8":
        return "bfloat16" if has_bfloat16() else "float32"
    return precision


def settings(precision: Precision, *, streams: int) -> dict[str, Any]:
    """Returns how OpenVINO is to compute; but for the precision, this changes no bit of the results."""
    limit = os.environ.get("TF_NUM_INTRAOP_THREADS", "")  # what limits TensorFlow limits OpenVINO too
    threads = int(limit) if limit.isascii() and limit.isdecimal() and int(limit) else processor_count()
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[float_precision(precision)],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": min(streams, threads),
        "ENABLE_CPU_PINNING": False,  # decoding needs the same processors
    }
