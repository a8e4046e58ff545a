"""A run over a cluster: sources are listed here, rows are made and written elsewhere, and accounted for here again.

    listing --> blocks --> workers (`xcli.cluster.worker`), each with its engine --> part-00000.parquet, ...
                              \\--> what came of each block --> RunCounts, _meta.json, _SUCCESS

The directory is the same as that of a run on one machine (`xcli.outputs.dataset`). No pixel and no vector comes through
here.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import PROBE, Block, blocks_of, portable
from xcli.cluster.dataset import SharedDataset
from xcli.cluster.ray_backend import ClusterOptions, cluster, run_blocks, stage_blocks
from xcli.cluster.worker import Job, Worker
from xcli.core import errors
from xcli.core.errors import TooManyErrors, UsageError, XcliError
from xcli.core.records import RunCounts
from xcli.core.text import one_line
from xcli.inference.options import LONG_RUN, MAX_BATCH
from xcli.outputs.error_list import check_errors, list_errors
from xcli.outputs.save import say_finished
from xcli.outputs.target import other_settings
from xcli.sources.archives.members import WholeArchive
from xcli.sources.listing import OTHER_SHARD
from xcli.storage.urls import is_url
from xcli.tables.provenance import digest, run_meta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xcli.cluster.blocks import Done
    from xcli.cluster.ray_backend import Share
    from xcli.core.records import ImageRef
    from xcli.inference.options import RunOptions
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.outputs.options import SaveOptions
    from xcli.outputs.target import Directory, EarlierRun
    from xcli.sources.listing import Listing

MAX_BLOCKS = 100_000
"""Parts whose names, with five digits, are in order."""

log = logging.getLogger("xcli")


@dataclass(slots=True)
class ClusterRun:
    """A run over a cluster.

    Attributes:
        listing: the sources, archives whole.
        command: `classify` or `features`.
        target: the dataset's directory.
        spec: the model.
        table: makes the table, for the loaded model; it travels.
        pixels: arguments of `preprocessing_for`.
        options: use of the machines.
        recording: how to keep what is done, and what to do about errors.
        cluster: what may be used of the cluster.
        overwrite: drop a dataset that is finished.
        command_line: for `_meta.json`.
        on_images: called with the numbers of images and of errors of every block.
        report: what became of the images so far.
        published: whether the output is finished.
    """

    listing: Listing
    command: str
    target: Directory
    spec: ModelSpec
    table: Callable[[LoadedModel], Task]
    pixels: dict[str, Any]
    options: RunOptions
    recording: SaveOptions
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    overwrite: bool = False
    command_line: str | None = None
    on_images: Callable[[int, int], None] = lambda images, errors: None
    report: RunCounts = field(default_factory=RunCounts)
    published: bool = False
    worker: type = Worker
    _images: dict[int, int | None] = field(default_factory=dict)
    _rows: dict[int, int] = field(default_factory=dict)
    _skipped: dict[str, int] = field(default_factory=dict)
    _relative: bool = False
    _failed: int = 0
    _fingerprints: set[str | None] = field(default_factory=set)
    _said: set[str] = field(default_factory=set)

    def run(self) -> float | None:
        """Runs to the end.

        Returns:
            Seconds that it took; None where the output was finished before.

        Raises:
            XcliError: what ends the run; the parts that are done are kept.
        """
        started, begin = datetime.now(UTC), time.monotonic()
        earlier_end = None if self.overwrite else self.target.finished_run()
        with SharedDataset(self.target, restart=self.recording.restart, overwrite=self.overwrite) as folder:
            with cluster(self.cluster, use_gpus=self.options.device != "cpu") as share:
                if earlier_end is not None:
                    self._compare(earlier_end, share, folder)
                    return None
                try:
                    self._compute(share, folder.fingerprint)
                except TooManyErrors:
                    list_errors(self.recording.errors_out, folder.statuses(sorted(self._rows)))
                    raise
            fingerprint = folder.agreed()
            if self._fingerprints != {digest(fingerprint)}:
                raise XcliError(
                    f"{one_line(self.target.name)} was written to by another run too; pass --restart to start over"
                )
            self._settle(folder)
            sources, seconds = self.listing.options, time.monotonic() - begin
            meta = run_meta(fingerprint, sources, self.report, started, seconds, self.command_line)
            folder.finish(meta | {"workers": asdict(share)})
            self.published = True
        return time.monotonic() - begin

    def _job(
        self, share: Share, images: int, *, long: bool = False, pinned: int | None = None, continues: bool = False
    ) -> Job:
        from xcli.core.version import __version__

        return Job(
            command=self.command,
            target=self.target.name if self.target.remote else os.path.abspath(self.target.name),
            directory=os.getcwd() if self._relative or _has_relative_files(self.spec) else None,
            spec=self.spec,
            table=self.table,
            pixels=self.pixels,
            options=self._options(share),
            sources=self.listing.options,
            extra_columns=self.listing.extra_columns,
            images=images,
            batch_size=pinned,
            long=long,
            part_rows=self.recording.part_rows,
            retry_errors=self.recording.retry_errors,
            continues=continues,
            threads=share.cpus,
            version=__version__,
        )

    def _options(self, share: Share) -> RunOptions:
        """Use of the machine by a worker, which sees the GPUs that are its own, or else is to see none."""
        if share.gpus:
            return self.options
        if self.options.device == "gpu":
            raise UsageError("--device gpu: workers have no GPU (--gpus-per-worker, or the cluster); use --device cpu")
        return replace(self.options, device="cpu")

    # The work

    def _blocks(self, refs: Iterator[ImageRef]) -> Iterator[Block]:
        for block in blocks_of(map(portable, refs), self.recording.part_rows):
            if block.archive is not None and self.listing.options.limit is not None:
                raise UsageError("--limit counts images, and a cluster lists archives where it reads them")
            if block.number == MAX_BLOCKS:
                raise UsageError(
                    f"there are more than {MAX_BLOCKS:,} parts of {self.recording.part_rows:,} images, too many for "
                    "their names to be in order; give a larger --part-rows"
                )
            self._relative = self._relative or any(_is_relative(ref) for ref in block.refs)
            self._images[block.number] = None if block.archive is not None else len(block.refs)
            yield block

    def _ahead(self) -> tuple[int, Iterator[ImageRef]]:
        """How many images the whole run has, counted no further than to the largest batch; and all of them."""
        refs = iter(self.listing)
        ahead = list(islice(refs, MAX_BATCH))
        whole = any(isinstance(ref.location, WholeArchive) for ref in ahead)
        count = MAX_BATCH if whole else len(ahead) + self.listing.skipped.get(OTHER_SHARD, 0)
        return count, chain(ahead, refs)

    def _compare(self, earlier: EarlierRun, share: Share, folder: SharedDataset) -> None:
        """Says that the output is finished, after a worker has found that it would make the same.

        Raises:
            OutputError: it would not.
        """
        count, _ = self._ahead()
        job = self._job(share, count, pinned=earlier.batch_size)
        for done in self._ran(stage_blocks([Block(PROBE, ())]), job, share, None):
            if done.fingerprint != earlier.fingerprint:
                raise other_settings(self.target)
        folder.remove()  # what a driver may have left that died just after it had finished
        say_finished(self.target, self.recording)

    def _compute(self, share: Share, earlier: dict[str, Any] | None) -> None:
        count, refs = self._ahead()
        # Parts of an earlier run are taken as they are; that they are of this very run somebody must have made sure.
        probe = [] if earlier is None else [Block(PROBE, ())]
        blocks = stage_blocks(chain(probe, self._blocks(refs)))
        images = sum(images or LONG_RUN for images in self._images.values())
        job = self._job(share, count, long=images >= LONG_RUN * share.workers, continues=earlier is not None)
        for done in self._ran(blocks, job, share, earlier):
            self._count(done)

    def _ran(self, blocks: list[Any], job: Job, share: Share, earlier: dict[str, Any] | None) -> Iterator[Done]:
        for done in run_blocks(blocks, job, share, earlier, self.worker):
            if done.failure is not None:
                kind, message = done.failure
                raise getattr(errors, kind, XcliError)(message)
            for note in done.notes:
                if note not in self._said:
                    self._said.add(note)
                    log.warning("%s", note)
            yield done

    def _count(self, done: Done) -> None:
        """Adds what came of a block to the accounts.

        Raises:
            XcliError: a block has not as many rows as images.
            TooManyErrors: more errors than the user wants.
        """
        if done.number == PROBE or done.number in self._rows:
            return
        expected = self._images[done.number]
        if expected not in (None, done.rows):
            raise XcliError(
                f"the accounts do not balance: block {done.number} has {expected} images and {done.rows} rows; please "
                "report this with the command that you used"
            )
        self._rows[done.number] = done.rows
        self._fingerprints.add(done.fingerprint)
        report, failed = self.report, sum(done.errors.values())
        report.ok += done.ok
        report.listed += done.rows
        for counts, found in ((report.errors, done.errors), (self._skipped, done.skipped)):
            for reason, number in found.items():
                counts[reason] = counts.get(reason, 0) + number
        report.resumed += done.rows if done.resumed else 0
        self.on_images(done.rows, failed)
        self._failed += 0 if done.resumed else failed
        check_errors(self._failed, self.recording.max_errors)

    # The end

    def _settle(self, folder: SharedDataset) -> None:
        """Makes sure that the directory holds every block's part, of so many rows, and nothing else.

        Raises:
            XcliError: it does not.
        """
        missing = self._images.keys() - self._rows.keys()
        if missing:
            raise XcliError(f"the accounts do not balance: nothing was heard of {len(missing)} blocks")
        if self.listing.listed != len(self._archives()) + sum(images or 0 for images in self._images.values()):
            raise XcliError("the accounts do not balance: images were listed that are in no block")
        for reason, number in self.listing.skipped.items():
            self._skipped[reason] = self._skipped.get(reason, 0) + number
        self.report.skipped = self._skipped
        self.report.check(folder.verify_parts(self._rows))
        list_errors(self.recording.errors_out, folder.statuses(sorted(self._rows)))

    def _archives(self) -> list[int]:
        return [number for number, images in self._images.items() if images is None]


def _is_relative(ref: ImageRef) -> bool:
    """Whether a reference is meant from the directory in which the run was started."""
    path = ref.location.file
    return ref.error is None and not is_url(path) and not os.path.isabs(path)


def _has_relative_files(spec: ModelSpec) -> bool:
    weights = None if spec.weights in ("imagenet", "none") else spec.weights
    files = (spec.model, weights, spec.labels, spec.weights_dir)
    return any(name is not None and not os.path.isabs(name) for name in files)
