"""What is done about a part that cannot be used: damage is set aside, any other error ends the run."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain, count
from typing import TYPE_CHECKING

from xcli.core.errors import OutputError
from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.core.errors import CheckError
    from xcli.storage.directories import Folder

DAMAGED = r"\.damaged(-[0-9]+)?"
"""A pattern of what the name of a damaged file ends with. Nothing removes such a file."""


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """A context that turns what keeps a part from being read into an OutputError."""
    try:
        yield
    except (OSError, MemoryError) as error:
        reason = one_line(getattr(error, "strerror", None) or str(error) or "no memory")
        raise OutputError(f"cannot read {one_line(name)}: {reason}") from error


def set_aside(folder: Folder, names: Iterable[str], prefix: str, error: CheckError) -> str:
    """Renames the files of a damaged part, those that are there, to names that say so.

    Args:
        folder: of the part.
        names: of its files, the part itself last.
        prefix: that new names must have.
        error: what is damaged.

    Returns:
        A sentence for the user.

    Raises:
        OutputError: the disk or the server fails.
    """
    there = set(folder.names())
    shown = kept = ""
    for name in names:
        shown = name
        if name in there:
            base = (name if name.startswith(prefix) else prefix + name) + ".damaged"
            kept = next(new for new in chain([base], (f"{base}-{n}" for n in count(2))) if new not in there)
            folder.rename(name, kept)
            there.add(kept)
    place = one_line(folder.name)
    where = f"it is kept as {one_line(kept)}, and " if kept else ""
    return f"{place}/{one_line(shown)} is damaged ({error}): {where}its rows are computed again"
