"""Record batches built from results: one row per image, whatever became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from xcli.core.errors import ImageError, SourceError, UsageError
from xcli.core.records import ERROR_STATUS, OK_STATUS, STATUS, ImageRef
from xcli.core.text import one_line
from xcli.tables.column_text import plain
from xcli.tables.schema import FIRST_RESULT, feature_shape, has_wnids, prediction_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Errors = Sequence[ImageError | None]

ErrorFeatures = Literal["nan", "null", "empty"]
"""What error rows hold in a column of features."""


def classify_batch(
    schema: pa.Schema,
    refs: Sequence[ImageRef],
    errors: Errors,
    scores: NDArray[np.float32],
    labels: Sequence[str],
    wnids: Sequence[str] | None = None,
    min_score: float | None = None,
) -> pa.RecordBatch:
    """Returns one row per reference: its best classes, best first, equal scores by lower index, NaN last.

    Args:
        schema: of `classify_schema`; it says how many predictions a row has, and whether these have WordNet ids.
        refs, errors: b references, and for each an error or None; a row with an error has no predictions.
        scores: float32[b, C].
        labels, wnids: C texts for `label_k`, and for `wnid_k` where the schema has it.
        min_score: predictions that score less, compared in float32, are null; NaN is not less.

    Raises:
        UsageError: more predictions than classes, or no WordNet ids where they are needed.
        SourceError: a carried value does not fit its column.
        ValueError: lengths differ that must be equal.
    """
    import numpy as np
    import pyarrow as pa

    _check_lengths(refs, errors, len(scores))
    classes, top, with_wnids = scores.shape[1], prediction_count(schema), has_wnids(schema)
    if top > classes:
        raise UsageError(f"top is {top}, but the model has {classes} classes; give at most {classes}")
    if with_wnids and wnids is None:
        raise UsageError("label type is 'both', but these labels have no WordNet ids; give name")
    for names in (labels, wnids):
        if names is not None and len(names) != classes:
            raise ValueError(f"{len(names)} labels for {classes} classes")

    index = _best(scores, top)
    score = np.take_along_axis(scores, index, axis=1)
    hidden = np.zeros(index.shape, bool)
    hidden[np.array([error is not None for error in errors], bool)] = True
    if min_score is not None:
        hidden |= score < np.float32(min_score)

    texts = [pa.array(labels, pa.string())] + ([pa.array(wnids, pa.string())] if with_wnids else [])
    arrays = []
    for k in range(top):
        indices = pa.array(index[:, k], pa.int32(), mask=hidden[:, k])
        arrays += [text.take(indices) for text in texts]
        arrays += [indices, pa.array(score[:, k], pa.float32(), mask=hidden[:, k])]
    return _record_batch(schema, refs, errors, arrays)


def features_batch(
    schema: pa.Schema, refs: Sequence[ImageRef], errors: Errors, features: NDArray[np.floating[Any]]
) -> pa.RecordBatch:
    """Returns one row per reference, with its features [b, *shape], which must not change later; see `classify_batch`.

    In an error row every element is null; what a file has there is up to its writer (`fill_error_features`).
    """
    import numpy as np

    _check_lengths(refs, errors, len(features))
    shape = feature_shape(schema)
    if shape is None or features.shape[1:] != shape:
        raise ValueError(f"features of shape {features.shape[1:]} in a table for {shape}")
    data_type = schema.field(FIRST_RESULT).type
    with np.errstate(over="ignore"):  # beyond float16 is infinite; `verify` counts those
        flat = np.ascontiguousarray(features, data_type.value_type.to_pandas_dtype()).reshape(-1)
    failed = np.array([error is not None for error in errors], bool)
    mask = np.repeat(failed, flat.size // len(failed)) if failed.any() else None
    return _record_batch(schema, refs, errors, [features_array(data_type, flat, mask)])


def features_array(
    data_type: pa.DataType,
    flat: NDArray[np.floating[Any]],
    mask: NDArray[np.bool_] | None = None,
    null_rows: NDArray[np.bool_] | None = None,
) -> pa.Array:
    """Returns a column of features.

    Args:
        data_type: of the column.
        flat: [b * n] values in C order.
        mask: bool[b * n], which of them are null.
        null_rows: bool[b], in which rows the list itself is null.
    """
    import pyarrow as pa

    is_tensor = isinstance(data_type, pa.BaseExtensionType)
    storage = data_type.storage_type if is_tensor else data_type
    rows = None if null_rows is None else pa.array(null_rows)
    array = pa.FixedSizeListArray.from_arrays(pa.array(flat, mask=mask), type=storage, mask=rows)
    return pa.ExtensionArray.from_storage(data_type, array) if is_tensor else array


def flat_features(column: pa.Array) -> pa.Array:
    """Returns the values of a column of features: [b * n], with their nulls, whatever slice the column is."""
    column = plain(column)
    width = column.type.list_size
    return column.values.slice(column.offset * width, len(column) * width)


def fill_error_features(batch: pa.RecordBatch, how: ErrorFeatures) -> pa.RecordBatch:
    """Returns a batch of features in whose error rows the elements are NaN or empty (null), or the list is null.

    An error row that holds numbers is damaged, and stays as it is.
    """
    import numpy as np
    import pyarrow.compute as pc

    column = batch.column(FIRST_RESULT)
    failed = pc.equal(batch.column(STATUS), ERROR_STATUS).fill_null(False).to_numpy(zero_copy_only=False)
    absent = column.is_null().to_numpy(zero_copy_only=False)
    if not (failed.any() or absent.any()):
        return batch
    flat = flat_features(column)
    width = len(flat) // len(failed)
    missing = flat.is_null().to_numpy(zero_copy_only=False) | np.repeat(absent, width)
    values = flat.to_numpy(zero_copy_only=False).copy()
    failed &= (missing | np.isnan(values)).reshape(-1, width).all(1)
    of_failed = np.repeat(failed, width)
    values[of_failed] = np.nan
    missing[of_failed] = how == "empty"
    filled = features_array(column.type, values, missing if missing.any() else None, failed if how == "null" else None)
    return batch.set_column(FIRST_RESULT, batch.schema.field(FIRST_RESULT), filled)


def _best(scores: NDArray[np.float32], top: int) -> NDArray[np.int32]:
    """Returns the indices [b, top] of the highest scores as a stable descending sort would, at the cost of a partition.

    Each score becomes an integer that sorts as the score does, descending, with its index in the low bits. So keys are
    unique, and ties cannot be broken differently by another numpy, processor or batch.
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


def _check_lengths(refs: Sequence[ImageRef], errors: Errors, rows: int) -> None:
    if not len(refs) == len(errors) == rows:
        raise ValueError(f"{len(refs)} refs, {len(errors)} errors and {rows} results in one batch")


def _record_batch(
    schema: pa.Schema, refs: Sequence[ImageRef], errors: Errors, results: list[pa.Array]
) -> pa.RecordBatch:
    """Adds the other columns; a reference that carries fewer values (not from a manifest) has nulls there."""
    import pyarrow as pa

    paths = [ref.path for ref in refs]
    statuses = [OK_STATUS if error is None else ERROR_STATUS for error in errors]
    reasons = [None if error is None else one_line(str(error)) for error in errors]
    arrays = [*(pa.array(column, pa.string()) for column in (paths, statuses, reasons)), *results]
    for i, field in enumerate(list(schema)[len(arrays) :]):
        values = [ref.extra[i] if i < len(ref.extra) else None for ref in refs]
        try:
            arrays.append(pa.array(values, field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            reason = one_line(str(error))
            raise SourceError(f"the manifest's column {field.name!r} is not all {field.type}: {reason}") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
