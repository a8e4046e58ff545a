"""The columns of the tables that a run writes.

The schema is known before the first row and never changes during a run, so parts of one run join without a cast, and a
run of no images still writes a table with every column.
"""

from __future__ import annotations

import re
from itertools import count, dropwhile
from typing import TYPE_CHECKING, Literal

from xcli.core.errors import SourceError, UsageError
from xcli.core.records import FEATURES, STATUS_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import pyarrow as pa

    Extra = Sequence[tuple[str, pa.DataType | None]]

FIRST_RESULT = len(STATUS_COLUMNS)
"""Index of the column `label_1` in a table of `classify`, of `features` in the other kind."""

PREDICTION_COLUMNS = {"label": "string", "wnid": "string", "index": "int32", "score": "float32"}
"""The columns of the k-th prediction without their suffix `_k`, in order, and the names of their Arrow types."""

PREDICTION_COLUMN = re.compile(rf"({'|'.join(PREDICTION_COLUMNS)})_[0-9]+")


def classify_schema(top: int, label_type: Literal["name", "wnid", "both"], extra: Extra) -> pa.Schema:
    """Returns the schema of `classify`: the status columns, the columns of k = 1..top predictions, then `extra`.

    Args:
        top: predictions per row, at least 1.
        label_type: what `label_k` holds; only `both` has the columns `wnid_k`.
        extra: name and type of the columns carried over from the manifest; None is string.

    Raises:
        UsageError: `top` is below 1, or `label_type` is unknown.
        SourceError: a carried column has the name of an output column, for any k, or occurs twice.
    """
    import pyarrow as pa

    if top < 1:
        raise UsageError(f"top is {top}; give at least 1")
    if label_type not in ("name", "wnid", "both"):
        raise UsageError(f"label type is {label_type!r}; give name, wnid or both")
    for name, _ in extra:
        # Reserved for every k: a larger --top must not make a manifest invalid.
        if PREDICTION_COLUMN.fullmatch(name):
            raise name_collision(name)
    columns = prediction_columns(wnids=label_type == "both")
    own = [pa.field(f"{name}_{k}", kind) for k in range(1, top + 1) for name, kind in columns.items()]
    return _schema_of(own, extra)


def prediction_columns(*, wnids: bool) -> dict[str, str]:
    """Returns `PREDICTION_COLUMNS`, with or without the WordNet ids."""
    return {name: kind for name, kind in PREDICTION_COLUMNS.items() if wnids or name != "wnid"}


def features_schema(shape: tuple[int, ...], dtype: Literal["float32", "float16"], extra: Extra) -> pa.Schema:
    """Returns the schema of `features`: the status columns, `features`, then `extra`.

    Args:
        shape: of one image's features. (n,) gives `fixed_size_list<dtype>[n]`, more dimensions `fixed_shape_tensor`.
        extra: see `classify_schema`.

    Raises:
        UsageError: the shape is empty or has a size below 1, or the dtype is another one.
        SourceError: a carried column has the name of an output column, or occurs twice.
    """
    import pyarrow as pa

    if not shape or min(shape) < 1:
        raise UsageError(f"features have the shape {shape}; every size must be at least 1")
    if dtype not in ("float32", "float16"):
        raise UsageError(f"features have the dtype {dtype!r}; give float32 or float16")
    value_type = pa.float32() if dtype == "float32" else pa.float16()
    column = pa.list_(value_type, shape[0]) if len(shape) == 1 else pa.fixed_shape_tensor(value_type, shape)
    return _schema_of([pa.field(FEATURES, column)], extra)


def _schema_of(own: list[pa.Field], extra: Extra) -> pa.Schema:
    import pyarrow as pa

    fields = [*(pa.field(name, pa.string()) for name in STATUS_COLUMNS), *own]
    return pa.schema([*fields, *_carried_fields(extra, {field.name for field in fields})])


def _carried_fields(extra: Extra, taken: Collection[str]) -> list[pa.Field]:
    import pyarrow as pa

    fields: list[pa.Field] = []
    carried: set[str] = set()
    for name, data_type in extra:
        if name in taken:
            raise name_collision(name)
        if name in carried:
            raise SourceError(f"the manifest has two columns {name!r}; rename one of them")
        carried.add(name)
        if data_type is None:
            data_type = pa.string()
        elif pa.types.is_dictionary(data_type):
            data_type = data_type.value_type  # a dictionary differs from batch to batch, which would show in the file
        fields.append(pa.field(name, data_type))
    return fields


def described(fields: Iterable[pa.Field]) -> list[str]:
    """Returns the columns as a fingerprint has them, each as `name: type`."""
    return [f"{field.name}: {field.type}" for field in fields]


def carries(columns: Sequence[str], extra: Extra, *, of_features: bool, with_features: bool) -> bool:
    """Returns whether a table with these columns, as `described`, carries `extra` over and nothing else.

    Args:
        columns: of a table of `classify`, or of one `of_features`.
        extra: see `classify_schema`.
        of_features: the results are one column.
        with_features: the features are the last column of a table of `classify`.
    """
    rest = columns[FIRST_RESULT : len(columns) - with_features]
    if of_features:
        rest = rest[1:]
    else:
        rest = [*dropwhile(lambda column: PREDICTION_COLUMN.fullmatch(column.rpartition(": ")[0]), rest)]
    return [*rest] == described(_carried_fields(extra, ()))


def name_collision(name: str) -> SourceError:
    """Returns the error for a carried column that has the name of an output column."""
    return SourceError(f"the manifest's column {name!r} has the name of a column of the output; rename it")


def prediction_count(schema: pa.Schema) -> int:
    """Returns the predictions per row of a table of `classify`; 0 for other tables."""
    names = set(schema.names)
    return next(k for k in count() if f"label_{k + 1}" not in names)


def has_wnids(schema: pa.Schema) -> bool:
    """Returns whether a table of `classify` has the columns `wnid_k`."""
    return "wnid_1" in schema.names


def feature_shape(schema: pa.Schema) -> tuple[int, ...] | None:
    """Returns the shape of one image's features in a table of `features`; None for other tables."""
    import pyarrow as pa

    # By position: a table of `classify` may carry a manifest's column of this name.
    if schema.names[FIRST_RESULT : FIRST_RESULT + 1] != [FEATURES]:
        return None
    column = schema.field(FIRST_RESULT).type
    return tuple(column.shape) if isinstance(column, pa.FixedShapeTensorType) else (column.list_size,)


def split_features(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Splits a table of `classify` whose last column is `features`: returns the columns of the two tables."""
    *names, features = schema.names
    carried = [name for name in names[FIRST_RESULT:] if not PREDICTION_COLUMN.fullmatch(name)]
    return names, [*STATUS_COLUMNS, features, *carried]
