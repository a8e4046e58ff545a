"""A run written to a file: the rows, and beside them `FILE.meta.json` with what made them.

A file's rows first go into `FILE.partial/` (see `xcli.journal`) and are put together at the end; what goes to standard
output or a pipe is written as it comes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xcli.errors import CheckError, OutputError, TooManyErrors
from xcli.interrupts import held_signals
from xcli.journal import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS, Journal
from xcli.output import META_SUFFIX, finish, is_direct, open_output
from xcli.paths import unescape_path
from xcli.provenance import read_meta
from xcli.records import ERROR_STATUS, PATH, STATUS
from xcli.resuming import Layout, key_of
from xcli.sinks import METADATA_KEY, open_sink, write_meta
from xcli.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from xcli.inference import Run
    from xcli.records import ImageBatch

    OnBatch = Callable[[ImageBatch], None]

log = logging.getLogger("xcli")


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """How a run keeps what it has done, and what it does about errors.

    Attributes:
        part_rows: rows after which a part is finished; a kill never costs more.
        part_seconds: or seconds, whichever comes first.
        restart: start over, whatever an earlier run has left.
        retry_errors: compute rows of an earlier run that are errors again.
        max_errors: end the run once more rows than that are errors; None never does.
        errors_out: a file for the paths of the rows that are errors, each followed by NUL.
    """

    part_rows: int = DEFAULT_PART_ROWS
    part_seconds: float = DEFAULT_PART_SECONDS
    restart: bool = False
    retry_errors: bool = False
    max_errors: int | None = None
    errors_out: str | None = None


def record(
    run: Run,
    command: str,
    format: str,
    target: str | None,
    *,
    overwrite: bool,
    options: RecordOptions | None = None,
    command_line: str | None = None,
    on_batch: OnBatch | None = None,
) -> float | None:
    """Runs to the end and writes every row.

    Args:
        run: set up, not started.
        command: `classify` or `features`, for the provenance.
        format: a key of `SINKS`.
        target: a file; None or `-` is standard output, which gets no `FILE.meta.json`.
        overwrite: whether existing files may be replaced.
        options: how to keep what is done; parts are of no meaning for what is not a file.
        command_line: for `FILE.meta.json`.
        on_batch: called after each batch has been written.

    Returns:
        Seconds from the first batch asked for to the last row written; None where the file was finished before.

    Raises:
        XcliError: what ends the run; then nothing stands under the final name, and a file's rows are kept.
    """
    recording = _Recording(run, command, format, target, overwrite, command_line, on_batch, options or RecordOptions())
    if target is None or is_direct(target):
        return recording.stream()
    return recording.keep(target)


@dataclass(slots=True)
class _Recording:
    """The arguments of `record`."""

    run: Run
    command: str
    format: str
    target: str | None
    overwrite: bool
    command_line: str | None
    on_batch: OnBatch | None
    options: RecordOptions
    _failed: int = 0

    def _done(self, batch: ImageBatch) -> None:
        """Called after each batch, when its rows are written or kept."""
        if self.on_batch is not None:
            self.on_batch(batch)
        self._failed += sum(error is not None for error in batch.errors)

    def _check_errors(self) -> None:
        limit = self.options.max_errors
        if limit is not None and self._failed > limit:
            raise TooManyErrors(f"{self._failed} images failed, more than --max-errors {limit} allows: stopped")

    def _write(self, rows: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        errors = None if self.options.errors_out is None else ErrorList(self.options.errors_out)
        try:
            with open_sink(self.format, self.target, schema, self._metadata(), self.overwrite) as sink:
                for batch in rows:
                    sink.write(batch)
                    if errors is not None:
                        errors.add(batch)
        except TooManyErrors:
            if errors is not None:
                errors.close()
            raise
        except BaseException:
            if errors is not None:
                errors.discard()
            raise
        if errors is not None:
            errors.close()

    def _metadata(self) -> dict[str, str]:
        provenance = self.run.provenance(self.command)
        return {METADATA_KEY: json.dumps(provenance, sort_keys=True, ensure_ascii=False)}

    def stream(self) -> float:
        """Writes the rows as they come."""
        schema = self.run.start()
        begin = time.monotonic()

        def rows() -> Iterator[pa.RecordBatch]:
            for batch, rows in self.run.batches():
                yield rows
                self._done(batch)
                self._check_errors()

        self._write(rows(), schema)
        self.run.published = True
        return time.monotonic() - begin

    def keep(self, target: str) -> float | None:
        """Keeps the rows in parts, and puts the file together from them."""
        started = datetime.now(UTC)
        options = self.options
        done = None if self.overwrite else finished(target)
        with Journal(
            target, restart=options.restart, part_rows=options.part_rows, part_seconds=options.part_seconds
        ) as journal:
            earlier = journal.fingerprint or done or {}
            schema = self.run.start(earlier.get("provenance", {}).get("batch_size"))
            fingerprint = self._fingerprint(schema)
            if done is not None:
                _check_finished(target, done, fingerprint)
                log.warning("%s is finished already; nothing to do (--overwrite computes it again)", one_line(target))
                return None
            journal.begin(fingerprint)
            if journal.rows:
                log.warning("continuing: %s rows are kept from before", f"{journal.rows:,}")
            begin = time.monotonic()
            self._record(journal, schema)
            shard = self.run.listing.options.shard
            times = {
                "command_line": self.command_line,
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - begin, 3),
                "profile": self.run.profile.as_dict(),
                "fingerprint": digest(fingerprint),
                "shard": None if shard is None else f"{shard[0]}/{shard[1]}",
            }
            write_meta(target, fingerprint["provenance"] | times | {"images": self.run.report.as_dict()})
            journal.remove()
            return time.monotonic() - begin

    def _fingerprint(self, schema: pa.Schema) -> dict[str, Any]:
        """Everything that the rows depend on, and what they are rows of."""
        return {
            "provenance": self.run.provenance(self.command),
            "sources": asdict(self.run.listing.options),
            "schema": [f"{one.name}: {one.type}" for one in schema],
            "format": self.format,
        }

    def _record(self, journal: Journal, schema: pa.Schema) -> None:
        run = self.run
        run.layout = layout = Layout(journal.kept(self.options.retry_errors))
        try:
            for batch, rows in run.batches():
                with held_signals():
                    journal.append(rows, [key_of(ref) for ref in batch.refs], batch.stamps)
                    self._done(batch)
                self._check_errors()
            journal.cut()
        except BaseException:
            # Where not even this part can be written, those before it stand; the first error says why.
            with held_signals(), suppress(OutputError):
                journal.cut()
            raise
        self._write(journal.read(layout, schema), schema)
        run.published = True


class ErrorList:
    """The paths of the rows that are errors, each followed by NUL, as a list that `- -0` reads back.

    Args:
        target: the file; it replaces an older one, when the run has ended.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, target: str) -> None:
        self._file = open_output(target, overwrite=True)

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds the failed ones of these rows."""
        for path, status in zip(rows.column(PATH).to_pylist(), rows.column(STATUS).to_pylist(), strict=True):
            if status == ERROR_STATUS:
                self._file.stream.write(os.fsencode(unescape_path(path)) + b"\0")

    def close(self) -> None:
        """Makes the file appear."""
        finish([self._file])

    def discard(self) -> None:
        """Gives up."""
        self._file.discard()


def finished(target: str) -> dict[str, Any] | None:
    """What `FILE.meta.json` says of a file that is there and was finished by a run of this tool, else None."""
    if not os.path.isfile(target):
        return None
    try:
        meta = read_meta(target + META_SUFFIX)
    except CheckError:
        return None
    if meta is None or not isinstance(meta.get("fingerprint"), str):
        return None
    return {"fingerprint": meta["fingerprint"], "provenance": {"batch_size": meta.get("batch_size")}}


def _check_finished(target: str, done: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    if done["fingerprint"] != digest(fingerprint):
        raise OutputError(f"{one_line(target)} exists, with other settings or sources; pass --overwrite to replace it")


def digest(fingerprint: dict[str, Any]) -> str:
    """SHA-256 of a fingerprint, in hexadecimal."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
