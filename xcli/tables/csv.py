"""CSV by RFC 4180 with `\\n` line ends, in UTF-8, always with a header.

Quotes stand only around fields that need them. A null is an empty field, an empty text is `""`. Floats are the shortest
text that gives the same float32. Features are the columns f0, f1, ...
"""

from __future__ import annotations

import csv
import os
import re
from codecs import BOM_UTF8
from typing import TYPE_CHECKING

from xcli.core.errors import UsageError
from xcli.core.records import FEATURES
from xcli.tables.base import Format, TableReader, TableWriter, check_width, sliced, slices
from xcli.tables.column_text import FORMULA_START, plain, to_text
from xcli.tables.rows import features_array, flat_features
from xcli.tables.schema import FIRST_RESULT, PREDICTION_COLUMN, PREDICTION_COLUMNS, feature_shape, name_collision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from xcli.tables.rows import ErrorFeatures

_NEEDS_QUOTES = r'[",\r\n]'
_BLOCK_BYTES = (1 << 16, 1 << 22)  # what is read at a time; the larger one only if a row is longer than the smaller
_MAX_HEADER = 1 << 22


class CsvWriter(TableWriter):
    """Writes CSV. `escape_formulas` is irreversible."""

    @property
    def error_features(self) -> ErrorFeatures:
        return "empty"

    def __post_init__(self) -> None:
        import pyarrow as pa

        shape = feature_shape(self.schema)
        if shape is not None and len(shape) > 1:
            raise UsageError("maps do not go to CSV; use parquet or npy, or --pooling avg")
        self._width = shape[0] if shape else 0
        names = list(self.schema.names)
        if shape:
            wide = _feature_names(self._width)
            for name in set(wide).intersection(names):
                raise name_collision(name)
            names[FIRST_RESULT : FIRST_RESULT + 1] = wide
        header = self._escaped(pa.array(names, pa.large_string()))
        if self.byte_order_mark:
            self.stream.write(BOM_UTF8)
        self.stream.write((",".join(csv_fields(header).to_pylist()) + "\n").encode())

    def _write(self, batch: pa.RecordBatch) -> None:
        for piece in slices(batch, max(self._width, 16)):
            columns = [
                _feature_fields(column) if self._width and i == FIRST_RESULT else csv_fields(self._escaped(column))
                for i, column in enumerate(piece.columns)
            ]
            self.stream.write(_lines(columns))

    def _escaped(self, column: pa.Array) -> pa.Array:
        return escape_formula_texts(column) if self.escape_formulas else column


def _feature_names(width: int) -> list[str]:
    return [f"f{i}" for i in range(width)]


def csv_fields(column: pa.Array) -> pa.Array:
    """Converts a column of any type to fields: large_string[rows] without nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = to_text(column)
    special = pc.match_substring_regex(text, _NEEDS_QUOTES)
    if pc.any(special).as_py():
        quote, nothing = (pa.scalar(value, pa.large_string()) for value in ('"', ""))
        doubled = pc.replace_substring(text, '"', '""')
        text = pc.if_else(special, pc.binary_join_element_wise(quote, doubled, quote, nothing), text)
    text = pc.if_else(pc.equal(text, ""), pa.scalar('""', pa.large_string()), text)
    return pc.fill_null(text, "")


def escape_formula_texts(column: pa.Array) -> pa.Array:
    """Returns a column whose texts no spreadsheet takes for formulas; for use before `csv_fields`.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe before it, which is
    irreversible. Numbers and booleans stay as they are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = plain(column)
    types = pa.types
    if any(getattr(types, f"is_{kind}")(values.type) for kind in ("floating", "integer", "boolean", "decimal")):
        return column
    return pc.replace_substring_regex(to_text(values), f"^({FORMULA_START})", r"'\1")


def is_escaped_text(text: str) -> bool:
    """Returns whether a text may be one that `escape_formula_texts` has changed."""
    return text[:1] == "'" and re.match(FORMULA_START, text[1:]) is not None


def _feature_fields(column: pa.Array) -> pa.Array:
    """Converts `fixed_size_list<float>[n]` to n fields per row, joined, null ones empty: large_string[rows].

    Rows times n must stay below 2**26: the joined text of all rows has 32-bit offsets.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    width = column.type.list_size
    values = pc.fill_null(to_text(flat_features(column)), "").cast(pa.string())
    offsets = pa.array(np.arange(0, len(values) + 1, width, dtype=np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, values), ",").cast(pa.large_string())


def _lines(columns: list[pa.Array]) -> memoryview:
    """Joins columns of fields to the bytes of the lines."""
    import pyarrow as pa
    import pyarrow.compute as pc

    comma, end, nothing = (pa.scalar(value, pa.large_string()) for value in (",", "\n", ""))
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, comma), end, nothing)
    # The values of a string column lie one behind the other in memory: together they are the bytes of the file.
    _, offsets, data = lines.buffers()
    ends = memoryview(offsets).cast("q")
    return memoryview(data)[ends[lines.offset] : ends[lines.offset + len(lines)]]


_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\"?path\"?([,;\t])")
_SAVE_AS = "save it there as 'CSV UTF-8 (comma delimited)', or 'Text CSV' with commas and UTF-8"


def spreadsheet_problem(head: bytes) -> str | None:
    """Returns what a spreadsheet has made of a table whose first 16 bytes are `head`; None for other files."""
    separator = _HEAD.match(head)
    if (separator is not None and separator[1] != b",") or head.removeprefix(BOM_UTF8)[:4].lower() == b"sep=":
        return f"has other separators than commas, as spreadsheets use in some countries; {_SAVE_AS}"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"is text in UTF-16; if a spreadsheet saved it, {_SAVE_AS}"
    if head.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        return f"is the file of a spreadsheet, or a zip archive; {_SAVE_AS}"
    return None


class CsvReader(TableReader):
    """Reads CSV of either command. An unquoted empty field is a null, `""` an empty text.

    A table that a spreadsheet has saved is recognised by the line ends or quotes of its header. It may have quotes
    around any field, and has lost the difference between nothing and an empty text: all empty fields are nulls.
    """

    format = "csv"
    keeps_dtype = False

    @classmethod
    def recognizes(cls, head: bytes, name: str) -> bool:
        found = _HEAD.match(head)
        return found is not None and found[1] == b","

    def _read_schema(self) -> pa.Schema:
        with open(self.path, "rb") as file:
            # Line by line: a name may hold a line end, and a header that never ends must not fill the memory.
            lines = iter(lambda: file.readline(max(0, _MAX_HEADER - file.tell())).decode("utf-8-sig"), "")
            names = next(csv.reader(lines, strict=True), [])
            self._check_names(names, "f0")
            # A last line without an end would be read as a row even if it was cut within a number.
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                raise ValueError("the last line has no line end; the file is truncated")
            file.seek(0)
            header = file.readline(_MAX_HEADER).removeprefix(BOM_UTF8)
            self._saved_by_spreadsheet = header.startswith(b'"') or header.endswith(b"\r\n")
        return self._make_schema(names)

    def _make_schema(self, names: list[str]) -> pa.Schema:
        import pyarrow as pa

        self._width = 0
        check_width(len(names))
        for number, name in enumerate(names[FIRST_RESULT:]):
            if name != f"f{number}":
                break
            self._width += 1
        fields = []
        for name in names:
            is_prediction = not self._width and PREDICTION_COLUMN.fullmatch(name)
            fields.append(pa.field(name, PREDICTION_COLUMNS[name.rpartition("_")[0]] if is_prediction else "string"))
        if self._width:
            features = pa.field(FEATURES, pa.list_(pa.float32(), self._width))
            fields[FIRST_RESULT : FIRST_RESULT + self._width] = [features]
        return pa.schema(fields)

    def _batches(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        done = 0
        small, large = _BLOCK_BYTES
        # The rows of features are long, and a block of few rows takes as much time as one of many.
        for size in (2 * small if self._width else small, large):
            skip = done
            try:
                for batch in self._blocks(columns, size):
                    rest = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - rest.num_rows
                    done += rest.num_rows
                    # A batch of all the short rows of a large block would be too large.
                    for piece in sliced(rest, self.batch_rows):
                        yield piece if columns is not None else self._assembled(piece)
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error) or size == large:
                    raise
            else:
                return

    def _blocks(self, columns: Sequence[str] | None, size: int) -> Iterator[pa.RecordBatch]:
        """Reads the file in blocks of `size` bytes, of which Arrow reads up to 32 ahead; no row may be longer."""
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        types = {field.name: field.type for field in self.schema if field.name != FEATURES or not self._width}
        types |= dict.fromkeys(_feature_names(self._width), pa.float32())
        reader = arrow_csv.open_csv(
            self.path,
            read_options=arrow_csv.ReadOptions(block_size=size, use_threads=False),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=self._saved_by_spreadsheet,
                include_columns=None if columns is None else list(columns),
            ),
        )
        with reader:
            yield from reader

    def _assembled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Joins the columns f0, f1, ... to one."""
        import numpy as np
        import pyarrow as pa

        columns = batch.columns
        if self._width:
            end = FIRST_RESULT + self._width
            wide = batch.select(range(FIRST_RESULT, end))
            flat = np.asarray(wide.to_tensor(null_to_nan=True, row_major=True)).reshape(-1)
            mask = None
            if any(column.null_count for column in wide.columns):
                nulls = [column.is_null().to_numpy(zero_copy_only=False) for column in wide.columns]
                mask = np.column_stack(nulls).ravel()
            columns[FIRST_RESULT:end] = [features_array(self.schema.field(FIRST_RESULT).type, flat, mask)]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


CSV = Format(CsvWriter, CsvReader, (".csv",), ("classify", "features"), has_csv=True)
