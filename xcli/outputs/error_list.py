"""`--errors-out`: the paths of the images that failed, each followed by NUL, as a list that `- -0` reads."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xcli.core.errors import TooManyErrors
from xcli.core.records import ERROR_STATUS, PATH, STATUS
from xcli.core.text import unescape_path
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa


@contextmanager
def error_list(target: str | None) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A context that gives a function, which takes rows and lists the failed ones.

    Args:
        target: the file, which replaces an older one when the run ends, or ends with too many errors; None lists
            nothing.

    Raises:
        OutputError: it cannot be written.
    """
    if target is None:
        yield lambda rows: None
        return
    file = open_output(target, overwrite=True)

    def add(rows: pa.RecordBatch) -> None:
        import pyarrow.compute as pc

        for path in rows.column(PATH).filter(pc.equal(rows.column(STATUS), ERROR_STATUS)).to_pylist():
            file.stream.write(os.fsencode(unescape_path(path)) + b"\0")

    try:
        yield add
    except TooManyErrors:
        commit([file])
        raise
    except BaseException:
        file.discard()
        raise
    commit([file])


def list_errors(target: str | None, rows: Iterable[pa.RecordBatch]) -> None:
    """Lists the failed ones of these rows; None lists nothing, and does not take the rows.

    Raises:
        OutputError: the list cannot be written.
    """
    if target is not None:
        with error_list(target) as add:
            for batch in rows:
                add(batch)


def check_errors(failed: int, limit: int | None) -> None:
    """Raises TooManyErrors if there are more errors than the limit; None is no limit."""
    if limit is not None and failed > limit:
        raise TooManyErrors(f"{failed} images failed, more than --max-errors {limit} allows: stopped")
