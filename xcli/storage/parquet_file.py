"""Parquet files of strangers, read within limits that Arrow does not have.

A value that many rows share, a page that compresses well or a list of equal numbers takes a few bytes in a file, and
gigabytes once it is decoded. So the headers of all pages are read before Arrow gets them, texts stay in dictionaries
until their sizes are known, and batches are cut before they are decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

_FREE, _RATIO = 128 << 20, 64
_TEXT_RATIO = 1024  # of the texts and lists of all rows together
_MAX_ROWS, _ROWS_PER_BYTE = 1 << 20, 256
_MAX_COLUMNS, _MAX_DEPTH = 1 << 16, 64
_BATCH_BYTES = 64 << 20
_HEADER = 1 << 12  # of a page; longer ones hold statistics of long texts
_MAX_HEADER = 1 << 24  # as in Arrow
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 4}
_LEVELS = 4  # bytes of a value in a list, to say which list it is in
_DICTIONARY_PAGE, _DELTA_BYTE_ARRAY = 2, 7


class _Page(NamedTuple):
    kind: int
    size: int  # bytes, unpacked
    values: int
    encoding: int


class CheckedParquet:
    """A Parquet file that is open for reading.

    Args:
        file: seekable.
        buffer: bytes to read at a time of a column; 0 reads all that a group of rows has of it.
        share: factor of the limit of all texts, 128 MiB and 1,024 times the size of the file.

    Attributes:
        schema: of its batches.
        metadata: of the file, as bytes.
        row_count: number of rows, as the file says.
        size: bytes of the batch that was read last, with `each` of `batches`.
        allowance: bytes that one row, or what is read at a time, may take: 128 MiB and 64 times the size of the file.

    Raises:
        ValueError: the file takes more memory than its size allows, or is damaged. From `batches` too.
        pyarrow.ArrowException, OSError: it is damaged or cannot be read. From `batches` too.
    """

    def __init__(self, file: BinaryIO, buffer: int = 0, *, share: int = 1) -> None:
        import pyarrow.parquet as pq

        self._file, self._buffer = file, buffer
        self._size = file.seek(0, 2)
        self.allowance = _FREE + _RATIO * self._size
        parquet = pq.ParquetFile(file, schema_depth_limit=_MAX_DEPTH)
        self._facts = parquet.metadata
        if self._facts.num_columns > _MAX_COLUMNS:
            raise ValueError(f"it has {self._facts.num_columns:,} columns, more than {_MAX_COLUMNS:,}")
        if self._facts.num_rows > max(_MAX_ROWS, _ROWS_PER_BYTE * self._size):
            raise ValueError(f"it promises {self._facts.num_rows:,} rows in {self._size:,} bytes")
        self.schema: pa.Schema = parquet.schema_arrow
        self.metadata: dict[bytes, bytes] = self._facts.metadata or {}
        self.row_count: int = self._facts.num_rows
        self.size = 0
        self._most_text = share * (_FREE + _TEXT_RATIO * self._size)
        self._opened: tuple[tuple[str, ...], Any] | None = None
        self._width = sum(_fixed_width(field.type) for field in self.schema)
        if self._width > self.allowance:
            raise ValueError(f"a row of it takes {self._width:,} bytes")

    def group_rows(self) -> list[int]:
        """Returns how many rows each group has."""
        return [self._facts.row_group(group).num_rows for group in range(self._facts.num_row_groups)]

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        *,
        most: int,
        row: int | None = None,
        each: int = 0,
        only: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Reads the rows.

        Args:
            rows: of a batch at most.
            columns: names of columns without inner ones; None for all.
            most: bytes of a batch, unless it has a single row.
            row: bytes of a row; one that takes more is a batch by itself.
            each: bytes by which a value counts more than it takes in Arrow.
            only: numbers of the groups to read; None for all.
        """
        import pyarrow as pa

        schema = self.schema if columns is None else pa.schema(map(self.schema.field, columns))
        width, decoded = sum(_fixed_width(field.type, numbers=True) for field in schema), 0
        for groups, most_rows, dictionaries in self._groups(columns, rows, only):
            parquet = self._open(dictionaries)
            for batch in parquet.iter_batches(most_rows, groups, columns, use_threads=False):
                for piece, self.size in _pieces(batch, most, row, each):
                    plain = self.size - each * piece.num_rows * piece.num_columns
                    decoded += plain - width * piece.num_rows
                    if plain > self.allowance or decoded > self._most_text:
                        raise ValueError(f"its {self._size:,} bytes become {max(plain, decoded):,}")
                    arrays = [_decoded(array, field.type) for array, field in zip(piece.columns, schema, strict=True)]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _groups(
        self, columns: Sequence[str] | None, rows: int, only: Sequence[int] | None
    ) -> Iterator[tuple[list[int], int, tuple[str, ...]]]:
        """Yields groups of rows that are read together, how many rows at a time, and what `_Layout.check` found."""
        layout = _Layout(self, columns, rows)
        groups: list[int] = []
        found: tuple[int, tuple[str, ...]] = (0, ())
        waiting = 0
        try:
            for group in range(self._facts.num_row_groups) if only is None else only:
                own = layout.check(group)
                if groups and (own != found or waiting >= rows):
                    yield groups, *found
                    groups, waiting = [], 0
                groups.append(group)
                found, waiting = own, waiting + self._facts.row_group(group).num_rows
        except Exception:  # of this group; those before it can be read
            if groups:
                yield groups, *found
            raise
        if groups:
            yield groups, *found

    def _open(self, dictionaries: tuple[str, ...]) -> Any:
        import pyarrow.parquet as pq

        if self._opened is None or self._opened[0] != dictionaries:
            options = {"buffer_size": self._buffer, "pre_buffer": not self._buffer}
            parquet = pq.ParquetFile(self._file, metadata=self._facts, read_dictionary=list(dictionaries), **options)
            self._opened = dictionaries, parquet
        return self._opened[1]


class _Layout:
    """What the pages of some columns are; `check` is to be called for each group of rows, in their order."""

    def __init__(self, parquet: CheckedParquet, columns: Sequence[str] | None, rows: int) -> None:
        self._file, self._size, self._most = parquet._file, parquet._size, parquet.allowance
        self._facts = parquet._facts
        self._width = parquet._width if columns is None else 1
        self._rows, self._stored = rows, 0
        leaves = map(self._facts.schema.column, range(self._facts.num_columns))
        self._columns = [
            (number, leaf, _WIDTHS.get(leaf.physical_type, leaf.length))
            for number, leaf in enumerate(leaves)
            if columns is None or leaf.path in columns
        ]
        self._most_shared = _BATCH_BYTES // max(16, len(self._columns))

    def check(self, group: int) -> tuple[int, tuple[str, ...]]:
        """Returns how many rows may be read at a time, and the columns whose texts stay in dictionaries meanwhile."""
        facts = self._facts.row_group(group)
        dictionaries: list[str] = []
        unpacked = in_row = 0
        for number, column, width in self._columns:
            chunk = facts.column(number)
            self._stored += max(chunk.total_compressed_size, 0)
            if self._stored > self._size:
                raise ValueError("parts of it lie upon one another")
            pages = list(self._pages(chunk))
            unpacked += sum(page.size for page in pages)
            values, in_lists, in_one = self._check_values(column, width, pages, facts.num_rows)
            shared = sum(page.size for page in pages if page.kind == _DICTIONARY_PAGE)
            if column.physical_type == "BYTE_ARRAY" and shared * values > self._most_shared:
                dictionaries.append(column.path)
            unpacked += in_lists
            in_row += in_one
            if unpacked > self._most:
                raise ValueError(f"a group of its rows takes {unpacked:,} bytes")
        return max(1, min(self._rows, _BATCH_BYTES // max(in_row, self._width))), tuple(dictionaries)

    def _check_values(self, column: Any, width: int, pages: list[_Page], rows: int) -> tuple[int, int, int]:
        """Returns how many values are read at a time, the bytes of all those in lists, and of one that is in none."""
        data = [page for page in pages if page.kind != _DICTIONARY_PAGE]
        values = sum(page.values for page in data)
        # A text that begins like the one before is stored as the difference.
        deltas = [page for page in data if page.encoding == _DELTA_BYTE_ARRAY]
        if column.max_repetition_level:
            return values, values * (width + _LEVELS) + sum(page.values * page.size for page in deltas), 0
        if values > rows:
            raise ValueError(f"a column has {values:,} values in {rows:,} rows")
        return min(values, self._rows), 0, width + max((page.size for page in deltas), default=0)

    def _pages(self, chunk: Any) -> Iterator[_Page]:
        begin = chunk.data_page_offset
        if chunk.dictionary_page_offset and chunk.dictionary_page_offset < begin:
            begin = chunk.dictionary_page_offset
        stop, values = begin + chunk.total_compressed_size, 0
        while values < chunk.num_values and begin < stop:
            header, length = self._header(begin)
            page = _page(header)
            values += page.values if page.kind != _DICTIONARY_PAGE else 0
            begin += length + _number(header, 3)
            yield page

    def _header(self, begin: int) -> tuple[dict[int, Any], int]:
        size = _HEADER
        while True:
            self._file.seek(begin)
            data = self._file.read(size)
            try:
                return _read_struct(data, 0)
            except IndexError:
                if len(data) < size or size >= _MAX_HEADER:
                    raise ValueError("the header of a page is damaged") from None
                size <<= 4


_HEADERS = {0: (5, 2), 2: (7, 2), 3: (8, 4)}  # of a kind of page: its own part, and in it the encoding


def _page(header: dict[int, Any]) -> _Page:
    kind = _number(header, 1)
    part, encoding = _HEADERS.get(kind, (0, 0))
    own = header.get(part, {})
    if not isinstance(own, dict) or (part and not own):
        raise ValueError("the header of a page is damaged")
    return _Page(kind, _number(header, 2), _number(own, 1) if part else 0, _number(own, encoding) if part else 0)


def _number(struct: dict[int, Any], field: int) -> int:
    value = struct.get(field)
    if not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise ValueError("the header of a page is damaged")
    return value


_TRUE, _FALSE, _INTEGERS, _INT32, _DOUBLE, _BINARY, _STRUCT = 1, 2, (4, 5, 6), 5, 7, 8, 12


def _read_struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Reads a struct of Thrift's compact protocol: its integers of 32 bits and inner structs, by number.

    Raises:
        IndexError: the data end before it does.
        ValueError: it has what no header of a page has.
    """
    found: dict[int, Any] = {}
    field = 0
    while tag := data[at]:
        at += 1
        kind = tag & 15
        if tag >> 4:
            field += tag >> 4
        else:
            number, at = _read_varint(data, at)
            field = (number >> 1) ^ -(number & 1)
        if kind in _INTEGERS:
            number, at = _read_varint(data, at)
            if kind == _INT32:
                found[field] = (number >> 1) ^ -(number & 1)
        elif kind == _BINARY:
            number, at = _read_varint(data, at)
            at += number
        elif kind == _STRUCT and depth < 4:
            found[field], at = _read_struct(data, at, depth + 1)
        elif kind in (3, _DOUBLE):
            at += 1 if kind == 3 else 8
        elif kind not in (_TRUE, _FALSE):
            raise ValueError("the header of a page is damaged")
    return found, at + 1


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("the header of a page is damaged")


def _decoded(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Returns a column as its type says, where texts were read as dictionaries."""
    import pyarrow as pa

    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:  # to views of texts
        is_flat = pa.types.is_dictionary(column.type)
        return column.dictionary_decode().cast(kind) if is_flat else pa.array(column.to_pylist(), kind)


def cut(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into pieces of at most so many bytes, or of one row."""
    return (piece for piece, _ in _pieces(batch, most, None, 0))


def _pieces(batch: pa.RecordBatch, most: int, row: int | None, each: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Halves a batch until each piece is as small as `CheckedParquet.batches` says; yields them with their sizes."""
    size = sum(decoded_size(column, each) for column in batch.columns)
    small = size <= most
    if small and row is not None:
        small = sum(_longest(column, each) for column in batch.columns) <= row
    if small or batch.num_rows <= 1:
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half), most, row, each)
    yield from _pieces(batch.slice(half), most, row, each)


def _longest(column: pa.Array, each: int) -> int:
    """Returns bytes that no value of a column exceeds: for nested columns all that there are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_nested(column.type) or isinstance(column.type, pa.BaseExtensionType):
        return decoded_size(column, each)
    lengths = _text_lengths(column)
    return each + (_width(column.type) if lengths is None else pc.max(lengths).as_py() or 0)


def _text_lengths(column: pa.Array) -> pa.Array | None:
    """Returns the bytes of each value of a column of texts, also of one that is a dictionary; None for other types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        lengths = _text_lengths(column.dictionary)
        return None if lengths is None else lengths.take(column.indices)
    kind = column.type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        column = column.cast(pa.large_binary())
    elif pa.types.is_fixed_size_binary(kind) or not any(
        getattr(pa.types, f"is_{one}")(kind) for one in ("string", "large_string", "binary", "large_binary")
    ):
        return None
    return pc.binary_length(column).cast(pa.int64())


def _fixed_width(kind: pa.DataType, *, numbers: bool = False) -> int:
    """Returns the bytes that a value of a type takes even if it is null; of lists of a fixed size, which may be any.

    With `numbers`, bytes of a fixed length count nothing.
    """
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _fixed_width(kind.storage_type, numbers=numbers)
    inner = sum(_fixed_width(kind.field(number).type, numbers=numbers) for number in range(kind.num_fields))
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * inner
    if pa.types.is_struct(kind):
        return inner
    return 0 if numbers and pa.types.is_fixed_size_binary(kind) else _width(kind)


def _width(kind: pa.DataType) -> int:
    try:
        return -(-int(kind.bit_width) // 8)
    except ValueError:
        return 0


def decoded_size(column: pa.Array, each: int = 0) -> int:
    """Returns the bytes of a column's values without dictionaries, and `each` more for every value, inner ones too.

    The sizes of slices add up to that of the whole.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, column.type
    if isinstance(kind, pa.BaseExtensionType):
        return decoded_size(column.storage, each)
    own = each * len(column)
    if types.is_struct(kind):
        return own + sum(decoded_size(inner, each) for inner in column.flatten())
    if types.is_fixed_size_list(kind):
        width = kind.list_size
        return own + decoded_size(column.values.slice(column.offset * width, len(column) * width), each)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        start, stop = column.offsets[0].as_py(), column.offsets[-1].as_py()
        inner = (column.keys, column.items) if types.is_map(kind) else (column.values,)
        return own + sum(decoded_size(one.slice(start, stop - start), each) for one in inner)
    lengths = _text_lengths(column)
    return own + int(len(column) * _width(kind) if lengths is None else pc.sum(lengths).as_py() or 0)
