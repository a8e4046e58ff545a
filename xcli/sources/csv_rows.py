"""The rows of a CSV manifest, none of which fills the memory."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from io import TextIOWrapper

MAX_CHARACTERS = 1 << 20
"""Of a row, with its line ends."""


class CsvRows:
    """Like a `csv.reader`, an iterator of lists of cells; a row that is too long is a csv.Error, and is skipped."""

    def __init__(self, text: TextIOWrapper, delimiter: str) -> None:
        self._lines = _Lines(text)
        # Strict: a stray quote is an error of its line; otherwise cells would silently be joined.
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[str]:
        self._lines.size = 0
        return next(self._reader)

    @property
    def line(self) -> int:
        """Number of the line that was read last, from 1."""
        return self._lines.number

    @property
    def size(self) -> int:
        """Characters of the row that was read last."""
        return self._lines.size


class _Lines:
    """The lines of a text, with their ends; it goes on after an error, as a generator would not.

    Attributes:
        size: of the lines since it was set to 0; beyond the limit, the rest of a line is skipped.
    """

    def __init__(self, text: TextIOWrapper) -> None:
        self._read = text.readline
        self.number = self.size = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._read(MAX_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.size += len(line)
        if self.size > MAX_CHARACTERS:
            while line and not line.endswith(("\n", "\r")):
                line = self._read(MAX_CHARACTERS)
            raise csv.Error(f"a row of more than {MAX_CHARACTERS:,} characters")
        return line
