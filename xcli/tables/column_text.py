"""Arrow columns of any type as text, for the text formats; by column rather than by value where Arrow can do that."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FORMULA_START = r"[=+\-@\t\r]"
"""What a text begins with that a spreadsheet takes for a formula: a regular expression."""

encode_json = json.JSONEncoder(ensure_ascii=False).encode


def to_text(column: pa.Array) -> pa.Array:
    r"""Converts a column to large_string[rows]; nulls stay null.

    Floats become the shortest text that reads back as the same float32 (also for float16) or float64, nested values
    JSON, and bytes UTF-8 with `\xff` for what is not UTF-8.
    """
    import pyarrow as pa

    types = pa.types
    column = plain(column)
    data_type = column.type
    if types.is_float16(data_type):
        column = column.cast(pa.float32())  # Arrow prints float16 with all digits of its float64
    # Not by a cast, which fails at the first value that is not UTF-8, so that the result would depend on the batch.
    is_bytes = types.is_binary(data_type) or types.is_large_binary(data_type) or types.is_fixed_size_binary(data_type)
    is_nested = types.is_nested(data_type)
    with suppress(pa.ArrowNotImplementedError):
        if not is_bytes and not is_nested:
            return column.cast(pa.large_string())
    convert = _nested_json if is_nested else _text
    return pa.array([None if value is None else convert(value) for value in column.to_pylist()], pa.large_string())


def plain(column: pa.Array) -> pa.Array:
    """Returns a column without dictionary and extension type."""
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def restore_formula_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns a batch whose texts have lost the apostrophe before a character that begins a formula.

    So texts become again what they were before --csv-safe, but for those that had such an apostrophe of their own.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def restored(column: pa.Array) -> pa.Array:
        is_text = pa.types.is_string(column.type)
        return pc.replace_substring_regex(column, rf"^'({FORMULA_START})", r"\1") if is_text else column

    columns = [restored(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _nested_json(value: Any) -> str:
    """Encodes a value of a nested column as JSON; entries of maps are pairs, NaN and infinities null."""
    return encode_json(_json_value(value))


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else _text(value)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
