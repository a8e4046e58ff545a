"""The run itself: references to rows, with every one accounted for.

    listing --> PixelPipeline --> Engine, two batches at a time --> table --> write
                                                                       \\--> Report

A `Table` (`xcli.tasks`) says what to compute and how its rows look. Where the rows go is the caller's business: a
file, a terminal, a list.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from xcli import __version__
from xcli.engine import Engine
from xcli.errors import UsageError
from xcli.images import Preprocessing
from xcli.members import is_archive_name
from xcli.memory import STREAMS, default_batch_size
from xcli.pipeline import DEFAULT_TIMEOUT, PixelPipeline, default_workers
from xcli.profiling import Profile
from xcli.records import ImageBatch, ImageRef, Report
from xcli.runtime import apply_precision, choose_device, choose_precision
from xcli.sources import LIST_ON_STDIN, OTHER_SHARD, Listing
from xcli.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.model import LoadedModel
    from xcli.resuming import Layout
    from xcli.runtime import Precision
    from xcli.tasks import Table

MAX_BATCH, MAX_WORKERS, MAX_TIMEOUT = 4096, 1024, 86_400

LONG_RUN = 5000
"""Images from which on an engine that starts three seconds later and runs 2 to 3 % faster is the better one."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run uses the machine.

    Attributes:
        batch_size: images in a batch; None chooses by device, free memory and number of images.
        precision: `auto`, `float32`, `tf32`, `bfloat16` or `float16`.
        device: `auto`, `cpu`, `gpu` or `gpu:I`.
        workers: decodes at a time; None is one a processor.
        image_timeout: seconds that one image may take to be read and decoded.
    """

    batch_size: int | None = None
    precision: str = "auto"
    device: str = "auto"
    workers: int | None = None
    image_timeout: float = DEFAULT_TIMEOUT

    def __post_init__(self) -> None:
        if self.batch_size is not None and not 1 <= self.batch_size <= MAX_BATCH:
            raise UsageError(f"the batch size is from 1 to {MAX_BATCH}; received {self.batch_size}")
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"the number of workers is from 1 to {MAX_WORKERS}; received {self.workers}")
        if not 0 < self.image_timeout <= MAX_TIMEOUT:
            raise UsageError(f"the image timeout is up to {MAX_TIMEOUT} s; received {self.image_timeout:g} s")


@dataclass(slots=True)
class Run:
    """One run, set up: `start` it, then take its `batches`, once.

    Attributes:
        listing: the sources.
        model: the loaded model.
        table: what to compute.
        preprocessing: how images become pixels.
        options: how to use the machine.
        report: what became of the images so far.
        device, precision: what was chosen; after `start`.
        published: whether the output has taken its name.
        profile: where the time goes.
        layout: rows that an earlier run has finished, and that this one passes over.
    """

    listing: Listing
    model: LoadedModel
    table: Table
    preprocessing: Preprocessing
    options: RunOptions = field(default_factory=RunOptions)
    report: Report = field(default_factory=Report)
    device: str = ""
    precision: Precision = "float32"
    published: bool = False
    profile: Profile = field(default_factory=Profile)
    layout: Layout | None = None
    _engine: Engine | None = None
    _ahead: list[ImageRef] = field(default_factory=list)
    _iterator: Iterator[ImageRef] | None = None
    _schema: Any = None

    def start(self, pinned_batch_size: int | None = None) -> pa.Schema:
        """Chooses device, precision and batch shape, traces the engine, and returns the schema of the rows.

        Args:
            pinned_batch_size: what an earlier run chose, where the options leave it open.

        Raises:
            UsageError: an option does not go with the device or the model.
            ModelError: the model cannot compute this table.
        """
        forward = self.table.forward(self.model)
        self.device = choose_device(self.options.device)
        self.precision = choose_precision(self.options.precision, self.device)
        size = self.options.batch_size or pinned_batch_size or self._batch_size()
        apply_precision(self.precision)
        self.model.network.prepare(self.precision)
        embedded = self.device.startswith("/CPU") and self._is_long()
        self._engine = Engine(forward, size=self.model.size, batch_size=size, device=self.device, embedded=embedded)
        self._schema = self.table.schema(self._engine.output_shapes, self.listing.extra_columns)
        return self._schema

    def _batch_size(self) -> int:
        """The default for the device, or the number of images in the whole run where that is smaller.

        A shard counts the images of its siblings, so that its rows are those of the run in one piece.
        """
        default = default_batch_size(self.device, self.model.size, self.precision)
        return default if self._has(default) else max(1, self._listed())

    def _is_long(self) -> bool:
        """Whether the run is known to be long enough for a later start of the engine to pay.

        Only where a look ahead costs next to nothing: no list that somebody types, no archive that must be unpacked.
        """
        options = self.listing.options
        patient = (
            LIST_ON_STDIN not in (*options.sources, options.manifest)
            and not options.archives
            and not any(is_archive_name(os.fsencode(source)) for source in options.sources)
        )
        return patient and self._has(LONG_RUN)

    def _listed(self) -> int:
        return len(self._ahead) + self.listing.skipped.get(OTHER_SHARD, 0)

    def _has(self, count: int) -> bool:
        """Whether the whole run, siblings of a shard included, has so many images; lists no more than that."""
        if self._iterator is None:
            self._iterator = iter(self.listing)
        while self._listed() < count:
            ref = next(self._iterator, None)
            if ref is None:
                return False
            self._ahead.append(ref)
        return True

    def batches(self) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """The batches and their rows, in the order of the sources; `start` comes first.

        Raises:
            XcliError: the listing fails, too many images hang, or rows and inputs do not agree in number.
        """
        engine = self._engine
        assert engine is not None, "start() comes first"
        workers = self.options.workers or default_workers()
        self.profile.workers = workers
        refs, layout = chain(self._ahead, self._iterator or iter(self.listing)), self.layout
        pipeline = PixelPipeline(
            refs if layout is None else (ref for ref in refs if not layout.keep(ref)),
            self.preprocessing,
            batch_size=engine.batch_size,
            workers=workers,
            timeout=self.options.image_timeout,
            profile=self.profile,
        )
        for batch, results in Streams(iter(pipeline), self._compute, STREAMS, pipeline.stop):
            with self.profile.stage("output", len(batch.refs)):
                yield batch, self.table.rows(self._schema, batch, results)
            self.report.count(batch.errors)
        self.profile.finish()
        self._close()

    def _compute(self, batch: ImageBatch) -> Sequence[NDArray[np.float32]]:
        import numpy as np

        assert self._engine is not None
        if all(batch.errors):
            return [np.zeros((len(batch.refs), *shape), np.float32) for shape in self._engine.output_shapes]
        with self.profile.stage("engine", len(batch.refs)):
            return self._engine(batch.pixels)

    def _close(self) -> None:
        if self.layout is not None:
            self.report.resume(self.layout.ok, self.layout.errors)
        self.report.listed = self.listing.listed
        self.report.skipped = dict(self.listing.skipped)
        self.report.check(self.report.rows)

    def provenance(self, command: str) -> dict[str, Any]:
        """What made the rows: everything that they depend on and nothing else (no times); after `start`."""
        assert self._engine is not None, "start() comes first"
        return {
            "tool": {"name": "xception-cli", "version": __version__, "command": command},
            "versions": versions(),
            "model": {
                "name": self.model.name,
                "sha256": self.model.digest,
                "input_range": self.model.input_range,
            },
            "preprocessing": self.preprocessing.as_dict(),
            "precision": self.precision,
            "device": self.device,
            "batch_size": self._engine.batch_size,
            "options": self.table.settings(),
        }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the results depend on, without importing them."""
    from importlib.metadata import version

    names = ("tensorflow", "keras", "numpy", "pillow", "pyarrow")
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def preprocessing_for(
    model: LoadedModel,
    *,
    resize: str | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    jpeg_shrink: bool = True,
    max_pixels: int | None = None,
) -> Preprocessing:
    """Preprocessing for a model: what the user said, else what goes with the model, else the defaults.

    Args:
        model: it decides the size, and what is None below.
        resize, interpolation, crop_pct, jpeg_shrink, max_pixels: see `Preprocessing`.

    Raises:
        UsageError: a value is out of range.
    """
    defaults = Preprocessing()
    return Preprocessing(
        size=model.size,
        resize=resize or model.resize,
        interpolation=interpolation or model.interpolation,
        crop_pct=crop_pct if crop_pct is not None else model.crop_pct or defaults.crop_pct,
        jpeg_shrink=jpeg_shrink,
        max_pixels=max_pixels if max_pixels is not None else defaults.max_pixels,
    )
