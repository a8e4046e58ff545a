"""Local files as locations of images: opened without blocking, read whole, and their state."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import ClassVar

from xcli.core.errors import ImageError
from xcli.core.records import FileState
from xcli.storage import disk


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A local file, as the `Location` of an image; in `path` surrogates stand for bytes that are not UTF-8.

    Symbolic links are followed in the first `trusted` characters of the path only, or everywhere if that is None.
    """

    path: str
    trusted: int | None = field(default=None, kw_only=True)

    offset: ClassVar[None] = None
    size: ClassVar[None] = None
    remote: ClassVar[bool] = False

    def __fspath__(self) -> str:
        return self.path

    @property
    def file(self) -> str:
        return self.path

    def read(self, max_bytes: int) -> bytes:
        return read_file(self.path, max_bytes, self.trusted)

    def fetch(self, max_bytes: int) -> tuple[bytes, FileState | None]:
        state = self.state()
        return self.read(max_bytes), state

    def state(self) -> FileState | None:
        return state_of_file(self.path)


def state_of_file(path: str) -> FileState | None:
    """Returns the state of a local file; None if it cannot be determined."""
    try:  # which costs a million files less than `suppress` does
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileState.of(found.st_size, found.st_mtime_ns)


def open_below(path: str, trusted: int, flags: int) -> int:
    """Opens a path, and follows symbolic links in its first `trusted` characters only; raises OSError.

    What has become a link since it was listed is not followed either.
    """
    folder = disk.system.open(path[:trusted] or ".", os.O_RDONLY | os.O_DIRECTORY)
    *above, name = [part for part in path[trusted:].split("/") if part] or ["."]
    try:
        for part in above:
            below = disk.system.open_in(folder, part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            disk.close(folder)
            folder = below
        return disk.system.open_in(folder, name, flags | os.O_NOFOLLOW)
    finally:
        disk.close(folder)


def open_file(path: str, trusted: int | None = None) -> tuple[int, os.stat_result]:
    """Opens a regular file; never blocks on a FIFO. Returns a descriptor, which the caller must close, and the status.

    `trusted` is as in `LocalFile`.

    Raises:
        ImageError: `missing`, `unreadable` or `not-a-file`.
    """
    # O_NONBLOCK: otherwise opening a FIFO without a writer would block.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = disk.system.open(path, flags) if trusted is None else open_below(path, trusted, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", "no such file") from error
    except ValueError as error:
        raise ImageError("missing", f"no file can have this name: {error}") from error
    except OSError as error:
        if error.errno == errno.ELOOP and trusted is not None:
            raise ImageError("not-a-file", "it has become a symbolic link, which is not followed") from error
        # A socket cannot be opened, but can be distinguished from a file without permission.
        with suppress(OSError):
            _require_file(os.stat(path))
        raise ImageError("unreadable", error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)
        _require_file(status)
        os.set_blocking(descriptor, True)
    except BaseException as error:
        disk.close(descriptor)
        if isinstance(error, OSError):
            raise ImageError("unreadable", error.strerror or str(error)) from error
        raise
    return descriptor, status


def read_file(path: str, max_bytes: int, trusted: int | None = None) -> bytes:
    """Reads all bytes of an image file, at most `max_bytes`; `trusted` is as in `LocalFile`.

    Raises:
        ImageError: `missing`, `unreadable`, `not-a-file`, `empty` or `too-large`.
    """
    descriptor, status = open_file(path, trusted)
    try:
        if status.st_size > max_bytes:
            raise ImageError("too-large", f"a file of {status.st_size:,} bytes; the limit is {max_bytes:,}")
        data = disk.read_descriptor(descriptor, status.st_size)
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("too-large", f"not enough memory to read its {status.st_size:,} bytes") from error
    finally:
        disk.close(descriptor)
    if not data:
        raise ImageError("empty", "the file has zero bytes")
    return data


def _require_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not-a-file", f"it is {file_kind(status.st_mode)}, not a regular file")


def file_kind(mode: int) -> str:
    """Describes a file that is not regular, by its `st_mode`."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
