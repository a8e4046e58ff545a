"""Files of record batches in which damage is noticed: the parts of `FILE.partial/` and the sidecars of `DIR/`.

    magic | frame | frame | ... | trailer | length and XXH3-128 of the trailer, 8 and 16 bytes | magic

A frame is an Arrow IPC stream of one batch: the rows of the whole part, unless they take more than 16 MiB. The trailer
is JSON: the number of the part, and length, rows and XXH3-128 of each frame. Nothing is parsed before its digest has
been checked, so that damage cannot reach Arrow, which believes the offsets that it reads. A file whose number is not
the one that its name says has changed places with another. Since a stranger can make the digests too, frames that are
compressed, or larger once decoded, are refused, and offsets are checked.
"""

from __future__ import annotations

import json
import os
import struct
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from xcli.core.checked_json import MAX_BYTES, Schema, parse_object
from xcli.core.errors import CheckError
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.parquet_file import decoded_size
from xcli.tables.base import GROUP_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from xcli.storage.checksums import Checksum

_MAGIC = b"XCPART1\n"
_TRAILER: Schema = {"number": int, "frames": [[int | str]], "table": [int | str], "note": {str: str}}
_END = 8 + 16 + len(_MAGIC)
_FRAME_BYTES = 16 << 20  # of rows that are gathered before they are written; what reads a part holds a frame


class _Frame(NamedTuple):
    offset: int
    length: int
    rows: int
    digest: str


def _digest(data: Any) -> str:
    import xxhash

    return xxhash.xxh3_128(data).hexdigest()


class Part(NamedTuple):
    """What is kept in memory of a finished part.

    Attributes:
        name: of the file.
        rows: in it.
        digest: of its checked file.
        checksum: of the table that the checked file describes; None if the checked file itself has the rows.
    """

    name: str
    rows: int
    digest: str
    checksum: Checksum | None = None


class CheckedWriter:
    """Writes a new file; raises OSError.

    Args:
        path: of the file.
        frame_bytes: rows are gathered to frames of so many bytes; None is 16 MiB.
    """

    def __init__(self, path: str | os.PathLike[str], frame_bytes: int | None = None) -> None:
        self.path = os.fspath(path)
        self._frame_bytes = _FRAME_BYTES if frame_bytes is None else frame_bytes
        self._frames: list[tuple[int, int, str]] = []
        self._gathered: list[pa.RecordBatch] = []
        self._bytes = 0  # of the gathered rows
        self._file = disk.create(path)
        self._file.write(_MAGIC)

    @property
    def rows(self) -> int:
        """Number of rows in the file so far."""
        gathered: int = sum(batch.num_rows for batch in self._gathered)
        return sum(rows for _, rows, _ in self._frames) + gathered

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends a batch, which must not change later; all have the same schema."""
        self._gathered.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= self._frame_bytes:
            self._write_frame()

    def _write_frame(self) -> None:
        import pyarrow as pa

        batch = pa.concat_batches(self._gathered)
        self._gathered, self._bytes = [], 0
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        frame = sink.getvalue()
        self._file.write(frame)
        self._frames.append((frame.size, batch.num_rows, _digest(frame)))

    def close(self, number: int, more: Mapping[str, Any] | None = None) -> str:
        """Ends a file of at least one batch.

        Args:
            number: of the part.
            more: kept in the trailer, as JSON can hold it.

        Returns:
            A digest of everything in the file.
        """
        if self._gathered:
            self._write_frame()
        trailer = json.dumps({"number": number, "frames": self._frames, **(more or {})}).encode()
        digest = _digest(trailer)
        self._file.write(trailer + len(trailer).to_bytes(8, "little") + bytes.fromhex(digest) + _MAGIC)
        self._file.close()
        return digest

    def abandon(self) -> None:
        """Closes the file and removes it."""
        try:
            self._file.close()
        finally:
            disk.unlink(self.path)


class CheckedReader:
    """Reads a file that a `CheckedWriter` wrote; a context manager that closes it.

    Args:
        file: the file, or its content.
        number: of the part.

    Attributes:
        rows: in the file.
        digest: of everything in it.
        trailer: has what `CheckedWriter.close` was given as `more`.

    Raises:
        CheckError: from every method, if the file is damaged.
        OSError: from every method, if it cannot be read.
    """

    def __init__(self, file: BinaryIO, number: int) -> None:
        self._file = file
        try:
            self._read_trailer(number)
        except BaseException:
            file.close()
            raise
        self._last: tuple[int, pa.RecordBatch] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read_trailer(self, number: int) -> None:
        size = self._file.seek(0, 2)
        end = self._read(size - _END, _END) if size >= _END + len(_MAGIC) else b""
        length = int.from_bytes(end[:8], "little")
        if not end.endswith(_MAGIC) or length > min(size - _END - len(_MAGIC), MAX_BYTES):
            raise CheckError("it is no whole part")
        trailer = self._read(size - _END - length, length)
        self.digest = _digest(trailer)
        if self.digest != end[8:24].hex():
            raise CheckError("its trailer has another digest than when it was written")
        try:
            self.trailer: dict[str, Any] = parse_object(trailer, _TRAILER)
            found = self.trailer["number"]
            lengths, rows, digests = zip(*self.trailer["frames"], strict=True)
            if not all(isinstance(one, int) and one >= 0 for one in (*lengths, *rows)):
                raise ValueError("a frame of no length")
            if sum(lengths) != size - _END - length - len(_MAGIC):
                raise ValueError("its frames have another length")
        except (ValueError, KeyError) as error:
            raise CheckError(f"its trailer is damaged: {one_line(str(error))}") from None
        if found != number:
            raise CheckError(f"it is part {found}")
        offsets = accumulate(lengths, initial=len(_MAGIC))
        self._frames = [_Frame(*found) for found in zip(offsets, lengths, rows, digests, strict=False)]
        self._starts = list(accumulate(rows, initial=0))
        self.rows = self._starts[-1]

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise CheckError("it ends early")
        return data

    def _batch(self, index: int) -> pa.RecordBatch:
        if self._last is None or self._last[0] != index:
            frame = self._frames[index]
            data = self._read(frame.offset, frame.length)
            if _digest(data) != frame.digest:
                raise CheckError(f"its batch {index} has another digest than when it was written")
            self._last = index, _read_frame(data, frame.rows, index)
        return self._last[1]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yields all batches."""
        return map(self._batch, range(len(self._frames)))

    def take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields the rows with these ascending numbers, as they were cut into batches; keeps one batch in memory."""
        import numpy as np
        import pyarrow as pa

        for index, own in split_by(np.array(self._starts), rows):
            batch = self._batch(index).select(columns)
            is_range = bool((np.diff(own) == 1).all())
            yield batch.slice(own[0], len(own)) if is_range else batch.take(pa.array(own))


def _read_frame(data: bytes, rows: int, index: int) -> pa.RecordBatch:
    """Reads the batch of a frame; raises CheckError where it is none that a `CheckedWriter` writes."""
    import pyarrow as pa

    try:
        for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(data)):
            _refuse_compression(message.metadata.to_pybytes(), message.type)
        batch = pa.ipc.open_stream(pa.py_buffer(data)).read_next_batch()
        batch.validate(full=True)
        # A value of these may take no bytes at all, or the same ones as others.
        if any(kind in str(batch.schema.types) for kind in ("run_end_encoded", "list_view", "union")):
            raise ValueError("no row has such a column")
        size = sum(map(decoded_size, batch.columns))
    except (pa.ArrowException, OSError, ValueError, StopIteration, struct.error) as error:
        raise CheckError(f"its batch {index} is damaged: {one_line(str(error))}") from None
    if batch.num_rows != rows or max(rows, size) > len(data) + 2 * GROUP_BYTES:
        raise CheckError(f"its batch {index} has other rows than when it was written")
    return batch


def _refuse_compression(message: bytes, kind: str) -> None:
    """Raises ValueError for an Arrow message, a flatbuffer, whose buffers are compressed: they may be of any size."""

    def member(table: int, number: int) -> int:
        """Returns the offset of a member of a table, or 0."""
        members = table - struct.unpack_from("<i", message, table)[0]
        inside = 4 + 2 * number < struct.unpack_from("<H", message, members)[0]
        offset = struct.unpack_from("<H", message, members + 4 + 2 * number)[0] if inside else 0
        return table + int(offset) if offset else 0

    def inner(table: int, number: int) -> int:
        """Returns the offset of a table within another."""
        offset = member(table, number)
        return offset + int(struct.unpack_from("<I", message, offset)[0])

    header = inner(struct.unpack_from("<I", message)[0], 2)
    if kind == "dictionary":
        header = inner(header, 1)
    if kind != "schema" and member(header, 3):
        raise ValueError("its buffers are compressed")


def split_by(starts: NDArray[np.int64], ascending: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Divides numbers of rows among what holds the rows.

    Args:
        starts: number of the first row of each holder, and the number of all rows.
        ascending: the numbers, in ascending order.

    Yields:
        The index of each holder that has some of these rows, and their numbers in it.
    """
    import numpy as np

    holders = np.searchsorted(starts, ascending, "right") - 1
    cuts = [0, *(np.flatnonzero(np.diff(holders)) + 1).tolist(), len(holders)]
    for begin, end in pairwise(cuts if len(holders) else ()):
        index = int(holders[begin])
        yield index, ascending[begin:end] - starts[index]
