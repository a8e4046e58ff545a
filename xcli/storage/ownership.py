"""The names in private directories of outputs, by which those of this program are told from what others made."""

from __future__ import annotations

import os
import re
from contextlib import suppress

from xcli.core.errors import OutputError
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.directories import DAMAGED, is_of_another_user
from xcli.storage.locks import HOLDER
from xcli.storage.streams import write_errors

SUFFIX = ".partial"
LOCK = "lock"
PUBLISH = "publish.json"

STAGED = re.compile(r"staged-[0-9a-f]+-[0-9]+")
_TEMPORARY = rf"{STAGED.pattern}|old-[0-9]+|publish\.json\.tmp"
LEFT = re.compile(_TEMPORARY)
"""Matches what a publication that was cut short may leave."""

FILES = re.compile(
    rf"{LOCK}|publish\.json|{_TEMPORARY}|(run\.json|part-[0-9]{{5,}}\.arrow|compared)(\.[0-9]+-[0-9a-f]+)?(\.tmp)?"
    rf"|part-[0-9]{{5,}}\.arrow{DAMAGED}"
)
"""Matches the names of all files that this program writes into such a directory."""


def check_ownership(path: str) -> None:
    """Raises OutputError if something is in place of a private directory that this program has not made."""
    if not os.path.lexists(path):
        return
    problem = ""
    if os.path.islink(path):
        problem = "is a symbolic link"
    elif not os.path.isdir(path):
        problem = "is a file"
    elif is_of_another_user(path):
        problem = "belongs to another user"
    else:
        with write_errors(path):
            names = disk.names(path)
        foreign = [name for name in names if not FILES.fullmatch(name)]
        holder = _beginning(os.path.join(path, LOCK)) if LOCK in names else b""
        if names and LOCK not in names:
            foreign = names  # the lock is made first, and removed last
        if foreign:
            problem = f"contains {one_line(foreign[0])}"
        elif holder and not HOLDER.startswith(holder):
            problem = "contains a file called lock"
    if problem:
        raise OutputError(
            f"{one_line(path)} {problem}, which is not from an unfinished run. Move it, or use another -o: "
            "finished rows are kept under that name during a run"
        )


def _beginning(path: str) -> bytes:
    with suppress(OSError), disk.open_file(path) as file:
        return file.read(len(HOLDER)).rstrip(b"\0")  # after a power cut a file may hold zeros
    return b""
