"""Arrow columns as text: fields of CSV, values of JSON. The work is done by column, not by value, where Arrow can."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_FORMULA = r"^[=+\-@\t\r]"
_NEEDS_QUOTES = r'[",\r\n]'
_NO_JSON_NUMBER = frozenset({"nan", "inf", "-inf"})
_encode = json.JSONEncoder(ensure_ascii=False).encode


def csv_field(value: str) -> str:
    """One string as a field; an empty one is quoted, to tell it from a null."""
    if value and not re.search(_NEEDS_QUOTES, value):
        return value
    return '"' + value.replace('"', '""') + '"'


def csv_fields(column: pa.Array) -> pa.Array:
    """A column of any type as fields: large_string[rows] without nulls."""
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


def guarded_text(text: str) -> str:
    """One text as `csv_safe` makes it."""
    return "'" + text if re.match(_FORMULA, text) else text


def csv_safe(column: pa.Array) -> pa.Array:
    """A column whose texts no spreadsheet takes for formulas; for use before `csv_fields`.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return gets an apostrophe before it. That is not to
    be undone: a text may have begun with an apostrophe before. Columns of other types stay as they are, so that
    negative numbers do.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = _plain(column)
    types = pa.types
    if any(getattr(types, f"is_{kind}")(plain.type) for kind in ("floating", "integer", "boolean", "decimal")):
        return column
    text = to_text(plain)
    apostrophe, nothing = (pa.scalar(value, pa.large_string()) for value in ("'", ""))
    guarded = pc.binary_join_element_wise(apostrophe, text, nothing)
    return pc.if_else(pc.match_substring_regex(text, _FORMULA), guarded, text)


def csv_features(column: pa.Array) -> pa.Array:
    """A column of `fixed_size_list<float>[n]` as n fields a row, joined, null ones empty: large_string[rows].

    Rows times n must stay below 2**26: the joined text of all rows has 32-bit offsets.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    width = column.type.list_size
    values = pc.fill_null(to_text(column.flatten()), "").cast(pa.string())
    offsets = pa.array(np.arange(0, len(values) + 1, width, dtype=np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, values), ",").cast(pa.large_string())


def csv_lines(columns: list[pa.Array]) -> memoryview:
    """Fields by column (large_string without nulls) as the bytes of the lines."""
    import pyarrow as pa
    import pyarrow.compute as pc

    comma, end, nothing = (pa.scalar(value, pa.large_string()) for value in (",", "\n", ""))
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, comma), end, nothing)
    # The values of a string column lie one behind the other: they are the file.
    _, offsets, data = lines.buffers()
    ends = memoryview(offsets).cast("q")
    return memoryview(data)[ends[lines.offset] : ends[lines.offset + len(lines)]]


def json_texts(column: pa.Array) -> list[str]:
    """A column of any type as JSON values.

    Booleans, integers and floats are literals (floats the shortest text of their own precision; NaN and infinities
    are null), nested types are arrays and objects, everything else is a string.
    """
    import pyarrow as pa

    types = pa.types
    column = _plain(column)
    if types.is_nested(column.type):
        return [_nested(value) for value in column.to_pylist()]
    values = to_text(column).to_pylist()
    if types.is_floating(column.type):
        return ["null" if value is None or value in _NO_JSON_NUMBER else value for value in values]
    if types.is_integer(column.type) or types.is_boolean(column.type):
        return ["null" if value is None else value for value in values]
    return ["null" if value is None else _encode(value) for value in values]


def to_text(column: pa.Array) -> pa.Array:
    r"""A column of any type as large_string[rows]; nulls stay.

    Floats are the shortest text that reads back as the same float32 (float16 too) or float64; nested values are JSON;
    bytes are UTF-8 with `\xff` for what is not.
    """
    import pyarrow as pa

    types = pa.types
    column = _plain(column)
    data_type = column.type
    if types.is_float16(data_type):
        column = column.cast(pa.float32())  # Arrow prints float16 with all digits of its float64
    if types.is_nested(data_type):
        values = [None if value is None else _nested(value) for value in column.to_pylist()]
        return pa.array(values, pa.large_string())
    if types.is_binary(data_type) or types.is_large_binary(data_type) or types.is_fixed_size_binary(data_type):
        # Not by a cast, which fails on the first value that is not UTF-8, and so on luck of the batch.
        return pa.array([None if value is None else _text(value) for value in column.to_pylist()], pa.large_string())
    try:
        return column.cast(pa.large_string())
    except pa.ArrowNotImplementedError:
        return pa.array([None if value is None else _text(value) for value in column.to_pylist()], pa.large_string())


def _plain(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _nested(value: Any) -> str:
    return _encode(_json_value(value))


def _json_value(value: Any) -> Any:
    """What JSON can hold, all the way down; entries of maps are pairs, as Arrow gives them."""
    if isinstance(value, dict):
        return {str(key): _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else _text(value)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
