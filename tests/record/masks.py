"""What is not the same in two runs of one program, and the digests of files without it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

LONGEST = 60_000
"""Characters of a stream or text file that a record keeps; of longer ones it has the digest and the beginning."""

MASKS: tuple[tuple[str, str, str], ...] = (
    # pattern, what stands there instead, reason
    (r"(?<![\w.])\d[\d,]*(\.\d+)? images/s\b", "<SPEED> images/s", "how fast the machine was"),
    (r"\bin \d[\d,]*(\.\d+)? s\b", "in <TIME> s", "how long it took"),
    (r"\bprocess \d+ on [\w.-]+", "process <PID> on <HOST>", "who holds a lock"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(\+00:00|Z)?", "<WHEN>", "when it ran"),
    (r"(127\.0\.0\.1|localhost):\d+", "<SERVER>", "servers of the record get a free port"),
    (r"\b(\w+)\.\d+-[0-9a-f]{8}\b", r"\1.<PID>-<RANDOM>", "temporary names"),
    (r"(?m)^( *(?:head|blocks) \d+/\d+ .*?) +[\d.]+(, [\d:]+ left at most)?$", r"\1 <TIME>", "how long an epoch took"),
    (r"(?m)^((?:head|blocks),\d+,.*),[\d.]+$", r"\1,<TIME>", "the same in history.csv"),
    (
        r"\b(xception-cli|version|python|tensorflow|keras|numpy|pillow|pyarrow) \d+\.[\d.]+\d",
        r"\1 <VERSION>",
        "the record names versions once",
    ),
    (r"0x[0-9a-f]{6,}", "<ADDRESS>", "addresses of objects in memory"),
)

HIDDEN_KEYS = {
    "started": "when it ran",
    "finished": "when it ran",
    "seconds": "how long it took",
    "profile": "how long each stage took",
    "images_per_second": "how fast the machine was",
    "version": "of the program",
    "versions": "of the libraries; the record names them once",
    "tf_version": "of a library",
    "keras_version": "of a library",
    "date_saved": "when it ran",
    "shared_object_id": "Keras writes addresses of objects into models",
}
"""Keys of JSON whose values are masked, and why."""


class Masks:
    """The masks of one record.

    Args:
        places: directories by what stands in their place; inner ones first.
        more: further patterns with what stands in their place.
    """

    def __init__(self, places: Mapping[str, str], more: Iterable[tuple[str, str]] = ()) -> None:
        self._places = dict(places)
        patterns = [(pattern, put) for pattern, put, _ in MASKS]
        self._patterns = [(re.compile(pattern), put) for pattern, put in [*patterns, *more]]

    def text(self, text: str) -> str:
        """A text without what differs between two runs."""
        for place, put in self._places.items():
            text = text.replace(place, put)
        for pattern, put in self._patterns:
            text = pattern.sub(put, text)
        return text

    def json(self, value: Any) -> Any:
        """A JSON value without what differs between two runs."""
        if isinstance(value, dict):
            return {key: f"<{key}>" if key in HIDDEN_KEYS else self.json(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.json(entry) for entry in value]
        return self.text(value) if isinstance(value, str) else value

    def stream(self, data: bytes) -> dict[str, str]:
        """A stream or text file: masked and whole, or where it is long its digest and its beginning."""
        text = data.decode("utf-8", "backslashreplace")
        with suppress(ValueError):
            text = json.dumps(self.json(json.loads(text)), indent=1, ensure_ascii=False) if text[:1] == "{" else text
        text = self.text(text)
        if len(text) <= LONGEST:
            return {"text": text}
        return {"sha256": digest(text.encode()), "begins": text[:400]}


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def describe_files(root: Path, masks: Masks, without: Iterable[str] = ()) -> dict[str, Any]:
    """Every file below a directory by its name, hidden ones too; directories only where they are empty."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(one for one in folders if os.path.relpath(os.path.join(folder, one), root) not in without)
        for name in sorted([*files, *(one for one in folders if os.path.islink(os.path.join(folder, one)))]):
            path = Path(folder, name)
            shown = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
            if shown not in without:
                found[masks.text(shown)] = describe_file(path, masks)
        if not files and not folders and folder != str(root):
            found[os.path.relpath(folder, root) + "/"] = {"kind": "empty directory"}
    return found


def describe_file(path: Path, masks: Masks) -> dict[str, Any]:
    """What is to be the same in a file: its bytes, or where these hold times and versions its content."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return {"link": os.readlink(path)}
    if not stat.S_ISREG(mode):
        return {"kind": "no file"}
    return describe_content(path.name, path.read_bytes(), masks)


def describe_content(name: str, data: bytes, masks: Masks) -> dict[str, Any]:
    """The same of the bytes of a file of that name."""
    import pyarrow as pa

    try:
        if name.endswith(".json"):
            value = masks.json(json.loads(data))
            text = json.dumps(value)
            return {"json": value} if len(text) <= LONGEST else {"sha256": digest(text.encode())}
        if name.endswith(".parquet"):
            return {"bytes": digest(data), **_parquet(data, masks)}
        if name.endswith(".keras"):
            return _keras(data, masks)
    except (ValueError, pa.ArrowInvalid, zipfile.BadZipFile):
        return {"damaged": digest(data)}
    if name in ("lock", "_lock", ".lock") or name.endswith((".csv", ".jsonl", ".txt", ".log", ".null")):
        return dict(masks.stream(data))
    return {"bytes": digest(data), "size": len(data)}


def _parquet(data: bytes, masks: Masks) -> dict[str, Any]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    table = file.read()
    metadata = table.schema.metadata or {}
    notes = {key.decode(): masks.text(value.decode("utf-8", "backslashreplace")) for key, value in metadata.items()}
    for key, value in notes.items():
        if value.startswith("{"):
            notes[key] = masks.json(json.loads(value))
    rows = "".join(f"{row}\n" for row in table.to_pylist())
    schema = [f"{one.name}: {one.type}" for one in table.schema]
    return {
        "schema": schema,
        "count": table.num_rows,
        "rows": digest(rows.encode("utf-8", "surrogatepass")),
        "groups": file.num_row_groups,
        "metadata": notes,
    }


def _keras(data: bytes, masks: Masks) -> dict[str, Any]:
    """The members of a model file: archives hold the time at which they were written, and Keras notes the date."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in sorted(archive.namelist())}
    return {
        name: describe_content(name, member, masks) if name.endswith(".json") else digest(member)
        for name, member in members.items()
    }
