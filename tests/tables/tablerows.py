"""Rows for the tests of formats, encoded and read back."""

from __future__ import annotations

import csv
import io
import os

import numpy as np
import pyarrow as pa

from tests.writtentables import HOSTILE
from xcli.core.errors import ImageError
from xcli.core.records import ImageRef
from xcli.core.text import escape_path
from xcli.tables.formats import open_table
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

BROKEN = ImageError("empty", "no bytes")


EVIL = [
    'he said "hi", twice.jpg',
    "new\nline\r\nand\rreturn.jpg",
    "🦊/ß/日本.png",
    r"caf\xe9.jpg",
    r"back\\slash",
    " spaces around ",
    "tab\t;semi'colon",
    "=1+1",
    "\u2028\x85\x1b[0m",
    "",
    '"',
    ",",
    "a" * 5000,
]


def refs(paths: list[str], extra: list[tuple] | None = None) -> list[ImageRef]:
    return [ImageRef(path, path, path.encode(), extra=extra[i] if extra else ()) for i, path in enumerate(paths)]


def encode(kind, schema, batches, **more) -> bytes:
    stream = io.BytesIO()
    sink = kind(stream, schema, {"xception": '{"tool": "é"}'}, **more)
    for batch in batches:
        sink.write(batch)
    sink.close()
    return stream.getvalue()


def read_csv(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def classify(paths, scores, errors=None, top=1, min_score=None, label_type="name", types=(), extra=None):
    schema = classify_schema(top, label_type, list(types))
    errors = errors or [None] * len(paths)
    scores = np.asarray(scores, np.float32).reshape(len(paths), -1)
    names = [f"class {i}" for i in range(scores.shape[1])]
    wnids = [f"n{i}" for i in range(scores.shape[1])]
    labels = wnids if label_type == "wnid" else names
    return schema, classify_batch(schema, refs(paths, extra), errors, scores, labels, wnids, min_score)


def features(values, errors=None, types=(), extra=None, dtype="float32"):
    values = np.asarray(values, dtype)
    schema = features_schema(values.shape[1:], dtype, list(types))
    paths = [f"{i}.jpg" for i in range(len(values))]
    return schema, features_batch(schema, refs(paths, extra), errors or [None] * len(values), values)


EXTRA = [("note, with comma", None), ("other", None)]


def hostile_refs(count: int = 40) -> list[ImageRef]:
    names = [escape_path(os.fsdecode(name)) for name in HOSTILE] + [""] + [f"{n}.jpg" for n in range(count)]
    cells = ["", None, 'say "x"', "a\nb\r\nc", "null", "NaN", "0.10", " x "]
    return [ImageRef(name, name, name.encode(), extra=(cells[n % 8], "e")) for n, name in enumerate(names)]


def read(path: str) -> pa.Table:
    reader = open_table(path)
    return pa.Table.from_batches(reader.batches(), reader.schema)


def bits(table: pa.Table, name: str) -> list[bytes | None]:
    return [None if value is None else np.float32(value).tobytes() for value in table[name].to_pylist()]
