"""Local temporary directories: for what goes to or comes from an object store, and for unpacked models.

They do not outlive their process, or not the next process that makes one.
"""

from __future__ import annotations

import glob
import os
import tempfile
import time
import weakref
from contextlib import suppress

from xcli.storage import disk
from xcli.storage.streams import write_errors

_PREFIX = "xception-scratch-"
_MIN_AGE = 3600.0  # seconds: a younger directory without a lock may be one that another process is about to lock


def unique_name(name: str) -> str:
    """Returns a name that no other process has used or will use: NAME.PROCESS-RANDOM."""
    return f"{name}.{os.getpid()}-{os.urandom(4).hex()}"


class TemporaryDirectory:
    """A directory in `TMPDIR` at `path`, until `close` or the end of this process.

    It is locked. One without a lock belonged to a process that was killed, and is removed when the next is created.
    The constructor raises an OutputError with the name of the file if it cannot create the directory.
    """

    def __init__(self, name: str) -> None:
        parent = tempfile.gettempdir()
        with write_errors(f"a temporary directory in {parent} for {name}"):
            _remove_abandoned(parent)
            self.path = os.path.join(parent, f"{_PREFIX}{os.urandom(8).hex()}")
            disk.make_directory(self.path, 0o700)
        self._remover = weakref.finalize(self, _remove, self.path, _lock(self.path))

    def close(self) -> None:
        """Removes the directory with everything in it."""
        self._remover()


def _lock(path: str) -> int | None:
    """Locks a directory; returns None if another process holds the lock, or the file system has no locks."""
    with suppress(OSError):
        descriptor = disk.open_directory(path)
        with suppress(OSError):
            if disk.lock(descriptor):
                return descriptor
        disk.close(descriptor)
    return None


def _remove(path: str, descriptor: int | None) -> None:
    with suppress(OSError):
        disk.remove_tree(path)
    if descriptor is not None:
        disk.close(descriptor)


def _remove_abandoned(parent: str) -> None:
    for path in glob.iglob(os.path.join(glob.escape(parent), f"{_PREFIX}*")):
        with suppress(OSError):
            found = os.lstat(path)
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > _MIN_AGE:
                descriptor = _lock(path)
                if descriptor is not None:
                    _remove(path, descriptor)
