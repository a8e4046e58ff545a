"""The registry of file formats, and tables opened by name: `create_table` to write one, `open_table` to read one.

A format is one module that ends in its `Format`; it is registered by its entry in `FORMATS`, and by nothing else.
"""

from __future__ import annotations

import io
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.errors import CheckError, OutputError, SourceError, UsageError
from xcli.core.text import one_line
from xcli.images.formats import HEAD_BYTES, sniff
from xcli.storage.atomic import commit, open_output, write_atomically
from xcli.storage.directories import Folder, open_folder
from xcli.storage.object_store import open_writable_store
from xcli.storage.staging import Staging
from xcli.storage.streams import WritableFile, is_direct
from xcli.storage.urls import is_url, scheme_of
from xcli.tables.csv import CSV, spreadsheet_problem
from xcli.tables.jsonl import JSONL
from xcli.tables.npy import NPY
from xcli.tables.parquet import PARQUET, DatasetReader, is_part, no_table
from xcli.tables.provenance import DATASET_META, DATASET_RUN, META_SUFFIX, SUCCESS, meta_text
from xcli.tables.states import DATASET_STATES, STATES_SUFFIX, StatesWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from xcli.tables.base import EscapedTexts, Format, TableReader, TableWriter

FORMATS = {one.reader.format: one for one in (CSV, PARQUET, JSONL, NPY)}

CLASSIFY_FORMATS = tuple(name for name, one in FORMATS.items() if "classify" in one.commands)
# Parquet is named first, since embeddings as text are large and slow.
_PARQUET_FIRST = sorted(FORMATS, key=lambda name: name != "parquet")
FEATURES_FORMATS = tuple(name for name in _PARQUET_FIRST if "features" in FORMATS[name].commands)
CSV_SAFE_FORMATS = tuple(name for name, one in FORMATS.items() if one.has_csv)


def format_of_extension(path: str) -> str | None:
    """Returns the format that the extension of a name stands for, or None."""
    extension = os.path.splitext(path)[1].lower()
    return next((name for name, one in FORMATS.items() if extension in one.extensions), None)


def format_from_name(path: str | None, allowed: Sequence[str], default: str, *, has_option: bool = True) -> str:
    """Returns the format that the extension of a name stands for; `default` for standard output, pipes and devices.

    Args:
        path: the name.
        allowed: formats that the command writes; at least two.
        default: one of them.
        has_option: whether the command has the option --format.

    Raises:
        UsageError: the extension stands for no format, or for one that is not `allowed`.
    """
    known = format_of_extension(path or "")
    if known is not None and known in allowed:
        return known
    if known is None and is_direct(path):
        return default
    endings = [FORMATS[name].extensions[0] for name in allowed]
    choices = f"end it in {', '.join(endings[:-1])} or {endings[-1]}"
    if has_option:
        choices += f", or give --format {'|'.join(allowed)}"
    reason = "the name does not tell the format" if known is None else f"this command does not write {known}"
    raise UsageError(f"{path!r}: {reason}; {choices}")


@dataclass(frozen=True)
class TableOutput:
    """A table writer and its files; as a context manager it makes them appear at a normal end only."""

    target: str | None
    writer: TableWriter
    files: list[WritableFile]
    staging: Staging | None

    @staticmethod
    def close(outputs: Sequence[TableOutput]) -> None:
        """Makes the files of several tables appear together; see `commit`."""
        for output in outputs:
            output.writer.close()
        commit([file for output in outputs for file in output.files])
        for output in outputs:
            output._release()

    def record(self, meta: Mapping[str, Any]) -> None:
        """Adds `FILE.meta.json`, which appears with the table; standard output, pipes and devices get none.

        Raises:
            OutputError: it cannot be written.
        """
        if self.target is not None and not is_direct(self.target):
            file = open_output(self.target + META_SUFFIX, True, self.staging)
            file.stream.write(meta_text(meta))
            if is_url(self.target) and open_writable_store(self.target).exists():
                # Objects appear one by one, and it must never be beside an old table.
                open_writable_store(file.name).unlink("")
                self.files.append(file)
            else:
                # A process that is killed in between has not finished, and is continued.
                self.files.insert(0, file)

    def open_states(self, fingerprint: Mapping[str, Any] | None) -> StatesWriter:
        """Adds `FILE.states`, which appears with the table; call it before `record`.

        Raises:
            OutputError: it cannot be written.
        """
        file = open_output(f"{self.target}{STATES_SUFFIX}", True, self.staging)
        self.files.insert(0, file)
        return StatesWriter(file.stream, fingerprint)

    def _release(self) -> None:
        if self.staging is not None:
            self.staging.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes a batch; raises OutputError if that fails, and BrokenPipeError if the reader of a pipe has gone."""
        self.writer.write(batch)
        for file in self.files:
            if file.direct:
                file.stream.flush()

    def discard(self) -> None:
        """Gives up: no file appears."""
        try:
            self.writer.abandon()
        finally:
            for file in self.files:
                file.discard()
            self._release()

    def __enter__(self) -> TableOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with ExitStack() as stack:
            stack.callback(self.discard)
            if kind is None:
                self.close([self])
                stack.pop_all()


def create_table(
    format: str,
    target: str | None,
    schema: pa.Schema,
    metadata: Mapping[str, str],
    overwrite: bool,
    *,
    escape_formulas: bool = False,
    byte_order_mark: bool = False,
    exclusive: bool = False,
) -> TableOutput:
    """Opens a table for writing, as `TableWriter` and `open_output` do; what prevents that is found before any work.

    Raises:
        UsageError: the format is unknown, or cannot hold this table, or cannot go to this target.
        SourceError: a carried column has the name of an output column.
        OutputError: a file exists, or cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"format is {format!r}; give one of {', '.join(FORMATS)}")
    kind = _format_for(format, target)
    for option, given in (("--csv-safe", escape_formulas), ("--csv-bom", byte_order_mark)):
        if given and not kind.has_csv:
            raise UsageError(f"{option} is for CSV, and the table is {format}")
    name = "-" if target is None else target
    with ExitStack() as stack:
        staging = _staging(target, locked=exclusive)
        if staging is not None:
            stack.callback(staging.close)
        files = []
        for suffix in kind.suffixes:
            files.append(open_output(name + suffix, overwrite, staging))
            stack.callback(files[-1].discard)
        companion = files[1].stream if len(files) > 1 else None
        style = {"escape_formulas": escape_formulas, "byte_order_mark": byte_order_mark}
        writer = kind.writer(files[0].stream, schema, metadata, companion=companion, **style)
        stack.pop_all()
    # The companion appears first: whoever sees the array can rely on the table that explains its rows.
    return TableOutput(target, writer, files[::-1], staging)


def _staging(target: str | None, *, locked: bool) -> Staging | None:
    """Returns the private directory of a file on a disk; None for other targets."""
    if target is None or is_direct(target) or is_url(target):
        return None
    return Staging(target, locked=locked)


def check_output(format: str, target: str | None, overwrite: bool, *, exclusive: bool = False) -> None:
    """Raises what `create_table` would raise for this target, before a model is loaded in vain."""
    kind = _format_for(format, target)
    if is_direct(target):
        if target in ("/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"):
            raise UsageError("standard error is for messages; give a file with -o, or - for standard output")
        return
    staging = _staging(target, locked=exclusive)
    try:
        open_output(f"{target}{META_SUFFIX}", True, staging).discard()
        for suffix in kind.suffixes:
            open_output(f"{target}{suffix}", overwrite, staging).discard()
    finally:
        if staging is not None:
            staging.close()


def _format_for(format: str, target: str | None) -> Format:
    if FORMATS[format].needs_seek and is_direct(target):
        raise UsageError(f"{format} does not go to standard output, a pipe or a device; give a file with -o")
    return FORMATS[format]


def open_table(name: str, *, escaped: EscapedTexts = "refuse") -> TableReader:
    """Opens a table that a run wrote: a file of any format, a directory of Parquet parts, or the URL of either.

    Its format is recognized by its content. A table in an object store is first copied to a temporary directory, which
    lives as long as the reader. No file stays open between two calls of `batches`. `escaped` says what
    becomes of texts that --csv-safe has changed.

    Raises:
        SourceError: there is no such file, or it cannot be opened.
        CheckError: it is damaged, or no table of this program.
    """
    if not is_url(name):
        return _open_at(name, name, escaped)
    if scheme_of(name) == "http":
        raise SourceError(f"cannot open {one_line(name)}: tables are read from this machine, from s3:// and from gs://")
    try:
        folder, path = _copy(name)
    except OutputError as error:
        raise SourceError(str(error)) from error
    reader = _open_at(name, path, escaped)
    reader.copies = folder
    return reader


def _copy(url: str) -> tuple[Folder, str]:
    """Returns the folder with the copies of a table from an object store, and the table's path in it."""
    folder = open_folder(url)
    beside = (DATASET_META, DATASET_STATES, SUCCESS, DATASET_RUN)
    names = [one for one in folder.names() if is_part(one) or one in beside]
    if names or url.endswith("/"):
        paths = list(folder.each(folder.local, names))
        if not paths and folder.names():
            raise no_table(url, "there are no parts (*.parquet) below it")
        if not paths:
            raise _cannot_open(url, FileNotFoundError("there is nothing below it"))
        return folder, os.path.dirname(paths[0])
    base, _, leaf = url.rpartition("/")
    folder = open_folder(base)
    try:
        path = folder.local(leaf)
    except FileNotFoundError:
        raise _cannot_open(url, FileNotFoundError("no such object")) from None
    for suffix in (META_SUFFIX, STATES_SUFFIX, *(suffix for one in FORMATS.values() for suffix in one.suffixes[1:])):
        with suppress(FileNotFoundError):
            folder.local(leaf + suffix)
    return folder, path


def _open_at(name: str, path: str, escaped: EscapedTexts) -> TableReader:
    try:
        if os.path.isdir(path):
            return DatasetReader(name, path)
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except SourceError:
        raise
    except (OSError, ValueError) as error:
        raise _cannot_open(name, error) from None
    for one in FORMATS.values():
        if one.reader.recognizes(head, name):
            return one.reader(name, path, escaped=escaped)
    if (kind := sniff(head)) is not None:
        raise no_table(name, f"it is an image ({kind})")
    *names, last = FORMATS
    what = f"is neither {', '.join(names)} nor {last} as xception writes them" if head else "is empty"
    raise CheckError(f"{one_line(name)} {spreadsheet_problem(head) or what}")


def _cannot_open(name: str, error: Exception) -> SourceError:
    text = f"cannot open {one_line(name)}: {one_line(getattr(error, 'strerror', None) or str(error))}"
    partial = name + ".partial"
    with suppress(ValueError, OutputError):
        if bool(open_folder(partial).names()) if is_url(name) else os.path.isdir(partial):
            text += f"; its run has not finished ({one_line(partial)} exists): the same command continues it"
    return SourceError(text)


def write_csv(
    folder: str | os.PathLike[str], name: str, columns: Mapping[str, Sequence[Any]], *, escape_formulas: bool = False
) -> None:
    """Writes, or replaces, a CSV file of any columns, values by name, in a directory that nobody else writes to.

    Raises:
        OutputError: it cannot be written.
    """
    import pyarrow as pa

    rows, text = pa.RecordBatch.from_pydict(columns), io.BytesIO()
    table = CSV.writer(text, rows.schema, {}, escape_formulas=escape_formulas)
    table.write(rows)
    table.close()
    write_atomically(os.path.join(folder, name), text.getbuffer())
