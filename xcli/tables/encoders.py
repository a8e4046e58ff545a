"""Encoders from record batches to bytes: CSV, JSON lines, Parquet, NPY.

A `Sink` turns batches of one schema into bytes on a stream and knows nothing of file names. The bytes depend on the
rows alone, never on how they were cut into batches, and memory is bounded by a row group or a slice, never by the
table.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from xcli.core.errors import SourceError, UsageError
from xcli.core.records import ERROR, PATH, STATUS
from xcli.storage.atomic import AtomicFile, commit
from xcli.tables.schema import feature_shape, prediction_count
from xcli.tables.text import csv_features, csv_field, csv_fields, csv_lines, csv_safe, guarded_text, json_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.storage.streams import ByteStream


VERBATIM = {b"xception": b"json"}
"""Metadata of a string column that holds the text of JSON values, as a reader of JSON lines gives carried columns."""

_GROUP_BYTES = 32 * 2**20
_GROUP_ROWS = 65536
_SLICE_VALUES = 2**20


class Sink(ABC):
    """One table on its way to a stream.

    Args:
        stream: where the bytes go. It is neither flushed nor closed here.
        schema: of every batch to come (`classify_schema` or `features_schema`).
        metadata: text by key for formats that can hold it (Parquet; the provenance goes under `METADATA_KEY`).

    Raises:
        UsageError: at construction, when the format cannot hold such a table.
    """

    needs_seek: ClassVar[bool] = False
    companion_suffix: ClassVar[str | None] = None

    def __init__(self, stream: ByteStream, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        self._stream = stream
        self.schema = schema

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes a batch of any number of rows.

        Raises:
            ValueError: the batch has another schema.
            OSError, OutputError: whatever the stream raises.
        """
        if not batch.schema.equals(self.schema):
            raise ValueError(f"a batch of the schema\n{batch.schema}\nin a table of the schema\n{self.schema}")
        if batch.num_rows:
            self._write(batch)

    @abstractmethod
    def _write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None:  # noqa: B027 - nothing to do where every batch is written at once
        """Writes what is still to come: buffered rows, footers. To be called once, after the last batch."""

    def abandon(self) -> None:  # noqa: B027 - likewise
        """Gives up: nothing more goes to the stream, now or when this object is collected."""


class CsvSink(Sink):
    """CSV by RFC 4180 with `\\n` line ends, in UTF-8, always with a header.

    Quotes stand only around fields that need them. A null is an empty field, an empty string is `""`. Floats are the
    shortest text that gives the same float32. Features of one dimension become the columns f0, f1, ...

    Args:
        guarded: put an apostrophe before texts that spreadsheets take for formulas, which is not to be undone.
    """

    def __init__(
        self, stream: ByteStream, schema: pa.Schema, metadata: Mapping[str, str], *, guarded: bool = False
    ) -> None:
        super().__init__(stream, schema, metadata)
        self._guarded = guarded
        shape = feature_shape(schema)
        if shape is not None and len(shape) > 1:
            raise UsageError("maps do not go to CSV; use parquet or npy, or --pooling avg")
        self._width = shape[0] if shape else 0
        names = list(schema.names)
        if shape:
            wide = [f"f{i}" for i in range(self._width)]
            for name in set(wide).intersection(names):
                raise SourceError(f"the manifest's column {name!r} has the name of a column of the output; rename it")
            names[3:4] = wide
        if guarded:
            names = [guarded_text(name) for name in names]
        stream.write((",".join(map(csv_field, names)) + "\n").encode())

    def _write(self, batch: pa.RecordBatch) -> None:
        for piece in _slices(batch, max(1, _SLICE_VALUES // max(self._width, 16))):
            columns = [
                csv_features(column)
                if self._width and i == 3
                else csv_fields(csv_safe(column) if self._guarded else column)
                for i, column in enumerate(piece.columns)
            ]
            self._stream.write(csv_lines(columns))


class JsonlSink(Sink):
    """JSON lines of a `classify` table: one object a row, with its predictions as a list.

    Predictions that are null are left out. Numbers that JSON has no text for (NaN, infinities) are null.
    """

    def __init__(self, stream: ByteStream, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        super().__init__(stream, schema, metadata)
        self._top = prediction_count(schema)
        if not self._top:
            raise UsageError("features do not go to JSON lines; use parquet, csv or npy")
        self._keys = {"label": "label", "wnid": "wnid", "index": "index", "score": "score"}
        if "wnid_1" not in schema.names:
            del self._keys["wnid"]
        ours = {f"{key}_{k}" for key in self._keys for k in range(1, self._top + 1)} | {PATH, STATUS, ERROR}
        self._carried = [name for name in schema.names if name not in ours]

    def _write(self, batch: pa.RecordBatch) -> None:
        for piece in _slices(batch, 8192):
            predictions = zip(*(self._predictions(piece, k) for k in range(1, self._top + 1)), strict=True)
            columns: list[Iterable[str]] = [_members(piece, name, name) for name in (PATH, STATUS, ERROR)]
            columns.append(f'"predictions": [{", ".join(filter(None, row))}]' for row in predictions)
            columns += [self._carried_members(piece, name) for name in self._carried]
            lines = ["{" + ", ".join(row) + "}\n" for row in zip(*columns, strict=True)]
            self._stream.write("".join(lines).encode())

    def _carried_members(self, batch: pa.RecordBatch, name: str) -> Iterator[str]:
        if self.schema.field(name).metadata != VERBATIM:
            return _members(batch, name, name)
        prefix = json.dumps(name, ensure_ascii=False) + ": "
        return (prefix + (text or "null") for text in batch.column(name).to_pylist())

    def _predictions(self, batch: pa.RecordBatch, k: int) -> Iterator[str]:
        """The k-th prediction of each row as an object, or an empty text where there is none."""
        members = zip(*(_members(batch, f"{key}_{k}", key) for key in self._keys), strict=True)
        present = batch.column(f"index_{k}").is_valid().to_pylist()
        for texts, here in zip(members, present, strict=True):
            yield "{" + ", ".join(texts) + "}" if here else ""


class _Valve:
    """What pyarrow writes a Parquet file to. Once shut it swallows bytes: pyarrow ends a file that is left open when
    its writer is collected, and that must not reach a stream which was given up."""

    closed = False

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.shut = False

    def write(self, data: bytes) -> int:
        if not self.shut:
            self._stream.write(data)
        return len(data)

    def flush(self) -> None: ...


class ParquetSink(Sink):
    """Parquet with zstd. The stream need not seek."""

    def __init__(self, stream: ByteStream, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        import pyarrow.parquet as pq

        super().__init__(stream, schema, metadata)
        self.group_rows = rows_per_group(schema)
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        encoded = {key: value.encode("utf-8", "backslashreplace") for key, value in metadata.items()}
        self._file_schema = schema.with_metadata(encoded or None)
        self._valve = _Valve(stream)
        # Names and class numbers repeat; paths, scores and features do not, and a dictionary would only cost time.
        # Minima and maxima of single features answer no question.
        features = feature_shape(schema) is not None
        self._writer = pq.ParquetWriter(
            self._valve,
            self._file_schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if _repeats(schema.field(name))] or False,
            write_statistics=[name for i, name in enumerate(schema.names) if not (features and i == 3)],
        )

    def _write(self, batch: pa.RecordBatch) -> None:
        while self._rows + batch.num_rows >= self.group_rows:
            cut = self.group_rows - self._rows
            self._pending.append(batch.slice(0, cut))
            self._write_group()
            batch = batch.slice(cut)
        if batch.num_rows:
            self._pending.append(batch)
            self._rows += batch.num_rows

    def _write_group(self) -> None:
        import pyarrow as pa

        # One chunk: pages end where chunks end, and the file must not show how the rows came.
        table = (
            pa.Table.from_batches(self._pending).combine_chunks().replace_schema_metadata(self._file_schema.metadata)
        )
        self._pending = []
        self._rows = 0
        self._writer.write_table(table, row_group_size=self.group_rows)

    def close(self) -> None:
        if self._pending:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        self._valve.shut = True
        self._pending = []
        self._writer.close()


class NpySink(Sink):
    """NPY 1.0: an array of shape (rows, *shape), little-endian, in C order; rows without features are NaN.

    The number of rows goes into room that the header reserves, so the stream must seek.

    Args:
        companion: gets the other columns as CSV, in the same order; None leaves them out.
        guarded: of that CSV.
    """

    needs_seek = True
    companion_suffix = ".csv"

    def __init__(
        self,
        stream: ByteStream,
        schema: pa.Schema,
        metadata: Mapping[str, str],
        companion: ByteStream | None = None,
        *,
        guarded: bool = False,
    ) -> None:
        super().__init__(stream, schema, metadata)
        shape = feature_shape(schema)
        if shape is None:
            raise UsageError("NPY holds features only; use csv, parquet or jsonl")
        self._shape = shape
        column = schema.field(3).type
        self._type = "<f2" if str(column.value_type) == "halffloat" else "<f4"
        self._rows = 0
        self._table = None if companion is None else CsvSink(companion, schema.remove(3), metadata, guarded=guarded)
        stream.write(self._header())

    def _write(self, batch: pa.RecordBatch) -> None:
        for piece in _slices(batch, max(1, _SLICE_VALUES // math.prod(self._shape))):
            self._stream.write(_dense(piece.column(3), self._type).data.cast("B"))
        self._rows += batch.num_rows
        if self._table is not None:
            self._table.write(batch.drop_columns([batch.schema.names[3]]))

    def close(self) -> None:
        self._stream.seek(0)
        self._stream.write(self._header())
        if self._table is not None:
            self._table.close()

    def _header(self) -> bytes:
        """Magic, version 1.0, length, and the dictionary, padded so that the data begins at a multiple of 64."""
        largest = self._dictionary(2**63 - 1)
        length = -(-(10 + len(largest) + 1) // 64) * 64 - 10
        text = self._dictionary(self._rows).ljust(length - 1) + "\n"
        return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.encode("ascii")

    def _dictionary(self, rows: int) -> str:
        return repr({"descr": self._type, "fortran_order": False, "shape": (rows, *self._shape)})


def rows_per_group(schema: pa.Schema) -> int:
    """Rows of a Parquet row group: about 32 MiB, and 1 to 65,536.

    By the schema alone, so that it is the same for every part and every run. 32 MiB of pending rows fit beside any
    model; 65,536 rows of predictions are enough for readers, which take a group at a time.
    """
    row = sum(_width(field.type) for field in schema)
    return max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(row, 1)))


def _width(data_type: pa.DataType) -> int:
    """Bytes of a value; a guess of 64 for those of variable length."""
    import pyarrow as pa

    if isinstance(data_type, pa.BaseExtensionType):
        return _width(data_type.storage_type)
    if isinstance(data_type, pa.FixedSizeListType):
        return int(data_type.list_size) * _width(data_type.value_type)
    try:
        return -(-int(data_type.bit_width) // 8)
    except ValueError:
        return 64


def _repeats(field: pa.Field) -> bool:
    import pyarrow as pa

    data_type = field.type
    nested = pa.types.is_nested(data_type) or isinstance(data_type, pa.BaseExtensionType)
    return field.name != PATH and not nested and not pa.types.is_floating(data_type)


def _slices(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def _members(batch: pa.RecordBatch, column: str, key: str) -> Iterator[str]:
    """A column as members of JSON objects."""
    prefix = json.dumps(key, ensure_ascii=False) + ": "
    return (prefix + text for text in json_texts(batch.column(column)))


def _dense(column: pa.Array, dtype: str) -> NDArray[np.floating[Any]]:
    """Features [rows * n] of a fixed-size list or tensor column, NaN where null; a view where nothing is."""
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    width = column.type.list_size
    flat: NDArray[np.floating[Any]]
    flat = column.values.slice(column.offset * width, len(column) * width).to_numpy(zero_copy_only=False)
    return flat.astype(dtype, copy=False)


def write_table(folder: str | Path, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes a CSV file, as this program writes all of them.

    Args:
        folder: the directory.
        name: of the file, which is replaced.
        columns: values by name; None is an empty field.

    Raises:
        OutputError: it cannot be written.
    """
    import pyarrow as pa

    arrays = {key: pa.array(values) for key, values in columns.items()}
    # A column of nothing but None has no type, which CSV does not mind, but its encoder does.
    arrays = {key: one.cast(pa.string()) if pa.types.is_null(one.type) else one for key, one in arrays.items()}
    rows = pa.RecordBatch.from_pydict(arrays)
    file = AtomicFile(str(Path(folder, name)), overwrite=True)
    try:
        sink = CsvSink(file.stream, rows.schema, {})
        sink.write(rows)
        sink.close()
        commit([file])
    except BaseException:
        file.discard()
        raise
