"""Reads back what the sinks wrote: tables as streams of Arrow batches, in bounded memory, value for value.

The format is told from the content. Parquet comes back with its types; the text formats know those of our own columns,
and carried columns are text there, of CSV as it stands in the field, of JSON lines as it stands in the line, so that
the same sink writes the same bytes again.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from xcli.core.errors import CheckError, OutputError, SourceError
from xcli.core.records import ERROR, FEATURES, PATH, STATUS
from xcli.core.text import one_line
from xcli.storage.directories import open_folder
from xcli.storage.urls import is_url, scheme_of
from xcli.tables.encoders import rows_per_group
from xcli.tables.provenance import DATASET_META, META_SUFFIX, METADATA_KEY, SUCCESS, parse_meta, read_meta
from xcli.tables.schema import feature_shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.storage.directories import Folder

LEAD = [PATH, STATUS, ERROR]
PARQUET_MAGIC, NPY_MAGIC = b"PAR1", b"\x93NUMPY"

_BUFFER = 1 << 16  # of a Parquet column; a merge has as many open as shards times columns
_CSV_BLOCK = 1 << 22  # no row may be longer, and a block is what is read at a time
_MAX_HEADER = 1 << 24


class Reader(ABC):
    """One table on its way back.

    Args:
        name: as the user gave it.
        path: where it is on this machine; None is the name itself.

    Attributes:
        name: as the user gave it.
        path: where it is on this machine.
        schema: of the batches.
        provenance: what the file itself says of it (Parquet), else None.
        meta: what `FILE.meta.json` says, or None where there is none.

    Raises:
        CheckError: at construction and while reading, when the file is damaged or is no table of this program.
    """

    format: ClassVar[str]
    provenance: dict[str, Any] | None = None
    copies: Folder | None = None
    """Holds the copies of a table that is in an object store."""

    def __init__(self, name: str, path: str | None = None) -> None:
        self.name = name
        self.path = path or name
        self.meta = read_meta(self.path + META_SUFFIX)
        if (self.meta or {}).get("csv_safe") is True:
            raise CheckError(
                f"{one_line(name)} was written with --csv-safe, which changes texts for good; "
                "write it without, and guard a copy for the spreadsheet"
            )
        self.schema: pa.Schema = None

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Reads the rows, from the first; may be called again.

        Args:
            columns: some of path, status and error; None is all there are.

        Raises:
            CheckError: the file is damaged.
        """
        import pyarrow as pa

        try:
            yield from self._batches(columns)
        except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    @abstractmethod
    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]: ...

    def _damaged(self, reason: str) -> CheckError:
        return CheckError(f"{one_line(self.name)} cannot be read as {self.format}: {one_line(reason)[:500]}")

    def _open(self) -> BinaryIO:
        return open(self.path, "rb")

    @property
    def kind(self) -> str:
        """The command whose table this is: `classify` or `features`."""
        return "classify" if feature_shape(self.schema) is None else "features"

    @property
    def batch_rows(self) -> int:
        """Rows that are read at a time, where that is a choice: about 2 MiB, and at most 4,096."""
        return max(1, rows_per_group(self.schema) // 16)

    def _check_names(self, names: Sequence[str], fourth: str) -> None:
        """Refuses a table of somebody else."""
        if list(names[:3]) != LEAD or (names[3:4] not in (["label_1"], [fourth])):
            shown = ", ".join(names[:4])
            raise CheckError(f"{one_line(self.name)} is no table of classify or features: it begins {one_line(shown)}")
        if len(set(names)) < len(names):
            raise CheckError(f"{one_line(self.name)} has two columns of one name")


class ParquetReader(Reader):
    """A Parquet file."""

    format = "parquet"

    def __init__(self, name: str, path: str | None = None) -> None:
        import pyarrow as pa

        super().__init__(name, path)
        try:
            with self._parquet() as file:
                schema, self.rows = file.schema_arrow, file.metadata.num_rows
                text = (file.metadata.metadata or {}).get(METADATA_KEY.encode())
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(str(error)) from error
        self.provenance = None if text is None else parse_meta(text, name)
        self.schema = schema.remove_metadata()
        self._check_names(self.schema.names, FEATURES)
        self._check_types()

    def _check_types(self) -> None:
        import pyarrow as pa

        for name, kind in zip(LEAD, self.schema.types, strict=False):
            if kind != pa.string():
                raise CheckError(f"{one_line(self.name)}: the column {name} is {kind}, not string")
        column = self.schema.field(3).type
        if self.schema.names[3] != FEATURES or isinstance(column, pa.FixedShapeTensorType):
            return
        if not pa.types.is_fixed_size_list(column):
            raise CheckError(f"{one_line(self.name)}: {FEATURES} is {column}, not a list of fixed size or a tensor")
        # Parquet calls the elements of a list by another name, and a merged file would show it.
        self.schema = self.schema.set(3, pa.field(FEATURES, pa.list_(column.value_type, column.list_size)))

    def _parquet(self) -> Any:
        import pyarrow.parquet as pq

        # Buffered, so that a column of a row group is never in memory as a whole.
        return pq.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with self._parquet() as file:
            names = None if columns is None else list(columns)
            for batch in file.iter_batches(self.batch_rows, columns=names, use_threads=False):
                yield batch if columns is not None else pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


def _is_part(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith(("_", "."))


class PartsReader(Reader):
    """A directory of Parquet parts, by name; what begins with `_` or `.` is no part."""

    format = "parquet"

    def __init__(self, name: str, path: str | None = None) -> None:
        super().__init__(name.rstrip("/") or name, (path or name).rstrip("/") or path)
        self.meta = self.meta or read_meta(os.path.join(self.path, DATASET_META))
        there = os.listdir(self.path)
        if "_run.json" in there and SUCCESS not in there:
            raise CheckError(
                f"{one_line(name)}: its run has not finished (there is no {SUCCESS}); the same command continues it"
            )
        names = sorted((one for one in there if _is_part(one)), key=os.fsencode)
        self.parts = [ParquetReader(os.path.join(name, one), os.path.join(self.path, one)) for one in names]
        if not self.parts:
            raise CheckError(f"{one_line(name)} is a directory without parts (*.parquet)")
        first = self.parts[0]
        for part in self.parts[1:]:
            if part.schema != first.schema or part.provenance != first.provenance:
                what = "columns" if part.schema != first.schema else "provenance"
                raise CheckError(f"{one_line(part.name)} and {one_line(first.name)} differ in their {what}")
        self.schema, self.provenance = first.schema, first.provenance

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for part in self.parts:
            yield from part.batches(columns)


class CsvReader(Reader):
    """CSV of either command. An unquoted empty field is a null, `""` an empty text."""

    format = "csv"

    def __init__(self, name: str, path: str | None = None) -> None:
        super().__init__(name, path)
        try:
            with self._open() as file:
                self._header = self._read_header(file)
                self._check_end(file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise self._damaged(str(error)) from error
        self.schema = self._make_schema()

    def _read_header(self, file: BinaryIO) -> list[str]:
        text = io.TextIOWrapper(io.BufferedReader(_Head(file)), "utf-8", newline="")
        names = next(csv.reader(text, strict=True), [])
        self._check_names(names, "f0")
        return names

    def _check_end(self, file: BinaryIO) -> None:
        """Finds a last line that was cut: even within a number it would read as a row."""
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise self._damaged("the last line has no end; the file is cut short")

    def _make_schema(self) -> pa.Schema:
        import pyarrow as pa

        names = self._header
        self._width = 0
        while names[3 + self._width :][:1] == [f"f{self._width}"]:
            self._width += 1
        own = {"label": pa.string(), "wnid": pa.string(), "index": pa.int32(), "score": pa.float32()}
        fields = []
        for name in names:
            match = None if self._width else re.fullmatch(r"(label|wnid|index|score)_[0-9]+", name)
            fields.append(pa.field(name, own[match[1]] if match else pa.string()))
        if self._width:
            fields[3 : 3 + self._width] = [pa.field(FEATURES, pa.list_(pa.float32(), self._width))]
        return pa.schema(fields)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        types = {field.name: field.type for field in self.schema if field.name != FEATURES or not self._width}
        types |= {f"f{i}": pa.float32() for i in range(self._width)}
        reader = arrow_csv.open_csv(
            self.path,
            read_options=arrow_csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                include_columns=None if columns is None else list(columns),
            ),
        )
        with reader:
            for batch in reader:
                # Large blocks are for long rows; elsewhere a batch of them all would be many.
                for start in range(0, batch.num_rows, self.batch_rows):
                    piece = batch.slice(start, self.batch_rows)
                    yield piece if columns is not None else self._assembled(piece)

    def _assembled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Puts the columns f0, f1, ... together."""
        import numpy as np
        import pyarrow as pa

        if not self._width:
            return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
        end = 3 + self._width
        wide = batch.select(range(3, end))
        flat = np.asarray(wide.to_tensor(null_to_nan=True, row_major=True)).reshape(-1)
        mask = None
        if any(column.null_count for column in wide.columns):
            mask = np.column_stack([column.is_null().to_numpy(zero_copy_only=False) for column in wide.columns]).ravel()
        features = pa.FixedSizeListArray.from_arrays(pa.array(flat, mask=mask), self._width)
        columns = [*batch.columns[:3], features, *batch.columns[end:]]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


class _Head(io.RawIOBase):
    """The beginning of a file, so that a header without an end does not fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_HEADER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def open_table(name: str) -> Reader:
    """Opens what a run wrote.

    Args:
        name: a CSV, Parquet, JSON lines or NPY file, or a directory of Parquet parts; or the URL of such. What is in
            an object store is copied to a temporary directory first, for as long as the reader lives.

    Returns:
        Its reader; nothing stays open between two calls of `batches`.

    Raises:
        SourceError: there is no such file, or it cannot be opened.
        CheckError: it is damaged, or no table of this program.
    """
    if not is_url(name):
        return _open_at(name, name)
    if scheme_of(name) == "http":
        raise SourceError(f"cannot open {one_line(name)}: tables are read from this machine, from s3:// and from gs://")
    try:
        folder, path = _copied(name)
    except OutputError as error:
        raise SourceError(str(error)) from error
    reader = _open_at(name, path)
    reader.copies = folder
    return reader


def _copied(url: str) -> tuple[Folder, str]:
    """Copies a table from an object store: the folder that holds the copies, and the path of the table in it."""
    folder = open_folder(url)
    names = [one for one in folder.names() if _is_part(one) or one in (DATASET_META, SUCCESS, "_run.json")]
    if names or url.endswith("/"):
        paths = list(folder.each(folder.local, names))
        if not paths:
            raise SourceError(_not_there(url, FileNotFoundError("there is nothing below it")))
        return folder, os.path.dirname(paths[0])
    base, _, leaf = url.rpartition("/")
    folder = open_folder(base)
    try:
        path = folder.local(leaf)
    except FileNotFoundError:
        raise SourceError(_not_there(url, FileNotFoundError("no such object"))) from None
    for beside in (f"{leaf}{META_SUFFIX}", f"{leaf}.csv"):
        with contextlib.suppress(FileNotFoundError):
            folder.local(beside)
    return folder, path


def _open_at(name: str, path: str) -> Reader:
    """Opens the table of a name that is at a path of this machine."""
    from xcli.tables.jsonl_reader import JsonlReader
    from xcli.tables.npy_reader import NpyReader

    try:
        if os.path.isdir(path):
            return PartsReader(name, path)
        with open(path, "rb") as file:
            head = file.read(8)
    except (OSError, ValueError) as error:
        raise SourceError(_not_there(name, error)) from None
    if head.startswith(PARQUET_MAGIC):
        return ParquetReader(name, path)
    if head.startswith(NPY_MAGIC):
        return NpyReader(name, path)
    # A run of no images writes no JSON lines at all; any other format has a header.
    if head.startswith(b"{") or (not head and name.lower().endswith((".jsonl", ".ndjson"))):
        return JsonlReader(name, path)
    if head.startswith(b"path,"):
        return CsvReader(name, path)
    what = "is empty" if not head else "is neither CSV, Parquet, JSON lines nor NPY as xception writes them"
    raise CheckError(f"{one_line(name)} {what}")


def _not_there(name: str, error: Exception) -> str:
    text = f"cannot open {one_line(name)}: {one_line(getattr(error, 'strerror', None) or str(error))}"
    with contextlib.suppress(ValueError, OutputError):
        there = bool(open_folder(name + ".partial").names()) if is_url(name) else os.path.isdir(name + ".partial")
        if there:
            text += "; its run has not finished (there is a .partial beside it): the same command continues it"
    return text
