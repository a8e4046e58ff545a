"""A directory of parts that is brought up to date: parts without a change keep their files."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xcli.core.errors import OutputError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.outputs.checked_file import CheckedWriter, Part
from xcli.outputs.dataset import Dataset
from xcli.outputs.journal import encode
from xcli.outputs.part_files import sidecar_name
from xcli.outputs.partial_file import PartialFile
from xcli.outputs.resume import KEY, MTIME, SIZE, state_fields
from xcli.storage.checksums import checksum_of
from xcli.storage.ownership import SUFFIX
from xcli.storage.temporary import unique_name
from xcli.tables.base import sliced
from xcli.tables.parquet import ParquetReader, part_number
from xcli.tables.provenance import DATASET_META, DATASET_RUN, PARTS, SUCCESS, read_meta

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from xcli.outputs.dataset import Further
    from xcli.storage.checksums import Checksum


class UpdatedDataset(Dataset):
    """A `Dataset` that can be made an unfinished run again once the rows of an update are computed."""

    _reopened = False

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
