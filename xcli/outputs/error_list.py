"""`--errors-out`: the images that failed, as a list that can be given back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xcli.core.errors import TooManyErrors
from xcli.core.records import ERROR_STATUS, PATH, STATUS
from xcli.core.text import unescape_path
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa


class ErrorList:
    """The paths of the rows that are errors, each followed by NUL, as a list that `- -0` reads back.

    Args:
        target: the file; it replaces an older one, when the run has ended.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, target: str) -> None:
        self._file = open_output(target, overwrite=True)

    def add(self, rows: pa.RecordBatch) -> None:
        """Adds the failed ones of these rows."""
        for path, status in zip(rows.column(PATH).to_pylist(), rows.column(STATUS).to_pylist(), strict=True):
            if status == ERROR_STATUS:
                self._file.stream.write(os.fsencode(unescape_path(path)) + b"\0")

    def close(self) -> None:
        """Makes the file appear."""
        commit([self._file])

    def discard(self) -> None:
        """Gives up."""
        self._file.discard()


def list_errors(target: str | None, rows: Iterable[pa.RecordBatch]) -> None:
    """Writes the list of those rows that are errors; None is no list, and takes no rows.

    Raises:
        OutputError: it cannot be written.
    """
    if target is None:
        return
    errors = ErrorList(target)
    try:
        for batch in rows:
            errors.add(batch)
    except BaseException:
        errors.discard()
        raise
    errors.close()


def check_errors(failed: int, limit: int | None) -> None:
    """Ends a run with more errors than the user wants; None is any number.

    Raises:
        TooManyErrors: it has.
    """
    if limit is not None and failed > limit:
        raise TooManyErrors(f"{failed} images failed, more than --max-errors {limit} allows: stopped")
