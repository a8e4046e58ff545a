"""NPY 1.0 of `features`: an array of shape (rows, *shape), little-endian, in C order, with a CSV beside it.

The CSV has the other columns, in the same order. Rows without features are NaN, for the array knows no null.
"""

from __future__ import annotations

import io
import math
import os
from bisect import bisect_left
from typing import TYPE_CHECKING, BinaryIO

from xcli.core.errors import CheckError, UsageError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.text import one_line
from xcli.tables.base import Format, TableReader, TableWriter, sliced, slices
from xcli.tables.csv import CsvReader, CsvWriter
from xcli.tables.rows import features_array, flat_features
from xcli.tables.schema import FIRST_RESULT, feature_shape, features_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_COMPANION = ".csv"


class NpyWriter(TableWriter):
    """Writes NPY. The stream must seek: the number of rows goes into room that the header reserves."""

    def __post_init__(self) -> None:
        import numpy as np

        shape = feature_shape(self.schema)
        if shape is None:
            raise UsageError("NPY holds features only; use csv, parquet or jsonl")
        self._shape = shape
        self._dtype = np.dtype(self.schema.field(FIRST_RESULT).type.value_type.to_pandas_dtype()).newbyteorder("<")
        self._rows = 0
        others = self.schema.remove(FIRST_RESULT)
        self._table = CsvWriter(
            self.companion or io.BytesIO(),
            others,
            {},
            escape_formulas=self.escape_formulas,
            byte_order_mark=self.byte_order_mark,
        )
        self.stream.write(self._header())

    def _header(self) -> bytes:
        import numpy as np

        header = io.BytesIO()
        facts = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._rows, *self._shape)}
        # NumPy leaves room in it for any number of rows, so its length stays the same.
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()

    def _write(self, batch: pa.RecordBatch) -> None:
        for piece in slices(batch, math.prod(self._shape)):
            values = flat_features(piece.column(FIRST_RESULT)).to_numpy(zero_copy_only=False)  # NaN where null
            self.stream.write(values.astype(self._dtype, copy=False).data.cast("B"))
        self._rows += batch.num_rows
        self._table.write(batch.drop_columns([batch.schema.names[FIRST_RESULT]]))

    def close(self) -> None:
        self.stream.seek(0)
        self.stream.write(self._header())
        self._table.close()


class NpyReader(TableReader):
    """Reads NPY with the CSV beside it."""

    format = "npy"
    magic = b"\x93NUMPY"

    def _read_schema(self) -> pa.Schema:
        import numpy as np
        import pyarrow as pa

        with open(self.path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version[0]}.{version[1]}; only 1.0 is written")
            shape, fortran, self._dtype = np.lib.format.read_array_header_1_0(file)
            self._start = file.tell()
            size = os.fstat(file.fileno()).st_size
        if fortran or self._dtype.str not in ("<f4", "<f2") or len(shape) < 2 or min(shape[1:]) < 1:
            raise ValueError(f"it holds {self._dtype} of shape {shape}, which features never are")
        self._rows, self._shape = shape[0], tuple(shape[1:])
        self.row_count = self._rows
        expected = self._start + math.prod(shape) * self._dtype.itemsize
        if size != expected:
            raise ValueError(
                f"{size:,} bytes, where its header promises {expected:,}; the file is truncated or damaged"
            )
        companion, path = self.name + _COMPANION, self.path + _COMPANION
        if not os.path.exists(path):
            raise CheckError(f"{one_line(companion)} is missing; it has the paths of {one_line(self.name)}")
        self._table = _CompanionReader(companion, path)
        fields = list(self._table.schema)
        features = features_schema(self._shape, str(self._dtype), [])  # type: ignore[arg-type]
        fields.insert(FIRST_RESULT, features.field(FIRST_RESULT))
        return pa.schema(fields)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        rows = 0
        with open(self.path, "rb") as file:
            file.seek(self._start)
            for batch in self._table.batches(columns):
                rows += batch.num_rows
                if rows > self._rows:
                    break
                for piece in sliced(batch, self.batch_rows):
                    yield piece if columns is not None else self._joined(piece, file)
        if rows != self._rows:
            more = "more" if rows > self._rows else "fewer"
            companion = one_line(self._table.name)
            raise CheckError(f"{companion} has {more} rows than the {self._rows:,} of {one_line(self.name)}")

    def _batches_with(self, rows: Sequence[int], columns: Sequence[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
        start, size = 0, math.prod(self._shape) * self._dtype.itemsize
        with open(self.path, "rb") as file:
            for batch in self._table.batches(columns):
                for piece in sliced(batch, self.batch_rows):
                    end = start + piece.num_rows
                    if bisect_left(rows, start) < bisect_left(rows, end):
                        file.seek(self._start + start * size)
                        yield start, piece if columns is not None else self._joined(piece, file)
                    start = end
                if start > rows[-1]:
                    return

    def _joined(self, batch: pa.RecordBatch, file: BinaryIO) -> pa.RecordBatch:
        import numpy as np
        import pyarrow as pa

        flat = np.fromfile(file, self._dtype, batch.num_rows * math.prod(self._shape))
        columns = batch.columns
        columns.insert(FIRST_RESULT, features_array(self.schema.field(FIRST_RESULT).type, flat))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


class _CompanionReader(CsvReader):
    """Reads the CSV beside an NPY file: the status columns and the carried ones."""

    def _check_names(self, names: Sequence[str], features: str) -> None:
        if tuple(names[:FIRST_RESULT]) != STATUS_COLUMNS:
            raise CheckError(f"{one_line(self.name)} does not begin with {', '.join(STATUS_COLUMNS)}")

    def _make_schema(self, names: list[str]) -> pa.Schema:
        import pyarrow as pa

        self._width = 0
        return pa.schema([pa.field(name, pa.string()) for name in names])


NPY = Format(NpyWriter, NpyReader, (".npy",), ("features",), has_csv=True, needs_seek=True, suffixes=("", _COMPANION))
