"""A directory of parts that is brought up to date: parts without a change keep their files."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.checked_file import CheckedReader, CheckedWriter, Part
from xcli.outputs.dataset import Dataset
from xcli.outputs.journal import encode
from xcli.outputs.part_files import sidecar_name
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import KEY, MTIME, SIZE, FinishedRows, RowOrder, state_fields
from xcli.outputs.update import fingerprint_of_run
from xcli.storage import disk
from xcli.storage.checksums import checksum_of
from xcli.storage.ownership import SUFFIX
from xcli.storage.temporary import unique_name
from xcli.tables.base import sliced
from xcli.tables.parquet import ParquetReader, part_number
from xcli.tables.provenance import DATASET_META, DATASET_RUN, PARTS, SUCCESS, read_meta

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from xcli.outputs.base_rows import BaseRows
    from xcli.outputs.base_table import CarriedValues
    from xcli.outputs.dataset import Further
    from xcli.outputs.parts import Parts
    from xcli.storage.checksums import Checksum

_NUMBERS = 1 << 16  # of rows at once


class UpdatedDataset(Dataset):
    """A `Dataset` that can be made an unfinished run again once the rows of an update are computed."""

    _reopened = False

    def change(self, parts: Parts, order: RowOrder, schema: pa.Schema, carried: CarriedValues | None) -> RowOrder:
        """Makes a finished dataset an unfinished run again that has all rows of an update, and those that will go.

        Args:
            parts: the rows that the update has computed, and `parts.base`, those of this dataset.
            order: of all rows of the update, by their numbers in `parts`.
            schema: columns of the run.
            carried: values of the manifest. A row with other values than before is moved to a part of its own.

        Returns:
            The order of these rows by their numbers in this dataset.

        Raises:
            OutputError: a part was changed since it was written, or the disk fails.
        """
        import pyarrow as pa

        assert parts.base is not None
        fingerprint, states = fingerprint_of_run(parts), parts.base.rows.table
        if carried is None:
            self.reopen(fingerprint, states)
            self.take_over(parts.own_rows(), schema)
            return order
        moved, scratch = _MovedRows(parts.base.rows, order), parts.new_scratch()
        # Before anything is changed: these rows are read from the dataset, too.
        moved.copy(carried.replace(parts.read(order, pa.schema([*schema, *state_fields()]))), scratch)
        self.reopen(fingerprint, moved.with_carried_keys(states))
        if moved.rows > len(states):
            with CheckedReader(disk.open_file(scratch), 0) as reader:
                self.take_over(reader.batches(), schema)
        order.check_sources()
        return moved

    def reopen(self, fingerprint: dict[str, Any], states: pa.Table) -> None:
        """Makes a finished dataset an unfinished run again, which its command continues if this process ends early.

        Args:
            fingerprint: of the run.
            states: keys and states of all rows, in the order of the parts (`xcli.outputs.comparison.BaseRows`).

        Raises:
            OutputError: a part was changed since it was written, or the disk fails.
        """
        recorded = (read_meta(os.path.join(self._target, DATASET_META)) or {}).get(PARTS) or {}
        shown, begin = one_line(self._target), 0
        parts: list[Part] = []
        for name in self._part_names():
            with self._reading(name):
                checksum = checksum_of(self._folder.local(name))
                if name in recorded and not str(recorded[name]).endswith(f" {checksum.digest}"):
                    raise OutputError(f"{shown} cannot be updated: {name} was changed since it was written")
                parts.append(self._write_sidecar(name, checksum, states.slice(begin)))
            begin += parts[-1].rows
        if begin != len(states):
            raise OutputError(f"{shown} cannot be updated: it has another number of rows than was recorded")
        self._folder.write(DATASET_RUN, encode(fingerprint))
        self._folder.unlink(SUCCESS)
        self._finished, self.fingerprint, self._parts, self._reopened = False, fingerprint, parts, True

    def _write_sidecar(self, name: str, checksum: Checksum, states: pa.Table) -> Part:
        """Writes the sidecar of a part, whose rows have the first of these states."""
        import pyarrow as pa

        number = part_number(name)
        statuses = pa.Table.from_batches(
            ParquetReader(self._folder.local(name)).batches(STATUS_COLUMNS),
            pa.schema([(column, pa.string()) for column in STATUS_COLUMNS]),
        )
        own = states.slice(0, len(statuses)).select([KEY, SIZE, MTIME])
        schema = pa.schema([*statuses.schema, *state_fields()])
        columns = [column.combine_chunks() for column in (*statuses.columns, *own.columns)]
        rows = pa.Table.from_arrays(columns, schema=schema).combine_chunks()
        scratch = self._folder.scratch(unique_name(sidecar_name(number)))
        writer = CheckedWriter(scratch)
        try:
            for batch in rows.to_batches() or [pa.RecordBatch.from_pylist([], schema)]:
                writer.write(batch)
            digest = writer.close(number, {"table": checksum, "note": {}})
        except BaseException:
            writer.abandon()
            raise
        self._folder.publish(scratch, sidecar_name(number), keep=True)
        return Part(name, len(rows), digest, checksum)

    def take_over(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Appends rows, with their states, that were kept elsewhere, in parts of their own.

        Args:
            batches: with the columns of the run, and `KEY`, `SIZE` and `MTIME`.
            schema: columns of the run.
        """
        writer, rows, sidecar = None, 0, [*STATUS_COLUMNS, KEY, SIZE, MTIME]
        try:
            for whole in batches:
                for batch in sliced(whole, self._part_rows):
                    writer = writer or self._begin_part()
                    writer.add_with_sidecar(batch.select(schema.names), batch.select(sidecar))
                    rows += batch.num_rows
                    if rows >= self._part_rows:
                        self._opened().extend(filter(None, [writer.finish()]))
                        writer, rows = None, 0
            if writer is not None:
                self._opened().extend(filter(None, [writer.finish()]))
        except BaseException:
            if writer is not None:
                writer.abandon()
            raise

    def mark_complete(
        self, meta: dict[str, Any], schema: pa.Schema, further: Further | None = None, *, states: bool = True
    ) -> None:
        """See `Dataset.mark_complete`; also removes the rows beside it of an update that was interrupted."""
        super().mark_complete(meta, schema, further, states=states)
        name = self._target.rstrip("/")
        if not self._reopened and not self._folder.remote and os.path.isdir(name + SUFFIX):
            # Another's directory of that name is left as it is.
            with suppress(OutputError), PartialFile(name) as rows:
                rows.discard()


class _MovedRows(RowOrder):
    """The order of the rows of an update of a dataset in which rows with other values of a manifest have moved.

    They are numbered after the rows of the dataset, in the order of the sources, like those that were computed.

    Args:
        base: the rows of the dataset.
        order: that of the update; its keys are those without the values.
    """

    def __init__(self, base: BaseRows, order: RowOrder) -> None:
        import numpy as np

        super().__init__(FinishedRows((), retry_errors=False), carried=True)
        self.whole, self._base, first = order.whole, base, len(base.table)
        numbers = np.concatenate([np.empty(0, np.int64), *order.numbers(_NUMBERS)])
        self._new_keys = np.frombuffer(order.other_keys or b"", np.uint64)
        self._stays = numbers < first
        if base.carried is None:
            self._stays[:] = False
        else:
            rows = numbers[self._stays]
            self._stays[self._stays] = base.carried[rows] == self._new_keys[self._stays]
        numbers[~self._stays] = np.arange(first, first + np.count_nonzero(~self._stays))
        for number in numbers.tolist():
            self._add(number)
        self.rows, self.images = first + int(np.count_nonzero(~self._stays)), len(numbers)
        self.keys.update(self._new_keys.astype("<u8").tobytes())

    def copy(self, batches: Iterator[pa.RecordBatch], path: str) -> None:
        """Writes those of all rows, with the columns of `state_fields`, that have moved or are new, to a file."""
        import pyarrow as pa

        assert self.other_keys is not None
        writer, begin = CheckedWriter(path), 0
        try:
            for batch in batches:
                own = slice(begin, begin := begin + batch.num_rows)
                place = batch.schema.get_field_index(KEY)
                self.other_keys.extend(batch.column(KEY).to_pylist())
                changed = batch.set_column(place, batch.schema.field(place), pa.array(self._new_keys[own], pa.uint64()))
                writer.write(changed.filter(pa.array(~self._stays[own])))
            writer.close(0)
        except BaseException:
            writer.abandon()
            raise

    def with_carried_keys(self, states: pa.Table) -> pa.Table:
        """Returns the states of the rows of the dataset with the keys that its sidecars have during a run."""
        import pyarrow as pa

        if self._base.carried is None:
            return states
        place = states.schema.get_field_index(KEY)
        return states.set_column(place, states.schema.field(place), pa.chunked_array([self._base.carried], pa.uint64()))
