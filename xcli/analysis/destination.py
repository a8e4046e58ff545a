"""The destination of `sort`: one level of folders, in which files get names that nothing has yet.

No link below it is followed, and no name is replaced: folders are opened one by one relative to it, and names are given
by calls of the system that fail where there is one.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from xcli.core.errors import ImageError, OutputError
from xcli.core.text import one_line
from xcli.images.formats import MAX_FILE_BYTES
from xcli.sources.archives.listing import SEPARATOR
from xcli.sources.locations import RemoteObject
from xcli.storage import disk
from xcli.storage.local import open_file
from xcli.storage.streams import write_errors
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.core.records import Readable
    from xcli.sources.archives.listing import Archives

_CHUNK = 1 << 20
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})


class Destination:
    """A directory that is held open and locked; a context manager that closes it.

    Raises:
        OutputError: it is not there, or another process sorts into it.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        with write_errors(path):
            self.descriptor = disk.open_directory(self.path)
            try:
                if not disk.lock(self.descriptor):
                    raise OutputError(f"another process sorts into {one_line(path)}; wait for it")
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    disk.close(self.descriptor)
                    raise
            except OutputError:
                disk.close(self.descriptor)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        disk.close(self.descriptor)

    @contextmanager
    def folder(self, name: str, *, make: bool = False) -> Iterator[int]:
        """A context with a folder of the destination, open.

        Raises:
            OutputError: it is a link, no directory, or cannot be made.
        """
        shown = os.path.join(self.path, name)
        with write_errors(shown):
            if make:
                disk.make_folder_in(self.descriptor, name)
            try:
                descriptor = disk.open_folder_in(self.descriptor, name)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise OutputError(f"{one_line(shown)} is a link or no directory, so nothing is put there") from None
                raise
        try:
            yield descriptor
        finally:
            disk.close(descriptor)

    def has_folder(self, name: str) -> bool:
        """Says whether anything has this name."""
        return status_in(self.descriptor, name) is not None


def status_in(folder: int, name: str) -> os.stat_result | None:
    """Returns the status of what has a name in an open directory, without following a link; None if nothing has."""
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


class LocalSource:
    """A file of this machine that is to be put somewhere."""

    def __init__(self, path: str) -> None:
        self.path = path

    def status(self) -> os.stat_result | None:
        """Returns its status, without following a link; None where there is no such file."""
        try:
            return os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from error

    def chunks(self) -> Iterator[bytes]:
        """Yields its content; raises ImageError."""
        descriptor, _ = open_file(self.path)
        try:
            yield from read_chunks(descriptor)
        except OSError as error:
            raise ImageError("unreadable", error.strerror or str(error)) from error
        finally:
            disk.close(descriptor)


class ReadSource:
    """An object of a store, or a member of an archive: it is read whole."""

    def __init__(self, location: Readable) -> None:
        self._location = location

    def chunks(self) -> Iterator[bytes]:
        """Yields its content; raises ImageError."""
        yield self._location.read(MAX_FILE_BYTES)


Source = LocalSource | ReadSource


def locate(path: str, archives: Archives) -> Source:
    """Returns what a path names: a file, an object of a store, or a member of an archive; raises ImageError."""
    remote = is_url(path)
    if SEPARATOR in path and (remote or not os.path.lexists(path)):
        member = archives.member(os.fsencode(path))
        if member is not None:
            if member.error is not None:
                raise member.error
            return ReadSource(member.location)
    if remote:
        return ReadSource(RemoteObject(path))
    return LocalSource(path)


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """Yields the content of an open file from its beginning."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    while data := disk.read_descriptor(descriptor, _CHUNK):
        yield data


def same_content(source: Source, folder: int, name: str) -> bool:
    """Says whether a file in an open directory holds what a source holds; raises ImageError where that is not there."""
    status = status_in(folder, name)
    if status is None or not stat.S_ISREG(status.st_mode):
        return False
    descriptor = disk.system.open_in(folder, name, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return _equal(source, descriptor)
    finally:
        disk.close(descriptor)


def _equal(source: Source, descriptor: int) -> bool:
    """Compares a source with an open file, a part at a time, since both may be large."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    for chunk in source.chunks():
        if disk.read_descriptor(descriptor, len(chunk)) != chunk:
            return False
    return not disk.read_descriptor(descriptor, 1)


def copy_new(source: Source, folder: int, name: str, temporary: str, work: int, *, check: bool = False) -> None:
    """Copies a source to a new name in an open directory; it appears whole, when its content is on the disk.

    Args:
        source: what is copied; of a file also the time and permissions.
        folder, name: where it goes.
        temporary: a name in the open directory `work` that nobody else uses; what a killed process left is replaced.
        work: a directory on the same file system.
        check: read both again and compare them, before the name is given.

    Raises:
        FileExistsError: anything has the name.
        ImageError: the source cannot be read, or differs from its copy.
        OSError: the copy cannot be written.
    """
    disk.unlink_in(work, temporary)
    descriptor = disk.system.create_in(work, temporary)
    try:
        for chunk in source.chunks():
            rest = memoryview(chunk)
            while rest:
                rest = rest[disk.system.write(descriptor, rest) :]
        if isinstance(source, LocalSource):
            disk.system.set_status(descriptor, os.stat(source.path))
        disk.system.fsync(descriptor)
        if check and not _equal(source, descriptor):
            raise ImageError("unreadable", "it has changed while it was copied; it stays where it is")
        disk.rename_new(temporary, name, source_folder=work, folder=folder)
    except BaseException:
        with suppress(OSError):
            disk.unlink_in(work, temporary)
        raise
    finally:
        disk.close(descriptor)
