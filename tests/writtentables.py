"""Tables as runs write them, without a run: for the tests of what reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import shake_128
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xcli.core.errors import ImageError, reason_of
from xcli.core.records import ImageRef, RunCounts
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.sources.selection import shard_of
from xcli.tables.formats import create_table
from xcli.tables.provenance import META_SUFFIX, METADATA_KEY, meta_text
from xcli.tables.rows import classify_batch, features_batch
from xcli.tables.schema import classify_schema, features_schema

HOSTILE = [
    b'quote".jpg',
    b"comma,.jpg",
    b"new\nline.jpg",
    b"return\r\n.jpg",
    b"not-utf8-\xff\xfe.jpg",
    b"back\\slash.jpg",
    b"back\\x41.jpg",
    b"=1+1.jpg",
    b" blanks .jpg",
    "🦊 \u2028 \u202e.jpg".encode(),
    b"\x1b[31m.jpg",
]
BROKEN = ImageError("truncated", "the data ends early, and 'quotes' \"too\", come along")
CLASSES = 7


def provenance(command: str, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"top": 3, "min_score": None, "label_type": "name", "raw_scores": False}
    if command == "features":
        options = {"dtype": "float32", "layer": None, "normalize": False, "pooling": "avg"}
    made: dict[str, Any] = {
        "tool": {"name": "xception-cli", "version": "0.1.0", "command": command},
        "versions": {"python": "3.11"},
        "model": {"name": "Xception (test)", "sha256": "ab" * 32, "input_range": "xception"},
        "preprocessing": {"size": 71},
        "precision": "float32",
        "device": "CPU",
        "batch_size": 32,
        "options": options,
    }
    for key, value in changes.items():
        place = made
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    return made


def values_of(refs: Sequence[ImageRef], width: int) -> np.ndarray:
    """Numbers that depend on nothing but the path, of every kind that float32 has."""
    data = b"".join(shake_128(ref.path.encode()).digest(4 * width) for ref in refs)
    values = np.frombuffer(data, np.float32).reshape(len(refs), width)
    return np.where(np.isfinite(values), values, np.float32(0.1))


def rows_of(command: str, refs: Sequence[ImageRef], extra: Sequence[Any] = (), **options: Any) -> pa.RecordBatch:
    """The rows of a batch; every tenth path is an error."""
    errors = [BROKEN if sum(ref.path.encode()) % 10 == 0 else ref.error for ref in refs]
    if command == "features":
        schema = features_schema(options.get("shape", (4,)), options.get("dtype", "float32"), extra)
        shape = options.get("shape", (4,))
        values = values_of(refs, int(np.prod(shape))).reshape(len(refs), *shape)
        return features_batch(schema, refs, errors, values.clip(-60000, 60000))
    top, label_type = options.get("top", 3), options.get("label_type", "name")
    schema = classify_schema(top, label_type, extra)
    raw = np.abs(values_of(refs, CLASSES))
    scores = (raw / (1 + raw)).astype(np.float32)
    names, wnids = [f'class, "{k}"' for k in range(CLASSES)], [f"n{k}" for k in range(CLASSES)]
    labels = wnids if label_type == "wnid" else names
    return classify_batch(schema, refs, errors, scores, labels, wnids, options.get("min_score"))


def counts_of(batch: pa.RecordBatch) -> RunCounts:
    report = RunCounts()
    for status, error in zip(batch["status"].to_pylist(), batch["error"].to_pylist(), strict=True):
        if status == "ok":
            report.ok += 1
        else:
            reason = reason_of(error)
            report.errors[reason] = report.errors.get(reason, 0) + 1
    report.listed = report.rows
    return report


def write(path: Path | str, batch: pa.RecordBatch, made: dict[str, Any], *, meta: bool = True) -> str:
    """A file and its FILE.meta.json; the format is that of the extension."""
    format = Path(path).suffix[1:]
    metadata = {METADATA_KEY: json.dumps(made, sort_keys=True, ensure_ascii=False)}
    with create_table(format, str(path), batch.schema, metadata, overwrite=True) as sink:
        sink.write(batch)
    if meta:
        content = meta_text(made | {"command_line": "xception", "images": counts_of(batch).as_dict()})
        Path(f"{path}{META_SUFFIX}").write_bytes(content)
    return str(path)


def write_shards(
    folder: Path, extension: str, command: str, sources: SourceOptions, count: int, **options: Any
) -> tuple[str, list[str]]:
    """What one run writes, and what `count` runs with --shard write."""
    with list_images(sources) as listing:
        refs = list(listing)
        extra = listing.extra_columns
    made = provenance(command, **options.pop("changes", {}))
    whole = write(folder / f"whole.{extension}", rows_of(command, refs, extra, **options), made)
    shards = []
    for k in range(1, count + 1):
        own = [ref for ref in refs if shard_of(ref.key, count) == k]
        shards.append(write(folder / f"shard-{k}.{extension}", rows_of(command, own, extra, **options), made))
    return whole, shards


def make_files(folder: Path, names: Sequence[bytes]) -> Path:
    """Files of no content, which listing does not look at."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with open(os.fsencode(folder) + b"/" + name, "wb"):
            pass
    return folder
