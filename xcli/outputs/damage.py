"""What is done about a part that cannot be used: damage is set aside, any other error ends the run."""

from __future__ import annotations

from itertools import chain, count
from typing import TYPE_CHECKING

from xcli.core.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xcli.core.errors import CheckError
    from xcli.storage.directories import Folder


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
