"""What made a table, read back: `FILE.meta.json`, the metadata of Parquet files, and the comparison of two of them."""

from __future__ import annotations

import json
from typing import Any

from xcli.core.errors import CheckError
from xcli.core.text import one_line
from xcli.storage.urls import is_url

PROVENANCE_KEYS = (
    "tool",
    "versions",
    "model",
    "preprocessing",
    "precision",
    "device",
    "batch_size",
    "options",
)
"""The members of `Run.provenance`; what else is in FILE.meta.json is of that one run: times, counts, command line."""

NAMES_ONLY = frozenset({"model.name", "options.labels.source"})
"""Where a file lay whose digest stands beside the name: another place makes no other rows."""

MACHINE_KEYS = frozenset({"device", "batch_size"})
"""What differs between machines, and changes values within the stated precision only."""

DATASET_META = "_meta.json"
"""What is FILE.meta.json for a file, in a directory of parts."""

SUCCESS = "_SUCCESS"
"""Stands in a directory of parts once every source has its row."""

_MAX_META = 1 << 26


def parse_meta(text: bytes, name: str) -> dict[str, Any]:
    """Reads provenance.

    Raises:
        CheckError: it is no JSON object.
    """
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckError(f"the provenance of {one_line(name)} is damaged: {one_line(str(error))}") from None
    if not isinstance(meta, dict):
        raise CheckError(f"the provenance of {one_line(name)} is no JSON object")
    return meta


def read_meta(name: str) -> dict[str, Any] | None:
    """Reads a `FILE.meta.json`; None where there is none.

    Args:
        name: of a file, or the URL of an object.

    Raises:
        CheckError: it cannot be read, or is damaged.
        OutputError: the object store cannot be asked.
    """
    if is_url(name):
        from xcli.storage.uploads import WritableStore

        content = WritableStore(name).read("")
        return None if content is None else parse_meta(content, name)
    try:
        with open(name, "rb") as file:
            text = file.read(_MAX_META + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CheckError(f"cannot read {one_line(name)}: {error.strerror}") from None
    if len(text) > _MAX_META:
        raise CheckError(f"{one_line(name)} has more than {_MAX_META:,} bytes, which no provenance has")
    return parse_meta(text, name)


def provenance_of(meta: dict[str, Any]) -> dict[str, Any]:
    """The part of `FILE.meta.json` that says what made the rows."""
    return {key: meta[key] for key in PROVENANCE_KEYS if key in meta}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two provenances differ: the key as `model.sha256`, and both values (None where there is none)."""
    flat, flat_other = _flat(one), _flat(other)
    keys = sorted(flat.keys() | flat_other.keys())
    return [(key, flat.get(key), flat_other.get(key)) for key in keys if flat.get(key) != flat_other.get(key)]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, dict):
            flat |= _flat(entry, f"{prefix}{key}.")
        else:
            flat[prefix + key] = entry
    return flat
