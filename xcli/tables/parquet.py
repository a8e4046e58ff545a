"""Parquet with zstd: files, and directories of them."""

from __future__ import annotations

import json
import os
import re
import shlex
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING

from xcli.core.errors import CheckError, SourceError
from xcli.core.records import FEATURES, PATH, STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.storage.parquet_file import CheckedParquet, decoded_size
from xcli.tables.base import GROUP_BYTES, Format, TableReader, TableWriter, rows_per_group
from xcli.tables.provenance import DATASET_META, DATASET_RUN, METADATA_KEY, SUCCESS, parse_meta, read_meta
from xcli.tables.schema import FIRST_RESULT, feature_shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.storage.checksums import Checksum
    from xcli.storage.streams import ByteStream
    from xcli.tables.rows import ErrorFeatures

_BUFFER = 1 << 16  # of a column; a merge has as many open as shards times columns

_GROUP_TEXT = 256 << 20  # bytes of the carried values in a row group, which has at most 65,536 rows


class _Output:
    """The stream as a file object that drops all bytes once it is `abandoned`.

    pyarrow completes an unfinished file when its writer is collected, and that must not reach the stream.
    """

    closed = False
    abandoned = False

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        if not self.abandoned:
            self._stream.write(data)
        return len(data)

    def flush(self) -> None: ...


class ParquetWriter(TableWriter):
    """Writes Parquet. The stream need not seek."""

    def __post_init__(self) -> None:
        import pyarrow.parquet as pq

        schema = self.schema
        self._group_rows = rows_per_group(schema)
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0
        encoded = {key: value.encode("utf-8", "backslashreplace") for key, value in self.metadata.items()}
        self._file_schema = schema.with_metadata(encoded or None)
        self._output = _Output(self.stream)
        # Names and class numbers repeat; paths, scores and features do not, and a dictionary would only cost time.
        # Minima and maxima of single features are of no use.
        features = feature_shape(schema) is not None
        self._writer = pq.ParquetWriter(
            self._output,
            self._file_schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if _repeats(schema.field(name))] or False,
            write_statistics=[name for i, name in enumerate(schema.names) if not (features and i == FIRST_RESULT)],
        )

    @cached_property
    def error_features(self) -> ErrorFeatures:
        options = json.loads(self.metadata.get(METADATA_KEY, "{}")).get("options", {})
        return "null" if options.get("error_features") == "null" else "nan"

    def _write(self, batch: pa.RecordBatch) -> None:
        while (cut := self._cut(batch)) is not None:
            self._pending.append(batch.slice(0, cut))
            self._write_group()
            batch = batch.slice(cut)
        if batch.num_rows:
            self._pending.append(batch)
            self._rows += batch.num_rows
            self._bytes += _carried_size(batch)

    def _cut(self, batch: pa.RecordBatch) -> int | None:
        """Returns how many rows of a batch belong to the row group that is being filled; None if it has room for all.

        A group ends where its texts reach a limit, so that long ones do not fill the memory.
        """
        rows = self._group_rows - self._rows
        room = _GROUP_TEXT - self._bytes
        if _carried_size(batch) >= room:
            sizes = range(1, batch.num_rows + 1)
            rows = min(rows, 1 + bisect_left(sizes, room, key=lambda count: _carried_size(batch.slice(0, count))))
        return rows if rows <= batch.num_rows else None

    def _write_group(self) -> None:
        import pyarrow as pa

        # One chunk: pages end where chunks end, and the bytes must not depend on the batches.
        table = pa.Table.from_batches(self._pending).combine_chunks()
        self._pending = []
        self._rows = self._bytes = 0
        table = table.replace_schema_metadata(self._file_schema.metadata)
        self._writer.write_table(table, row_group_size=self._group_rows)
        del table
        pa.default_memory_pool().release_unused()  # a group is large, and Arrow would keep twice as much

    def close(self) -> None:
        if self._pending:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        self._output.abandoned = True
        self._pending = []
        self._writer.close()


def _carried_size(batch: pa.RecordBatch) -> int:
    return sum(decoded_size(column) for column in batch.columns[FIRST_RESULT + 1 :])


def _repeats(field: pa.Field) -> bool:
    """Returns whether equal values of a column are likely, so that a dictionary saves space."""
    import pyarrow as pa

    data_type = field.type
    nested = pa.types.is_nested(data_type) or isinstance(data_type, pa.BaseExtensionType)
    return field.name != PATH and not nested and not pa.types.is_floating(data_type)


class ParquetReader(TableReader):
    format = "parquet"
    magic = b"PAR1"
    self_describing = True

    def _read_schema(self) -> pa.Schema:
        import pyarrow as pa

        with open(self.path, "rb") as file:
            parquet = CheckedParquet(file)
            schema, text = parquet.schema.remove_metadata(), parquet.metadata.get(METADATA_KEY.encode())
            self.row_count = parquet.row_count
        self.provenance = None if text is None else parse_meta(text, self.name)
        self._check_names(schema.names, FEATURES)
        for name in STATUS_COLUMNS:
            kind = schema.field(name).type
            if kind != pa.string():
                raise CheckError(f"{one_line(self.name)}: the column {name} is {kind}, not string")
        column = schema.field(FIRST_RESULT).type
        if schema.names[FIRST_RESULT] != FEATURES or isinstance(column, pa.FixedShapeTensorType):
            return schema
        if not pa.types.is_fixed_size_list(column):
            raise CheckError(f"{one_line(self.name)}: {FEATURES} is {column}, not a list of fixed size or a tensor")
        # Parquet has another name for the elements of a list, which a merged file would show.
        return schema.set(FIRST_RESULT, pa.field(FEATURES, pa.list_(column.value_type, column.list_size)))

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        # Buffered, so that a column of a row group is never in memory as a whole.
        with open(self.path, "rb") as file:
            # Twice what a manifest may carry, so that what a run writes can be read.
            for batch in CheckedParquet(file, _BUFFER, share=2).batches(self.batch_rows, columns, most=GROUP_BYTES):
                yield self._named(batch, columns)

    def _named(self, batch: pa.RecordBatch, columns: Sequence[str] | None) -> pa.RecordBatch:
        import pyarrow as pa

        return batch if columns is not None else pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)

    def _batches_with(self, rows: Sequence[int], columns: Sequence[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
        with open(self.path, "rb") as file:
            parquet = CheckedParquet(file, _BUFFER, share=2)
            start = 0
            for group, size in enumerate(parquet.group_rows()):
                end = start + size
                if bisect_left(rows, start) < bisect_left(rows, end):
                    for batch in parquet.batches(self.batch_rows, columns, most=GROUP_BYTES, only=[group]):
                        yield start, self._named(batch, columns)
                        start += batch.num_rows
                start = end


PART = re.compile(r"part-([0-9]{5,})\.parquet")
"""Matches the names of parts that this program writes; its group is the number."""


def part_number(name: str) -> int:
    """Returns the number in the name of a part; -1 if it is another name."""
    match = PART.fullmatch(name)
    return -1 if match is None else int(match[1])


def is_part(name: str) -> bool:
    """Returns whether a name in a directory of parts is that of a part; what begins with `_` or `.` is not."""
    return name.endswith(".parquet") and not name.startswith(("_", "."))


def describe_part(rows: int, checksum: Checksum) -> str:
    """Returns what `PARTS` of `_meta.json` says of a part."""
    return f"{rows} {checksum.digest}"


def no_table(name: str, reason: str) -> SourceError:
    """Returns the error for what is given in place of a table, such as a directory of photographs, or one of these."""
    shown = one_line(shlex.quote(name))
    return SourceError(
        f"{one_line(name)} is no table: {reason}. Images become one by: xception features {shown} -o FILE (or classify)"
    )


class DatasetReader(TableReader):
    """Reads a directory of Parquet parts, in the order of their numbers.

    Attributes:
        parts: their names; one is opened at a time.
    """

    format = "parquet"
    self_describing = True

    def __init__(self, name: str, path: str) -> None:
        # Listed here, where an OSError means that the directory cannot be opened, not that a part is damaged.
        names = os.listdir(path)
        if DATASET_RUN in names and SUCCESS not in names:
            raise CheckError(
                f"{one_line(name)}: its run has not finished (there is no {SUCCESS}); the same command continues it"
            )
        self.parts = sorted(filter(is_part, names), key=lambda one: (part_number(one), os.fsencode(one)))
        if not self.parts:
            if {DATASET_META, SUCCESS}.isdisjoint(names):
                raise no_table(name, "it is a directory without parts (*.parquet)")
            raise CheckError(f"{one_line(name)} is a directory that has lost its parts (*.parquet)")
        super().__init__(name.rstrip("/") or name, path.rstrip("/") or path)

    def _read_schema(self) -> pa.Schema:
        self.meta = self.meta or read_meta(os.path.join(self.path, DATASET_META))
        first = self._open(self.parts[0])
        rows = first.row_count or 0
        for part in map(self._open, self.parts[1:]):
            rows += part.row_count or 0
            if part.schema != first.schema or part.provenance != first.provenance:
                what = "columns" if part.schema != first.schema else "provenance"
                raise CheckError(f"{one_line(part.name)} and {one_line(first.name)} differ in their {what}")
        self.provenance, self.row_count = first.provenance, rows
        return first.schema

    def _open(self, part: str) -> ParquetReader:
        return ParquetReader(os.path.join(self.name, part), os.path.join(self.path, part))

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for part in self.parts:
            yield from self._open(part).batches(columns)

    def _taken(
        self, numbers: Sequence[int], columns: Sequence[str] | None
    ) -> Iterator[tuple[list[int], pa.RecordBatch]]:
        first = 0
        for part in map(self._open, self.parts):
            end = first + (part.row_count or 0)
            own = [number - first for number in numbers[bisect_left(numbers, first) : bisect_left(numbers, end)]]
            for here, batch in part.rows(own, columns):
                yield [first + number for number in here], batch
            first = end


PARQUET = Format(ParquetWriter, ParquetReader, (".parquet", ".pq"), ("classify", "features"))
