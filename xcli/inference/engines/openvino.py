"""The OpenVINO engine, for processors: the forward pass of TensorFlow, converted once and kept in compiled form.

    LoadedModel --TensorFlow--> graph for one batch shape --OpenVINO--> compiled model <--> cache on disk

Where the cache has the model, TensorFlow is not imported.
"""

from __future__ import annotations

import logging
import platform
from io import BytesIO
from typing import TYPE_CHECKING, Any

from xcli.core.digests import json_digest
from xcli.core.errors import ModelError, UsageError
from xcli.core.openvino import PACKAGE, load_openvino, openvino_reason, require_openvino
from xcli.core.process import cpu_flags, has_int8
from xcli.core.shortage import raise_shortage
from xcli.core.version import __version__, versions
from xcli.inference.batch_size import STREAMS
from xcli.inference.engines.compiled_cache import CompiledCache, CompiledModel, default_folder
from xcli.inference.engines.openvino_graph import convert, refusal, refused, settings
from xcli.inference.engines.static_batch import check_pixels, compute_in_pieces
from xcli.inference.quantization.graph import quantize_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xcli.core.checked_json import Schema
    from xcli.core.tensorflow import Precision
    from xcli.inference.options import RunOptions
    from xcli.inference.quantization.quantization import Quantization
    from xcli.models.network import ForwardPass, LoadedModel

log = logging.getLogger("xcli")

_FORM = 1
"""Of the compiled models; to be raised when what is computed changes, so that older ones are not used."""

_FACTS: dict[str, Schema] = {"batch_size": int, "outputs": [str]}


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


def require_int8() -> None:
    """Raises UsageError if this processor has no instructions for int8."""
    if not has_int8():
        raise UsageError(
            "--precision int8: this processor has no instructions for it (AVX512-VNNI, AVX-VNNI or AMX), so it would "
            "be no faster; use bfloat16 or float32"
        )


class OpenVinoEngine:
    """A compiled model, called with numpy arrays from one thread at a time; the batch shape never changes.

    Args:
        compiled: the model, as OpenVINO has imported it.
        outputs: names of the outputs that are wanted, or their numbers.
        size: side of the input, in pixels.
        batch_size: images that it may be called with.
        computed: images that are computed at a time.
    """

    is_cold = False
    """It is compiled before the first batch."""

    def __init__(self, compiled: Any, outputs: Sequence[str | int], size: int, batch_size: int, computed: int) -> None:
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
        precision: `float32`, `bfloat16` or `int8`.
        batch_size: images in a batch.
        cache: where compiled models are kept; None is the user's cache directory.
        quantization: of `int8`.

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
        quantization: Quantization | None = None,
    ) -> None:
        self.batch_size, self._quantization = batch_size, quantization
        self._model, self._forward, self._precision = model, forward, precision
        self._cache = cache or CompiledCache(default_folder())
        # Integers are 4 % faster with all processors on one batch than with a part of them on each of two (two cores).
        alone = batch_size == 1 or precision == "int8"
        compiled, facts = self._import(settings(precision, streams=1 if alone else STREAMS))
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
        if self._quantization is not None:
            description["quantization"] = self._quantization.digest
        return json_digest(description)

    def _import(self, how: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        core = load_openvino().Core()
        for attempt in range(2):
            found = self._cache.get(self.key, _FACTS, self._build)
            try:
                compiled = core.import_model(BytesIO(found.content), "CPU", how)
                return compiled, {"outputs": found.facts["outputs"], "batch_size": found.facts["batch_size"]}
            except (RuntimeError, LookupError) as error:
                raise_shortage(error)
                if attempt:
                    raise refusal(self._model, error) from error
                log.warning("OpenVINO does not read the compiled model that was kept; it is made again")
                self._cache.remove(self.key)
        raise AssertionError("the second attempt has returned or raised")

    def _build(self) -> CompiledModel:
        log.info("OpenVINO compiles the model for this processor; later runs find it in the cache")
        converted = convert(self._model, self._forward, self.batch_size)
        with refused(self._model):
            if self._quantization is not None:
                quantize_graph(converted.graph, self._quantization.layers)
            core = load_openvino().Core()
            compiled = core.compile_model(converted.graph, "CPU", settings(self._precision, streams=1))
            facts = {"outputs": converted.outputs, "batch_size": converted.batch_size}
            return CompiledModel(compiled.export_model().getbuffer(), facts)
