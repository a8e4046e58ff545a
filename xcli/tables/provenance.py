"""What made a table: `FILE.meta.json`, the metadata of Parquet files, and the fingerprint that identifies a run."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, Schema, parse_object
from xcli.core.digests import json_digest
from xcli.core.errors import CheckError
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xcli.core.records import RunCounts
    from xcli.sources.options import SourceOptions

META_SUFFIX = ".meta.json"
METADATA_KEY = "xception"  # of a Parquet file's metadata; the value is the provenance, as JSON

PROVENANCE_KEYS = ("tool", "versions", "model", "preprocessing", "precision", "device", "batch_size", "options")
"""Members of the provenance. The other members of FILE.meta.json describe one run: times, counts, command line."""

ENVIRONMENT = "environment"
"""A further member, where variables are set by which TensorFlow computes otherwise."""

ENGINE = "engine"
"""A further member, where the engine is another one than TensorFlow."""

CALIBRATION = "calibration"
"""A further member, of `int8`: the digest of what is computed with integers, the images it was found on, its loss."""

IMPLIED_KEYS = frozenset({"model.name", "model.backbone", "options.labels.source"})
"""Members that tell where a file was whose digest is another member, or follow from it: they do not change rows."""

MACHINE_KEYS = frozenset({"device", "batch_size"})
"""Members that differ between machines and change values only within the stated precision."""

# Files in a directory of parts:
DATASET_META = "_meta.json"  # corresponds to FILE.meta.json
DATASET_RUN = "_run.json"  # there while the run is not finished
SUCCESS = "_SUCCESS"  # there once every source has its row

PARTS = "parts"
"""Member of `_meta.json`: for the name of each part its rows and the XXH3-128 of its file, as one text."""

LISTING = "listing"
"""Member of `FILE.meta.json` of a shard: number of the images of all shards together, and digest of their paths."""

_DIVISION = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")

_SCHEMA: Schema = {
    "tool": dict,
    "versions": dict,
    "model": dict,
    "preprocessing": dict,
    "options": dict,
    "batch_size": int | None | list,
    CALIBRATION: {"sha256": str, "requested": int, "images": [str], "loss": dict},
    "fingerprint": str,
    "shard": str | None,
    "images": {"ok": int, "listed": int, "resumed": int, "errors": {str: int}, "skipped": {str: int}},
    "merged": [{"file": str, "command_line": str | None}],
    PARTS: {str: str},
    "states": str,
    LISTING: str,
}
"""Of what is read of a provenance and a `FILE.meta.json`."""

DIGEST = "sha256"
"""Member of `FILE.meta.json` and of `run.json`: a digest of all others."""


def provenance_metadata(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Returns provenance as metadata of a table, text by key."""
    return {METADATA_KEY: _valid(json.dumps(provenance, sort_keys=True, ensure_ascii=False)).decode()}


def fingerprint_of(
    provenance: dict[str, Any], sources: SourceOptions, columns: Sequence[str], format: str, **more: Any
) -> dict[str, Any]:
    """Returns everything that determines the rows of a run, as JSON can hold it; `columns` are as `described`."""
    return {"provenance": provenance, "sources": sources.as_dict(), "schema": [*columns], "format": format, **more}


def digest(fingerprint: dict[str, Any]) -> str:
    """Returns the SHA-256 of a fingerprint, in hexadecimal."""
    return json_digest(fingerprint)


def run_meta(
    fingerprint: dict[str, Any],
    sources: SourceOptions,
    report: RunCounts,
    started: datetime,
    seconds: float,
    command_line: str | None,
) -> dict[str, Any]:
    """Returns the content of `FILE.meta.json` for a run that ends now, with either runner."""
    return {
        **fingerprint["provenance"],
        "command_line": command_line,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "fingerprint": digest(fingerprint),
        "shard": None if sources.shard is None else f"{sources.shard[0]}/{sources.shard[1]}",
        "images": report.as_dict(),
    }


def meta_text(meta: Mapping[str, Any]) -> bytes:
    """Returns the content of a `FILE.meta.json`, to which it adds a digest of everything else in it."""
    return _valid(json.dumps(with_digest(meta), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _valid(text: str) -> bytes:
    """Encodes JSON; an undecodable byte of a file name is a lone surrogate, which becomes its JSON escape."""
    return text.encode("utf-8", "backslashreplace")


def read_meta(name: str) -> dict[str, Any] | None:
    """Reads a `FILE.meta.json`, given its name or URL; returns None where there is no such file.

    Raises:
        CheckError: it cannot be read, or is damaged.
        OutputError: the request to the object store failed.
    """
    if is_url(name):
        from xcli.storage.object_store import open_writable_store

        content = open_writable_store(name).read("")
        return None if content is None else parse_meta(content, name)
    try:
        text = disk.read_file(name, MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CheckError(f"cannot read {one_line(name)}: {error.strerror}") from None
    return parse_meta(text, name)


def parse_meta(text: bytes, name: str) -> dict[str, Any]:
    """Parses the provenance of the file `name`; raises CheckError where it is none that a run or a merge writes."""
    try:
        meta = parse_object(text, _SCHEMA, free=PARTS)
        shard = meta.get("shard")
        if shard is not None and parse_division(shard) is None:
            raise ValueError(f"shard is {shard[:100]!r}")
    except ValueError as error:
        raise CheckError(f"the provenance of {one_line(name)} is damaged: {one_line(str(error))}") from None
    return meta


def parse_division(text: str) -> tuple[int, int] | None:
    """Returns the I and N of `I/N`; None if it is no such text, or I is not from 1 to N."""
    match = _DIVISION.fullmatch(text)
    number, total = map(int, match.groups()) if match is not None else (0, 0)
    return (number, total) if 1 <= number <= total else None


def with_digest(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record with a digest of everything else in it."""
    return {**record, DIGEST: digest(dict(record))}


def is_unchanged(record: Mapping[str, Any]) -> bool:
    """Returns whether a record is as it was written; true where it has no digest, as of earlier versions."""
    return DIGEST not in record or record == with_digest({key: record[key] for key in record if key != DIGEST})


def provenance_of(meta: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of `FILE.meta.json` that says what made the rows."""
    return {key: meta[key] for key in (*PROVENANCE_KEYS, ENGINE, CALIBRATION, ENVIRONMENT) if key in meta}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Returns where two provenances differ: the key, as `model.sha256`, and both values, None where one is absent."""
    flat, flat_other = _flat(one), _flat(other)
    keys = sorted(flat.keys() | flat_other.keys())
    return [(key, flat.get(key), flat_other.get(key)) for key in keys if flat.get(key) != flat_other.get(key)]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) else {prefix + key: entry}
    return flat
