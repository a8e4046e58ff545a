"""A run on one machine: makes exactly one row of each reference, and counts them.

    listing --> Predictor --> rows
                           \\--> RunCounts

A `Task` says what to compute and what its rows look like; the caller decides where the rows go.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.levels import DETAIL, unsaid
from xcli.core.records import ImageBatch, ImageRef, RunCounts
from xcli.inference.listing_ahead import ListingAhead
from xcli.inference.options import LONG_RUN, Pinned, RunOptions
from xcli.inference.predictor import Predictor
from xcli.inference.profiler import Profile
from xcli.sources.archives.members import is_archive_name
from xcli.sources.listing import list_images
from xcli.sources.options import LIST_ON_STDIN
from xcli.sources.selection import OTHER_SHARD

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from xcli.images.preprocessing import Preprocessing
    from xcli.inference.quantization.calibration import Again
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.sources.listing import Listing

_MAX_EARLY_BYTES = 256 << 20

log = logging.getLogger("xcli")


class EarlierRows(Protocol):
    """Rows that an earlier run has finished and that are still valid, counted like those of `RunCounts`."""

    ok: int
    errors: dict[str, int]

    @property
    def needs_whole_listing(self) -> bool:
        """Whether nothing is computed until all references are taken, as long as those without a row have room."""

    def rest(self, refs: Iterator[ImageRef]) -> Iterator[ImageRef]:
        """Takes all references, and yields those without a row."""


class TableRun(Protocol):
    """What a table is made of: a `Run`, or one whose images other machines compute; the members are those of `Run`."""

    listing: Listing
    report: RunCounts
    profile: Profile

    def foresee(self, pinned: Pinned) -> bool: ...

    def start(self, pinned: Pinned | None = None) -> pa.Schema: ...

    def batches(self, earlier: EarlierRows | None = None) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]: ...

    def references(self) -> Iterator[ImageRef]: ...

    def provenance(self, command: str) -> dict[str, Any]: ...


@dataclass(slots=True)
class Run:
    """One run: call `start`, then iterate over `batches` once.

    Attributes:
        listing: the sources.
        model, task, preprocessing, options: see `Predictor`.
        report: counts of the rows so far.
        profile: records how the time is spent.
        again: lists the same images again, for int8; None does that with the options of the listing.
        predictor: computes the rows.
    """

    listing: Listing
    model: LoadedModel
    task: Task
    preprocessing: Preprocessing
    options: RunOptions = field(default_factory=RunOptions)
    report: RunCounts = field(default_factory=RunCounts)
    profile: Profile = field(default_factory=Profile)
    again: Again | None = None
    predictor: Predictor = field(init=False)
    _listed_early: list[ImageRef] = field(default_factory=list)
    _refs: Iterator[ImageRef] = field(init=False)

    def __post_init__(self) -> None:
        self._refs = iter(self.listing)
        self.predictor = Predictor(self.model, self.task, self.preprocessing, self.options)

    def foresee(self, pinned: Pinned) -> bool:
        """See `Predictor.foresee`; `pinned` is what an earlier run has chosen, as far as it is recorded."""
        return self.predictor.foresee(pinned)

    def start(self, pinned: Pinned | None = None) -> pa.Schema:
        """Chooses device, precision and batch size, traces the engines, and returns the schema of the rows.

        Args:
            pinned: the choices of an earlier run, for options that leave them open.

        Raises:
            UsageError: an option does not fit the device or the model.
            ModelError: the model cannot do this task.
            CheckError: int8 loses more than the options allow.
        """
        pinned = pinned or Pinned()
        default = self.predictor.choose(self.again or self._listed_again(), pinned.calibration)
        size = self.options.batch_size or pinned.batch_size
        if size is None:
            # A shard counts the images of the other shards too, so that its rows equal those of an unsharded run.
            size = default if self._has_at_least(default) else max(1, self._listed())
        return self.predictor.start(size, self.listing.extra_columns, optimize_for_throughput=self._is_long())

    def _listed_again(self) -> Again | None:
        """Returns what lists the images of all shards; None where the list can be read only once."""
        options = self.listing.options
        if LIST_ON_STDIN in (*options.sources, options.manifest):
            return None

        def again() -> Iterator[ImageRef]:
            with unsaid():
                yield from list_images(replace(options, shard=None))

        return again

    def _is_long(self) -> bool:
        # References are counted only where that is cheap: not in a list that somebody types, nor in archives, which
        # would have to be unpacked.
        options = self.listing.options
        if options.archives or LIST_ON_STDIN in (*options.sources, options.manifest):
            return False
        archives = any(is_archive_name(os.fsencode(source)) for source in options.sources)
        return not archives and self._has_at_least(LONG_RUN)

    def _listed(self) -> int:
        return len(self._listed_early) + self.listing.skipped.get(OTHER_SHARD, 0)

    def _has_at_least(self, count: int) -> bool:
        # Other shards are included; no more than `count` images are listed, and fewer where a manifest has long rows.
        while self._listed() < count and self.listing.carried.total < _MAX_EARLY_BYTES:
            ref = next(self._refs, None)
            if ref is None:
                return False
            self._listed_early.append(ref)
        return True

    def batches(self, earlier: EarlierRows | None = None) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """Yields the batches and their rows, in the order of the sources, but for `earlier` rows; call `start` before.

        Raises:
            XcliError: the listing fails, too many images hang, or the numbers of rows and inputs differ.
        """
        refs = self.references()
        if earlier is None:
            wanted = ListingAhead(refs)
        else:
            wanted = ListingAhead(earlier.rest(refs), whole=earlier.needs_whole_listing)
        try:
            yield from counted(self.predictor.rows(iter(wanted), self.profile), self, earlier)
        finally:
            wanted.stop()
        self.profile.finish()

    def references(self) -> Iterator[ImageRef]:
        """Returns all references, which can be had once: here, or as `batches`."""
        early, self._listed_early = deque(self._listed_early), []
        return chain((early.popleft() for _ in range(len(early))), self._refs)

    def provenance(self, command: str) -> dict[str, Any]:
        """See `Predictor.provenance`."""
        return self.predictor.provenance(command)


def counted(
    batches: Iterator[tuple[ImageBatch, pa.RecordBatch]], run: TableRun, earlier: EarlierRows | None
) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
    """Yields the batches of a run and their rows, and counts them; see `Run.batches`."""
    report = run.report
    for batch, rows in batches:
        if earlier is not None:
            report.resumed = earlier.ok + sum(tuple(earlier.errors.values()))  # so far; another thread counts on
        log.debug("%d images computed", len(batch.refs))
        for ref, problem in zip(batch.refs, batch.errors, strict=True):
            if problem is not None:
                log.log(DETAIL, "%s: %s", ref.path, problem)
        yield batch, rows
        report.count(batch.errors, batch.warnings)
    if earlier is not None:
        report.resumed = 0
        report.resume(earlier.ok, earlier.errors)
    report.listed, report.skipped = run.listing.listed, dict(run.listing.skipped)
    report.check(report.rows)
