"""NPY read back, with the CSV beside it that holds its paths."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, BinaryIO

from xcli.core.errors import CheckError
from xcli.core.text import one_line
from xcli.tables.readers import LEAD, CsvReader, Reader
from xcli.tables.schema import features_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa


class NpyReader(Reader):
    """NPY with the CSV beside it. Elements of error rows are NaN, not null: the file knows no null."""

    format = "npy"

    def __init__(self, name: str, path: str | None = None) -> None:
        import numpy as np
        import pyarrow as pa

        super().__init__(name, path)
        try:
            with self._open() as file:
                version = np.lib.format.read_magic(file)
                if version != (1, 0):
                    raise ValueError(f"version {version[0]}.{version[1]}; only 1.0 is written")
                shape, fortran, self._dtype = np.lib.format.read_array_header_1_0(file)
                self._start = file.tell()
                size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from error
        if fortran or self._dtype.str not in ("<f4", "<f2") or len(shape) < 2 or min(shape[1:]) < 1:
            raise self._damaged(f"it holds {self._dtype} of shape {shape}, which features never are")
        self.rows, self._shape = shape[0], tuple(shape[1:])
        expected = self._start + math.prod(shape) * self._dtype.itemsize
        if size != expected:
            raise self._damaged(f"{size:,} bytes, where its header promises {expected:,}; the file is cut or damaged")
        self._companion = self._read_companion()
        fields = list(self._companion.schema)
        fields.insert(3, self._features_field())
        self.schema = pa.schema(fields)

    def _read_companion(self) -> CsvReader:
        name, path = f"{self.name}.csv", f"{self.path}.csv"
        if not os.path.exists(path):
            raise CheckError(f"{one_line(name)} is missing; {one_line(self.name)} has its paths there")
        return _CompanionReader(name, path)

    def _features_field(self) -> pa.Field:
        return features_schema(self._shape, str(self._dtype), []).field(3)  # type: ignore[arg-type]

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        rows = 0
        with self._open() as file:
            file.seek(self._start)
            for batch in self._companion.batches(columns):
                rows += batch.num_rows
                if rows > self.rows:
                    break
                for start in range(0, batch.num_rows, self.batch_rows):
                    piece = batch.slice(start, self.batch_rows)
                    yield piece if columns is not None else self._joined(piece, file)
        if rows != self.rows:
            more = "more" if rows > self.rows else "fewer"
            raise CheckError(
                f"{one_line(self._companion.name)} has {more} rows than the {self.rows:,} of {one_line(self.name)}"
            )

    def _joined(self, batch: pa.RecordBatch, file: BinaryIO) -> pa.RecordBatch:
        import numpy as np
        import pyarrow as pa

        flat = np.fromfile(file, self._dtype, batch.num_rows * math.prod(self._shape))
        column = self.schema.field(3).type
        storage = column.storage_type if isinstance(column, pa.BaseExtensionType) else column
        array = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=storage)
        if storage is not column:
            array = pa.ExtensionArray.from_storage(column, array)
        return pa.RecordBatch.from_arrays([*batch.columns[:3], array, *batch.columns[3:]], schema=self.schema)


class _CompanionReader(CsvReader):
    """The CSV beside an NPY file: path, status, error and what is carried."""

    def _check_names(self, names: Sequence[str], fourth: str) -> None:
        if list(names[:3]) != LEAD:
            raise CheckError(f"{one_line(self.name)} does not begin with {', '.join(LEAD)}")

    def _make_schema(self) -> pa.Schema:
        import pyarrow as pa

        self._width = 0
        return pa.schema([pa.field(name, pa.string()) for name in self._header])
