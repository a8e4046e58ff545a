"""The driver of a run over a cluster: it lists the sources, and checks at the end that every image has its row.

    listing --> blocks --> workers (`xcli.cluster.worker`), each with its engine --> part-00000.parquet, ...
                              \\--> result of each block --> RunCounts, _meta.json, _SUCCESS

The directory is the same as that of a run on one machine (`xcli.outputs.dataset`). No pixel and no vector passes
through the driver, but the new rows of a directory that is brought up to date (`xcli.cluster.remote_run`).
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import (
    PROBE,
    Block,
    BlockResult,
    blocks_of,
    is_relative,
    look_ahead,
    machine_independent,
    with_members,
)
from xcli.cluster.dataset import SharedDataset
from xcli.cluster.ray_backend import ClusterOptions, WorkerResources, cluster, run_blocks, stage_blocks
from xcli.cluster.remote_run import RemoteRun
from xcli.cluster.worker import Job, Worker
from xcli.core.errors import OutputError, Terminated, TooManyErrors, UsageError, XcliError
from xcli.core.levels import DETAIL
from xcli.core.records import ImageBatch, ImageRef, RunCounts
from xcli.core.text import one_line
from xcli.inference.options import LONG_RUN
from xcli.outputs.error_list import check_errors, list_errors
from xcli.outputs.resume import plain_key
from xcli.outputs.save import CONTINUES, save
from xcli.outputs.target import Directory
from xcli.storage.directories import open_folder
from xcli.tables.provenance import DATASET_RUN, digest, read_meta, run_meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from xcli.models.spec import ModelSpec
    from xcli.outputs.checked_file import Part
    from xcli.outputs.options import TableRequest
    from xcli.outputs.save import OnComparison
    from xcli.sources.listing import Listing

MAX_BLOCKS = 100_000
"""Largest number of parts whose names, with five digits, sort in the order of their numbers."""

log = logging.getLogger("xcli")


@dataclass(slots=True)
class ClusterRun:
    """A run over a cluster.

    Attributes:
        listing: the sources, with archives as single references.
        request: what to compute and to write; the output is a directory.
        cluster: what may be used of the cluster.
        command_line: for `_meta.json`.
        on_begin: called before the first image is computed; not if the output was finished before.
        on_images: called with the number of images and of errors of every block that is computed.
        on_comparison: called with what a comparison of a finished output with its sources has found.
        report: counts of the rows so far.
        worker: the class that computes blocks (for tests).
    """

    listing: Listing
    request: TableRequest
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    command_line: str | None = None
    on_begin: Callable[[], None] = lambda: None
    on_images: Callable[[int, int], None] = lambda images, errors: None
    on_comparison: OnComparison = lambda comparison: None
    report: RunCounts = field(default_factory=RunCounts)
    worker: type = Worker
    _images: dict[int, int | None] = field(default_factory=dict)
    _has_archives: bool = False
    _done: dict[int, Part | None] = field(default_factory=dict)
    _skipped: Counter[str] = field(default_factory=Counter)
    _relative: bool = False
    _failed: int = 0
    _fingerprints: set[str | None] = field(default_factory=set)
    _notes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        runner = {"name": "ray", "part_rows": self.request.save.part_rows}
        self.request = replace(self.request, output=replace(self.request.output, runner={"runner": runner}))

    @property
    def _target(self) -> Directory:
        assert isinstance(self.request.output.target, Directory)
        return self.request.output.target

    @property
    def total(self) -> int | None:
        """Number of images; None while the listing goes on, and where archives hold some: workers list these."""
        return None if self._has_archives else self.listing.total

    def run(self) -> float | None:
        """Runs to the end.

        Returns:
            Seconds that the run took; None if the output was finished before, and is what the run would write now.

        Raises:
            StaleOutputError: the output was finished before, and is not what the run would write now.
            XcliError: what ends the run; the parts that are finished are kept.
        """
        if self._was_finished():
            return self._save()
        try:
            return self._run()
        except (KeyboardInterrupt, Terminated):
            log.error("stopped after %d images%s", self.report.rows, CONTINUES)
            raise

    def _run(self) -> float | None:
        import pyarrow as pa

        started, begin = datetime.now(UTC), time.monotonic()
        restart, overwrite = self.request.save.restart, self.request.output.overwrite
        with SharedDataset(self._target, restart=restart, overwrite=overwrite) as folder:
            if not overwrite and self._target.is_finished():
                raise OutputError(f"{one_line(self._target.name)} was finished meanwhile. Run the same command again")
            with self._connect() as workers:
                try:
                    self._compute(workers, folder.fingerprint)
                except TooManyErrors:
                    list_errors(self.request.save.errors_out, folder.statuses(sorted(self._done)))
                    raise
            fingerprint = folder.shared_fingerprint()
            if self._fingerprints != {digest(fingerprint)}:
                raise XcliError(
                    f"{one_line(self._target.name)} was also written to by another run; pass --restart to start again"
                )
            self._check_parts(folder)
            sources, seconds = self.listing.options, time.monotonic() - begin
            meta = run_meta(fingerprint, sources, self.report, started, seconds, self.command_line)
            # There is at least one part, even of no images, so the schema is not needed.
            further = _keys_of_paths if self.listing.extra_columns else None
            # Where members of archives carry values, nobody has kept the positions that their keys are made of.
            known = further is None or None not in self._images.values()
            folder.mark_complete(meta | {"workers": asdict(workers)}, pa.schema([]), further, states=known)
        return time.monotonic() - begin

    def _connect(self) -> AbstractContextManager[WorkerResources]:
        return cluster(self.cluster, use_gpus=self.request.run.device != "cpu")

    # An output that was finished before

    def _was_finished(self) -> bool:
        """Returns whether the output is finished, or was until an update that was interrupted began to change it."""
        if self.request.output.overwrite:
            return False
        if self._target.finished_run() is not None:
            return True
        is_begun = open_folder(self._target.name).read(DATASET_RUN) is not None
        return is_begun and not self.request.save.restart and read_meta(self._target.meta_name) is not None

    def _save(self) -> float | None:
        """Compares the output with its sources, or brings it up to date, as on one machine."""
        self.listing = with_members(self.listing)

        def make_job(workers: WorkerResources, images: int, pinned: int | None, relative: bool) -> Job:
            self._relative = relative
            return replace(self._job(workers, images, pinned), returns_rows=True)

        def compute(waiting: deque[Any], job: Job, workers: WorkerResources) -> Iterator[BlockResult]:
            return self._results(waiting, job, workers, None)

        def count(batch: ImageBatch) -> None:
            self.on_images(len(batch.refs), sum(error is not None for error in batch.errors))

        with ExitStack() as stack:
            return save(
                RemoteRun(
                    self.listing,
                    self.report,
                    self.request,
                    lambda: stack.enter_context(self._connect()),
                    make_job,
                    compute,
                ),
                self.request.output,
                self.request.save,
                command_line=self.command_line,
                on_begin=self.on_begin,
                on_batch=count,
                on_comparison=self.on_comparison,
            )

    # The work

    def _job(
        self, workers: WorkerResources, images: int, pinned: int | None, *, long: bool = False, continues: bool = False
    ) -> Job:
        from xcli.core.version import __version__

        options = self.request.run
        if not workers.gpus:
            if options.device == "gpu":
                raise UsageError(
                    "--device gpu: workers have no GPU (--gpus-per-worker, or the cluster); use --device cpu"
                )
            options = replace(options, device="cpu")
        return Job(
            request=replace(self.request, sources=self.listing.options, run=options),
            target=self._target.name if self._target.remote else os.path.abspath(self._target.name),
            directory=os.getcwd() if self._relative or _has_relative_files(self.request.spec) else None,
            extra_columns=self.listing.extra_columns,
            images=images,
            batch_size=pinned,
            optimize_for_throughput=long,
            continues=continues,
            threads=workers.cpus,
            version=__version__,
        )

    def _blocks(self, refs: Iterator[ImageRef]) -> Iterator[Block]:
        for block in blocks_of(map(machine_independent, refs), self.request.save.part_rows):
            if block.archive is not None and self.listing.options.limit is not None:
                raise UsageError(
                    "--limit does not go with archives and --runner ray: workers list archives, not the driver"
                )
            if block.number == MAX_BLOCKS:
                raise UsageError(
                    f"there are more than {MAX_BLOCKS:,} parts of {self.request.save.part_rows:,} images, too many for "
                    "their names to be in order; give a larger --part-rows"
                )
            self._relative = self._relative or any(map(is_relative, block.refs))
            self._has_archives = self._has_archives or block.archive is not None
            self._images[block.number] = None if block.archive is not None else len(block.refs)
            yield block

    def _compute(self, workers: WorkerResources, earlier: dict[str, Any] | None) -> None:
        count, _, refs = look_ahead(self.listing)
        # The driver does not read parts of an earlier run, so a worker must confirm first that they belong to it.
        probe = [] if earlier is None else [Block(PROBE, ())]
        blocks = deque(stage_blocks(chain(probe, self._blocks(refs))))
        self.on_begin()
        images = sum(images or LONG_RUN for images in self._images.values())
        job = self._job(workers, count, None, long=images >= LONG_RUN * workers.workers, continues=earlier is not None)
        for result in self._results(blocks, job, workers, earlier):
            self._count(result)

    def _results(
        self, waiting: deque[Any], job: Job, workers: WorkerResources, earlier: dict[str, Any] | None
    ) -> Iterator[BlockResult]:
        for result in run_blocks(waiting, job, workers, earlier, self.worker):
            if result.failure is not None:
                raise result.failure
            for note in result.notes:
                if note not in self._notes:
                    self._notes.add(note)
                    log.warning("%s", note)
            yield result

    def _count(self, result: BlockResult) -> None:
        """Adds the result of a block to the counts, and checks it."""
        if result.number == PROBE or result.number in self._done:
            return
        expected = self._images[result.number]
        if expected not in (None, result.rows):
            raise XcliError(
                f"the counts do not agree: block {result.number} has {expected} images and {result.rows} rows; please "
                "report this with the command that you used"
            )
        self._done[result.number] = result.part
        self._fingerprints.add(result.fingerprint)
        report, failed = self.report, sum(result.errors.values())
        report.ok += result.ok
        report.listed += result.rows
        report.errors.update(result.errors)
        report.warnings.update(result.warnings)
        self._skipped.update(result.skipped)
        if result.resumed:
            report.resumed += result.rows
        else:
            self.on_images(result.rows, failed)
        log.log(DETAIL, "part %d: %s rows, %d errors", result.number, f"{result.rows:,}", failed)
        self._failed += 0 if result.resumed else failed
        check_errors(self._failed, self.request.save.max_errors)

    # The end

    def _check_parts(self, folder: SharedDataset) -> None:
        """Checks that the directory has the part of every block, with the right number of rows, and no other part."""
        missing = self._images.keys() - self._done.keys()
        if missing:
            raise XcliError(f"the counts do not agree: there is no result of {len(missing)} blocks; please report this")
        # An archive is listed as one reference.
        if self.listing.listed != sum(1 if images is None else images for images in self._images.values()):
            raise XcliError("the counts do not agree: images were listed that are in no block; please report this")
        self.report.skipped = dict(self._skipped + Counter(self.listing.skipped))
        numbers = sorted(self._done)
        self.report.check(folder.verify_parts(filter(None, map(self._done.get, numbers))))
        list_errors(self.request.save.errors_out, folder.statuses(numbers))


def _keys_of_paths(paths: pa.Array) -> tuple[list[int], None]:
    return [plain_key(path) for path in paths.to_pylist()], None


def _has_relative_files(spec: ModelSpec) -> bool:
    weights = None if spec.weights in ("imagenet", "none") else spec.weights
    files = (spec.model, weights, spec.labels, spec.weights_dir)
    return any(name is not None and not os.path.isabs(name) for name in files)
