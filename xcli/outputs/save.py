"""Saves the rows of a run, and beside them `.meta.json` with what made them.

The rows of a file first go into `FILE.partial/` (`xcli.outputs.partial_file`) and are assembled at the end; those of a
directory stay in their parts (`xcli.outputs.dataset`); what goes to standard output, a pipe or a terminal is written
as it comes.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import OutputError, Terminated, TooManyErrors
from xcli.core.records import PATH, STATUS, STATUS_COLUMNS
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.outputs.dataset import Dataset
from xcli.outputs.error_list import ErrorList, check_errors, list_errors
from xcli.outputs.options import Output, SaveOptions, check_options
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import RowOrder, key_of
from xcli.outputs.target import Directory, File, Stream, other_settings
from xcli.tables.formats import CSV_SAFE_FORMATS, FEATURES_FORMATS, TableOutput, check_output, create_table, open_table
from xcli.tables.provenance import digest, fingerprint_of, provenance_metadata, run_meta, write_meta
from xcli.tables.schema import split_features

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from xcli.core.records import ImageBatch
    from xcli.inference.run import Run
    from xcli.outputs.parts import Parts
    from xcli.outputs.target import EarlierRun, KeptTarget

    OnBatch = Callable[[ImageBatch], None]

log = logging.getLogger("xcli")


class RowSink(Protocol):
    """Where rows go that are not kept in parts."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes a batch."""


def save(
    run: Run,
    output: Output,
    options: SaveOptions | None = None,
    *,
    command_line: str | None = None,
    on_batch: OnBatch | None = None,
    show: Callable[[pa.Schema], AbstractContextManager[RowSink]] | None = None,
) -> float | None:
    """Runs to the end and writes every row.

    Args:
        run: set up, not started.
        output: what to write, and where; a stream gets no `.meta.json`.
        options: how to keep what is done; parts mean nothing for a stream.
        command_line: for `.meta.json`.
        on_batch: called after each batch has been written.
        show: opens what shows the rows in place of standard output.

    Returns:
        Seconds from the first batch asked for to the last row written; None if the output was finished before.

    Raises:
        UsageError: options that do not go together.
        XcliError: what ends the run; then nothing stands under the final name, and the rows of a file are kept.
    """
    options = options or SaveOptions()
    check_options(output, options)
    target = output.target
    saver: _StreamedRun | _KeptRun
    if isinstance(target, Stream):
        saver = _StreamedRun(run, output, options, on_batch, show)
    else:
        saver = _KeptRun(run, output, options, on_batch, target, command_line)
    try:
        return saver.save()
    except (KeyboardInterrupt, Terminated):
        log.error("stopped after %d images%s", run.report.rows, CONTINUES if saver.keeps_rows else "")
        raise


CONTINUES = "; the same command goes on from there"
"""What a message says of rows that are kept."""


@dataclass(slots=True)
class _Saver:
    """What saving needs wherever the rows go.

    Attributes:
        failed: error rows of this run so far.
        keeps_rows: whether the same command would go on from the rows that are done.
    """

    run: Run
    output: Output
    options: SaveOptions
    on_batch: OnBatch | None
    failed: int = field(default=0, init=False)
    keeps_rows: bool = field(default=False, init=False)

    def _count(self, batch: ImageBatch) -> None:
        """Called after each batch, when its rows are written or kept."""
        if self.on_batch is not None:
            self.on_batch(batch)
        self.failed += sum(error is not None for error in batch.errors)

    def _metadata(self) -> dict[str, str]:
        """The provenance, for formats that hold it."""
        return provenance_metadata(self.run.provenance(self.output.command))


@dataclass(slots=True)
class _StreamedRun(_Saver):
    """A run whose rows are written as they come."""

    show: Callable[[pa.Schema], AbstractContextManager[RowSink]] | None = None

    def save(self) -> float:
        """See the function `save`."""
        options = self.options
        schema = self.run.start()
        begin = time.monotonic()
        errors = None if options.errors_out is None else ErrorList(options.errors_out)
        try:
            with self._open(schema) as sink:
                for batch, rows in self.run.batches():
                    sink.write(rows)
                    if errors is not None:
                        errors.add(rows)
                    self._count(batch)
                    check_errors(self.failed, options.max_errors)
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
        return time.monotonic() - begin

    def _open(self, schema: pa.Schema) -> AbstractContextManager[RowSink]:
        if self.show is not None:
            return self.show(schema)
        output = self.output
        return create_table(
            output.format,
            output.target.name,
            schema,
            self._metadata(),
            output.overwrite,
            escape_formulas=self.options.csv_safe,
        )


@dataclass(frozen=True, slots=True)
class _Table:
    """One of the files to write: its format, and the columns of the run's rows that it has."""

    file: File
    format: str
    columns: list[str]


@dataclass(slots=True)
class _KeptRun(_Saver):
    """A run whose rows are kept in parts until the output is finished."""

    target: File | Directory
    command_line: str | None

    def save(self) -> float | None:
        """See the function `save`."""
        started = datetime.now(UTC)
        earlier = None if self.output.overwrite else self.target.finished_run()
        self.keeps_rows = True
        with self._open_parts() as parts:
            schema = self.run.start(self._pinned_batch_size(parts, earlier))
            fingerprint = self._fingerprint(schema)
            if earlier is not None and earlier.fingerprint != digest(fingerprint):
                raise other_settings(self.target)
            if self._is_complete(fingerprint) and earlier is not None:
                if parts.fingerprint is not None and digest(parts.fingerprint) == digest(fingerprint):
                    parts.remove()  # an earlier run was killed after its output was finished, before it removed them
                say_finished(self.target, self.options)
                return None
            if isinstance(parts, PartialFile):
                for table in self._tables(schema):
                    check_output(table.format, table.file.name, self._may_replace(table, digest(fingerprint)))
            parts.begin(fingerprint)
            if parts.rows:
                log.warning("continuing: %s rows are kept from before", f"{parts.rows:,}")
            begin = time.monotonic()
            order = self._compute(parts)
            sources, seconds = self.run.listing.options, time.monotonic() - begin
            meta = run_meta(fingerprint, sources, self.run.report, started, seconds, self.command_line)
            self._publish(parts, order, schema, meta | {"profile": self.run.profile.as_dict()})
            return time.monotonic() - begin

    def _open_parts(self) -> Parts:
        options = self.options
        rows, seconds = options.part_rows, options.part_seconds
        if isinstance(self.target, Directory):
            return Dataset(
                self.target,
                overwrite=self.output.overwrite,
                restart=options.restart,
                part_rows=rows,
                part_seconds=seconds,
            )
        return PartialFile(self.target.name, restart=options.restart, part_rows=rows, part_seconds=seconds)

    @staticmethod
    def _pinned_batch_size(parts: Parts, earlier: EarlierRun | None) -> int | None:
        """The batch size of an earlier run of this output; values depend on it."""
        if parts.fingerprint is not None:
            size: int | None = parts.fingerprint.get("provenance", {}).get("batch_size")
            return size
        return None if earlier is None else earlier.batch_size

    def _fingerprint(self, schema: pa.Schema) -> dict[str, Any]:
        """Everything that the rows depend on, and what they are rows of."""
        options, second = self.options, self.options.features_file()
        more: dict[str, Any] = {"csv_safe": True} if options.csv_safe else {}
        if second is not None:
            more["features_out"] = second.real_name
        provenance = self.run.provenance(self.output.command)
        return fingerprint_of(provenance, self.run.listing.options, schema, self.output.format, **more)

    def _is_complete(self, fingerprint: dict[str, Any]) -> bool:
        """Whether the second file, if there is to be one, is finished too.

        Raises:
            OutputError: another file has its name.
        """
        second = self.options.features_file()
        if second is None:
            return True
        if not self.output.overwrite and second.exists() and not second.holds(digest(fingerprint)):
            raise other_settings(second)
        return second.is_finished()

    def _compute(self, parts: Parts) -> RowOrder:
        order = RowOrder(parts.finished_rows(self.options.retry_errors))
        try:
            for batch, rows in self.run.batches(order):
                with defer_signals():
                    parts.append(rows, [key_of(ref) for ref in batch.refs], batch.states)
                    self._count(batch)
                check_errors(self.failed, self.options.max_errors)
            parts.finish_part()
        except BaseException as error:
            # If not even this part can be written, those before it stand; the first error says why.
            with defer_signals(), suppress(OutputError):
                parts.finish_part()
                if isinstance(error, TooManyErrors):
                    list_errors(self.options.errors_out, parts.finished_statuses(order))
            raise
        return order

    def _publish(self, parts: Parts, order: RowOrder, schema: pa.Schema, meta: dict[str, Any]) -> None:
        """Makes the output appear, complete, with what made it; then the parts are not needed any more."""
        import pyarrow as pa

        status_columns = pa.schema([schema.field(name) for name in STATUS_COLUMNS])
        list_errors(self.options.errors_out, parts.read(order, status_columns))
        if isinstance(parts, Dataset):
            self.run.report.check(parts.drop_stale_rows(order))
            parts.mark_complete(meta, schema)
        else:
            self._assemble(parts, order, schema, meta)
            parts.remove()
        self.keeps_rows = False

    def _assemble(self, parts: Parts, order: RowOrder, schema: pa.Schema, meta: dict[str, Any]) -> None:
        """Writes the files of a run from its parts, and makes them appear together."""
        import pyarrow as pa

        tables = self._tables(schema)
        # Of a new file `.meta.json` appears first: a run that is killed in between has not finished, and goes on. It
        # must never stand beside an old file, so if one is replaced, `.meta.json` appears last.
        replaced = [table for table in tables if self.output.overwrite and table.file.exists()]
        with ExitStack() as stack:
            sinks: list[TableOutput] = []
            for table in tables:
                sink = create_table(
                    table.format,
                    table.file.name,
                    pa.schema([schema.field(name) for name in table.columns]),
                    self._metadata(),
                    self._may_replace(table, meta["fingerprint"]),
                    escape_formulas=self._escapes_formulas(table.format),
                    exclusive=True,
                )
                stack.callback(sink.discard)
                sinks.append(sink)
            rows = 0
            for batch in parts.read(order, schema):
                rows += batch.num_rows
                for table, sink in zip(tables, sinks, strict=True):
                    sink.write(batch.select(table.columns))
            self.run.report.check(rows)
            for table in tables:
                if table in replaced:
                    table.file.remove_meta()
                else:
                    self._write_meta(table, meta)
            try:
                TableOutput.close(sinks)
            except BaseException:
                for table in tables:
                    with suppress(OutputError):
                        table.file.remove_meta()
                raise
            stack.pop_all()
            for table in replaced:
                self._write_meta(table, meta)

    def _tables(self, schema: pa.Schema) -> list[_Table]:
        second = self.options.features_file()
        assert isinstance(self.target, File)
        if second is None:
            return [_Table(self.target, self.output.format, schema.names)]
        predictions, features = split_features(schema)
        return [
            _Table(second, second.format(FEATURES_FORMATS, "parquet"), features),
            _Table(self.target, self.output.format, predictions),
        ]

    def _may_replace(self, table: _Table, fingerprint: str) -> bool:
        """Whether a file there may be replaced: the user says so, or it is of this run, killed as it appeared."""
        return self.output.overwrite or table.file.holds(fingerprint)

    def _escapes_formulas(self, format: str) -> bool:
        return self.options.csv_safe and format in CSV_SAFE_FORMATS

    def _write_meta(self, table: _Table, meta: dict[str, Any]) -> None:
        csv_safe = {"csv_safe": True} if self._escapes_formulas(table.format) else {}
        write_meta(table.file.name, meta | csv_safe, exclusive=True)


def say_finished(target: KeptTarget, options: SaveOptions) -> None:
    """Says that an output was finished by an earlier run, and writes the list of its errors if that is wanted."""
    if options.errors_out is not None:
        list_errors(options.errors_out, open_table(target.name).batches([PATH, STATUS]))
    stay = ", its errors stay as they are" if options.retry_errors else ""
    log.warning("%s is finished already; nothing to do%s (--overwrite computes it again)", one_line(target.name), stay)
