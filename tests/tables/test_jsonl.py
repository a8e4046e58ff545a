"""JSON lines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.tables.tablerows import (
    BROKEN,
    classify,
    encode,
    hostile_refs,
    read,
)
from tests.writtentables import provenance, rows_of, write
from xcli.core.errors import CheckError, UsageError
from xcli.tables.formats import open_table
from xcli.tables.jsonl import JsonlWriter
from xcli.tables.schema import features_schema


def test_jsonl_text() -> None:
    schema, batch = classify(
        ["ü.jpg", "b", "c"],
        [[0.92345, 0.1], [1, 0], [np.nan, np.inf]],
        errors=[None, BROKEN, None],
        top=2,
        min_score=0.2,
        label_type="both",
    )
    assert encode(JsonlWriter, schema, [batch]).decode() == (
        '{"path": "ü.jpg", "status": "ok", "error": null, "predictions":'
        ' [{"label": "class 0", "wnid": "n0", "index": 0, "score": 0.92345}]}\n'
        '{"path": "b", "status": "error", "error": "empty: no bytes", "predictions": []}\n'
        '{"path": "c", "status": "ok", "error": null, "predictions":'
        ' [{"label": "class 1", "wnid": "n1", "index": 1, "score": null},'
        ' {"label": "class 0", "wnid": "n0", "index": 0, "score": null}]}\n'
    )


def test_jsonl_has_no_wnid_without_both_and_refuses_features() -> None:
    schema, batch = classify(["a"], [[0.5, 0.25]], label_type="wnid")
    (line,) = encode(JsonlWriter, schema, [batch]).splitlines()
    assert json.loads(line)["predictions"] == [{"label": "n0", "index": 0, "score": 0.5}]
    with pytest.raises(UsageError, match="parquet"):
        JsonlWriter(io.BytesIO(), features_schema((2,), "float32", []), {})


def test_a_table_without_predictions_has_a_member_for_each_column() -> None:
    columns = {
        "group": [1, 2],
        "path": ["\u00e4\n.jpg", None],
        "similarity": [1.0, float("nan")],
        "keep": [True, False],
    }
    schema = pa.schema(
        [("group", pa.int64()), ("path", pa.string()), ("similarity", pa.float32()), ("keep", pa.bool_())]
    )
    batch = pa.RecordBatch.from_pydict(columns, schema)
    assert encode(JsonlWriter, schema, [batch]).decode() == (
        '{"group": 1, "path": "\u00e4\\n.jpg", "similarity": 1, "keep": true}\n'
        '{"group": 2, "path": null, "similarity": null, "keep": false}\n'
    )
    assert encode(JsonlWriter, schema, [batch[:1], batch[1:]]) == encode(JsonlWriter, schema, [batch])


def test_some_columns_of_lines_that_are_odd(tmp_path: Path) -> None:
    lines = [
        '{"path": "a", "status": "ok", "error": null,'
        ' "predictions": [{"label": "x", "index": 1, "score": 0.1}], "n": 1}',
        '{{"path": "b", "status": "ok", "error": null, "predictions": [], "n": {}}}'.format("[" * 400 + "]" * 400),
        '{"path": "\\u00e9", "status": "ok", "error": null, "predictions": [], "n": "\\ud83d\\ude00"}',
        '{{"path": null, "status": "ok", "error": null, "predictions": [], "n": "{}"}}'.format("x" * (9 << 20)),
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    columns = ["score_1", "path", "label_1"]
    rows = [row for batch in open_table(str(path)).batches(columns) for row in batch.to_pylist()]
    assert [[*row] for row in rows] == [columns] * 4
    assert [row["path"] for row in rows] == ["a", "b", "é", None]
    assert [row["label_1"] for row in rows] == ["x", None, None, None]
    assert np.float32(rows[0]["score_1"]) == np.float32(0.1)
    for bad in (
        '{"path": 1}',
        '{"status": "ok"}',
        lines[0].replace('"label": "x", ', ""),
        lines[0].replace("[{", "[null, {"),
    ):
        path.write_text(f"{lines[0]}\n{bad}\n")
        with pytest.raises(CheckError, match="line 2"):
            list(open_table(str(path)).batches(columns))


def test_lines_that_differ_from_the_first_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write(path, rows_of("classify", hostile_refs()[:3]), provenance("classify"))
    good = path.read_bytes()
    for bad in (b"{}\n", b'{"path": "a"}\n', b"[1]\n", good.splitlines(True)[0][:-2] + b', "more": 1}\n', b"\xff\n"):
        path.write_bytes(good + bad)
        with pytest.raises(CheckError, match="line 4"):
            read(str(path))
