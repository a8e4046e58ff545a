"""Tables of features for tests, with the provenance of a network that never ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tests.tables.tablerows import BROKEN, refs
from xcli.tables.formats import FORMATS
from xcli.tables.provenance import META_SUFFIX, meta_text, provenance_metadata
from xcli.tables.rows import features_batch
from xcli.tables.schema import features_schema

PROVENANCE = {
    "tool": {"name": "xception-cli", "version": "0", "command": "features"},
    "versions": {"python": "3"},
    "model": {"name": "imagenet", "sha256": "0" * 64, "input_range": "xception"},
    "preprocessing": {
        "size": 299,
        "resize": "crop",
        "interpolation": "bicubic",
        "crop_pct": 0.897,
        "jpeg_shrink": True,
    },
    "precision": "float32",
    "device": "cpu",
    "batch_size": 32,
    "options": {"pooling": "avg", "layer": None, "dtype": "float32", "normalize": False},
}


def with_changes(**changes: dict[str, Any]) -> dict[str, Any]:
    """PROVENANCE with other members in some of its dictionaries."""
    return {key: {**value, **changes[key]} if key in changes else value for key, value in PROVENANCE.items()}


def write_features(
    target: Path,
    values: np.ndarray,
    paths: Sequence[str] | None = None,
    failed: Sequence[int] = (),
    provenance: Mapping[str, Any] | None = PROVENANCE,
    dtype: str = "float32",
) -> str:
    """Writes rows of [n, ...] values in the format of the name; those whose numbers are in `failed` are error rows."""
    paths = [f"{number:04}.jpg" for number in range(len(values))] if paths is None else list(paths)
    schema = features_schema(values.shape[1:], dtype, [])
    errors = [BROKEN if number in failed else None for number in range(len(values))]
    kind = FORMATS[target.suffix[1:]]
    with ExitStack() as stack:
        streams = [stack.enter_context(open(f"{target}{suffix}", "wb")) for suffix in kind.suffixes]
        metadata = {} if provenance is None else provenance_metadata(provenance)
        writer = kind.writer(streams[0], schema, metadata, companion=streams[1] if streams[1:] else None)
        if len(values):
            writer.write(features_batch(schema, refs(paths), errors, values))
        writer.close()
    if provenance is not None:
        Path(f"{target}{META_SUFFIX}").write_bytes(meta_text(provenance))
    return str(target)
