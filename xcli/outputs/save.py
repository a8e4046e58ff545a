"""Saves the rows of a run, and beside them `.meta.json`, which records how they were computed.

The rows of a file first go into `FILE.partial/` (`xcli.outputs.partial_file`) and are assembled at the end; those of a
directory stay in their parts (`xcli.outputs.dataset`); rows for standard output, a pipe or a terminal are written as
they come.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import OutputError, Terminated, TooManyErrors
from xcli.core.records import STATUS_COLUMNS, ImageBatch
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.outputs.comparison import Comparison, compare, recorded_columns, say_finished, updated
from xcli.outputs.dataset import Dataset, further_of
from xcli.outputs.error_list import check_errors, error_list, list_errors
from xcli.outputs.options import Output, SaveOptions, check_options
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import RowOrder
from xcli.outputs.target import Directory, EarlierRun, File, KeptTarget, Stream, other_settings, pinned_choices
from xcli.outputs.update import Update, carry, fingerprint_of_run, is_left, is_update, refuse_settings
from xcli.outputs.updated_dataset import UpdatedDataset
from xcli.storage.staging import Staging
from xcli.tables.formats import CSV_SAFE_FORMATS, FEATURES_FORMATS, TableOutput, check_output, create_table
from xcli.tables.provenance import LISTING, digest, fingerprint_of, provenance_metadata, run_meta
from xcli.tables.schema import described, split_features

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from xcli.inference.run import TableRun
    from xcli.outputs.base_table import CarriedValues
    from xcli.outputs.parts import Parts

    OnComparison = Callable[[Comparison], None]
    OnBatch = Callable[[ImageBatch], None]
    Show = Callable[[pa.Schema], AbstractContextManager["RowSink"]]

log = logging.getLogger("xcli")

CONTINUES = "; the same command goes on from there"
"""What a message says if finished rows are kept."""


class RowSink(Protocol):
    """Takes the rows of a run that are not kept in parts."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes a batch."""


def save(
    run: TableRun,
    output: Output,
    options: SaveOptions | None = None,
    *,
    command_line: str | None = None,
    on_begin: Callable[[], None] = lambda: None,
    on_batch: OnBatch | None = None,
    show: Show | None = None,
    on_comparison: OnComparison = lambda comparison: None,
) -> float | None:
    """Computes the rows of a run and writes them.

    Args:
        run: set up, not started.
        output: what to write, and where; a stream gets no `.meta.json`.
        options: how to keep finished rows; parts mean nothing for a stream.
        command_line: for `.meta.json`.
        on_begin: called before the first image is computed; not if the output was finished before.
        on_batch: called after each batch has been written.
        show: opens what shows the rows instead of writing them to standard output.
        on_comparison: called with what a comparison of a finished output with its sources has found.

    Returns:
        Seconds from the request for the first batch to the last row written; None if the output was finished before,
        and is what the run would write now.

    Raises:
        StaleOutputError: the output was finished before, and is not what the run would write now.
        UsageError: options that do not go together.
        XcliError: what ends the run. Then the output does not appear, and finished rows of a file are kept.
    """
    options = options or SaveOptions()
    check_options(output, options)
    saver = _Saver(run, output, options, on_begin, on_batch, command_line, on_comparison)
    try:
        return saver.stream(show) if isinstance(output.target, Stream) else saver.keep(output.target)
    except BaseException as error:
        if saver.begun or isinstance(error, KeyboardInterrupt | Terminated):
            log.error("stopped after %d images%s", run.report.rows, CONTINUES if saver.keeps_rows else "")
        raise


@dataclass(frozen=True, slots=True)
class _Table:
    """One of the files to write: its format, and the columns of the run's rows that it has."""

    file: File
    format: str
    columns: list[str]


@dataclass(slots=True)
class _Saver:
    """Saves one run: `stream` writes rows as they come, `keep` keeps them in parts until the output is finished.

    Attributes:
        second: the file of `--features-out`, of a run whose rows are kept.
        failed: number of error rows of this run so far.
        keeps_rows: whether the same command would continue with the finished rows.
        begun: whether this run has begun to keep rows.
    """

    run: TableRun
    output: Output
    options: SaveOptions
    on_begin: Callable[[], None]
    on_batch: OnBatch | None
    command_line: str | None
    on_comparison: OnComparison
    second: File | None = field(default=None, init=False)
    failed: int = field(default=0, init=False)
    keeps_rows: bool = field(default=False, init=False)
    begun: bool = field(default=False, init=False)

    def _count(self, batch: ImageBatch) -> None:
        """Counts a batch whose rows have been written or kept."""
        if self.on_batch is not None:
            self.on_batch(batch)
        self.failed += sum(error is not None for error in batch.errors)

    def stream(self, show: Show | None) -> float:
        """Saves the rows of a `Stream`."""
        output = self.output
        schema = self.run.start()
        begin = time.monotonic()
        with error_list(self.options.errors_out) as add_errors:
            if show is not None:
                opened = show(schema)
            else:
                name, style = output.target.name, self._csv_style(output.format)
                opened = create_table(output.format, name, schema, self._metadata(), output.overwrite, **style)
            with opened as sink:
                self.on_begin()
                for batch, rows in self.run.batches():
                    sink.write(rows)
                    add_errors(rows)
                    self._count(batch)
                    check_errors(self.failed, self.options.max_errors)
        return time.monotonic() - begin

    def keep(self, target: File | Directory) -> float | None:
        """Saves the rows of a file or a directory; see the function `save`."""
        started = datetime.now(UTC)
        self.keeps_rows = True
        self.second = self.options.features_file()
        with ExitStack() as stack:
            parts = output_parts = stack.enter_context(self._open_parts(target))
            if self.second is not None and not self.second.remote:
                stack.callback(Staging(self.second.name).close)
            # Not before: an earlier process may have been killed while its output got its name.
            earlier = None if self.output.overwrite else target.finished_run()
            if earlier is not None and not self.options.update and (known := self._foreseen(target, parts, earlier)):
                self._compare(target, parts, known)
                return None
            schema = self.run.start(pinned_choices(parts.fingerprint, earlier))
            fingerprint = self._fingerprint(described(schema))
            if earlier is not None and earlier.fingerprint != digest(fingerprint):
                if self.options.update:
                    refuse_settings(target, fingerprint)
                raise other_settings(target)
            update = None
            if self._is_complete(fingerprint) and earlier is not None:
                if not self.options.update:
                    self._compare(target, parts, fingerprint)
                    return None
                update = Update(target, self.second, self.options, fingerprint, schema, self._carried())
                parts = update.open(parts, stack)
            elif is_update(parts.fingerprint):
                parts.discard()  # the table that it was to update is not there any more, or is to be replaced
            tables = self._tables(target, schema)
            for table in tables:
                replaces = self._may_replace(table, digest(fingerprint))
                check_output(table.format, table.file.name, replaces, exclusive=True)
            parts.begin(fingerprint if update is None else update.journal)
            self.begun = True
            if parts.rows:
                log.info("continuing: %s rows are kept from before", f"{parts.rows:,}")
            self.on_begin()
            begin = time.monotonic()
            order, carried = self._compute(parts, schema, update)
            if update is not None and self._is_up_to_date(update, parts, order):
                return None
            sources, seconds = self.run.listing.options, time.monotonic() - begin
            meta = run_meta(fingerprint, sources, self.run.report, started, seconds, self.command_line)
            meta |= {"profile": self.run.profile.as_dict()}
            if order.whole is not None:
                meta[LISTING] = order.whole.text()
            if update is not None and isinstance(output_parts, UpdatedDataset):
                order = output_parts.change(parts, order, schema, carried)
            self._publish(output_parts, order, schema, tables, meta, carried)
            parts.remove()
            return time.monotonic() - begin

    def _is_up_to_date(self, update: Update, parts: Parts, order: RowOrder) -> bool:
        """Returns whether an update has nothing to write, now that all sources are listed and computed."""
        comparison = update.check(order)
        self.on_comparison(comparison)
        if update.is_needed(comparison, order, parts):
            log.info("%s: %s", one_line(update.target.name), updated(comparison, order.retried))
            return False
        parts.remove()
        self.keeps_rows = False
        say_finished(update.target, self.options, comparison)
        return True

    def _foreseen(self, target: KeptTarget, parts: Parts, earlier: EarlierRun) -> dict[str, Any] | None:
        """Returns the fingerprint of this run, if it is that of the earlier one, and can be told without TensorFlow."""
        if not self.run.foresee(pinned_choices(parts.fingerprint, earlier)):
            return None
        extra, pair = self.run.listing.extra_columns, self.second is not None
        columns = recorded_columns(target, self.output.command, extra, pair)
        # Given what is carried over, the other columns follow from the rest of the fingerprint.
        fingerprint = None if columns is None else self._fingerprint(columns)
        if fingerprint is None or digest(fingerprint) != earlier.fingerprint or not self._is_complete(fingerprint):
            return None
        return fingerprint

    def _compare(self, target: KeptTarget, parts: Parts, fingerprint: dict[str, Any]) -> None:
        """Compares a finished output with its sources, and says what was found."""
        run, journal = self.run, parts.fingerprint
        if journal is None or is_left(target, journal, fingerprint):
            parts.remove()
        elif is_update(journal):
            log.info("%s has an unfinished update, which --update continues", one_line(target.name))
        comparison, order = compare(target, run.references(), carried=bool(run.listing.extra_columns))
        run.report.resume(order.ok, order.errors)
        run.report.listed, run.report.skipped = run.listing.listed, dict(run.listing.skipped)
        self.on_comparison(comparison)
        say_finished(target, self.options, comparison)

    def _open_parts(self, target: File | Directory) -> Parts:
        restart = self.options.restart
        rows, seconds = self.options.part_rows, self.options.part_seconds
        if isinstance(target, File):
            return PartialFile(target.name, restart=restart, part_rows=rows, part_seconds=seconds)
        overwrite = self.output.overwrite
        restart = restart and not (self.options.update and target.is_finished())
        return UpdatedDataset(target, overwrite=overwrite, restart=restart, part_rows=rows, part_seconds=seconds)

    def _carried(self) -> list[str]:
        return [column.name for column in self.run.listing.extra_columns]

    def _metadata(self) -> dict[str, str]:
        """Returns the provenance, for formats that have metadata."""
        return provenance_metadata(self.run.provenance(self.output.command))

    def _fingerprint(self, columns: list[str]) -> dict[str, Any]:
        options, second = self.options, self.second
        more: dict[str, Any] = options.csv_style() | self.output.runner
        if second is not None:
            more["features_out"] = second.real_name
        provenance = self.run.provenance(self.output.command)
        return fingerprint_of(provenance, self.run.listing.options, columns, self.output.format, **more)

    def _is_complete(self, fingerprint: dict[str, Any]) -> bool:
        """Returns whether the second file, if one is wanted, is finished too.

        Raises:
            OutputError: a file with its name is from another run.
        """
        second = self.second
        if second is None:
            return True
        if not self.output.overwrite and second.exists() and not second.holds(digest(fingerprint)):
            raise other_settings(second)
        return second.is_finished()

    def _compute(self, parts: Parts, schema: pa.Schema, update: Update | None) -> tuple[RowOrder, CarriedValues | None]:
        order = RowOrder(parts.finished_rows(self.options.retry_errors), carried=bool(self._carried()))
        carried = None if parts.base is None else carry(order, parts, schema, self._carried())
        if update is not None:
            update.check_when_listed(order)
        try:
            for batch, rows in self.run.batches(order):
                with defer_signals():
                    parts.append(rows, [order.key_of(ref) for ref in batch.refs], batch.states)
                    self._count(batch)
                check_errors(self.failed, self.options.max_errors)
            parts.finish_part()
        except BaseException as error:
            # If this part cannot be written, the parts before it are still kept, and the first error is reported.
            with defer_signals(), suppress(OutputError):
                parts.finish_part()
                if isinstance(error, TooManyErrors):
                    list_errors(self.options.errors_out, parts.finished_statuses(order))
            raise
        order.whole = self.run.listing.whole
        return order, carried

    def _publish(
        self,
        parts: Parts,
        order: RowOrder,
        schema: pa.Schema,
        tables: list[_Table],
        meta: dict[str, Any],
        carried: CarriedValues | None,
    ) -> None:
        """Makes the finished output and its `.meta.json` appear, and marks the parts as no longer needed."""
        import pyarrow as pa

        order.check_sources()
        status_columns = pa.schema([schema.field(name) for name in STATUS_COLUMNS])
        if isinstance(parts, Dataset):
            list_errors(self.options.errors_out, parts.read(order, status_columns))
            self.run.report.check(parts.drop_stale_rows(order))
            parts.mark_complete(meta, schema, further_of(order))
        else:
            self._assemble(parts, order, schema, tables, meta, carried)
            parts.remove()
        self.keeps_rows = False

    def _assemble(
        self,
        parts: Parts,
        order: RowOrder,
        schema: pa.Schema,
        tables: list[_Table],
        meta: dict[str, Any],
        carried: CarriedValues | None,
    ) -> None:
        """Writes the files of a run from its parts, and makes them appear together."""
        import pyarrow as pa

        with ExitStack() as stack:
            sinks: list[TableOutput] = []
            for table in tables:
                sink = create_table(
                    table.format,
                    table.file.name,
                    pa.schema([schema.field(name) for name in table.columns]),
                    self._metadata(),
                    self._may_replace(table, meta["fingerprint"]),
                    exclusive=True,
                    **self._csv_style(table.format),
                )
                stack.callback(sink.discard)
                sinks.append(sink)
            states = [sink.open_states(fingerprint_of_run(parts)) for sink in sinks]
            for writer in states:
                stack.callback(writer.abandon)
            rows = 0
            with error_list(self.options.errors_out) as add_errors:
                batches = parts.read(order, schema, states)
                for batch in batches if carried is None else carried.replace(batches):
                    rows += batch.num_rows
                    add_errors(batch)
                    for table, sink in zip(tables, sinks, strict=True):
                        sink.write(batch.select(table.columns))
            self.run.report.check(rows)
            for writer in states:
                meta |= writer.close()
            for table, sink in zip(tables, sinks, strict=True):
                sink.record(meta | (self.options.csv_style() if table.format in CSV_SAFE_FORMATS else {}))
            TableOutput.close(sinks)
            stack.pop_all()

    def _tables(self, target: File | Directory, schema: pa.Schema) -> list[_Table]:
        """Returns the files to write at the end; none for a directory."""
        if isinstance(target, Directory):
            return []
        second = self.second
        if second is None:
            return [_Table(target, self.output.format, schema.names)]
        predictions, features = split_features(schema)
        return [
            _Table(second, second.format(FEATURES_FORMATS, "parquet"), features),
            _Table(target, self.output.format, predictions),
        ]

    def _may_replace(self, table: _Table, fingerprint: str) -> bool:
        """Returns whether the file may be replaced: with --overwrite, or if this run was killed when it appeared."""
        return self.output.overwrite or table.file.holds(fingerprint)

    def _csv_style(self, format: str) -> dict[str, bool]:
        is_csv, options = format in CSV_SAFE_FORMATS, self.options
        return {"escape_formulas": is_csv and options.csv_safe, "byte_order_mark": is_csv and options.csv_bom}
