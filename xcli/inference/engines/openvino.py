"""The OpenVINO engine, for processors: the forward pass of TensorFlow, converted once and kept in compiled form.

    LoadedModel --TensorFlow--> graph for one batch shape --OpenVINO--> compiled model <--> cache on disk

Where the cache has the model, TensorFlow is not imported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from io import BytesIO
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ModelError, UsageError
from xcli.core.openvino import PACKAGE, load_openvino, openvino_reason, require_openvino
from xcli.core.process import cpu_flags, processor_count
from xcli.core.shortage import raise_shortage
from xcli.core.text import one_line
from xcli.core.version import __version__, versions
from xcli.inference.batch_size import STREAMS
from xcli.inference.engines.compiled_cache import CompiledCache, CompiledModel, default_folder
from xcli.inference.engines.static_batch import check_pixels, compute_in_pieces
from xcli.models.folded import MAX_GRAPH_BYTES
from xcli.storage import disk
from xcli.storage.temporary import TemporaryDirectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.checked_json import Schema
    from xcli.core.tensorflow import Precision
    from xcli.inference.options import RunOptions
    from xcli.models.network import ForwardPass, LoadedModel

log = logging.getLogger("xcli")

_FORM = 1
"""Of the compiled models; to be raised when what is computed changes, so that older ones are not used."""

_FACTS: dict[str, Schema] = {"batch_size": int, "outputs": [str]}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def requested_device(options: RunOptions) -> str:
    """Returns the device that the options ask for, which is the CPU for OpenVINO.

    Raises:
        UsageError: OpenVINO is to compute and is not installed, or they ask for another device with it.
    """
    if not options.on_openvino:
        return options.device
    if options.device not in ("auto", "cpu"):
        raise UsageError(
            f"--engine openvino computes on the CPU; received --device {options.device}: use --engine tensorflow for "
            "GPUs"
        )
    require_openvino()
    return "cpu"


class OpenVinoEngine:
    """A compiled model, called with numpy arrays from one thread at a time; the batch shape never changes.

    Args:
        compiled: the model, as OpenVINO has imported it.
        outputs: names of its outputs.
        size: side of the input, in pixels.
        batch_size: images that it may be called with.
        computed: images that are computed at a time.
    """

    def __init__(self, compiled: Any, outputs: Sequence[str], size: int, batch_size: int, computed: int) -> None:
        self._request, self._outputs = compiled.create_infer_request(), outputs
        # A view of OpenVINO's own memory: it must own no object of Python, which its threads would have to release.
        self._input = self._request.get_input_tensor().data
        self.size, self.batch_size, self.computed_batch_size = size, batch_size, computed
        self.output_shapes = tuple(tuple(compiled.output(name).shape)[1:] for name in outputs)

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Runs uint8[b, size, size, 3], b at most `batch_size`; returns float32[b, ...] for each output."""
        check_pixels(pixels, self.size, self.batch_size)
        return compute_in_pieces(pixels, self.computed_batch_size, self._infer)

    def _infer(self, piece: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        try:
            self._input[...] = piece
            found = self._request.infer()
            return [found[name] for name in self._outputs]
        except RuntimeError as error:
            raise_shortage(error)
            raise ModelError(
                f"OpenVINO cannot run the model: {openvino_reason(error)}; use --engine tensorflow"
            ) from error


class OpenVinoEngines:
    """The engines of a run: one for each of the threads that compute at the same time, with one copy of the weights.

    Args:
        model: the loaded model.
        forward: what to compute of it.
        precision: `float32` or `bfloat16`.
        batch_size: images in a batch.
        cache: where compiled models are kept; None is the user's cache directory.

    Raises:
        UsageError: OpenVINO is not installed.
        ModelError: OpenVINO cannot take the model, or it is refused as with TensorFlow.
    """

    def __init__(
        self,
        model: LoadedModel,
        forward: ForwardPass,
        *,
        precision: Precision,
        batch_size: int,
        cache: CompiledCache | None = None,
    ) -> None:
        self.batch_size = batch_size
        self._model, self._forward, self._precision = model, forward, precision
        self._cache = cache or CompiledCache(default_folder())
        settings = _settings(precision, streams=STREAMS if batch_size > 1 else 1)
        compiled, facts = self._import(settings)
        self.streams = [
            OpenVinoEngine(compiled, facts["outputs"], model.size, batch_size, facts["batch_size"])
            for _ in range(STREAMS)
        ]
        self.output_shapes = self.streams[0].output_shapes

    @property
    def key(self) -> str:
        """The name of the compiled model: a digest of everything that it depends on."""
        description = {
            "form": _FORM,
            "program": __version__,
            "versions": versions(PACKAGE),
            "processor": [platform.machine(), sorted(cpu_flags())],
            "precision": self._precision,
            "batch_size": self.batch_size,
            **self._forward.description,
        }
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

    def _import(self, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        core = load_openvino().Core()
        for attempt in range(2):
            found = self._cache.get(self.key, _FACTS, self._build)
            try:
                compiled = core.import_model(BytesIO(found.content), "CPU", settings)
                return compiled, {"outputs": found.facts["outputs"], "batch_size": found.facts["batch_size"]}
            except (RuntimeError, LookupError) as error:
                raise_shortage(error)
                if attempt:
                    raise self._refusal(error) from error
                log.warning("OpenVINO does not read the compiled model that was kept; it is made again")
                self._cache.remove(self.key)
        raise AssertionError("the second attempt has returned or raised")

    def _build(self) -> CompiledModel:
        log.info("OpenVINO compiles the model for this processor; later runs find it in the cache")
        graph, outputs, batch_size = self._traced()
        openvino = load_openvino()
        core = openvino.Core()
        scratch = TemporaryDirectory(self._model.name)  # OpenVINO reads graphs of TensorFlow from files
        try:
            path = os.path.join(scratch.path, "graph.pb")
            with disk.create(path) as file:
                file.write(graph)
            del graph
            converted = core.read_model(path)
            unknown = [output for output in converted.outputs if output.partial_shape.is_dynamic]
            if unknown:
                raise RuntimeError(f"the size of {unknown[0].any_name!r} cannot be told before it runs")
            compiled = core.compile_model(converted, "CPU", _settings(self._precision, streams=1))
            return CompiledModel(compiled.export_model().getbuffer(), {"outputs": outputs, "batch_size": batch_size})
        except RuntimeError as error:
            raise_shortage(error)
            raise self._refusal(error) from error
        finally:
            scratch.close()

    def _traced(self) -> tuple[bytes, list[str], int]:
        """Returns the graph with its constants, the names of its outputs, and the images that it computes."""
        from xcli.inference.engines.tensorflow import Engine

        model = self._model
        if 4 * (model.parameters or 0) > MAX_GRAPH_BYTES:
            raise ModelError(
                f"{model.name} has {model.parameters:,} parameters, more than OpenVINO takes from TensorFlow; use "
                "--engine tensorflow"
            )
        model.network.prepare("float32")  # OpenVINO itself rounds to the precision
        engine = Engine(self._forward, size=model.size, batch_size=self.batch_size, embedded=True)
        function = engine.function
        graph: bytes = function.graph.as_graph_def().SerializeToString()
        return graph, [output.name for output in function.outputs], engine.computed_batch_size

    def _refusal(self, error: Exception) -> ModelError:
        return ModelError(
            f"OpenVINO cannot take {one_line(self._model.name)}: {openvino_reason(error)}; use --engine tensorflow"
        )


def _settings(precision: Precision, *, streams: int) -> dict[str, Any]:
    """Returns how OpenVINO is to compute; but for the precision, this changes no bit of the results."""
    limit = os.environ.get("TF_NUM_INTRAOP_THREADS", "")  # what limits TensorFlow limits OpenVINO too
    threads = int(limit) if limit.isascii() and limit.isdecimal() and int(limit) else processor_count()
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": min(streams, threads),
        "ENABLE_CPU_PINNING": False,  # decoding needs the same processors
    }
