"""`FILE.states`, of a directory `_states`: the state of the image of each row, by which a change is noticed later.

A Parquet file with one row for each row of the table, in the order of the table; in a directory the parts follow one
another by their numbers. At most 40 bytes a row.

    key      uint64  BLAKE2b-64 of the path, NUL, and for a member of an archive NUL and its position there
    size     int64   of the file, or of the archive, in bytes; null if the file could not be accessed
    mtime    int64   its time of modification in nanoseconds; of an object seconds, and 30 bits of its ETag below them
    carried  uint64  the same as `key` with the values that the manifest carries; null if it carries none
    position int64   of a shard: the number of the image, from 0, among those of all shards; otherwise null
    reason   string  of an error row

Its metadata has the fingerprint of the run, as JSON. `FILE.meta.json` records the digest of the file, so that the
states of an older table are never taken for those of this one, and a digest of the paths of the table.
"""

from __future__ import annotations

import json
import os
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import CheckError, reason_of
from xcli.core.records import ERROR, PATH
from xcli.core.text import one_line
from xcli.storage.checksums import ChecksumWriter
from xcli.storage.parquet_file import CheckedParquet
from xcli.storage.urls import is_url
from xcli.tables.base import GROUP_BYTES
from xcli.tables.parquet import DatasetReader, ParquetWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from xcli.storage.streams import ByteStream
    from xcli.tables.base import TableReader

STATES_SUFFIX = ".states"
DATASET_STATES = "_states"  # in a directory of parts

STATES = "states"
"""Member of `FILE.meta.json`: rows, digest of the paths, and digest of the file of states, as one text."""

_FINGERPRINT = "xception_fingerprint"
_BATCH = 1 << 16
_MOST_BYTES, _MORE_BYTES = 48, 1 << 24  # of a row, and of what is there once: metadata, which name the sources


class PathDigest:
    """A digest of the paths of a table, in order, however they are cut into batches."""

    def __init__(self) -> None:
        from xxhash import xxh3_128

        self._content = xxh3_128()
        self.rows = 0

    def update(self, paths: Sequence[str | None]) -> None:
        """Adds the paths of some rows; null is an empty path."""
        self._content.update(b"".join((path or "").encode() + b"\0" for path in paths))
        self.rows += len(paths)

    def text(self) -> str:
        """Returns the number of paths and the digest."""
        return f"{self.rows} {self._content.hexdigest()}"


def states_schema() -> pa.Schema:
    """Returns the columns of the file."""
    import pyarrow as pa

    numbers = {"key": "uint64", "size": "int64", "mtime": "int64", "carried": "uint64", "position": "int64"}
    return pa.schema([*((name, getattr(pa, kind)()) for name, kind in numbers.items()), ("reason", pa.string())])


class StatesWriter:
    """Writes the states of the rows of one table.

    Args:
        stream: of the file.
        fingerprint: of the run; None if the table is of no single run.
    """

    def __init__(self, stream: ByteStream, fingerprint: Mapping[str, Any] | None) -> None:
        self._schema = states_schema()
        self._file = ChecksumWriter(stream)  # type: ignore[arg-type]
        text = json.dumps(fingerprint, sort_keys=True)
        self._table = ParquetWriter(self._file, self._schema, {_FINGERPRINT: text})  # type: ignore[arg-type]
        self._paths = PathDigest()

    def write(self, rows: pa.RecordBatch, keys: Any, states: Iterable[pa.Array], carried: Any, positions: Any) -> None:
        """Appends rows.

        Args:
            rows: of the table, with the columns `path` and `error` at least.
            keys: 64-bit integers, without the carried values.
            states: size and time of modification, int64 with nulls.
            carried: 64-bit integers, keys with the carried values; or None.
            positions: 64-bit integers, for a shard; or None.
        """
        import pyarrow as pa

        found = pa.nulls(len(rows), pa.uint64()) if carried is None else pa.array(carried, pa.uint64())
        places = pa.nulls(len(rows), pa.int64()) if positions is None else pa.array(positions, pa.int64())
        reasons = [None if error is None else reason_of(error) for error in rows.column(ERROR).to_pylist()]
        columns = [pa.array(keys, pa.uint64()), *states, found, places, pa.array(reasons, pa.string())]
        self.copy(rows.column(PATH), pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def copy(self, paths: pa.Array, rows: pa.RecordBatch) -> None:
        """Appends rows of another file of states."""
        self._paths.update(paths.to_pylist())
        self._table.write(rows)

    def close(self) -> dict[str, str]:
        """Ends the file; returns the member of `FILE.meta.json`."""
        self._table.close()
        return {STATES: f"{self._paths.text()} {self._file.checksum.digest}"}

    def abandon(self) -> None:
        """Gives up: nothing more goes to the stream."""
        self._table.abandon()


class States(NamedTuple):
    """What a table's file of states says.

    Attributes:
        rows: a table of `states_schema`.
        fingerprint: of the run; None if the table is of no single run.
        paths: number of rows and digest of the paths, as `PathDigest.text` gives it.
    """

    rows: pa.Table
    fingerprint: dict[str, Any] | None
    paths: str


def read_states(name: str, meta: Mapping[str, Any] | None) -> States | None:
    """Reads the file of states of a table.

    Args:
        name: path or URL of the file of states.
        meta: content of the table's `FILE.meta.json`.

    Returns:
        The states; None if the run that made the table recorded none.

    Raises:
        CheckError: the file is missing, is that of another table, or is damaged.
        OutputError: the request to the object store failed.
    """
    import pyarrow as pa
    from xxhash import xxh3_128

    recorded = str((meta or {}).get(STATES) or "")
    if not recorded:
        return None
    paths, _, digest = recorded.rpartition(" ")
    shown = one_line(name)
    rows = paths.partition(" ")[0]
    count = int(rows) if rows.isdecimal() and len(rows) < 16 else 0
    content = _read(name, _MOST_BYTES * count + _MORE_BYTES)
    if xxh3_128(content).hexdigest() != digest:
        raise CheckError(f"{shown} is damaged, or that of another table")
    try:
        parquet = CheckedParquet(BytesIO(content))
        fingerprint = json.loads(parquet.metadata[_FINGERPRINT.encode()])
        table = pa.Table.from_batches(parquet.batches(_BATCH, most=GROUP_BYTES), parquet.schema.remove_metadata())
        if table.schema != states_schema() or table.num_rows != count:
            raise ValueError("it has other columns, or another number of rows")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise CheckError(f"{shown} cannot be read: {one_line(str(error))}") from None
    return States(table, fingerprint, paths)


def states_of(reader: TableReader) -> States | None:
    """Reads the states of the rows of a table; see `read_states`."""
    return read_states(states_name(reader.path, parts=isinstance(reader, DatasetReader)), reader.meta)


def _read(name: str, most: int) -> bytes:
    """Reads the file, or as much of it as shows that it is larger than it may be."""
    if is_url(name):
        from xcli.storage.object_store import open_writable_store

        content = open_writable_store(name).read("")
    else:
        content = None
        try:
            with open(name, "rb") as file:
                content = file.read(most + 1)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CheckError(f"cannot read {one_line(name)}: {error.strerror}") from None
    if content is None:
        raise CheckError(f"{one_line(name)} is missing")
    return content


def states_name(table: str, *, parts: bool) -> str:
    """Returns the name of the file of states of a table: a file, or a directory of `parts`."""
    return os.path.join(table, DATASET_STATES) if parts else table + STATES_SUFFIX
