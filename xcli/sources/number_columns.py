"""Tells which columns of a CSV manifest hold nothing but numbers, so that Parquet can keep them as numbers.

A number is taken for one only if nothing is lost but its spelling: codes like `007`, `12E4` or twenty digits make a
column of text.
"""

from __future__ import annotations

import csv
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,25})(?:\.[0-9]{1,25})?(?:[eE][+-][0-9]{1,3})?")
_INT64 = range(-(2**63), 2**63)


def is_integer(text: str) -> bool:
    """Tells whether a cell is an integer of 64 bits, in its plain spelling."""
    return _INTEGER.fullmatch(text) is not None and int(text) in _INT64


def is_decimal(text: str) -> bool:
    """Tells whether a cell is a number that a float64 gives back as it was written."""
    if _DECIMAL.fullmatch(text) is None:
        return False
    value = float(text)
    return math.isfinite(value) and Decimal(repr(value)) == Decimal(text)


def find_number_columns(reader: Iterator[list[str]], width: int) -> dict[int, type[int] | type[float]]:
    """Reads the rows of a CSV file, and returns the types of the columns that hold only numbers.

    Empty cells count as missing, rows that are no rows of the table do not count, and a column without any number is
    text. It is not read further once all columns are known to be text; if the file cannot be read, all are.

    Args:
        reader: the rows after the header, like a `csv.reader`.
        width: number of columns.
    """
    integers, decimals, seen = set(range(width)), set(range(width)), set[int]()
    while integers or decimals:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error:
            continue
        except OSError:
            return {}
        if len(cells) > width:
            continue
        for index, cell in enumerate(cells):
            if not cell or not (index in integers or index in decimals):
                continue
            seen.add(index)
            if index in integers and not is_integer(cell):
                integers.remove(index)
            if index in decimals and not is_decimal(cell):
                decimals.remove(index)
    return {index: int if index in integers else float for index in (integers | decimals) & seen}
