"""Computes rows from references: for `xcli.inference.run`, and on each machine of a cluster.

references --> PixelPipeline --> engines, two batches a device --> Task --> rows
"""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from xcli.core.levels import DETAIL
from xcli.core.process import may_have_gpu
from xcli.core.tensorflow import Precision, apply_precision, choose_devices, choose_precision, kind_of
from xcli.core.version import __version__, environment, versions
from xcli.inference.batch_size import default_batch_size
from xcli.inference.decoder_server import start_early
from xcli.inference.engines.openvino import OpenVinoEngine, OpenVinoEngines, requested_device, require_int8
from xcli.inference.engines.tensorflow import Engine, Engines
from xcli.inference.finite import refuse_not_finite
from xcli.inference.options import RunOptions
from xcli.inference.ordered_map import OrderedMap
from xcli.inference.pipeline import PixelPipeline
from xcli.inference.profiler import COMPILING, Profile
from xcli.inference.quantization.calibration import Calibrator
from xcli.tables.provenance import CALIBRATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.core.records import ImageBatch, ImageRef
    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.options import Pinned
    from xcli.inference.quantization.calibration import Again
    from xcli.inference.quantization.quantization import Quantization
    from xcli.inference.tasks import Task
    from xcli.models.network import ForwardPass, LoadedModel
    from xcli.sources.manifests import ExtraColumn

log = logging.getLogger("xcli")


@dataclass(slots=True)
class Predictor:
    """Computes rows: call `choose`, then `start`, then `rows` any number of times.

    Attributes:
        model: the loaded model.
        task: what to compute.
        preprocessing: how images become pixels.
        options: how to use the machine.
        calibration: of int8, what the provenance says of it.
        devices, precision: set by `choose`. The devices are of one kind, and each gets an engine.
        batch_size: set by `start`.
    """

    model: LoadedModel
    task: Task
    preprocessing: Preprocessing
    options: RunOptions = field(default_factory=RunOptions)
    devices: tuple[str, ...] = ()
    precision: Precision = "float32"
    batch_size: int = 0
    calibration: Mapping[str, Any] | None = None
    _quantization: Quantization | None = None
    _forward: ForwardPass | None = None
    _engines: Engines | OpenVinoEngines | None = None
    _schema: Any = None

    def choose(self, again: Again | None = None, earlier: Mapping[str, Any] | None = None) -> int:
        """Chooses devices, precision, and what int8 computes with integers; returns the number of images in a batch.

        What can be refused without TensorFlow is refused before that is imported.

        Args:
            again: lists the images to calibrate int8 on; see `Calibrator.get`.
            earlier: what the provenance of the run that this one continues says of its calibration.

        Raises:
            UsageError: this machine cannot do what the options ask for, or the model has no such layer.
            ModelError: the model cannot do this task.
            UsageError, CheckError, ModelError, OutputError: int8 cannot be calibrated; see `Calibrator.get`.
        """
        self._forward = self.task.forward(self.model)
        device = requested_device(self.options)
        start_early()
        self.devices = choose_devices(device)
        self.precision = self._choose_precision()
        default = self.options.batch_size or default_batch_size(self.devices[0], self.model.size, self.precision)
        if self.precision == "int8":
            self._quantization = self._calibrator().get(again, earlier)
            self.calibration = self._quantization.record()
        return default

    def _choose_precision(self) -> Precision:
        if self.options.in_integers:
            require_int8()
            return "int8"
        return choose_precision(self.options.precision, self.devices[0])

    def _calibrator(self) -> Calibrator:
        return Calibrator(self.model, self.preprocessing, self.options)

    def foresee(self, pinned: Pinned) -> bool:
        """Chooses what `choose` and `start` would, if that can be told without TensorFlow; returns whether it can.

        Then `provenance` says what the run would be; nothing can be computed.

        Args:
            pinned: what an earlier run has chosen.

        Raises:
            UsageError: this machine cannot do what the options ask for.
        """
        request = requested_device(self.options)
        batch_size = self.options.batch_size or pinned.batch_size
        if batch_size is None or (request != "cpu" and (request != "auto" or may_have_gpu())):
            return False
        self.devices = choose_devices("cpu")
        self.precision = self._choose_precision()
        self.batch_size = batch_size
        if self.precision == "int8":
            self.calibration = self._calibrator().foreseen(pinned.calibration)
        return self.precision != "int8" or self.calibration is not None

    def start(
        self, batch_size: int, extra_columns: Sequence[ExtraColumn] = (), *, optimize_for_throughput: bool = False
    ) -> pa.Schema:
        """Traces the engines and returns the schema of the rows, which ends with the `extra_columns` of a manifest.

        Raises:
            UsageError: an option does not fit the model.
        """
        assert self._forward is not None, "choose() comes first"
        self.batch_size = batch_size
        self._engines = self._make_engines(self._forward, optimize_for_throughput)
        self._schema = self.task.schema(self._engines.output_shapes, extra_columns)
        shape = f"{batch_size} images of {self.model.size} x {self.model.size} pixels"
        where = ", ".join(self.devices) + (" with OpenVINO" if self.options.on_openvino else "")
        log.log(DETAIL, "batches of %s, in %s on %s", shape, self.precision, where)
        log.log(DETAIL, "settings: %s", json.dumps(self.preprocessing.as_dict() | self.task.settings()))
        return self._schema

    def _make_engines(self, forward: ForwardPass, optimize_for_throughput: bool) -> Engines | OpenVinoEngines:
        if self.options.on_openvino:
            return OpenVinoEngines(
                self.model,
                forward,
                precision=self.precision,
                batch_size=self.batch_size,
                quantization=self._quantization,
            )
        apply_precision(self.precision)
        self.model.network.prepare(self.precision)
        embedded = optimize_for_throughput and kind_of(self.devices[0]) == "CPU"
        return Engines(
            forward, size=self.model.size, batch_size=self.batch_size, devices=self.devices, embedded=embedded
        )

    def rows(
        self, refs: Iterator[ImageRef], profile: Profile | None = None, turn: AbstractContextManager[Any] | None = None
    ) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """Yields batches and their rows, in the order of the references, which are taken lazily in another thread.

        Args:
            refs: the images.
            profile: records how the time is spent.
            turn: entered while the engines are used; the first images are decoded before that.

        Raises:
            MachineError: the storage of many images does not answer, or the machine has no room for more processes.
        """
        assert self._engines is not None, "start() comes first"
        profile = profile or Profile()
        pipeline = PixelPipeline(
            refs,
            self.preprocessing,
            batch_size=self.batch_size,
            workers=self.options.workers,
            timeout=self.options.image_timeout,
            profile=profile,
        )
        functions = [partial(self._compute, engine, profile) for engine in self._engines.streams]
        batches = pipeline.arrays() if self.options.on_openvino else iter(pipeline)
        if turn is not None:
            batches = chain(list(islice(batches, 1)), batches)
        with turn or nullcontext():
            for batch, results in OrderedMap(batches, functions, pipeline.stop):
                with profile.stage("output", len(batch.refs)):
                    values = self.task.values(results)
                    batch = refuse_not_finite(batch, results, values, self.precision)
                    yield batch, self.task.rows(self._schema, batch, values)

    def _compute(
        self, engine: Engine | OpenVinoEngine, profile: Profile, batch: ImageBatch
    ) -> Sequence[NDArray[np.float32]]:
        import numpy as np

        if all(batch.errors):
            return [np.zeros((len(batch.refs), *shape), np.float32) for shape in engine.output_shapes]
        with profile.stage(COMPILING if engine.is_cold else "engine", len(batch.refs)):
            return engine(batch.pixels)

    def provenance(self, command: str) -> dict[str, Any]:
        """Returns everything that the rows depend on, and nothing else."""
        assert self.batch_size, "start() or foresee() comes first"
        engine = self.options.named_engine()
        calibration = {} if self.calibration is None else {CALIBRATION: dict(self.calibration)}
        found = {
            "tool": {"name": "xception-cli", "version": __version__, "command": command},
            "versions": versions(*self.preprocessing.packages, *engine.values()),
            "model": {
                "name": self.model.name,
                "sha256": self.model.digest,
                "input_range": self.model.input_range,
                "backbone": self.model.backbone,
            },
            "preprocessing": self.preprocessing.as_dict(),
            "precision": self.precision,
            "device": kind_of(self.devices[0]),
            "batch_size": self.batch_size,
            "options": self.task.settings(),
        }
        return found | engine | calibration | environment()
