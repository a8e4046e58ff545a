"""The calls of the operating system that change a disk: files are created, written, synced, named, locked, removed.

Nothing else in the package makes such a call (`tests/storage/test_disk.py` checks it), so that the tests can record
what a run does to the disk, and let it fail or die at each call: they replace `system` by another `System`. Images are
listed and read through it too.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import os
import shutil
from contextlib import suppress
from typing import Any, BinaryIO, cast

_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF})

_BUFFER = 1 << 20
_HERE = -100  # AT_FDCWD of Linux
_NO_REPLACE, _EXCHANGE = 1, 2  # RENAME_NOREPLACE, RENAME_EXCHANGE

Path = str | os.PathLike[str]


class System:
    """The calls themselves. All raise OSError."""

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def open_in(self, folder: int, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=folder)

    def create_in(self, folder: int, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o666, dir_fd=folder)

    def mkdir_in(self, folder: int, name: str) -> None:
        os.mkdir(name, dir_fd=folder)

    def rmdir_in(self, folder: int, name: str) -> None:
        os.rmdir(name, dir_fd=folder)

    def link_in(self, source: Path, folder: int, name: str) -> None:
        os.link(source, name, dst_dir_fd=folder)

    def symlink_in(self, source: Path, folder: int, name: str) -> None:
        os.symlink(source, name, dir_fd=folder)

    def unlink_in(self, folder: int, name: str) -> None:
        os.unlink(name, dir_fd=folder)

    def rename_new(self, source_folder: int | None, source: str, folder: int | None, name: str) -> None:
        _rename_new(source_folder, source, folder, name)

    def exchange(self, one: Path, other: Path) -> bool:
        return _renameat2(None, os.fspath(one), None, os.fspath(other), _EXCHANGE) == 0

    def set_status(self, descriptor: int, status: os.stat_result) -> None:
        os.fchmod(descriptor, status.st_mode & 0o777)
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))

    def read(self, descriptor: int, size: int) -> bytes:
        return os.read(descriptor, size)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def lock(self, descriptor: int, operation: int) -> None:
        fcntl.flock(descriptor, operation)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def rmtree(self, path: Path) -> None:
        shutil.rmtree(path)

    def listdir(self, path: Any) -> Any:
        return os.listdir(path)

    def scandir(self, path: Any) -> Any:
        return os.scandir(path)

    def utime(self, path: Path) -> None:
        os.utime(path)


def _renameat2(source_folder: int | None, source: str, folder: int | None, name: str, flag: int) -> int:
    """Returns the number of the error; 0 if there is none."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return errno.ENOSYS
    here = [_HERE if one is None else one for one in (source_folder, folder)]
    failed = rename(here[0], os.fsencode(source), here[1], os.fsencode(name), flag)
    return ctypes.get_errno() if failed else 0


def _rename_new(source_folder: int | None, source: str, folder: int | None, name: str) -> None:
    number = _renameat2(source_folder, source, folder, name, _NO_REPLACE)
    if number == 0:
        return
    if number not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(number, os.strerror(number), source, None, name)
    # Where the system cannot do it in one step the file has both names for a moment.
    os.link(source, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=False)
    os.unlink(source, dir_fd=source_folder)


system = System()
"""What makes the calls."""


class _File(io.RawIOBase):
    """An unbuffered file on a descriptor, which it closes."""

    def __init__(self, descriptor: int, *, writable: bool) -> None:
        self._descriptor = descriptor
        self._writable = writable

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return not self._writable

    def writable(self) -> bool:
        return self._writable

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return os.lseek(self._descriptor, offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        length = self.tell() if size is None else size
        system.truncate(self._descriptor, length)
        return length

    def write(self, data: Any, /) -> int:
        return system.write(self._descriptor, data)

    def readinto(self, buffer: Any, /) -> int:
        data = system.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            system.close(self._descriptor)


def create(path: Path, mode: int = 0o666) -> BinaryIO:
    """Creates a file to write; FileExistsError if anything has that name, a broken link too."""
    descriptor = system.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    return cast("BinaryIO", io.BufferedWriter(_File(descriptor, writable=True), _BUFFER))


def open_file(path: Path) -> BinaryIO:
    """Opens a file to read."""
    return cast("BinaryIO", io.BufferedReader(_File(system.open(path, os.O_RDONLY), writable=False), _BUFFER))


def read_file(path: Path, most: int = -1) -> bytes:
    """Returns the content of a file, or its first bytes; of a pipe, which would not end, what there is."""
    with io.BufferedReader(_File(system.open(path, os.O_RDONLY | os.O_NONBLOCK), writable=False), _BUFFER) as file:
        return file.read(most) or b""


def read_descriptor(descriptor: int, size: int) -> bytes:
    """Reads so many bytes of an open file, or as many as there are."""
    data = system.read(descriptor, size)
    while data and len(data) < size and (more := system.read(descriptor, size - len(data))):
        data += more
    return data


def open_lock(path: Path) -> int:
    """Opens a file to lock it, and creates it if it is missing; returns its descriptor. A link is not followed."""
    return system.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)


def open_directory(path: Path) -> int:
    """Opens a directory to lock it; returns its descriptor. A link is not followed."""
    return system.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def open_device(path: Path) -> int:
    """Opens an existing FIFO or device to write; returns its descriptor."""
    return system.open(path, os.O_WRONLY)


def overwrite(descriptor: int, content: bytes) -> None:
    """Replaces the content of a short file in its place: at no moment is it empty, if it was not before."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    system.write(descriptor, content)
    system.truncate(descriptor, len(content))


def lock(descriptor: int, *, wait: bool = False) -> bool:
    """Locks an open file or directory until it is closed; returns False if another process holds the lock."""
    try:
        system.lock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def close(descriptor: int) -> None:
    """Closes a descriptor."""
    system.close(descriptor)


def sync_file(path: Path) -> None:
    """Waits until the content of a closed file is on the disk."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Waits until the names in a directory are on the disk, where its file system supports that."""
    try:
        _sync(path or os.curdir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        # Some file systems cannot, and a directory may be writable but not readable; neither is a failure to write.
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise


def _sync(path: Path, flags: int) -> None:
    descriptor = system.open(path, flags)
    try:
        system.fsync(descriptor)
    finally:
        system.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Renames a file, which replaces one of the new name."""
    system.rename(source, target)


def rename_new(source: str, target: str, *, source_folder: int | None = None, folder: int | None = None) -> None:
    """Renames a file in one step, between two open directories; FileExistsError if anything has the new name.

    A path is relative to the directory whose descriptor is given, else to the current one.
    """
    system.rename_new(source_folder, source, folder, target)


def exchange(one: Path, other: Path) -> bool:
    """Gives two files or directories the names of each other in one step; returns False if the system does not."""
    return system.exchange(one, other)


def rename_durably(source: Path, target: Path) -> None:
    """Renames a closed file within its directory, after its content and before returning the name is on the disk."""
    sync_file(source)
    rename(source, target)
    sync_directory(os.path.dirname(target))


def replace_file(path: Path, content: bytes | memoryview, temporary: Path | None = None) -> None:
    """Writes or replaces a file, durably; if that fails, the older one is still there.

    Args:
        path: of the file.
        content: of the file.
        temporary: a path in the same directory that nobody else uses; without it, no other process writes to that
            directory, and what a killed one left is replaced.
    """
    if temporary is None:
        temporary = f"{os.fspath(path)}.tmp"
        unlink(temporary)
    try:
        with create(temporary) as file:
            file.write(content)
        rename_durably(temporary, path)
    except BaseException:
        with suppress(OSError):
            unlink(temporary)
        raise


def link(source: Path, target: Path) -> None:
    """Gives a file a second name; FileExistsError if anything has it."""
    system.link(source, target)


def unlink(path: Path) -> None:
    """Removes a file, if it is there."""
    with suppress(FileNotFoundError):
        system.unlink(path)


def make_directory(path: Path, mode: int = 0o777) -> bool:
    """Creates a directory; returns whether it was missing."""
    with suppress(FileExistsError):
        system.mkdir(path, mode)
        return True
    return False


def make_directories(path: Path) -> None:
    """Creates a directory and its parents, where they are missing."""
    parent = os.path.dirname(path)
    if parent and not os.path.isdir(parent):
        make_directories(parent)
    if not make_directory(path) and not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def make_folder_in(folder: int, name: str) -> bool:
    """Creates a directory in an open one; returns whether it was missing."""
    with suppress(FileExistsError):
        system.mkdir_in(folder, name)
        return True
    return False


def open_folder_in(folder: int, name: str) -> int:
    """Opens a directory in an open one; a link is not followed."""
    return system.open_in(folder, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def unlink_in(folder: int, name: str) -> None:
    """Removes a file in an open directory, if it is there."""
    with suppress(FileNotFoundError):
        system.unlink_in(folder, name)


def remove_directory(path: Path) -> None:
    """Removes an empty directory."""
    system.rmdir(path)


def remove_tree(path: Path) -> None:
    """Removes a directory with everything in it, if it is there; links in it are removed, not followed."""
    with suppress(FileNotFoundError):
        system.rmtree(path)


def names(path: Path) -> list[str]:
    """Returns the names in a directory, sorted."""
    found: list[str] = sorted(system.listdir(path))
    return found


def touch(path: Path) -> None:
    """Sets the times of a file to now."""
    system.utime(path)
