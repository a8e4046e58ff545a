"""The worker that runs on the machines of a Ray cluster: it computes blocks with an engine and writes their parts.

The rows are made by `xcli.inference.predictor`, as in a run on one machine. A part that is already there, for the same
images in the same state, is kept. So a block can be computed again at any time: after a worker, its machine or the
whole run was killed.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import PROBE, Block, BlockResult, archive_images
from xcli.core.checked_json import parse_object
from xcli.core.errors import CheckError, ClusterError, UsageError, XcliError
from xcli.core.records import ERROR_STATUS, STATUS, ImageBatch, ImageRef, RunCounts
from xcli.core.text import one_line
from xcli.outputs.damage import set_aside
from xcli.outputs.dataset import Dataset
from xcli.outputs.journal import encode, refuse_other_settings
from xcli.outputs.part_files import PartWriter, part_name, read_sidecar, remove_part, sidecar_name
from xcli.outputs.resume import FinishedRows, RowOrder, key_of
from xcli.storage.object_store.web_client import allow_private_hosts
from xcli.tables.provenance import DATASET_RUN, digest, fingerprint_of, provenance_metadata
from xcli.tables.schema import described

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from xcli.inference.predictor import Predictor
    from xcli.outputs.options import TableRequest
    from xcli.sources.manifests import ExtraColumn
    from xcli.storage.directories import Folder


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker needs to know; it is sent to all of them.

    Attributes:
        request: what to compute and to write.
        target: the output's directory: an absolute path, or a URL.
        directory: the current directory of the driver, if there are relative paths; else None.
        extra_columns: columns that are copied from a manifest.
        images: number of images, as far as they were counted; no batch needs to be larger.
        batch_size: that of an earlier run, if the options leave it open.
        optimize_for_throughput: whether the run is long enough for an engine that starts later and runs faster.
        continues: whether an earlier run has left parts.
        threads: processors of a worker.
        version: that of this package in the driver.
        returns_rows: whether rows go to the driver, and not into parts.
    """

    request: TableRequest
    target: str
    directory: str | None
    extra_columns: tuple[ExtraColumn, ...]
    images: int
    batch_size: int | None
    optimize_for_throughput: bool
    continues: bool
    threads: int
    version: str
    returns_rows: bool = False


MAX_ATTEMPTS = 10
"""Times that a block may be begun. If it is begun more often, the block itself is what kills the workers."""


class RunFingerprint:
    """The fingerprint that all workers of a run share, and how often each block was begun.

    Args:
        fingerprint: that of an earlier run; None leaves it to the first worker that is ready.
    """

    def __init__(self, fingerprint: dict[str, Any] | None) -> None:
        self._fingerprint = fingerprint
        self._begun: dict[int, int] = {}

    def offer(self, fingerprint: dict[str, Any] | None) -> dict[str, Any] | None:
        """Returns the run's fingerprint; the first one offered becomes it."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint
        return self._fingerprint

    def begin(self, number: int) -> int:
        """Counts that a block is begun; returns how often it was."""
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]


class Worker:
    """Computes blocks; a Ray actor calls it from several threads.

    One block at a time uses the engine; meanwhile the next one is decoded, and the part of the last one is written.

    Args:
        job: what to do.
        run_fingerprint: that of the run, or a proxy for it in this process.
    """

    def __init__(self, job: Job, run_fingerprint: RunFingerprint) -> None:
        self._job, self._run_fingerprint = job, run_fingerprint
        self._predictor: Predictor | None = None
        self._fingerprint: dict[str, Any] = {}
        self._schema: Any = None
        self._notes: tuple[str, ...] = ()
        self._folder: Folder | None = None
        self._setting_up, self._turn = threading.Lock(), threading.Lock()

    def compute(self, block: Block) -> BlockResult:
        """Computes a block; an error that ends the run is in the result."""
        try:
            with self._setting_up:
                self._enter()
            return self._work(block)
        except XcliError as error:
            return BlockResult(block.number, failure=error.with_traceback(None))

    def _enter(self) -> None:
        """Makes this process like the driver: the same version, the same current directory."""
        from xcli.core.version import __version__
        from xcli.storage.directories import open_folder

        job = self._job
        if self._folder is not None:
            return
        allow_private_hosts(job.request.sources.allow_private_hosts)
        # Otherwise TensorFlow would use all processors of the machine, also those of other workers.
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(job.threads)
        where = socket.gethostname()
        if __version__ != job.version:
            raise UsageError(
                f"{where} has version {__version__} of xception-cli, the driver {job.version}; install one"
            )
        if job.directory is not None:
            try:
                os.chdir(job.directory)
            except OSError as error:
                raise UsageError(
                    f"{where} cannot enter {one_line(job.directory)} ({error.strerror}), where the run was started: "
                    "workers need storage that all machines share, or absolute paths"
                ) from None
        self._folder = open_folder(job.target)

    def _work(self, block: Block) -> BlockResult:
        found = None if block.number == PROBE or self._job.returns_rows else self._finished_part(block)
        if found is not None:
            return found
        with self._setting_up:
            self._ready()
        if block.number == PROBE:
            start = self._fingerprint["provenance"], self._schema
            return BlockResult(PROBE, fingerprint=digest(self._fingerprint), notes=self._notes, start=start)
        attempt = self._run_fingerprint.begin(block.number)
        if attempt > MAX_ATTEMPTS:
            ends = " to ".join(one_line(ref.path) for ref in (block.refs[0], block.refs[-1])) if block.refs else "none"
            raise ClusterError(
                f"the same images killed a worker {MAX_ATTEMPTS} times ({ends}); find out which image it is, leave it "
                "out with --exclude, and run the same command again"
            )
        if self._job.returns_rows:
            return BlockResult(block.number, notes=self._notes, batches=tuple(self._batches(block)))
        if attempt > 1 or self._job.continues:
            # A sidecar appears before its part. Beside an older part of the same number it would describe wrong rows.
            assert self._folder is not None
            remove_part(self._folder, block.number)
        return self._compute(block)

    def _finished_part(self, block: Block) -> BlockResult | None:
        """Returns the result of a block whose part is there and still valid, or None."""
        assert self._folder is not None
        shared = self._run_fingerprint.offer(None)
        try:
            found = None if shared is None else read_sidecar(self._folder, block.number)
        except CheckError as error:
            names = sidecar_name(block.number), part_name(block.number)
            self._notes = (*self._notes, set_aside(self._folder, names, Dataset.prefix, error))
            return None
        if shared is None or found is None:
            return None
        sidecar, note, part = found
        try:
            skipped = parse_object(note.get("skipped", ""), {str: int})
        except ValueError:
            return None
        if (note.get("block"), note.get("run")) != (block.digest, digest(shared)):
            return None
        kept = FinishedRows([sidecar], self._job.request.save.retry_errors)
        if block.archive is not None:
            failed = self._job.request.save.retry_errors and ERROR_STATUS in sidecar.column(STATUS).to_pylist()
            if failed or note.get("archive") != _state_of(block.refs[0]):
                return None
        elif len(kept) != len(block.refs) or next(RowOrder(kept).rest(iter(block.refs)), None) is not None:
            return None
        errors = Counter(filter(None, map(kept.reason, range(len(kept)))))
        return BlockResult(
            block.number,
            ok=len(kept) - errors.total(),
            errors=dict(errors),
            skipped=skipped,
            resumed=True,
            fingerprint=digest(shared),
            part=part,
        )

    def _ready(self) -> None:
        """Loads the model and traces the engine for the first block that needs it."""
        if self._predictor is not None:
            return
        from xcli.core.process import may_have_gpu, reuse_freed_memory
        from xcli.inference.predictor import Predictor
        from xcli.models.loader import load_model, preprocessing_for

        job, request = self._job, self._job.request
        reuse_freed_memory(one_pool=not may_have_gpu())
        model = load_model(request.spec)
        # One decoder for each processor of this worker.
        options = replace(request.run, workers=request.run.workers or job.threads)
        preprocessing = preprocessing_for(model, **request.pixels)
        predictor = Predictor(model, request.make_task(model), preprocessing, options)
        default = predictor.choose()
        shared = self._run_fingerprint.offer(None)
        size = options.batch_size or job.batch_size or max(1, min(default, job.images))
        if shared is not None and options.batch_size is None:
            size = shared["provenance"]["batch_size"]
        schema = self._start(predictor, size)
        fingerprint = self._fingerprint_of(predictor, schema)
        shared = self._run_fingerprint.offer(fingerprint)
        assert shared is not None
        if shared["provenance"]["batch_size"] != size and options.batch_size is None:
            # Another worker was first, and chose by the memory of its machine.
            schema = self._start(predictor, shared["provenance"]["batch_size"])
            fingerprint = self._fingerprint_of(predictor, schema)
        self._check(shared, fingerprint)
        self._predictor, self._fingerprint, self._schema = predictor, fingerprint, schema
        self._notes = (*self._notes, *model.notes)

    def _start(self, predictor: Predictor, batch_size: int) -> pa.Schema:
        job = self._job
        return predictor.start(batch_size, job.extra_columns, optimize_for_throughput=job.optimize_for_throughput)

    def _fingerprint_of(self, predictor: Predictor, schema: pa.Schema) -> dict[str, Any]:
        request = self._job.request
        provenance = predictor.provenance(request.output.command)
        columns, output = described(schema), request.output
        fingerprint = fingerprint_of(provenance, request.sources, columns, output.format, **output.runner)
        return dict(json.loads(json.dumps(fingerprint)))

    def _check(self, shared: dict[str, Any], fingerprint: dict[str, Any]) -> None:
        this = f"the worker on {socket.gethostname()}"
        refuse_other_settings(self._job.target, shared, fingerprint, "an unfinished run", this)

    def _batches(self, block: Block) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        assert self._predictor is not None
        for batch, rows in self._predictor.rows(iter(block.refs), turn=self._turn):
            yield replace(batch, pixels=batch.pixels[:0].copy()), rows

    def _compute(self, block: Block) -> BlockResult:
        assert self._predictor is not None
        assert self._folder is not None
        text = encode(self._fingerprint)
        if self._folder.read(DATASET_RUN) != text:
            # All workers write the same; any other content is that of an earlier run.
            self._folder.write(DATASET_RUN, text)
        state = "" if block.archive is None else _state_of(block.refs[0])
        skipped = Counter[str]()
        sources = self._job.request.sources
        refs = iter(block.refs) if block.archive is None else archive_images(block.refs[0], sources, skipped)
        note = {"run": digest(self._fingerprint), "block": block.digest, "archive": state}
        metadata = provenance_metadata(self._fingerprint["provenance"])
        writer = PartWriter(self._folder, block.number, metadata, keep=False)
        report = RunCounts()
        try:
            for batch, rows in self._predictor.rows(refs, turn=self._turn):
                writer.add(rows, [key_of(ref) for ref in batch.refs], batch.states)
                report.count(batch.errors, batch.warnings)
            part = writer.finish(self._schema, note | {"skipped": json.dumps(skipped)})
        except BaseException:
            writer.abandon()
            raise
        return BlockResult(
            block.number,
            report.ok,
            report.errors,
            dict(skipped),
            fingerprint=digest(self._fingerprint),
            notes=self._notes,
            warnings=dict(report.warnings),
            part=part,
        )


def _state_of(ref: ImageRef) -> str:
    """Returns the state of an archive's file as text."""
    state = ref.location.state()
    return "" if state is None else f"{state.size} {state.mtime}"
