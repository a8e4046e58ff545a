"""The rows of a CSV manifest, none of which fills the memory."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from io import TextIOWrapper

MAX_CHARACTERS = 1 << 20
"""Of a row, with its line ends."""


class CsvRows:
    """Like a `csv.reader`, an iterator of lists of cells; a row that is too long is a csv.Error, and is skipped.

    Attributes:
        line: number of the line that was read last, from 1.
        size: characters of the row that was read last.
    """

    def __init__(self, text: TextIOWrapper, delimiter: str) -> None:
        self._text = text
        self.line = self.size = 0
        # Strict: a stray quote is an error of its line; otherwise cells would silently be joined.
        self._reader = csv.reader(_Lines(self), delimiter=delimiter, strict=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[str]:
        self.size = 0
        return next(self._reader)

    def next_line(self) -> str:
        """Returns the next line, with its end; an empty text at the end of the file."""
        line = self._text.readline(MAX_CHARACTERS + 1)
        self.line += bool(line)
        self.size += len(line)
        if self.size > MAX_CHARACTERS:
            while line and not line.endswith(("\n", "\r")):
                line = self._text.readline(MAX_CHARACTERS)
            raise csv.Error(f"a row of more than {MAX_CHARACTERS:,} characters")
        return line


class _Lines:
    """The lines for the `csv.reader`; it goes on after an error, as a generator would not."""

    def __init__(self, rows: CsvRows) -> None:
        self._rows = rows

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._rows.next_line()
        if not line:
            raise StopIteration
        return line
