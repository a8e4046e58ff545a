"""A cluster in this process, and workers without a network."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from tests.stubrun import StubRun
from xcli.cluster import driver, remote_run
from xcli.cluster.blocks import BlockResult
from xcli.cluster.ray_backend import WorkerResources
from xcli.cluster.worker import Job, RunFingerprint, Worker
from xcli.core.errors import XcliError
from xcli.core.records import ImageBatch, ImageRef


class Fake:
    """Stands for the cluster: two workers, blocks from the last to the first.

    Attributes:
        computed: numbers of the blocks whose part was made, of all runs.
        dies_after: blocks after which the cluster is gone.
        worker: the class of the workers, in place of that which the run names.
    """

    def __init__(self) -> None:
        self.computed: list[int] = []
        self.dies_after: int | None = None
        self.jobs: list[Job] = []
        self.worker: type | None = None

    def run_blocks(
        self, waiting: deque[Any], job: Job, resources: WorkerResources, earlier: dict[str, Any] | None, worker: type
    ) -> Iterator[BlockResult]:
        agreement = RunFingerprint(earlier)
        self.jobs.append(job)
        workers = [(self.worker or worker)(job, agreement) for _ in range(resources.workers)]
        for number in count():
            if not waiting:
                return
            if self.dies_after is not None and number == self.dies_after:
                raise XcliError("the cluster is gone")
            result = workers[number % len(workers)].compute(waiting.pop())
            if not result.resumed and result.failure is None and result.number >= 0:
                self.computed.append(result.number)
            yield result


class StubWorker(Worker):
    """A worker whose rows depend on paths alone.

    Attributes:
        computed: names of the images that all of them have computed.
    """

    computed: ClassVar[list[str]] = []

    def _ready(self) -> None:
        if self._predictor is not None:
            return
        job, command = self._job, self._job.request.output.command
        stub: Any = Recorded([os.curdir], command, job.request.run.batch_size or job.batch_size or 2)
        stub.listing.extra_columns = job.extra_columns
        self._schema = stub.start()
        fingerprint = self._fingerprint_of(stub, self._schema)
        shared = self._run_fingerprint.offer(fingerprint)
        assert shared is not None
        self._check(shared, fingerprint)
        self._fingerprint, self._predictor = fingerprint, stub


class Recorded(StubRun):
    def rows(self, refs: Iterator[ImageRef], **_: Any) -> Iterator[tuple[ImageBatch, pa.RecordBatch]]:
        for batch, rows in super().rows(refs):
            StubWorker.computed.extend(os.path.basename(ref.path) for ref in batch.refs)
            yield batch, rows


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    stand_in = Fake()

    class Nothing:
        def __enter__(self) -> WorkerResources:
            return WorkerResources(2, 1, 0)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(driver, "cluster", lambda options, use_gpus: Nothing())
    for module in (driver, remote_run):
        monkeypatch.setattr(module, "stage_blocks", lambda blocks: list(blocks))
    monkeypatch.setattr(driver, "run_blocks", stand_in.run_blocks)
    # Workers without a network do other things than this machine would.
    monkeypatch.setattr(remote_run.RemoteRun, "foresee", lambda self, size: False)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")  # a worker sets it; this puts it back
    return stand_in
