"""Reads `--manifest`: a table of paths, CSV or Parquet, whose other columns are carried into the output."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from xcli.core.errors import ImageError, SourceError
from xcli.core.records import PATH, STATUS_COLUMNS, ImageRef
from xcli.core.shortage import patiently, raise_shortage
from xcli.core.text import encode_text, escape_path, join_names, unescape_path, valid_text
from xcli.sources.carried import EACH, MAX_COLUMNS, MAX_NAME, CarriedBytes
from xcli.sources.csv_rows import CsvRows
from xcli.sources.json_rows import json_rows
from xcli.sources.locations import file_ref
from xcli.sources.number_columns import find_number_columns
from xcli.sources.parquet_rows import ParquetRows
from xcli.storage.object_store.errors import StoreError
from xcli.storage.readers import open_object
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    MakeRef = Callable[..., ImageRef]
    Numbers = dict[int, type[int] | type[float]]

PARQUET_MAGIC = b"PAR1"

_STDIN = "standard input"


class ExtraColumn(NamedTuple):
    """A column of the manifest that is carried into the output; its type is an Arrow type, or None for a string.

    `pyarrow.array(values, type=type)` restores the column; times in nanoseconds are integers for that reason.
    """

    name: str
    type: Any | None = None


@dataclass(frozen=True)
class Manifest:
    """An open manifest: iterate over it once, for a reference to each row, in their order."""

    extra_columns: tuple[ExtraColumn, ...]  # all except that of the paths
    refs: Iterator[ImageRef]
    close: Callable[[], object]  # leaves standard input open; may be called twice
    carried: CarriedBytes

    def __iter__(self) -> Iterator[ImageRef]:
        return self.refs


def open_manifest(
    name: str,
    *,
    path_column: str = PATH,
    escaped_paths: bool = False,
    base: str | None = None,
    stdin: BinaryIO | None = None,
    numbers: bool = False,
    only: Collection[str] | None = None,
    noun: str = "manifest",
) -> Manifest:
    """Opens a manifest and reads its head.

    CSV is UTF-8 with a header line; bytes that are not UTF-8 are taken as they are. Columns are separated by commas,
    tabs or semicolons, whichever makes the path column one of them, or as a first line `sep=;` says. Parquet is
    recognised by its first bytes. Empty lines are ignored. A row that cannot be used is a reference with an error.

    Args:
        name: the file, or its URL; `-` for CSV on standard input.
        path_column: the column of paths.
        escaped_paths: whether paths are escaped (`xcli.core.text`), not verbatim.
        base: what relative paths are relative to, a directory or a URL; None for the current directory. The key of a
            reference is the path without it.
        stdin: standard input, if `name` is `-`.
        numbers: whether columns of a CSV file that hold only numbers get their type. The file is then read twice, so
            that they stay text in what can be read but once, such as a pipe.
        only: names of the only other columns to read, which no output gets; None for all. It also allows JSON lines.
        noun: what messages call the file.

    Raises:
        SourceError: the file cannot be opened, is neither CSV nor Parquet, lacks the path column, or has a column
            whose name is given twice or, without `only`, is that of an output column.
        UsageError: packages for object stores are missing.
    """
    shown = f"the {noun} " + (_STDIN if name == "-" else f"'{escape_path(name)}'")
    columns = _Columns(valid_text(path_column), only, shown)
    make = partial(_make_ref, escaped_paths, base)
    if name == "-":
        assert stdin is not None
        return _open_csv(io.BufferedReader(_Unclosed(stdin)), columns, make, ",", numbers=False)
    try:
        file = open_object(name) if is_url(name) else patiently(lambda: open(name, "rb"))  # noqa: SIM115 - see `close`
    except (StoreError, OSError, ValueError) as error:
        raise SourceError(f"cannot open {shown}: {_reason(error)}; give a CSV or Parquet file") from None
    try:
        if _peek(file, shown).startswith(PARQUET_MAGIC):
            return _open_parquet(file, columns, make)
        if only is not None and _peek(file, shown).startswith(b"{"):
            return _open_jsonl(file, columns, make)
        delimiter = "\t" if name.lower().endswith((".tsv", ".tab")) else ","
        return _open_csv(file, columns, make, delimiter, numbers=numbers and file.seekable())
    except BaseException:
        file.close()
        raise


class _Unclosed(io.RawIOBase):
    """Standard input as a raw stream, which stays open when the reader above it is closed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._read = getattr(stream, "read1", stream.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)


def _peek(file: io.BufferedReader, shown: str) -> bytes:
    try:
        return file.peek(4096)
    except OSError as error:
        raise SourceError(f"cannot read {shown}: {_reason(error)}; give a CSV or Parquet file") from None


def _make_ref(
    escaped: bool,
    base: str | None,
    row: int,
    text: str | None,
    extra: tuple[Any, ...],
    problem: ImageError | None = None,
) -> ImageRef:
    """Makes the reference for a row, counted from 1; bytes of the path cell that are not UTF-8 are surrogates."""
    if not text:
        problem = problem or ImageError("missing", f"row {row} of the manifest has no path")
        return file_ref(b"", error=problem, extra=extra)
    if len(text) > MAX_NAME:
        problem = ImageError("missing", f"row {row} of the manifest has a path of {len(text):,} characters")
        text = text[:MAX_NAME]
    location = os.fsdecode(encode_text(text))
    if escaped:
        try:
            location = unescape_path(text)
        except ValueError as error:
            problem = problem or ImageError("unreadable", f"row {row} of the manifest: {error}")
    if "\0" in location:
        problem = problem or ImageError("missing", f"row {row} of the manifest has a NUL byte in its path")
    path = location if base is None or is_url(location) else os.path.join(base, location)
    return file_ref(os.fsencode(path), os.fsencode(location), problem, extra)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns are read: that of the paths, and of the others those in `only`, or all."""

    path: str
    only: Collection[str] | None
    shown: str

    def find(self, names: Sequence[str]) -> tuple[int, list[int]]:
        """Checks the column names and returns the indices of the path column and of the others that are read."""
        self.check_width(len(names))
        shown = self.shown
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise SourceError(f"{shown} has more than one column '{twice[0]}'; rename one")
        if self.path not in names:
            listed = join_names(f"'{name}'" for name in names)
            hint = f", only {listed}; name the column of paths with --path-column" if self.only is None else ""
            raise SourceError(f"{shown} has no column '{self.path}'{hint}")
        for name in names if self.only is None else ():
            if name != self.path and name in STATUS_COLUMNS:
                raise SourceError(f"{shown} has a column '{name}', which the output has too; rename or drop it")
        index = list(names).index(self.path)
        others = (number for number in range(len(names)) if number != index)
        return index, [number for number in others if self.only is None or names[number] in self.only]

    def check_width(self, columns: int) -> None:
        if columns > MAX_COLUMNS:
            raise SourceError(
                f"{self.shown} has {columns:,} columns; keep those that you need, at most {MAX_COLUMNS:,}"
            )


def _open_csv(file: io.BufferedReader, columns: _Columns, make: MakeRef, delimiter: str, *, numbers: bool) -> Manifest:
    shown = columns.shown
    head = _peek(file, shown)
    _refuse_other_formats(head, shown)
    delimiter, has_hint = _find_delimiter(head, columns.path, delimiter)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = CsvRows(text, delimiter)
    try:
        if has_hint:
            next(rows, None)
        header = next(filter(None, rows), None)
    except (csv.Error, OSError) as error:
        raise SourceError(f"cannot read the header of {shown}: {_reason(error)}") from None
    if header is None:
        raise SourceError(f"{shown} is empty; it needs a header line with a column '{columns.path}'")
    names = [valid_text(name) for name in header]
    index, others = columns.find(names)
    found: Numbers = {}
    if numbers and len(names) > 1:
        found = find_number_columns(rows, len(names))
        found.pop(index, None)
        text.seek(0)
        rows = CsvRows(text, delimiter)
        for _ in range(has_hint):
            next(rows)
        next(filter(None, rows))
    extra = tuple(ExtraColumn(names[number], _arrow_type(found.get(number))) for number in others)
    carried = CarriedBytes()
    refs = _csv_refs(rows, index, others, len(names), shown, make, found, carried)
    return Manifest(extra, refs, text.close, carried)


def _arrow_type(number: type[int] | type[float] | None) -> Any:
    if number is None:
        return None
    import pyarrow as pa

    return pa.int64() if number is int else pa.float64()


def _refuse_other_formats(head: bytes, shown: str) -> None:
    """Raises SourceError for a head that is not that of a CSV file, and says what it is."""
    even, odd = head[:200:2], head[1:200:2]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(odd) > 3 and not (any(even) and any(odd))):
        raise SourceError(f"{shown} is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if head.startswith(b"PK\3\4"):
        raise SourceError(f"{shown} is a spreadsheet or a zip archive; save the table as CSV (UTF-8)")
    if b"\0" in head or head.startswith(PARQUET_MAGIC):
        hint = "CSV only" if shown.endswith(_STDIN) else "neither CSV nor Parquet"
        raise SourceError(f"{shown} is binary data; it must be text: {hint}")
    if head.lstrip()[:1] in (b"{", b"["):
        raise SourceError(f"{shown} is JSON; convert it to CSV or Parquet")


def _find_delimiter(head: bytes, path_column: str, default: str) -> tuple[str, bool]:
    """Returns what separates the columns, and whether a first line `sep=;`, which Excel takes, says so."""
    lines = head.decode("utf-8-sig", "surrogateescape").splitlines()
    if lines and (hint := re.fullmatch("sep=(.)", lines[0], re.IGNORECASE)):
        return hint[1], True
    header = next((line for line in lines if line), "")
    for delimiter in (default, ",", ";", "\t"):
        if path_column in next(csv.reader([header], delimiter=delimiter), ()):
            return delimiter, False
    return default, False


def _csv_refs(
    reader: CsvRows,
    index: int,
    others: list[int],
    width: int,
    shown: str,
    make: MakeRef,
    numbers: Numbers,
    carried: CarriedBytes,
) -> Iterator[ImageRef]:
    nothing = (None,) * len(others)
    row = 0
    while True:
        problem: ImageError | None = None
        cells: list[str | None] = []
        try:
            cells = list(next(reader))
            if not cells:
                continue
        except StopIteration:
            return
        except csv.Error as error:
            problem = ImageError("unreadable", f"line {reader.line} of {shown}: {error}")
        except OSError as error:
            # The rest is lost, so it must not look like the end of the file.
            yield make(row, None, nothing, _lost(row, shown, error))
            return
        row += 1
        if len(cells) > width:
            fields = f"{len(cells)} fields, expected {width}"
            problem = ImageError("unreadable", f"line {reader.line} of {shown} has {fields}")
        if problem is not None:
            yield make(row, cells[index] if cells else None, nothing, problem)
            continue
        carried.total += reader.size + EACH * len(cells) + 8 * width
        cells.extend([None] * (width - len(cells)))
        values: list[Any] = [None if cell is None else valid_text(cell) for cell in cells]
        try:
            for number, convert in numbers.items():
                values[number] = convert(values[number]) if values[number] else None
        except ValueError as error:  # the file has changed since it was found to hold only numbers
            problem = ImageError("unreadable", f"line {reader.line} of {shown}: {error}")
            values = [None] * width
        yield make(row, cells[index], tuple(values[number] for number in others), problem)


def _lost(row: int, shown: str, error: Exception) -> ImageError:
    return ImageError("unreadable", f"cannot read {shown} beyond row {row}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Returns an error's text as one line; errors of Arrow often have several."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _open_jsonl(file: io.BufferedReader, columns: _Columns, make: MakeRef) -> Manifest:
    shown, rows = columns.shown, json_rows(file)
    try:
        first = next(rows, {})
    except (ValueError, OSError) as error:
        raise SourceError(f"{shown} begins like JSON lines but cannot be read: {_reason(error)}") from None
    names = list(first)
    _, others = columns.find(names)
    wanted = [names[number] for number in others]
    refs = _json_refs(chain((first,), rows), columns.path, wanted, shown, make)
    return Manifest(tuple(map(ExtraColumn, wanted)), refs, file.close, CarriedBytes())


def _json_refs(
    rows: Iterator[dict[str, Any]], path: str, wanted: list[str], shown: str, make: MakeRef
) -> Iterator[ImageRef]:
    row = 0
    try:
        for value in rows:
            row += 1
            text = value.get(path)
            problem = None
            if not isinstance(text, str | None):
                problem = ImageError("unreadable", f"row {row} of {shown} has a path that is no text")
            yield make(row, None if problem else text, tuple(map(value.get, wanted)), problem)
    except (ValueError, OSError) as error:
        yield make(row, None, (None,) * len(wanted), _lost(row, shown, error))


def _open_parquet(file: io.BufferedReader, columns: _Columns, make: MakeRef) -> Manifest:
    import pyarrow as pa

    shown = columns.shown
    try:
        table = ParquetRows(file, None if columns.only is None else (columns.path, *columns.only))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_shortage(error)
        raise SourceError(f"{shown} begins like Parquet but cannot be read: {_reason(error)}") from None
    names = table.schema.names
    index, others = columns.find(names)
    if not table.holds_text(index):
        raise SourceError(
            f"the column '{columns.path}' of {shown} holds {table.schema.types[index]}, not text; "
            "name the column of paths with --path-column"
        )
    extra = tuple(ExtraColumn(names[number], table.type(number)) for number in others)
    for number, column in zip(others, extra, strict=True):
        if table.has_inner_nanoseconds(number):
            raise SourceError(
                f"the column '{column.name}' of {shown} holds {column.type}; nested nanoseconds cannot be "
                "carried exactly: drop the column or store microseconds"
            )
    carried = CarriedBytes()
    return Manifest(extra, _parquet_refs(table, index, shown, make, carried), file.close, carried)


def _parquet_refs(
    table: ParquetRows, index: int, shown: str, make: MakeRef, carried: CarriedBytes
) -> Iterator[ImageRef]:
    import pyarrow as pa

    row = 0
    rows = table.rows(index, carried)
    while True:
        try:
            path, values, text = next(rows)
        except StopIteration:
            return
        except (pa.ArrowException, OSError, ValueError) as error:
            yield make(row, None, (None,) * (len(table.schema.names) - 1), _lost(row, shown, error))
            return
        row += 1
        problem = None if text is None else ImageError("unreadable", f"row {row} of {shown}: {text}")
        yield make(row, path, values, problem)
