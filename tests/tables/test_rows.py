"""Record batches built from results."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from xcli.core.errors import ImageError, SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

LABELS = ["cat", "dog", "eel", "fox"]


WNIDS = ["n1", "n2", "n3", "n4"]


BROKEN = ImageError("truncated", "ends early")


def refs(n: int, *extra: tuple) -> list[ImageRef]:
    return [ImageRef(f"{i}.jpg", f"{i}.jpg", b"%d" % i, extra=extra[i] if extra else ()) for i in range(n)]


def classify(scores, errors=None, top=2, min_score=None, label_type="name", wnids=WNIDS, extra=(), of=None):
    scores = np.asarray(scores, np.float32)
    schema = classify_schema(top, label_type, extra)
    errors = errors or [None] * len(scores)
    of = of or refs(len(scores))
    labels = wnids if label_type == "wnid" else LABELS
    return classify_batch(schema, of, errors, scores, labels, wnids, min_score).to_pydict()


@pytest.mark.parametrize("name", ["path", "status", "error", "features"])
def test_features_refuses_carried_columns_with_our_names(name: str) -> None:
    with pytest.raises(SourceError, match=f"'{name}'"):
        features_schema((4,), "float32", [(name, None)])


def test_top_predictions_best_first_and_ties_by_index() -> None:
    rows = classify([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], label_type="both", extra=[("s", None)])
    assert rows["label_1"] == ["fox", "cat"]
    assert rows["wnid_2"] == ["n3", "n2"]
    assert rows["index_1"] == [3, 0]
    assert rows["score_2"] == [np.float32(0.3), 0.25]
    assert rows["s"] == [None, None]
    assert rows["status"] == ["ok", "ok"]
    assert classify([[0, 1, 2, 3]], label_type="wnid")["label_1"] == ["n4"]


@pytest.mark.parametrize("top", [1, 5, 39, 40])
def test_selection_is_a_stable_descending_sort(top: int) -> None:
    rng = np.random.default_rng(3)
    # Few distinct values make ties of every kind; among them those that compare oddly.
    pool = np.array([0, -0.0, 1, -1, 0.5, 1e-45, -1e-45, 3e38, np.inf, -np.inf, np.nan, -np.nan], np.float32)
    scores = rng.choice(pool, (200, 40))
    schema = classify_schema(top, "name", [])
    names = [str(i) for i in range(40)]
    batch = classify_batch(schema, refs(200), [None] * 200, scores, names)
    index = np.stack([batch.column(f"index_{k}").to_numpy() for k in range(1, top + 1)], axis=1)
    np.testing.assert_array_equal(index, np.argsort(-scores, axis=1, kind="stable")[:, :top])
    shown = np.stack([batch.column(f"score_{k}").to_numpy() for k in range(1, top + 1)], axis=1)
    np.testing.assert_array_equal(shown, np.take_along_axis(scores, index, axis=1))


def test_error_rows_are_null() -> None:
    rows = classify([[4, 3, 2, 1], [9, 9, 9, 9]], errors=[None, BROKEN], label_type="both")
    assert rows["status"] == ["ok", "error"]
    assert rows["error"] == [None, "truncated: ends early"]
    for k in (1, 2):
        assert [rows[f"{name}_{k}"][1] for name in ("label", "wnid", "index", "score")] == [None] * 4
    assert rows["label_1"][0] == "cat"


def test_min_score_blanks_predictions_but_not_rows() -> None:
    rows = classify([[0.6, 0.3, 0, 0], [0.1, 0.05, 0, 0], [np.nan] * 4], min_score=0.1)
    assert rows["status"] == ["ok"] * 3
    assert rows["label_1"] == ["cat", "cat", "cat"]  # 0.1 passes 0.1 although float32 and float64 differ
    assert rows["label_2"] == ["dog", None, "dog"]
    assert rows["score_2"][1] is None
    assert np.isnan(rows["score_1"][2])  # a fault of the model must not look like an uncertain one


def test_an_error_is_one_line_and_the_path_as_it_was() -> None:
    path = 'a\nb,"c"\x1b\x85.jpg'
    error = ImageError("unreadable", "a\nb\x1b\udcff")
    rows = classify([[1, 2, 3, 4]], errors=[error], of=[ImageRef(path, path, b"")])
    assert rows["path"] == [path]
    assert rows["error"] == [r"unreadable: a\nb\x1b\xff"]


def test_carried_values() -> None:
    extra = [("n", pa.int16()), ("when", pa.date32())]
    rows = classify([[1, 2, 3, 4]] * 3, extra=extra, of=refs(3, (7, None), (None, 0), ()))
    assert rows["n"] == [7, None, None]
    assert [str(value) for value in rows["when"]] == ["None", "1970-01-01", "None"]


@pytest.mark.parametrize(
    ("value", "data_type"), [(70000, pa.int16()), ("x", pa.float32()), ("\udcff", None), ([1], pa.date32())]
)
def test_a_carried_value_that_does_not_fit_is_named(value, data_type) -> None:
    with pytest.raises(SourceError, match="'n'"):
        classify([[1, 2, 3, 4]], extra=[("n", data_type)], of=refs(1, (value,)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"top": 5}, UsageError),
        ({"label_type": "both", "wnids": None}, UsageError),
        ({"wnids": ["n1"]}, ValueError),
        ({"errors": [None, None]}, ValueError),
        ({"of": refs(2)}, ValueError),
    ],
)
def test_arguments_that_do_not_agree(change: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        classify([[1, 2, 3, 4]], **change)


def test_no_rows() -> None:
    assert classify(np.empty((0, 4)))["score_2"] == []
    schema = features_schema((4,), "float32", [])
    assert features_batch(schema, [], [], np.empty((0, 4), np.float32)).num_rows == 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 2)])
def test_features_are_not_copied_and_null_in_error_rows(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(3 * np.prod(shape), dtype=dtype).reshape(3, *shape)
    schema = features_schema(shape, dtype, [("n", pa.int8())])
    batch = features_batch(schema, refs(3, (1,), (2,), ()), [None, BROKEN, None], values)
    assert batch.schema.equals(schema)
    column = batch.column("features")
    assert column.null_count == 0  # a null list is more than most readers of Parquet take
    assert batch.column("status").to_pylist() == ["ok", "error", "ok"]
    assert batch.column("n").to_pylist() == [1, 2, None]
    storage = column.storage if len(shape) > 1 else column
    assert storage[1].as_py() == [None] * values[1].size
    assert storage[2].as_py() == values[2].ravel().tolist()
    column = features_batch(schema, refs(3), [None] * 3, values).column("features")
    storage = column.storage if len(shape) > 1 else column
    assert storage.values.buffers()[1].address == values.ctypes.data
    assert storage.values.null_count == 0


def test_features_of_another_dtype_or_layout_are_converted() -> None:
    schema = features_schema((2,), "float16", [])
    values = np.array([[1, 1e9], [2, 0.5]], np.float32, order="F")
    batch = features_batch(schema, refs(2), [None, None], values)
    assert batch.column("features").to_pylist() == [[1, float("inf")], [2, 0.5]]


def test_features_that_do_not_fit_the_schema() -> None:
    schema = features_schema((4,), "float32", [])
    with pytest.raises(ValueError, match="shape"):
        features_batch(schema, refs(1), [None], np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match="2 results"):
        features_batch(schema, refs(1), [None], np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="shape"):
        features_batch(classify_schema(1, "name", []), refs(1), [None], np.zeros((1, 4), np.float32))
