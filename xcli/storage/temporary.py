"""Directories of this machine for files on their way to an object store or from it; they go with their process."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress

from xcli.storage.streams import write_errors

_PREFIX = "xception-scratch-"
_OLD = 3600.0
"""Seconds after which a directory that nobody has locked is not one that is just being made."""


def unique_name(name: str) -> str:
    """Returns a name that no other process has used or will use: NAME.PROCESS-RANDOM."""
    return f"{name}.{os.getpid()}-{os.urandom(4).hex()}"


class TemporaryDirectory:
    """A directory below the one for temporary files (`TMPDIR`), until `close` or the end of this process.

    It is locked. Those that are not belonged to processes that were killed, and are removed with the next.

    Args:
        name: whose files these are, for messages.

    Attributes:
        path: of the directory.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, name: str) -> None:
        parent = tempfile.gettempdir()
        with write_errors(f"{name} (in {parent} until it is whole)"):
            _clear_away(parent)
            self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._remover = weakref.finalize(self, _remove, self.path, _lock(self.path))

    def close(self) -> None:
        """Removes the directory with everything in it."""
        self._remover()


def _lock(path: str) -> int | None:
    """Locks a directory of this user's; None where another process has it, or the file system has no locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(path: str, descriptor: int | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if descriptor is not None:
        os.close(descriptor)


def _clear_away(parent: str) -> None:
    with os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX):
                continue
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid == os.getuid() and time.time() - found.st_mtime > _OLD:
                    descriptor = _lock(entry.path)
                    if descriptor is not None:
                        _remove(entry.path, descriptor)
