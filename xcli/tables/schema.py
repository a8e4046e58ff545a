"""The tables that a run writes: their schemas, and record batches built from results.

The schema comes first and never changes during a run, so parts of one run join without a cast, and a run of no images
still writes a table with every column.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from xcli.core.errors import ImageError, SourceError, UsageError
from xcli.core.records import ERROR, ERROR_STATUS, FEATURES, OK_STATUS, PATH, STATUS, ImageRef
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LabelType = Literal["name", "wnid", "both"]
FeatureType = Literal["float32", "float16"]

_RESERVED = re.compile(r"(label|wnid|index|score)_[0-9]+")


def classify_schema(top: int, label_type: LabelType, extra: Sequence[tuple[str, pa.DataType | None]]) -> pa.Schema:
    """Schema of `classify`: path, status, error, then for k = 1..top label_k, [wnid_k], index_k, score_k, then `extra`.

    Args:
        top: predictions a row, at least 1.
        label_type: what `label_k` holds; `both` adds `wnid_k`.
        extra: name and type of the columns carried over from the manifest; None is string, a dictionary its values.

    Raises:
        UsageError: `top` is below 1, or `label_type` is unknown.
        SourceError: a carried column has the name of one of ours, for any k, or occurs twice.
    """
    import pyarrow as pa

    if top < 1:
        raise UsageError(f"top is {top}; give at least 1")
    if label_type not in ("name", "wnid", "both"):
        raise UsageError(f"label type is {label_type!r}; give name, wnid or both")
    fields = _lead_fields()
    for k in range(1, top + 1):
        fields.append(pa.field(f"label_{k}", pa.string()))
        if label_type == "both":
            fields.append(pa.field(f"wnid_{k}", pa.string()))
        fields += [pa.field(f"index_{k}", pa.int32()), pa.field(f"score_{k}", pa.float32())]
    for name, _ in extra:
        # Reserved for every k: a manifest must not start to collide because --top grew.
        if _RESERVED.fullmatch(name):
            raise _collision(name)
    return _with_carried(fields, extra)


def features_schema(
    shape: tuple[int, ...], dtype: FeatureType, extra: Sequence[tuple[str, pa.DataType | None]]
) -> pa.Schema:
    """Schema of `features`: path, status, error, features, then `extra`.

    Args:
        shape: of one image's features: (n,) gives `fixed_size_list<dtype>[n]`, more dimensions `fixed_shape_tensor`.
        dtype: `float32` or `float16`.
        extra: name and type of the columns carried over from the manifest; None is string, a dictionary its values.

    Raises:
        UsageError: the shape is empty or has a size below 1, or the dtype is another one.
        SourceError: a carried column has the name of one of ours, or occurs twice.
    """
    import pyarrow as pa

    if not shape or min(shape) < 1:
        raise UsageError(f"features have the shape {shape}; every size must be at least 1")
    if dtype not in ("float32", "float16"):
        raise UsageError(f"features have the dtype {dtype!r}; give float32 or float16")
    value_type = pa.float32() if dtype == "float32" else pa.float16()
    column = pa.list_(value_type, shape[0]) if len(shape) == 1 else pa.fixed_shape_tensor(value_type, shape)
    return _with_carried([*_lead_fields(), pa.field(FEATURES, column)], extra)


def prediction_count(schema: pa.Schema) -> int:
    """Predictions a row in a table of `classify`; 0 in other tables."""
    names = set(schema.names)
    k = 0
    while f"label_{k + 1}" in names:
        k += 1
    return k


def feature_shape(schema: pa.Schema) -> tuple[int, ...] | None:
    """Shape of one image's features in a table of `features`; None in other tables."""
    import pyarrow as pa

    # By position: a table of `classify` may carry a manifest's column of this name.
    if schema.names[3:4] != [FEATURES]:
        return None
    column = schema.field(3).type
    if isinstance(column, pa.FixedShapeTensorType):
        return tuple(column.shape)
    return (column.list_size,)


def column_names(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Columns of a table of `classify` with features as the last one, for two tables: predictions, and features."""
    *names, features = schema.names
    carried = [name for name in names[3:] if not _RESERVED.fullmatch(name)]
    return names, [PATH, STATUS, ERROR, features, *carried]


def classify_batch(
    schema: pa.Schema,
    refs: Sequence[ImageRef],
    errors: Sequence[ImageError | None],
    scores: NDArray[np.float32],
    labels: Sequence[str],
    wnids: Sequence[str] | None,
    top: int,
    min_score: float | None,
    label_type: LabelType,
) -> pa.RecordBatch:
    """One row a ref: its `top` best classes, best first, equal scores by lower index, NaN last.

    Args:
        schema: of `classify_schema` with the same `top` and `label_type`.
        refs: b references.
        errors: b errors or None; a row with an error has no predictions.
        scores: float32[b, C].
        labels: C names.
        wnids: C WordNet ids; needed for the label types `wnid` and `both`.
        top: predictions a row, at most C.
        min_score: predictions that score less are null; compared in float32, so a score printed as 0.1 passes 0.1.
            NaN is not less: it stays to be seen.
        label_type: what `label_k` holds.

    Raises:
        UsageError: more predictions than classes, or no WordNet ids where they are needed.
        SourceError: a carried value does not fit its column.
        ValueError: lengths that do not agree.
    """
    import numpy as np
    import pyarrow as pa

    _check_lengths(refs, errors, len(scores))
    classes = scores.shape[1]
    if top > classes:
        raise UsageError(f"top is {top}, but the model has {classes} classes; give at most {classes}")
    if label_type != "name" and wnids is None:
        raise UsageError(f"label type is {label_type!r}, but these labels have no WordNet ids; give name")
    for names in (labels, wnids):
        if names is not None and len(names) != classes:
            raise ValueError(f"{len(names)} labels for {classes} classes")

    index = _best(scores, top)
    score = np.take_along_axis(scores, index, axis=1)
    hidden = np.zeros(index.shape, bool)
    hidden[[i for i, error in enumerate(errors) if error is not None]] = True
    if min_score is not None:
        hidden |= score < np.float32(min_score)

    label_column = pa.array(wnids if label_type == "wnid" else labels, pa.string())
    wnid_column = pa.array(wnids, pa.string()) if label_type == "both" else None
    arrays = _lead_arrays(refs, errors)
    for k in range(top):
        place = pa.array(index[:, k], pa.int32(), mask=hidden[:, k])
        arrays.append(label_column.take(place))
        if wnid_column is not None:
            arrays.append(wnid_column.take(place))
        arrays += [place, pa.array(score[:, k], pa.float32(), mask=hidden[:, k])]
    return _record_batch(schema, arrays, refs)


def features_batch(
    schema: pa.Schema,
    refs: Sequence[ImageRef],
    errors: Sequence[ImageError | None],
    features: NDArray[np.floating[Any]],
) -> pa.RecordBatch:
    """One row a ref, with its features; of an error row every element is null.

    Not the list itself: Arrow before release 26 cannot read a null `fixed_size_list` back from Parquet.

    Args:
        schema: of `features_schema`.
        refs: b references.
        errors: b errors or None.
        features: [b, *shape]. Contiguous and of the schema's dtype it is not copied: do not write to it afterwards.

    Raises:
        SourceError: a carried value does not fit its column.
        ValueError: lengths or shapes that do not agree.
    """
    import numpy as np
    import pyarrow as pa

    _check_lengths(refs, errors, len(features))
    shape = feature_shape(schema)
    if shape is None or features.shape[1:] != shape:
        raise ValueError(f"features of shape {features.shape[1:]} in a table for {shape}")
    column = schema.field(3).type
    storage = column if len(shape) == 1 else column.storage_type
    dtype = np.float32 if storage.value_type == pa.float32() else np.float16
    with np.errstate(over="ignore"):  # beyond float16 is infinite; `verify` counts those
        flat = np.ascontiguousarray(features, dtype).reshape(-1)
    failed = [error is not None for error in errors]
    mask = np.repeat(failed, flat.size // len(failed)) if any(failed) else None
    array = pa.FixedSizeListArray.from_arrays(pa.array(flat, mask=mask), type=storage)
    if storage is not column:
        array = pa.ExtensionArray.from_storage(column, array)
    return _record_batch(schema, [*_lead_arrays(refs, errors), array], refs)


def _best(scores: NDArray[np.float32], top: int) -> NDArray[np.int32]:
    """Indices [b, top] of the highest scores, as a stable descending sort gives them, at the cost of a partition.

    Each score becomes an integer that sorts as the score does, descending, with its index in the low bits: keys are
    unique, so ties cannot fall differently from one numpy, processor or batch to the next.
    """
    import numpy as np

    descending = np.negative(scores, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0, which it equals
    descending[np.isnan(descending)] = np.nan  # one sign, the one that sorts last
    bits = descending.view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys = (ordered << np.uint64(32)) | np.arange(scores.shape[1], dtype=np.uint64)
    if top < scores.shape[1]:
        keys = np.partition(keys, top - 1, axis=1)[:, :top]
    return (np.sort(keys, axis=1) & np.uint64(0xFFFFFFFF)).astype(np.int32)


def _check_lengths(refs: Sequence[ImageRef], errors: Sequence[ImageError | None], rows: int) -> None:
    if not len(refs) == len(errors) == rows:
        raise ValueError(f"{len(refs)} refs, {len(errors)} errors and {rows} results in one batch")


def _lead_fields() -> list[pa.Field]:
    import pyarrow as pa

    return [pa.field(name, pa.string()) for name in (PATH, STATUS, ERROR)]


def _lead_arrays(refs: Sequence[ImageRef], errors: Sequence[ImageError | None]) -> list[pa.Array]:
    import pyarrow as pa

    columns: tuple[list[str | None], ...] = (
        [ref.path for ref in refs],
        [OK_STATUS if error is None else ERROR_STATUS for error in errors],
        [None if error is None else one_line(str(error)) for error in errors],
    )
    return [pa.array(column, pa.string()) for column in columns]


def _with_carried(fields: list[pa.Field], extra: Sequence[tuple[str, pa.DataType | None]]) -> pa.Schema:
    import pyarrow as pa

    taken = {field.name for field in fields}
    ours = frozenset(taken)
    for name, data_type in extra:
        if name in ours:
            raise _collision(name)
        if name in taken:
            raise SourceError(f"the manifest has two columns {name!r}; rename one of them")
        taken.add(name)
        if data_type is None:
            data_type = pa.string()
        elif pa.types.is_dictionary(data_type):
            data_type = data_type.value_type  # a dictionary differs with the batch, and would show in the file
        fields.append(pa.field(name, data_type))
    return pa.schema(fields)


def _collision(name: str) -> SourceError:
    return SourceError(f"the manifest's column {name!r} has the name of a column of the output; rename it")


def _record_batch(schema: pa.Schema, arrays: list[pa.Array], refs: Sequence[ImageRef]) -> pa.RecordBatch:
    """Our columns and then the carried ones; a ref that carries fewer values (not from a manifest) has nulls."""
    import pyarrow as pa

    for i, field in enumerate(list(schema)[len(arrays) :]):
        values = [ref.extra[i] if i < len(ref.extra) else None for ref in refs]
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            reason = one_line(str(error))
            raise SourceError(f"the manifest's column {field.name!r} is not all {field.type}: {reason}") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
