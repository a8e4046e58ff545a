"""A run whose images the workers of a cluster compute, for `xcli.outputs.save`.

It is for an output that was finished before: that is compared with its sources and brought up to date as one of this
machine is. The driver lists members of archives itself, and gets the rows of new and changed images, which are few.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import PROBE, Block, blocks_of, is_relative, look_ahead, machine_independent
from xcli.cluster.ray_backend import stage_blocks
from xcli.core.errors import XcliError
from xcli.inference.predictor import Predictor
from xcli.inference.profiler import Profile
from xcli.inference.run import counted
from xcli.models.loader import load_model, preprocessing_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from xcli.cluster.blocks import BlockResult
    from xcli.cluster.ray_backend import WorkerResources
    from xcli.cluster.worker import Job
    from xcli.core.records import ImageBatch, ImageRef, RunCounts
    from xcli.inference.options import Pinned
    from xcli.inference.run import EarlierRows
    from xcli.outputs.options import TableRequest
    from xcli.sources.listing import Listing

_MOST_IMAGES = 256
"""Images of a block: so few that each worker gets some of an update."""

_AHEAD = 8
"""Blocks for each worker that are given out, or have rows that wait for those of blocks before them."""


@dataclass(slots=True)
class RemoteRun:
    """See `xcli.inference.run.TableRun`.

    Attributes:
        listing: the sources; archives are not single references.
        report: counts of the rows so far.
        request: what to compute and to write.
        connect: connects to the cluster.
        make_job: makes the job of workers, given the number of images, the batch size of an earlier run, and whether
            there are relative paths.
        compute: computes blocks with workers, as `ray_backend.run_blocks` does.
        profile: records nothing.
    """

    listing: Listing
    report: RunCounts
    request: TableRequest
    connect: Callable[[], WorkerResources]
    make_job: Callable[[WorkerResources, int, int | None, bool], Job]
    compute: Callable[[deque[Any], Job, WorkerResources], Iterator[BlockResult]]
    profile: Profile = field(default_factory=Profile)
    _workers: WorkerResources = field(init=False)
    _job: Job = field(init=False)
    _results: Iterator[BlockResult] = field(init=False)
    _refs: Iterator[ImageRef] | None = None
    _waiting: deque[Any] = field(default_factory=deque)
    _provenance: dict[str, Any] = field(default_factory=dict)
    _relative: bool = False

    def foresee(self, pinned: Pinned) -> bool:
        """Returns whether it can be told without the cluster what the workers would do, as far as these are like this
        machine: on processors, with a model that is at hand. Then `provenance` says it.
        """
        request = self.request
        try:
            model = load_model(replace(request.spec, offline=True))
            preprocessing = preprocessing_for(model, **request.pixels)
            predictor = Predictor(model, request.make_task(model), preprocessing, request.run)
            if not predictor.foresee(pinned):
                return False
        except XcliError:
            return False  # the workers may have what is missing here; if not, they say so
        self._provenance = predictor.provenance(request.output.command)
        return True

    def start(self, pinned: Pinned | None = None) -> pa.Schema:
        """Starts the workers, and returns the schema of the rows; see `Run.start`."""
        self._workers = self.connect()
        images, ahead, self._refs = look_ahead(self.listing)
        self._job = self.make_job(self._workers, images, pinned and pinned.batch_size, any(map(is_relative, ahead)))
        self._results = self.compute(self._waiting, self._job, self._workers)
        self._waiting.extend(stage_blocks([Block(PROBE, ())]))
        found = next(self._results).start
        assert found is not None
        self._provenance, schema = found
        return schema

    def batches(self, earlier: EarlierRows | None = None) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """Yields the batches and their rows, in the order of the sources; see `Run.batches`."""
        refs = self.references()
        wanted = refs if earlier is None else earlier.rest(refs)
        staged = deque(stage_blocks(self._blocks(wanted)))
        if self._relative and self._job.directory is None:
            # Only now there is a relative path: other workers, which enter the directory of the driver.
            size = self._provenance["batch_size"]
            self._job = self.make_job(self._workers, 0, size, True)
            self._results = self.compute(self._waiting, self._job, self._workers)
        yield from counted(self._rows(staged), self, earlier)

    def _blocks(self, refs: Iterator[ImageRef]) -> Iterator[Block]:
        for block in blocks_of(map(machine_independent, refs), min(self.request.save.part_rows, _MOST_IMAGES)):
            self._relative = self._relative or any(map(is_relative, block.refs))
            if block.refs:
                yield block

    def _rows(self, staged: deque[Any]) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        """Yields the rows of blocks in the order of these, whichever ends first."""
        most, given = _AHEAD * self._workers.workers, 0
        held: dict[int, tuple[tuple[ImageBatch, pa.RecordBatch], ...]] = {}
        for number in range(len(staged)):
            while number not in held:
                while staged and given < number + most:
                    self._waiting.append(staged.popleft())
                    given += 1
                result = next(self._results)
                if result.number >= number:  # the rows of a block may come again
                    held[result.number] = result.batches
            yield from held.pop(number)

    def references(self) -> Iterator[ImageRef]:
        """Returns all references, which can be had once: here, or as `batches`."""
        if self._refs is None:  # the run was foreseen, and not started
            self._refs = iter(self.listing)
        return self._refs

    def provenance(self, command: str) -> dict[str, Any]:
        """Returns everything that the rows depend on, as the workers say; see `Predictor.provenance`."""
        return self._provenance
