"""Folders for the parts of an output: a local directory or a prefix of an object store, through one interface.

A file of a `Folder` appears whole or not at all: it is written to a local temporary file and then published, on a disk
by fsync and rename, in an object store by an upload.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeVar

from xcli.core.errors import OutputError
from xcli.core.levels import DETAIL
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.locks import FileLock
from xcli.storage.object_store import open_writable_store
from xcli.storage.streams import read_errors, write_errors
from xcli.storage.temporary import TemporaryDirectory, unique_name
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger("xcli")

Value = TypeVar("Value")

DAMAGED = r"\.damaged(-[0-9]+)?"
"""A pattern of what the name of a damaged file ends with. Nothing removes such a file."""

_REQUESTS = 16  # simultaneous, of `RemoteFolder.each`


class Folder(ABC):
    """A flat set of named files in a local directory or, if `remote`, in an object store, where access is a request.

    Every method raises OutputError when the disk or the server fails; its message names the folder.
    """

    remote: ClassVar[bool]

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock: FileLock | None = None

    @abstractmethod
    def make(self) -> bool:
        """Creates the folder if necessary; returns whether it was missing (in an object store: whether it is empty)."""

    @abstractmethod
    def names(self) -> list[str]:
        """Returns the names of everything in it, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Reads a small file; returns None if it does not exist."""

    @abstractmethod
    def tail(self, name: str, length: int) -> bytes:
        """Reads the last `length` bytes of a file, or all of a shorter one; FileNotFoundError if it does not exist."""

    @abstractmethod
    def local(self, name: str) -> str:
        """Returns the path of a local file with that content: the file itself, or a copy that lives until `close`.

        Raises:
            FileNotFoundError: it does not exist. For a local directory, only opening the path tells.
        """

    @abstractmethod
    def scratch(self, name: str) -> str:
        """Returns the path of a local file to write to, which is never taken for a finished one."""

    @abstractmethod
    def publish(self, scratch: str, name: str, *, keep: bool = False) -> None:
        """Gives a closed scratch file its name, replacing an older file; `keep` a local copy for calls of `local`."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes a small file atomically, replacing an older one; several processes may do so at once."""

    @abstractmethod
    def rename(self, name: str, new: str) -> None:
        """Renames a file, replacing an older one of the new name."""

    @abstractmethod
    def unlink(self, *names: str) -> None:
        """Removes files, if they exist; all of them are gone when it returns."""

    def forget(self, name: str) -> None:  # noqa: B027 - a local folder has no copies
        """Removes the local copy of a file, if there is one."""

    @abstractmethod
    def lock(self, name: str, target: str) -> None:
        """Locks the folder, which is created if necessary, until `unlock` or the end of this process.

        Object stores have no locks: there the user must make sure that only one process writes a folder.

        Args:
            name: of the lock file, which names the process that holds the lock.
            target: the output, for the message of the OutputError if another process holds the lock.
        """

    def unlock(self) -> None:
        """Releases the lock, if it is held."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def remove(self) -> None:  # noqa: B027 - a prefix without objects does not exist
        """Removes the folder if it is empty; ignores errors."""

    @abstractmethod
    def each(self, call: Callable[[str], Value], names: Iterable[str]) -> Iterator[Value]:
        """Calls a function for every name and yields the results in order; with requests, several at a time."""

    def close(self) -> None:
        """Releases the lock, and removes scratch files and local copies."""
        self.unlock()


def is_of_another_user(path: str) -> bool:
    """Says whether another user has made a file or directory, who could change what is in it.

    The owner of the directory in which it stands, and root, are no others: they can replace it at any time. On some
    network file systems all files have one owner.
    """
    trusted = {os.geteuid(), os.stat(os.path.dirname(os.path.abspath(path))).st_uid, 0}
    with suppress(FileNotFoundError):  # another process has removed it
        return os.lstat(path).st_uid not in trusted
    return False


def open_own(path: str, flags: int) -> int:
    """Opens a file as the system does, but not through the symbolic link of another user; raises OSError."""
    try:
        return disk.system.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    if is_of_another_user(path):
        raise OSError(errno.EPERM, "it is a symbolic link of another user", path)
    return disk.system.open(path, flags)


class LocalFolder(Folder):
    """A local directory."""

    remote = False

    def _path(self, name: str) -> str:
        return os.path.join(self.name, name)

    def make(self) -> bool:
        with write_errors(self.name):
            return self._make()

    def _make(self, mode: int = 0o777) -> bool:
        made = disk.make_directory(self.name, mode)
        if made:
            try:
                disk.sync_directory(os.path.dirname(self.name))
            except OSError:
                self.remove()
                raise
        return made

    def names(self) -> list[str]:
        with write_errors(self.name):
            return disk.names(self.name)

    def read(self, name: str) -> bytes | None:
        with read_errors(self._path(name)), suppress(FileNotFoundError):
            return disk.read_file(self._path(name))
        return None

    def tail(self, name: str, length: int) -> bytes:
        with disk.open_file(self._path(name)) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - length))
            return file.read()

    def local(self, name: str) -> str:
        return self._path(name)

    def scratch(self, name: str) -> str:
        return self._path(name + ".tmp")

    def publish(self, scratch: str, name: str, *, keep: bool = False) -> None:
        with write_errors(self.name):
            disk.rename_durably(scratch, self._path(name))

    def write(self, name: str, content: bytes) -> None:
        with write_errors(self.name):
            disk.replace_file(self._path(name), content, self.scratch(unique_name(name)))

    def rename(self, name: str, new: str) -> None:
        with write_errors(self.name):
            disk.rename(self._path(name), self._path(new))
            disk.sync_directory(self.name)

    def unlink(self, *names: str) -> None:
        with write_errors(self.name):
            for name in names:
                disk.unlink(self._path(name))
            if names:
                # What vouches for files is removed before them or after them, and that order is to survive a power cut.
                disk.sync_directory(self.name)

    def lock(self, name: str, target: str) -> None:
        lock = FileLock(self._path(name))
        while self._lock is None:
            self.make()
            with write_errors(self.name):
                try:
                    acquired = lock.acquire()
                except FileNotFoundError:
                    if os.path.lexists(self.name):
                        raise
                    continue  # a run that has just ended removed the folder
            if not acquired:
                holder = one_line(lock.holder())
                raise OutputError(f"{one_line(target)} is being written by {holder}; wait for it, or give another -o")
            self._lock = lock

    def remove(self) -> None:
        with suppress(OSError):
            disk.remove_directory(self.name)

    def each(self, call: Callable[[str], Value], names: Iterable[str]) -> Iterator[Value]:
        return map(call, names)


class RemoteFolder(Folder):
    """A prefix of an object store. Scratch files and local copies are in a temporary directory until `close`."""

    remote = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._store = open_writable_store(name)
        self._directory: TemporaryDirectory | None = None
        self._copies: dict[str, str] = {}
        self._making = threading.Lock()

    def _local_path(self, name: str) -> str:
        with self._making:
            if self._directory is None:
                self._directory = TemporaryDirectory(self.name)
            return os.path.join(self._directory.path, name)

    def make(self) -> bool:
        return not self._store.has_below()

    def names(self) -> list[str]:
        return self._store.names()

    def read(self, name: str) -> bytes | None:
        return self._store.read(name)

    def tail(self, name: str, length: int) -> bytes:
        content = self._store.read(name, length)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return content

    def local(self, name: str) -> str:
        copy = self._copies.get(name)
        if copy is None:
            copy, scratch = self._local_path(name), self.scratch(name + ".fetched")
            if not self._store.fetch(name, scratch):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            disk.rename(scratch, copy)
            self._copies[name] = copy
        return copy

    def scratch(self, name: str) -> str:
        return self._local_path(name + ".tmp")

    def publish(self, scratch: str, name: str, *, keep: bool = False) -> None:
        self._store.upload(scratch, name)
        self._copies.pop(name, None)
        if keep:
            self._copies[name] = self._local_path(name)
            disk.rename(scratch, self._copies[name])
        else:
            disk.unlink(scratch)

    def write(self, name: str, content: bytes) -> None:
        self._store.write(name, content)

    def rename(self, name: str, new: str) -> None:
        self._store.upload(self.local(name), new)
        self.forget(new)
        self.unlink(name)

    def unlink(self, *names: str) -> None:
        for name in names:
            self.forget(name)
        self._store.unlink(*names)

    def forget(self, name: str) -> None:
        if (copy := self._copies.pop(name, None)) is not None:
            disk.unlink(copy)

    def lock(self, name: str, target: str) -> None:
        log.log(DETAIL, "%s: an object store has no locks; make sure that one process writes it", one_line(self.name))
        self._store.abort_uploads()

    def each(self, call: Callable[[str], Value], names: Iterable[str]) -> Iterator[Value]:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(call, names)

    def close(self) -> None:
        super().close()
        self._copies.clear()
        if self._directory is not None:
            self._directory.close()
            self._directory = None


def open_folder(target: str) -> Folder:
    """Returns the folder of a directory's path or a prefix's URL, without any access yet.

    Raises:
        UsageError: it is a URL where nothing can be written, or the packages for it are not installed.
    """
    if is_url(target):
        return RemoteFolder(target.rstrip("/"))
    return LocalFolder(target.rstrip("/") or "/")
