"""Sinks: the formats by name, and tables joined to the files that they fill.

The bytes of a format are the business of `xcli.tables.encoders`, names and the atomic appearance of files that of
`xcli.storage.streams`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xcli.core.errors import UsageError
from xcli.storage.atomic import commit, open_output
from xcli.storage.streams import is_direct
from xcli.tables.encoders import CsvSink, JsonlSink, NpySink, ParquetSink, Sink
from xcli.tables.provenance import META_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import pyarrow as pa

    from xcli.storage.streams import WritableFile

__all__ = [
    "CLASSIFY_FORMATS",
    "FEATURES_FORMATS",
    "GUARDED_FORMATS",
    "SINKS",
    "OutputFile",
    "Sink",
    "check_output",
    "format_from_name",
    "open_sink",
]

SINKS: dict[str, type[Sink]] = {"csv": CsvSink, "parquet": ParquetSink, "jsonl": JsonlSink, "npy": NpySink}
CLASSIFY_FORMATS = ("csv", "parquet", "jsonl")
FEATURES_FORMATS = ("parquet", "csv", "npy")
GUARDED_FORMATS = ("csv", "npy")
"""Those with CSV in them."""

_EXTENSIONS = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
}


def format_from_name(path: str | None, allowed: Sequence[str], default: str) -> str:
    """The format that a name's extension asks for, whatever its case.

    Args:
        path: the output as the user named it; None or `-` is standard output.
        allowed: formats of this command.
        default: for standard output, pipes and devices.

    Raises:
        UsageError: the extension tells no format, or one that this command does not write.
    """
    extension = os.path.splitext(path or "")[1].lower()
    known = _EXTENSIONS.get(extension)
    if known is not None and known in allowed:
        return known
    if known is None and is_direct(path):
        return default
    names = [next(ending for ending, name in _EXTENSIONS.items() if name == choice) for choice in allowed]
    choices = f"end it in {', '.join(names[:-1])} or {names[-1]}, or give --format {'|'.join(allowed)}"
    if known is not None:
        raise UsageError(f"{path!r}: this command does not write {known}; {choices}")
    raise UsageError(f"{path!r}: the name does not tell the format; {choices}")


class OutputFile:
    """A sink and the files it fills. As a context manager it makes them appear at a normal end, and none otherwise."""

    def __init__(self, sink: Sink, files: Sequence[WritableFile]) -> None:
        self._sink = sink
        self._files = files

    @staticmethod
    def close(outputs: Sequence[OutputFile]) -> None:
        """Makes the files of several tables appear, once the content of all is on the disk.

        Raises:
            OutputError: one cannot be written; those that were new have been taken away again.
        """
        for output in outputs:
            output._sink.close()
        commit([file for output in outputs for file in output._files])

    def write(self, batch: pa.RecordBatch) -> None:
        """Takes a batch; what goes to a pipe can be read from it at once.

        Raises:
            OutputError: it cannot be written.
            BrokenPipeError: the reader has gone.
        """
        self._sink.write(batch)
        for file in self._files:
            if file.direct:
                file.stream.flush()

    def discard(self) -> None:
        """Gives up: nothing appears, temporary files are removed."""
        try:
            self._sink.abandon()
        finally:
            for file in self._files:
                file.discard()

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close([self])
        except BaseException:
            self.discard()
            raise


def open_sink(
    format: str,
    target: str | None,
    schema: pa.Schema,
    metadata: Mapping[str, str],
    overwrite: bool,
    *,
    guarded: bool = False,
    exclusive: bool = False,
) -> OutputFile:
    """Opens a table for writing; whatever stands in its way is found now, before any work.

    Args:
        format: a key of `SINKS`.
        target: a file, or None or `-` for standard output.
        schema: of the batches to come.
        metadata: text by key, for formats that hold it.
        overwrite: whether existing files may be replaced.
        guarded: in CSV, put an apostrophe before texts that spreadsheets take for formulas.
        exclusive: no other process writes this output; see `AtomicFile`.

    Raises:
        UsageError: the format is unknown, or cannot hold this table, or cannot go to this target.
        SourceError: a carried column collides with one of the format.
        OutputError: a file exists, or cannot be written.
    """
    if format not in SINKS:
        raise UsageError(f"format is {format!r}; give one of {', '.join(SINKS)}")
    kind = SINKS[format]
    if kind.needs_seek and is_direct(target):
        raise _needs_file(format)
    if guarded and format not in GUARDED_FORMATS:
        raise UsageError(f"--csv-safe is for CSV, and the table is {format}")
    files: list[WritableFile] = []
    try:
        files.append(open_output(target, overwrite, exclusive=exclusive))
        sink: Sink
        if kind is CsvSink:
            sink = CsvSink(files[0].stream, schema, metadata, guarded=guarded)
        elif kind.companion_suffix is None:
            sink = kind(files[0].stream, schema, metadata)
        else:
            # The companion appears first: whoever sees the array can count on the table that explains its rows.
            files.insert(0, open_output(f"{target}{kind.companion_suffix}", overwrite, exclusive=exclusive))
            sink = NpySink(files[1].stream, schema, metadata, companion=files[0].stream, guarded=guarded)
    except BaseException:
        for file in files:
            file.discard()
        raise
    return OutputFile(sink, files)


def check_output(format: str, target: str | None, overwrite: bool) -> None:
    """Finds out whether `open_sink` will be able to write there, before a model is loaded for nothing.

    Raises:
        UsageError: the format cannot go to this target.
        OutputError: a file exists, or its directory cannot be written to.
    """
    kind = SINKS[format]
    if is_direct(target):
        if kind.needs_seek:
            raise _needs_file(format)
        if target in ("/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"):
            raise UsageError("standard error is for messages; give a file with -o, or - for standard output")
        return
    open_output(f"{target}{META_SUFFIX}", overwrite=True).discard()
    for suffix in ("", kind.companion_suffix):
        if suffix is not None:
            open_output(f"{target}{suffix}", overwrite).discard()


def _needs_file(format: str) -> UsageError:
    return UsageError(f"{format} does not go to standard output, a pipe or a device; give a file with -o")
