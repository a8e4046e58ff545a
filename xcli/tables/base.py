"""What all file formats have in common: a writer from record batches to bytes, and a reader back.

The bytes of a table depend on its rows alone, never on how they were cut into batches. Memory is bounded by a row group
or a slice, never by the table.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from xcli.core.errors import CheckError
from xcli.core.records import STATUS_COLUMNS
from xcli.core.shortage import raise_shortage
from xcli.core.text import one_line
from xcli.storage.parquet_file import cut
from xcli.tables.column_text import restore_formula_texts
from xcli.tables.provenance import META_SUFFIX, read_meta
from xcli.tables.rows import ErrorFeatures, fill_error_features
from xcli.tables.schema import FIRST_RESULT, feature_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from xcli.storage.directories import Folder
    from xcli.storage.streams import ByteStream

MAX_COLUMNS = 1 << 16
"""Columns of a table that is read: all classes of ImageNet-21k with label, index and score, and some more."""

GROUP_BYTES = 32 * 2**20  # of buffered rows, which fit beside any model
GATHERED_BYTES = 2 * GROUP_BYTES  # of rows that are put in order; that takes three times as much
EscapedTexts = Literal["refuse", "keep", "restore"]
"""What becomes of texts that `--csv-safe` has changed: the table is refused, they stay, or lose their apostrophe."""

_GROUP_ROWS = 65536  # enough for readers, which take a group at a time
_SLICE_VALUES = 2**20


@dataclass(frozen=True, slots=True)
class Format:
    """A file format, as `xcli.tables.formats` registers it."""

    writer: type[TableWriter]
    reader: type[TableReader]
    extensions: tuple[str, ...]  # of file names, in lower case; the first one is suggested to users
    commands: tuple[str, ...]  # those whose tables it can hold: `classify`, `features`
    has_csv: bool = False  # whether `--csv-safe` has an effect on it
    needs_seek: bool = False  # whether it needs a regular file, since its writer goes back to the beginning
    suffixes: tuple[str, ...] = ("",)  # of the names of a table's files: the table itself, then its companion


@dataclass(eq=False)
class TableWriter(ABC):
    """Writes the batches of one table to a stream.

    Raises:
        UsageError: at construction, when the format cannot hold such a table.
        SourceError: likewise, when a carried column has the name of an output column.
    """

    stream: ByteStream  # where the bytes go; it is neither flushed nor closed here
    schema: pa.Schema  # of every batch (`classify_schema` or `features_schema`)
    metadata: Mapping[str, str]  # for formats that can hold it; the provenance has the key `METADATA_KEY`
    _: KW_ONLY
    companion: ByteStream | None = None  # the stream of the second file, for formats that have one
    escape_formulas: bool = False  # in CSV, put an apostrophe before texts that spreadsheets take for formulas
    byte_order_mark: bool = False  # begin CSV with the mark by which Excel knows UTF-8

    @property
    def error_features(self) -> ErrorFeatures:
        """What error rows of features hold in this format."""
        return "nan"

    @abstractmethod
    def __post_init__(self) -> None:
        """Checks that the format can hold the schema, and writes what precedes the rows."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes a batch of any number of rows; raises ValueError if it has another schema."""
        if not batch.schema.equals(self.schema):
            raise ValueError(f"a batch of the schema\n{batch.schema}\nin a table of the schema\n{self.schema}")
        if batch.num_rows:
            has_features = feature_shape(self.schema) is not None
            batch = fill_error_features(batch, self.error_features) if has_features else batch
            # As text a value is in memory several times.
            for piece in cut(batch, GROUP_BYTES):
                self._write(piece)

    @abstractmethod
    def _write(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None:  # noqa: B027 - nothing to do where every batch is written at once
        """Writes what remains: buffered rows, footers. Call it once, after the last batch."""

    def abandon(self) -> None:  # noqa: B027 - likewise
        """Gives up: nothing more goes to the stream, now or when this object is collected."""


class TableReader(ABC):
    """Reads one table as a stream of batches, value for value.

    Parquet comes back with its types. Text formats know the types of our own columns; carried columns are text there,
    as it stands in the file, so that the writer of the same format writes the same bytes again.

    Args:
        name: as the user gave it.
        path: where the table is on this machine; None is `name`.
        escaped: what becomes of texts that --csv-safe has changed.

    Raises:
        CheckError: at construction and while reading, when the file is damaged or is no table of this program.
    """

    format: ClassVar[str]
    magic: ClassVar[bytes]  # which a file of this format begins with
    self_describing: ClassVar[bool] = False  # whether the file holds the types of all columns, and the provenance
    keeps_dtype: ClassVar[bool] = True  # whether float16 features are read back as float16
    omits_nulls: ClassVar[bool] = False  # whether null predictions are left out of the file, and NaN is null

    provenance: dict[str, Any] | None = None  # what the file itself holds
    on_rows: Callable[[int], object] | None = None  # is told how many rows were taken, each time
    row_count: int | None  # as the table, or what is beside it, says before it is read; None where neither does
    restores_texts: bool = False  # whether texts lose the apostrophe that --csv-safe puts before formulas
    copies: Folder | None = None  # of a table that is in an object store; they live as long as the reader

    def __init__(self, name: str, path: str | None = None, *, escaped: EscapedTexts = "refuse") -> None:
        self.name = name
        self.path = path or name
        self.meta = read_meta(self.path + META_SUFFIX)  # None where there is no such file
        self.row_count = ((self.meta or {}).get("images") or {}).get("listed")
        self.is_escaped = (self.meta or {}).get("csv_safe") is True
        self.restores_texts = self.is_escaped and escaped == "restore"
        if self.is_escaped and escaped == "refuse":
            raise CheckError(
                f"{one_line(name)} was written with --csv-safe, which changes texts irreversibly; "
                "write the table without it, and a second one with it for the spreadsheet"
            )
        with self._damage():
            self.schema: pa.Schema = self._read_schema()

    @abstractmethod
    def _read_schema(self) -> pa.Schema: ...

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turns what reading a damaged file raises into a CheckError."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError, OverflowError, csv.Error, RecursionError) as error:
            raise_shortage(error)
            reason = one_line(str(error))[:500]
            if "invalid UTF8" in reason or isinstance(error, UnicodeDecodeError):
                reason = "it is not UTF-8; if a spreadsheet saved it, save it as 'CSV UTF-8'"
            raise CheckError(f"{one_line(self.name)} cannot be read as {self.format}: {reason}") from error

    @classmethod
    def recognizes(cls, head: bytes, name: str) -> bool:
        """Returns whether a file of this name, whose first bytes are `head`, is of this format."""
        return head.startswith(cls.magic)

    @classmethod  # noqa: B027 - most formats have a header that tells all columns
    def align(cls, readers: Sequence[Any]) -> None:
        """Gives the readers of the shards of one run the same schema, where a file does not tell all columns."""

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Reads the rows from the first one on: all columns, or some other than `features`; may be called again."""
        with self._damage():
            for batch in self._batches(columns):
                yield self._restored(batch)
                if self.on_rows is not None:
                    self.on_rows(batch.num_rows)

    @abstractmethod
    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]: ...

    def rows(
        self, numbers: Sequence[int], columns: Sequence[str] | None = None
    ) -> Iterator[tuple[list[int], pa.RecordBatch]]:
        """Yields some rows, by their sorted numbers, a batch at a time, each with its numbers.

        Of Parquet and NPY little more than these rows is read, of other formats all rows up to the last of them.

        Args:
            numbers: from 0; those that the table does not have are left out.
            columns: as of `batches`.
        """
        with self._damage():
            for here, batch in self._taken(numbers, columns) if numbers else ():
                yield here, self._restored(batch)

    def _restored(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return restore_formula_texts(batch) if self.restores_texts else batch

    def _taken(
        self, numbers: Sequence[int], columns: Sequence[str] | None
    ) -> Iterator[tuple[list[int], pa.RecordBatch]]:
        for start, batch in self._batches_with(numbers, columns):
            here = list(numbers[bisect_left(numbers, start) : bisect_left(numbers, start + batch.num_rows)])
            if here:
                yield here, batch.take([number - start for number in here])

    def _batches_with(self, rows: Sequence[int], columns: Sequence[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields batches that hold these rows, and what must be read besides, each with the number of its first row."""
        start = 0
        for batch in self._batches(columns):
            yield start, batch
            start += batch.num_rows
            if start > rows[-1]:
                return

    @property
    def command(self) -> str:
        """The command whose table this is: `classify` or `features`."""
        return "classify" if feature_shape(self.schema) is None else "features"

    @property
    def batch_rows(self) -> int:
        """Rows that are read at a time, where that can be chosen: about 2 MiB, and at most 4,096."""
        return max(1, rows_per_group(self.schema) // 16)

    def _check_names(self, names: Sequence[str], features: str) -> None:
        """Refuses columns of other programs; `features` is the first column of features in this format."""
        first = list(names[FIRST_RESULT : FIRST_RESULT + 1])
        if tuple(names[:FIRST_RESULT]) != STATUS_COLUMNS or first not in (["label_1"], [features]):
            shown = one_line(", ".join(names[: FIRST_RESULT + 1]))
            raise CheckError(f"{one_line(self.name)} is not a table of classify or features: its columns begin {shown}")
        check_width(len(names))
        if len(set(names)) < len(names):
            raise CheckError(f"{one_line(self.name)} has two columns of the same name")


def check_width(columns: int) -> None:
    """Raises ValueError for more columns than a table has."""
    if columns > MAX_COLUMNS:
        raise ValueError(f"it has {columns:,} columns, more than the {MAX_COLUMNS:,} that are read")


def rows_per_group(schema: pa.Schema) -> int:
    """Returns the rows of a Parquet row group, by the schema alone: about 32 MiB, and 1 to 65,536."""
    row = sum(_width(field.type) for field in schema)
    return max(1, min(_GROUP_ROWS, GROUP_BYTES // max(row, 1)))


def _width(data_type: pa.DataType) -> int:
    """Returns the bytes of a value; a guess of 64 for types of variable length."""
    import pyarrow as pa

    if isinstance(data_type, pa.BaseExtensionType):
        return _width(data_type.storage_type)
    if isinstance(data_type, pa.FixedSizeListType):
        return int(data_type.list_size) * _width(data_type.value_type)
    try:
        return -(-int(data_type.bit_width) // 8)
    except ValueError:
        return 64


def slices(batch: pa.RecordBatch, values: int) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into slices of about a million values; a row has, or costs as much as, `values` of them."""
    return sliced(batch, max(1, _SLICE_VALUES // values))


def sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into slices of so many rows; the last one may have fewer."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
