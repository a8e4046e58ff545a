"""The rows of a Parquet manifest as Python objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from xcli.sources.carried import EACH, MAX_ROW, CarriedBytes
from xcli.storage.parquet_file import CheckedParquet, decoded_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    Row = tuple[str | None, tuple[Any, ...], str | None]

_BATCH_ROWS = 1024  # read at a time; carried columns may hold several kilobytes in a row
_BATCH_BYTES = 16 << 20
_STRING_TYPES = ("string", "large_string", "string_view")
_TEXT_TYPES = (*_STRING_TYPES, "binary", "large_binary", "null")


class ParquetRows:
    """A Parquet manifest that is open for reading; raises what `CheckedParquet` does.

    Args:
        file: seekable.
        only: names of the only columns to read, of which those that have inner ones are passed over; None for all.

    Attributes:
        schema: of the columns that are read.
    """

    def __init__(self, file: BinaryIO, only: Collection[str] | None = None) -> None:
        import pyarrow as pa

        self._parquet = CheckedParquet(file)
        self.schema, self._columns = self._parquet.schema, None
        if only is not None:
            self.schema = pa.schema([one for one in self.schema if one.name in only and not one.type.num_fields])
            self._columns = self.schema.names

    def type(self, number: int) -> Any:
        """Returns the type of a column's values: a dictionary is only a way to store them."""
        return _plain_type(self.schema.field(number).type)

    def holds_text(self, number: int) -> bool:
        """Returns whether a column may be that of the paths."""
        return str(self.type(number)) in _TEXT_TYPES

    def has_inner_nanoseconds(self, number: int) -> bool:
        """Returns whether a column has times within lists or structs that Python cannot represent."""
        return any(map(_has_nanoseconds, _inner_types(self.schema.field(number).type)))

    def rows(self, index: int, carried: CarriedBytes) -> Iterator[Row]:
        """Yields of each row the path, the values of the other columns, and what is wrong with them.

        Args:
            index: of the column of paths.
            carried: counts the bytes.
        """
        names = [name for number, name in enumerate(self.schema.names) if number != index]
        for batch in self._parquet.batches(_BATCH_ROWS, self._columns, most=_BATCH_BYTES, row=MAX_ROW, each=EACH):
            if batch.num_rows == 1 and self._parquet.size > MAX_ROW:
                sizes = [decoded_size(column, EACH) for column in batch.columns]
                longest = max(range(len(sizes)), key=sizes.__getitem__)
                text = f"the row takes {sum(sizes):,} bytes, most of them in the column '{self.schema.names[longest]}'"
                path = None if sizes[index] > MAX_ROW else _texts(_plain(batch.column(index)), "surrogateescape")[0]
                yield path, (None,) * len(names), f"{text}; at most {MAX_ROW:,} are carried into the output"
                continue
            carried.total += self._parquet.size
            problems: dict[int, str] = {}
            columns = list(map(_plain, batch.columns))
            paths = _texts(columns.pop(index), "surrogateescape")
            extras = [_values(column, name, problems) for column, name in zip(columns, names, strict=True)]
            for offset, path in enumerate(paths):
                yield path, tuple(values[offset] for values in extras), problems.get(offset)


def _is_dictionary(arrow_type: Any) -> bool:
    return str(arrow_type).startswith("dictionary<")


def _plain_type(arrow_type: Any) -> Any:
    """Returns the type of the values: a dictionary is only a way to store them, and differs from batch to batch."""
    return arrow_type.value_type if _is_dictionary(arrow_type) else arrow_type


def _plain(column: Any) -> Any:
    return column.dictionary_decode() if _is_dictionary(column.type) else column


def _has_nanoseconds(arrow_type: Any) -> bool:
    return getattr(arrow_type, "unit", None) == "ns"


def _inner_types(arrow_type: Any) -> Iterator[Any]:
    """Yields the types within a nested type, at any depth."""
    arrow_type = getattr(arrow_type, "storage_type", arrow_type)
    for number in range(arrow_type.num_fields):
        inner = arrow_type.field(number).type
        yield inner
        yield from _inner_types(inner)


def _texts(column: Any, errors: str) -> list[str | None]:
    """Decodes a column of text. Parquet promises UTF-8, but writers do not always check it."""
    import pyarrow as pa

    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    values = column.cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", errors) for value in values]


def _values(column: Any, name: str, problems: dict[int, str]) -> list[Any]:
    """Returns a column's values as Python objects; notes in `problems` the rows whose value Python cannot represent."""
    import pyarrow as pa

    if str(column.type) in _STRING_TYPES:
        return _texts(column, "backslashreplace")
    if _has_nanoseconds(column.type):
        column = column.cast(pa.int64())
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):  # such as a year beyond 9999, or nested text that is not UTF-8
        values = []
        for number, scalar in enumerate(column):
            try:
                values.append(scalar.as_py())
            except (ValueError, OverflowError) as error:
                values.append(None)
                problems[number] = f"column '{name}': {' '.join(str(error).split())}"
    return values
