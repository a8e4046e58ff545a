"""A run written down: the rows, and beside them `FILE.meta.json` with what made them.

A file's rows first go into `FILE.partial/` (`xcli.outputs.partial_file`) and are put together at the end; those of a
directory stay in their parts (`xcli.outputs.dataset`); what goes to standard output, a pipe or a terminal is written as
it comes.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import OutputError, TooManyErrors
from xcli.core.signals import defer_signals
from xcli.outputs.dataset import Dataset, is_dataset
from xcli.outputs.error_list import ErrorList, check_errors, list_errors
from xcli.outputs.partial_file import Journal
from xcli.outputs.parts import DEFAULT_PART_ROWS, DEFAULT_PART_SECONDS
from xcli.outputs.resume import Layout, key_of
from xcli.outputs.target import (
    check_options,
    digest_of,
    exists,
    finished,
    is_file,
    other_settings,
    remove,
    same_output,
    say_finished,
)
from xcli.storage.streams import is_direct
from xcli.tables.formats import (
    FEATURES_FORMATS,
    GUARDED_FORMATS,
    OutputFile,
    check_output,
    format_from_name,
    open_sink,
)
from xcli.tables.provenance import META_SUFFIX, digest, fingerprint_of, provenance_metadata, run_meta, write_meta
from xcli.tables.schema import column_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from xcli.core.records import ImageBatch
    from xcli.inference.run import Run
    from xcli.outputs.parts import Parts

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
        features_out: a second file, for the last column of the rows, the features; the first gets the others.
        csv_safe: in CSV, put an apostrophe before texts that spreadsheets take for formulas.
    """

    part_rows: int = DEFAULT_PART_ROWS
    part_seconds: float = DEFAULT_PART_SECONDS
    restart: bool = False
    retry_errors: bool = False
    max_errors: int | None = None
    errors_out: str | None = None
    features_out: str | None = None
    csv_safe: bool = False


class RowSink(Protocol):
    """Where rows go that are not kept in parts."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes a batch."""


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
    show: Callable[[pa.Schema], AbstractContextManager[RowSink]] | None = None,
) -> float | None:
    """Runs to the end and writes every row.

    Args:
        run: set up, not started.
        command: `classify` or `features`, for the provenance.
        format: a key of `SINKS`.
        target: a file, or a directory for a dataset; None or `-` is standard output, which gets no `FILE.meta.json`.
        overwrite: whether existing files may be replaced.
        options: how to keep what is done; parts are of no meaning for what is not a file.
        command_line: for `FILE.meta.json`.
        on_batch: called after each batch has been written.
        show: opens what takes the rows in place of standard output.

    Returns:
        Seconds from the first batch asked for to the last row written; None where the file was finished before.

    Raises:
        UsageError: options that do not go together.
        XcliError: what ends the run; then nothing stands under the final name, and a file's rows are kept.
    """
    options = options or RecordOptions()
    check_options(options, format, target)
    recording = _Recording(run, command, format, target, overwrite, command_line, on_batch, show, options)
    if target is None or is_direct(target):
        return recording.stream()
    return recording.keep(target)


@dataclass(frozen=True, slots=True)
class _Output:
    """One of the tables to write: its format, its file, and the columns of the run's rows that it has."""

    format: str
    target: str
    columns: list[str]


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
    show: Callable[[pa.Schema], AbstractContextManager[RowSink]] | None
    options: RecordOptions
    _failed: int = 0

    def _done(self, batch: ImageBatch) -> None:
        """Called after each batch, when its rows are written or kept."""
        if self.on_batch is not None:
            self.on_batch(batch)
        self._failed += sum(error is not None for error in batch.errors)

    def _check_errors(self) -> None:
        check_errors(self._failed, self.options.max_errors)

    def _metadata(self) -> dict[str, str]:
        return provenance_metadata(self.run.provenance(self.command))

    # Written as it comes

    def stream(self) -> float:
        """Writes the rows as they come."""
        options = self.options
        schema = self.run.start()
        begin = time.monotonic()
        errors = None if options.errors_out is None else ErrorList(options.errors_out)
        try:
            with self._open_stream(schema) as sink:
                for batch, rows in self.run.batches():
                    sink.write(rows)
                    if errors is not None:
                        errors.add(rows)
                    self._done(batch)
                    self._check_errors()
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
        self.run.published = True
        return time.monotonic() - begin

    def _open_stream(self, schema: pa.Schema) -> AbstractContextManager[RowSink]:
        if self.show is not None:
            return self.show(schema)
        guarded = self.options.csv_safe
        return open_sink(self.format, self.target, schema, self._metadata(), self.overwrite, guarded=guarded)

    # Kept in parts

    def keep(self, target: str) -> float | None:
        """Keeps the rows in parts, and puts the file together from them."""
        started = datetime.now(UTC)
        earlier_end = None if self.overwrite else finished(target)
        with self._open_parts(target) as parts:
            earlier = parts.fingerprint or earlier_end or {}
            schema = self.run.start(earlier.get("provenance", {}).get("batch_size"))
            fingerprint = self._fingerprint(schema)
            if earlier_end is not None and earlier_end["fingerprint"] != digest(fingerprint):
                raise other_settings(target)
            if self._is_whole(fingerprint) and earlier_end is not None:
                if parts.fingerprint is not None and digest(parts.fingerprint) == digest(fingerprint):
                    parts.remove()  # it died between the end of its work and the removal of its parts
                say_finished(target, self.options)
                return None
            if isinstance(parts, Journal):
                for one in self._outputs(schema):
                    check_output(one.format, one.target, self._may_replace(one, digest(fingerprint)))
            parts.begin(fingerprint)
            if parts.rows:
                log.warning("continuing: %s rows are kept from before", f"{parts.rows:,}")
            begin = time.monotonic()
            layout = self._compute(parts)
            sources, seconds = self.run.listing.options, time.monotonic() - begin
            meta = run_meta(fingerprint, sources, self.run.report, started, seconds, self.command_line)
            self._publish(parts, layout, schema, meta | {"profile": self.run.profile.as_dict()})
            return time.monotonic() - begin

    def _open_parts(self, target: str) -> Parts:
        options = self.options
        if is_dataset(target):
            return Dataset(
                target,
                overwrite=self.overwrite,
                restart=options.restart,
                part_rows=options.part_rows,
                part_seconds=options.part_seconds,
            )
        return Journal(target, restart=options.restart, part_rows=options.part_rows, part_seconds=options.part_seconds)

    def _fingerprint(self, schema: pa.Schema) -> dict[str, Any]:
        """Everything that the rows depend on, and what they are rows of."""
        options = self.options
        guarded = {"csv_safe": True} if options.csv_safe else {}
        second = {} if options.features_out is None else {"features_out": same_output(options.features_out)}
        provenance = self.run.provenance(self.command)
        return fingerprint_of(provenance, self.run.listing.options, schema, self.format, **guarded, **second)

    def _is_whole(self, fingerprint: dict[str, Any]) -> bool:
        """Whether the second file, if there is to be one, was finished too.

        Raises:
            OutputError: there is a file in its place.
        """
        second = self.options.features_out
        if second is None:
            return True
        if not self.overwrite and exists(second) and digest_of(second) != digest(fingerprint):
            raise other_settings(second)
        return is_file(second)

    def _compute(self, parts: Parts) -> Layout:
        run = self.run
        layout = Layout(parts.kept(self.options.retry_errors))
        try:
            for batch, rows in run.batches(layout):
                with defer_signals():
                    parts.append(rows, [key_of(ref) for ref in batch.refs], batch.stamps)
                    self._done(batch)
                self._check_errors()
            parts.cut()
        except BaseException as error:
            # Where not even this part can be written, those before it stand; the first error says why.
            with defer_signals(), suppress(OutputError):
                parts.cut()
                if isinstance(error, TooManyErrors):
                    list_errors(self.options.errors_out, parts.outcomes(layout))
            raise
        return layout

    def _publish(self, parts: Parts, layout: Layout, schema: pa.Schema, meta: dict[str, Any]) -> None:
        """Makes the output appear, whole, with what made it; then the parts have done their duty."""
        import pyarrow as pa

        lead = pa.schema([schema.field(name) for name in schema.names[:3]])
        list_errors(self.options.errors_out, parts.read(layout, lead))
        if isinstance(parts, Dataset):
            self.run.report.check(parts.settle(layout))
            parts.succeed(meta, schema)
        else:
            self._put_together(parts, layout, schema, meta)
            parts.remove()
        self.run.published = True

    def _put_together(self, parts: Parts, layout: Layout, schema: pa.Schema, meta: dict[str, Any]) -> None:
        import pyarrow as pa

        outputs = self._outputs(schema)
        # Of a new file `FILE.meta.json` appears first: who dies in between has not finished, and goes on. In place of
        # an old file it must never stand beside that, and appears last.
        old = [one.target for one in outputs if self.overwrite and exists(one.target)]
        with ExitStack() as stack:
            sinks: list[OutputFile] = []
            for one in outputs:
                columns = pa.schema([schema.field(name) for name in one.columns])
                replace, guarded = self._may_replace(one, meta["fingerprint"]), self._guarded(one.format)
                sink = open_sink(
                    one.format, one.target, columns, self._metadata(), replace, guarded=guarded, exclusive=True
                )
                stack.callback(sink.discard)
                sinks.append(sink)
            rows = 0
            for batch in parts.read(layout, schema):
                rows += batch.num_rows
                for one, sink in zip(outputs, sinks, strict=True):
                    sink.write(batch.select(one.columns))
            self.run.report.check(rows)
            for one in outputs:
                if one.target in old:
                    remove(f"{one.target}{META_SUFFIX}")
                else:
                    self._describe(one, meta)
            try:
                OutputFile.close(sinks)
            except BaseException:
                for one in outputs:
                    with suppress(OutputError):
                        remove(f"{one.target}{META_SUFFIX}")
                raise
            stack.pop_all()
            for one in outputs:
                if one.target in old:
                    self._describe(one, meta)

    def _outputs(self, schema: pa.Schema) -> list[_Output]:
        second = self.options.features_out
        assert self.target is not None
        if second is None:
            return [_Output(self.format, self.target, schema.names)]
        predictions, features = column_names(schema)
        format = format_from_name(second, FEATURES_FORMATS, "parquet")
        return [_Output(format, second, features), _Output(self.format, self.target, predictions)]

    def _may_replace(self, output: _Output, fingerprint: str) -> bool:
        """Whether files there may go: the user says so, or they are of this very run, which died as they appeared."""
        return self.overwrite or digest_of(output.target) == fingerprint

    def _guarded(self, format: str) -> bool:
        return self.options.csv_safe and format in GUARDED_FORMATS

    def _describe(self, output: _Output, meta: dict[str, Any]) -> None:
        guarded = {"csv_safe": True} if self._guarded(output.format) else {}
        write_meta(output.target, meta | guarded, exclusive=True)
