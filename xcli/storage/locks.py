"""Locks on files against other processes of this machine, or of all machines that share a network file system.

They are `flock` locks, which the kernel releases when a process ends, however it ends. The locked file names the
process that holds the lock, so that a message can say whom to wait for.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import suppress
from typing import Self

from xcli.core.text import one_line
from xcli.storage import disk

log = logging.getLogger("xcli")

HOLDER = b"process "
"""The beginning of a lock file: `process PID on HOST`."""

_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class FileLock:
    """An exclusive lock on a file, which is created if necessary and stays; a context manager, which waits for it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Locks the file, and writes into it which process holds it; returns whether the lock is held now.

        On a file system without locks it warns and returns True: there the user must make sure that only one process
        writes.

        Args:
            wait: wait while another process holds the lock.

        Raises:
            OSError: the file cannot be opened or locked.
        """
        while self._descriptor is None:
            # A link is not followed: it could lead to any file, which would be overwritten with the holder's name.
            descriptor = disk.open_lock(self.path)
            try:
                self._refuse_second_name(descriptor)
                if not self._lock(descriptor, wait):
                    return False
                if self._is_current(descriptor):
                    disk.overwrite(descriptor, HOLDER + f"{os.getpid()} on {socket.gethostname()}\n".encode())
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    disk.close(descriptor)
        return True

    def _refuse_second_name(self, descriptor: int) -> None:
        """Raises OSError for a file of other content that has this name beside its own: it would be overwritten."""
        if os.fstat(descriptor).st_nlink > 1:
            content = disk.read_descriptor(descriptor, len(HOLDER)).rstrip(b"\0")
            if not HOLDER.startswith(content):
                raise OSError(errno.EEXIST, "it is another name of a file that this program has not made", self.path)

    def _lock(self, descriptor: int, wait: bool) -> bool:
        try:
            return disk.lock(descriptor, wait=wait)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            folder = one_line(os.path.dirname(self.path))
            log.warning("%s: this file system has no locks; make sure that one process writes it", folder)
            return True

    def _is_current(self, descriptor: int) -> bool:
        """Says whether the locked file still has its name: a process that ends may remove it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def holder(self) -> str:
        """Returns the name of the process that holds the lock: `process PID on HOST`."""
        with suppress(OSError), open(self.path, "rb") as file:
            return file.read(300).decode("utf-8", "replace").strip("\0 \n") or "another process"
        return "another process"

    def release(self) -> None:
        """Releases the lock, if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # the lock is released all the same, and what was written is of no use any more
                disk.close(descriptor)

    def __enter__(self) -> Self:
        self.acquire(wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
