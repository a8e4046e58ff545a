"""Where parts live: a directory of this machine, or a prefix of an object store, both behind one face.

A file of a `Folder` appears whole or not at all: it is written to a scratch file of this machine and then published,
on a disk by fsync and rename, in an object store by an upload.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeVar

from xcli.core.errors import OutputError
from xcli.core.text import one_line
from xcli.storage.atomic import sync_directory
from xcli.storage.object_store import open_writable_store
from xcli.storage.streams import write_errors
from xcli.storage.temporary import TemporaryDirectory, unique_name
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger("xcli")

Value = TypeVar("Value")

_REQUESTS = 16
"""Made of an object store at a time."""

HOLDER = b"process "
"""How the content of a locked file begins: with who holds it."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Folder(ABC):
    """A flat set of named files.

    Attributes:
        name: as the user gave it, for messages.
        remote: whether it is in an object store, where every look costs a request.

    Raises:
        OutputError: from every method, when the disk or the server fails; it names the folder.
    """

    remote: ClassVar[bool]

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def make(self) -> bool:
        """Makes the folder where it is not there; says whether that was so (in an object store: it has no files)."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of everything in it, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where it is not there."""

    @abstractmethod
    def tail(self, name: str, length: int) -> bytes:
        """The last so many bytes of a file, or all where it has fewer.

        Raises:
            FileNotFoundError: it is not there.
        """

    @abstractmethod
    def local(self, name: str) -> str:
        """Path of a file of this machine with that content: the file itself, or a copy that lives until `close`.

        Raises:
            FileNotFoundError: it is not there; of a directory's file, only when that path is opened.
        """

    @abstractmethod
    def scratch(self, name: str) -> str:
        """Path of a file of this machine to write to, that nobody takes for finished: in a directory, NAME.tmp."""

    @abstractmethod
    def publish(self, scratch: str, name: str, *, keep: bool = False) -> None:
        """Gives a complete scratch file its name, in place of an older one. The scratch file is gone then.

        Args:
            scratch: from `scratch`, closed.
            name: the name to give it.
            keep: it will be asked for with `local`, so that a copy on this machine is of use.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes a small file, whole or not at all, in place of an older one; several processes may at once."""

    @abstractmethod
    def unlink(self, *names: str) -> None:
        """Removes those that are there; when the next call begins, all of them are gone."""

    @abstractmethod
    def lock(self, name: str, target: str) -> None:
        """Keeps other processes away until `unlock` or the death of this one; makes the folder where it is not there.

        An object store has no locks: there the user sees to it that one process writes a folder.

        Args:
            name: of the file that is locked, and that names its holder.
            target: the output, for the message.

        Raises:
            OutputError: another process has it; the message says which.
        """

    @abstractmethod
    def unlock(self) -> None:
        """Lets others in; nothing happens where it is not locked."""

    @abstractmethod
    def remove(self) -> None:
        """Takes the folder away where it is empty; without a complaint."""

    @abstractmethod
    def each(self, call: Callable[[str], Value], names: Iterable[str]) -> Iterator[Value]:
        """What a function gives for every name, in that order; in an object store several at a time."""

    def close(self) -> None:
        """Unlocks, and removes scratch files and copies."""
        self.unlock()


class LocalFolder(Folder):
    """A directory."""

    remote = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._lock: int | None = None

    def _path(self, name: str) -> str:
        return os.path.join(self.name, name)

    def make(self) -> bool:
        with write_errors(self.name):
            try:
                os.mkdir(self.name)
            except FileExistsError:
                return False
        return True

    def names(self) -> list[str]:
        with write_errors(self.name):
            return sorted(os.listdir(self.name))

    def read(self, name: str) -> bytes | None:
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {one_line(self._path(name))}: {error.strerror}") from error

    def tail(self, name: str, length: int) -> bytes:
        with open(self._path(name), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - length))
            return file.read()

    def local(self, name: str) -> str:
        return self._path(name)

    def scratch(self, name: str) -> str:
        return self._path(name + ".tmp")

    def publish(self, scratch: str, name: str, *, keep: bool = False) -> None:
        with write_errors(self.name):
            descriptor = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(scratch, self._path(name))
            sync_directory(self.name)

    def write(self, name: str, content: bytes) -> None:
        scratch = self.scratch(unique_name(name))
        try:
            with write_errors(self.name), open(scratch, "wb") as file:
                file.write(content)
            self.publish(scratch, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(scratch)
            raise

    def unlink(self, *names: str) -> None:
        for name in names:
            with write_errors(self.name), suppress(FileNotFoundError):
                os.unlink(self._path(name))

    def lock(self, name: str, target: str) -> None:
        path = self._path(name)
        while self._lock is None:
            self.make()
            with write_errors(self.name):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip() or "another process"
                os.close(descriptor)
                raise OutputError(
                    f"{one_line(target)} is being written by {one_line(holder)}; wait for it, or give another -o"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    os.close(descriptor)
                    with write_errors(self.name):
                        raise
                log.warning("%s: this file system has no locks; make sure that one process writes it", self.name)
            if self._is_still(path, descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, HOLDER + f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                self._lock = descriptor
            else:
                os.close(descriptor)

    @staticmethod
    def _is_still(path: str, descriptor: int) -> bool:
        """Whether the locked file has its name yet: a run that ends takes it away."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        with suppress(OSError):
            os.rmdir(self.name)

    def each(self, call: Callable[[str], Value], names: Iterable[str]) -> Iterator[Value]:
        return map(call, names)


class RemoteFolder(Folder):
    """A prefix of an object store. What is written to it, and what is wanted of it, has a copy on this machine.

    The copies are in a directory of their own (`xcli.storage.temporary`) until `close`.
    """

    remote = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._store = open_writable_store(name)
        self._scratch: TemporaryDirectory | None = None
        self._copies: dict[str, str] = {}
        self._making = threading.Lock()

    def _here(self, name: str) -> str:
        with self._making:
            if self._scratch is None:
                self._scratch = TemporaryDirectory(self.name)
            return os.path.join(self._scratch.path, name)

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
            copy, scratch = self._here(name), self.scratch(name + ".fetched")
            if not self._store.fetch(name, scratch):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            os.replace(scratch, copy)
            self._copies[name] = copy
        return copy

    def scratch(self, name: str) -> str:
        return self._here(name + ".tmp")

    def publish(self, scratch: str, name: str, *, keep: bool = False) -> None:
        self._store.upload(scratch, name)
        self._copies.pop(name, None)
        if keep:
            self._copies[name] = self._here(name)
            os.replace(scratch, self._copies[name])
        else:
            os.unlink(scratch)

    def write(self, name: str, content: bytes) -> None:
        self._store.write(name, content)

    def unlink(self, *names: str) -> None:
        for name in names:
            if (copy := self._copies.pop(name, None)) is not None:
                os.unlink(copy)
        self._store.unlink(*names)

    def lock(self, name: str, target: str) -> None:
        log.info("%s: an object store has no locks; make sure that one process writes it", one_line(self.name))
        self._store.abort_uploads()

    def unlock(self) -> None:
        """Nothing is locked."""

    def remove(self) -> None:
        """Nothing is to be done: a prefix without objects is gone."""

    def each(self, call: Callable[[str], Value], names: Iterable[str]) -> Iterator[Value]:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(call, names)

    def close(self) -> None:
        super().close()
        self._copies.clear()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def open_folder(target: str) -> Folder:
    """The folder of a name; nothing is asked or made yet.

    Args:
        target: path of a directory, or URL of a prefix.

    Raises:
        UsageError: it is a URL where nothing can be written, or the packages for it are not installed.
    """
    if is_url(target):
        return RemoteFolder(target.rstrip("/"))
    return LocalFolder(target.rstrip("/") or "/")
