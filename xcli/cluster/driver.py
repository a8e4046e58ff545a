"""The driver of a run over a cluster: it lists the sources, and checks at the end that every image has its row.

    listing --> blocks --> workers (`xcli.cluster.worker`), each with its engine --> part-00000.parquet, ...
                              \\--> result of each block --> RunCounts, _meta.json, _SUCCESS

The directory is the same as that of a run on one machine (`xcli.outputs.dataset`). No pixel and no vector passes
through the driver.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import PROBE, Block, BlockResult, archive_images, blocks_of, machine_independent
from xcli.cluster.dataset import SharedDataset
from xcli.cluster.ray_backend import ClusterOptions, WorkerResources, cluster, run_blocks, stage_blocks
from xcli.cluster.worker import Job, Worker
from xcli.core.errors import Terminated, TooManyErrors, UsageError, XcliError
from xcli.core.levels import DETAIL
from xcli.core.records import ImageRef, RunCounts
from xcli.core.text import one_line
from xcli.inference.options import LONG_RUN, MAX_BATCH
from xcli.outputs.comparison import compare, say_finished
from xcli.outputs.error_list import check_errors, list_errors
from xcli.outputs.resume import plain_key
from xcli.outputs.save import CONTINUES
from xcli.outputs.target import Directory, EarlierRun, other_settings
from xcli.sources.archives.members import WholeArchive
from xcli.sources.selection import OTHER_SHARD
from xcli.storage.urls import is_url
from xcli.tables.provenance import digest, run_meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        on_images: called with the number of images and of errors of every block.
        on_comparison: called with what a comparison of a finished output with its sources has found.
        report: counts of the rows so far.
        worker: the class that computes blocks (for tests).
    """

    listing: Listing
    request: TableRequest
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    command_line: str | None = None
    on_images: Callable[[int, int], None] = lambda images, errors: None
    on_comparison: OnComparison = lambda comparison: None
    report: RunCounts = field(default_factory=RunCounts)
    worker: type = Worker
    _images: dict[int, int | None] = field(default_factory=dict)
    _done: dict[int, Part | None] = field(default_factory=dict)
    _skipped: Counter[str] = field(default_factory=Counter)
    _relative: bool = False
    _failed: int = 0
    _fingerprints: set[str | None] = field(default_factory=set)
    _notes: set[str] = field(default_factory=set)

    @property
    def _target(self) -> Directory:
        assert isinstance(self.request.output.target, Directory)
        return self.request.output.target

    @property
    def total(self) -> int | None:
        """Number of images; None while the listing goes on, and where archives hold some: workers list these."""
        return None if None in list(self._images.values()) else self.listing.total

    def run(self) -> float | None:
        """Runs to the end.

        Returns:
            Seconds that the run took; None if the output was finished before.

        Raises:
            XcliError: what ends the run; the parts that are finished are kept.
        """
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
            earlier = None if overwrite else self._target.finished_run()
            with cluster(self.cluster, use_gpus=self.request.run.device != "cpu") as workers:
                if earlier is not None:
                    self._compare(earlier, workers, folder)
                    return None
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

    # The work

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
            self._relative = self._relative or any(_is_relative(ref) for ref in block.refs)
            self._images[block.number] = None if block.archive is not None else len(block.refs)
            yield block

    def _ahead(self) -> tuple[int, Iterator[ImageRef]]:
        """Returns the number of images of the run, counted only up to the largest batch; and all references."""
        refs = iter(self.listing)
        ahead = list(islice(refs, MAX_BATCH))
        whole = any(isinstance(ref.location, WholeArchive) for ref in ahead)
        count = MAX_BATCH if whole else len(ahead) + self.listing.skipped.get(OTHER_SHARD, 0)
        return count, chain(ahead, refs)

    def _compare(self, earlier: EarlierRun, workers: WorkerResources, folder: SharedDataset) -> None:
        """Compares the output with its sources, after a worker has confirmed that it would write the same columns."""
        count, refs = self._ahead()
        job = self._job(workers, count, earlier.batch_size)
        for result in self._results(stage_blocks([Block(PROBE, ())]), job, workers, None):
            if result.fingerprint != earlier.fingerprint:
                raise other_settings(self._target)
        folder.remove()  # removes the files of a driver that was killed just after it had finished
        comparison, order = compare(self._target, self._images_of(refs), carried=bool(self.listing.extra_columns))
        self.report.resume(order.ok, order.errors)
        self.report.listed, self.report.skipped = order.images, dict(self._skipped + Counter(self.listing.skipped))
        self.on_comparison(comparison)
        say_finished(self._target, self.request.save, comparison)

    def _images_of(self, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """Yields references, and in place of each archive its members, as workers list them."""
        for ref in refs:
            if isinstance(ref.location, WholeArchive):
                yield from archive_images(ref, self.listing.options, self._skipped)
            else:
                yield ref

    def _compute(self, workers: WorkerResources, earlier: dict[str, Any] | None) -> None:
        count, refs = self._ahead()
        # The driver does not read parts of an earlier run, so a worker must confirm first that they belong to it.
        probe = [] if earlier is None else [Block(PROBE, ())]
        blocks = stage_blocks(chain(probe, self._blocks(refs)))
        images = sum(images or LONG_RUN for images in self._images.values())
        job = self._job(workers, count, None, long=images >= LONG_RUN * workers.workers, continues=earlier is not None)
        for result in self._results(blocks, job, workers, earlier):
            self._count(result)

    def _results(
        self, blocks: list[Any], job: Job, workers: WorkerResources, earlier: dict[str, Any] | None
    ) -> Iterator[BlockResult]:
        for result in run_blocks(blocks, job, workers, earlier, self.worker):
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
        report.resumed += result.rows if result.resumed else 0
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


def _is_relative(ref: ImageRef) -> bool:
    """Whether the path of a reference is relative to the current directory of the driver."""
    path = ref.location.file
    return ref.error is None and not is_url(path) and not os.path.isabs(path)


def _has_relative_files(spec: ModelSpec) -> bool:
    weights = None if spec.weights in ("imagenet", "none") else spec.weights
    files = (spec.model, weights, spec.labels, spec.weights_dir)
    return any(name is not None and not os.path.isabs(name) for name in files)
