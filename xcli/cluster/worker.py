"""What runs on every machine of a Ray cluster: an engine that computes blocks, and writes their parts where it is.

The rows are made by `xcli.inference.predictor`, as in a run on one machine. A part that is there already, of the same
images in the same state, is left as it is, so a block may be computed again at any time: after the death of a worker,
of its machine, or of the whole run.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xcli.cluster.blocks import PROBE, Block, Done
from xcli.core.errors import ClusterError, UsageError, XcliError
from xcli.core.records import ERROR_STATUS, STATUS, RunCounts
from xcli.core.text import one_line
from xcli.outputs.part_files import PartWriter, notes_name, part_name, read_notes
from xcli.outputs.parts import refuse_other_settings
from xcli.outputs.resume import FinishedRows, RowOrder, key_of
from xcli.sources.archives.listing import Archives
from xcli.sources.listing import OTHER_SHARD, shard_of
from xcli.sources.patterns import PathFilter
from xcli.tables.provenance import digest, fingerprint_of, provenance_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    import pyarrow as pa

    from xcli.core.records import ImageRef
    from xcli.inference.options import RunOptions
    from xcli.inference.predictor import Predictor
    from xcli.inference.tasks import Task
    from xcli.models.network import LoadedModel
    from xcli.models.spec import ModelSpec
    from xcli.sources.manifests import ExtraColumn
    from xcli.sources.options import SourceOptions
    from xcli.storage.directories import Folder

RUN_FILE = "_run.json"


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a worker needs to know; it travels to all of them.

    Attributes:
        command: `classify` or `features`.
        target: the dataset's directory: an absolute path, or a URL.
        directory: where the run was started; relative paths are meant from there. None where there are none.
        spec: the model.
        table: makes the table, for the loaded model.
        pixels: arguments of `preprocessing_for`.
        options: use of the machine.
        sources: what is listed; for the fingerprint, and for the members of archives.
        extra_columns: those that are carried from a manifest.
        images: number of images, as far as it was counted: no batch needs to be larger.
        batch_size: that an earlier run had, whose options left it open.
        long: whether there is so much to do that engines which start later and run faster pay.
        part_rows: images in a block.
        retry_errors: compute rows that are errors again.
        continues: whether an earlier run has left parts.
        threads: processors that a worker has.
        version: of this package, where the run was started.
    """

    command: str
    target: str
    directory: str | None
    spec: ModelSpec
    table: Callable[[LoadedModel], Task]
    pixels: dict[str, Any]
    options: RunOptions
    sources: SourceOptions
    extra_columns: tuple[ExtraColumn, ...]
    images: int
    batch_size: int | None
    long: bool
    part_rows: int
    retry_errors: bool
    continues: bool
    threads: int
    version: str


MAX_ATTEMPTS = 10
"""Times that a block is begun: more than that, and it is the block that workers die of."""


class Agreement:
    """What all workers of a run share: its fingerprint, and how often each block was begun.

    Args:
        fingerprint: of an earlier run; else it is that of the first worker that is ready.
    """

    def __init__(self, fingerprint: dict[str, Any] | None) -> None:
        self._fingerprint = fingerprint
        self._begun: dict[int, int] = {}

    def offer(self, fingerprint: dict[str, Any] | None) -> dict[str, Any] | None:
        """Gives what was agreed on; where there is nothing yet, what is offered becomes that."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint
        return self._fingerprint

    def begin(self, number: int) -> int:
        """Takes note that a block is begun; says how often that was so."""
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]


class Worker:
    """Computes blocks; Ray Data makes one of each actor, and calls it from several threads.

    Blocks have the engine one after the other; while one has it, the next is decoded, and the part of the last one
    written.

    Args:
        job: what to do.
        agreement: of the run, or what speaks for it in this process.
    """

    def __init__(self, job: Job, agreement: Agreement) -> None:
        self._job, self._agreement = job, agreement
        self._computation: Predictor | None = None
        self._fingerprint: dict[str, Any] = {}
        self._schema: Any = None
        self._notes: tuple[str, ...] = ()
        self._folder: Folder | None = None
        self._setting_up, self._turn = threading.Lock(), threading.Lock()
        # TensorFlow would take all processors of the machine, and other workers' with them.
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(job.threads)

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        """Computes the block in a table of one row; gives what came of it likewise."""
        block = Block.of(table)
        try:
            with self._setting_up:
                self._enter()
            done = self._work(block)
        except XcliError as error:
            done = {"failure": (type(error).__name__, str(error))}
        return Done(block.number, **done).to_frame()

    def _enter(self) -> None:
        """Makes this process one like that in which the run was started."""
        from xcli.core.version import __version__
        from xcli.storage.directories import open_folder

        job = self._job
        if self._folder is not None:
            return
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

    def _work(self, block: Block) -> dict[str, Any]:
        found = None if block.number == PROBE else self._kept(block)
        if found is not None:
            return found
        with self._setting_up:
            self._ready()
        if block.number == PROBE:
            return {"fingerprint": digest(self._fingerprint), "notes": self._notes}
        attempt = self._agreement.begin(block.number)
        if attempt > MAX_ATTEMPTS:
            ends = " to ".join(one_line(ref.path) for ref in (block.refs[0], block.refs[-1])) if block.refs else "none"
            raise ClusterError(
                f"workers have died {MAX_ATTEMPTS} times over the same images ({ends}); find out which, leave it out "
                "with --exclude, and run the same command again"
            )
        if attempt > 1 or self._job.continues:
            # Notes appear before their part: beside an older part of the same number they would speak for its rows.
            assert self._folder is not None
            self._folder.unlink(part_name(block.number), notes_name(block.number))
        return self._compute(block)

    # A part that is there

    def _kept(self, block: Block) -> dict[str, Any] | None:
        """What came of a block whose part is there and still holds, or None."""
        assert self._folder is not None
        agreed = self._agreement.offer(None)
        found = None if agreed is None else read_notes(self._folder, block.number)
        if agreed is None or found is None:
            return None
        notes, note = found
        if (note.get("block"), note.get("run")) != (block.digest, digest(agreed)):
            return None
        kept = FinishedRows([notes], self._job.retry_errors)
        if block.archive is not None:
            failed = self._job.retry_errors and ERROR_STATUS in notes.column(STATUS).to_pylist()
            if failed or note.get("archive") != _state_of(block.refs[0]):
                return None
        elif len(kept) != len(block.refs) or next(RowOrder(kept).rest(iter(block.refs)), None) is not None:
            return None
        errors: dict[str, int] = {}
        for reason in filter(None, map(kept.reason, range(len(kept)))):
            errors[reason] = errors.get(reason, 0) + 1
        return {
            "ok": len(kept) - sum(errors.values()),
            "errors": errors,
            "skipped": json.loads(note["skipped"]),
            "resumed": True,
            "fingerprint": digest(agreed),
        }

    # A part that is made

    def _ready(self) -> None:
        """Loads the model and traces the engine, at the first block that needs it."""
        if self._computation is not None:
            return
        from xcli.core.process import reuse_freed_memory
        from xcli.inference.predictor import Predictor
        from xcli.models.loader import load_model, preprocessing_for

        job = self._job
        reuse_freed_memory()
        model = load_model(job.spec)
        # One decoder a processor, of those that this worker has.
        options = replace(job.options, workers=job.options.workers or job.threads)
        computation = Predictor(model, job.table(model), preprocessing_for(model, **job.pixels), options)
        default = computation.choose()
        mine = job.options.batch_size or job.batch_size or max(1, min(default, job.images))
        agreed = self._agreement.offer(None)
        size = job.options.batch_size or (mine if agreed is None else agreed["provenance"]["batch_size"])
        schema = computation.start(size, job.extra_columns, optimize_for_throughput=job.long)
        fingerprint = self._fingerprint_of(computation, schema)
        agreed = self._agreement.offer(fingerprint)
        assert agreed is not None
        if agreed["provenance"]["batch_size"] != size and job.options.batch_size is None:
            # Another worker was quicker, and has more memory or less.
            schema = computation.start(
                agreed["provenance"]["batch_size"], job.extra_columns, optimize_for_throughput=job.long
            )
            fingerprint = self._fingerprint_of(computation, schema)
        self._check(agreed, fingerprint)
        self._computation, self._fingerprint, self._schema = computation, fingerprint, schema
        self._notes = tuple(model.notes)

    def _fingerprint_of(self, computation: Predictor, schema: pa.Schema) -> dict[str, Any]:
        job = self._job
        runner = {"name": "ray", "part_rows": job.part_rows}
        provenance = computation.provenance(job.command)
        fingerprint = fingerprint_of(provenance, job.sources, schema, "parquet", runner=runner)
        return dict(json.loads(json.dumps(fingerprint)))

    def _check(self, agreed: dict[str, Any], fingerprint: dict[str, Any]) -> None:
        hint = f", or machines differ (this one is {socket.gethostname()})"
        refuse_other_settings(self._job.target, agreed, fingerprint, hint)

    def _compute(self, block: Block) -> dict[str, Any]:
        assert self._computation is not None
        assert self._folder is not None
        text = json.dumps(self._fingerprint, indent=2, sort_keys=True).encode()
        if self._folder.read(RUN_FILE) != text:
            # Every worker would write the same; what else is there is of a run that is over.
            self._folder.write(RUN_FILE, text)
        state = "" if block.archive is None else _state_of(block.refs[0])
        skipped = Counter[str]()
        refs = iter(block.refs) if block.archive is None else self._members(block, skipped)
        # Filled in before it is written: what is skipped in an archive is known at its end.
        note = {"run": digest(self._fingerprint), "block": block.digest, "archive": state}
        metadata = provenance_metadata(self._fingerprint["provenance"])
        writer = PartWriter(self._folder, block.number, metadata, note, keep=False)
        report = RunCounts()
        try:
            for batch, rows in self._computation.rows(refs, turn=self._turn):
                writer.add(rows, [key_of(ref) for ref in batch.refs], batch.states)
                report.count(batch.errors)
            note["skipped"] = json.dumps(skipped)
            writer.finish(self._schema)
        except BaseException:
            writer.abandon()
            raise
        return {
            "ok": report.ok,
            "errors": report.errors,
            "skipped": skipped,
            "fingerprint": digest(self._fingerprint),
            "notes": self._notes,
        }

    def _members(self, block: Block, skipped: Counter[str]) -> Iterator[ImageRef]:
        """The images of an archive, of those that this run is about; counts the others."""
        archive, sources = block.archive, self._job.sources
        assert archive is not None
        archives = Archives(PathFilter(sources.include, sources.exclude), skipped)
        for ref in archives.members(os.fsencode(archive.archive), archive.key):
            if sources.shard is not None and shard_of(ref.key, sources.shard[1]) != sources.shard[0]:
                skipped[OTHER_SHARD] += 1
            else:
                yield replace(ref, extra=block.refs[0].extra)


def _state_of(ref: ImageRef) -> str:
    """The state of an archive's file as text."""
    stamp = ref.location.state()
    return "" if stamp is None else f"{stamp.size} {stamp.mtime}"
