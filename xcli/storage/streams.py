"""Files that appear whole or not at all, and the streams that cannot: standard output, pipes, devices.

A caller opens with `open_output`, writes to `.stream`, then calls `finish` on all the files that belong together. On
the way out with an exception it calls `discard` instead. Every failure of the system is an OutputError that names the
file, except a closed pipe: that is BrokenPipeError, by which the command line ends quietly. The names of files in
object stores (`xcli.storage.uploads`) are URLs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_DESCRIPTOR = re.compile(r"/dev/stdout|/dev/stderr|(?:/dev/fd|/proc/self/fd)/([0-9]+)")
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF})


class ByteStream(Protocol):
    """What encoders write to: a binary file, `sys.stdout.buffer`, `io.BytesIO`."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...
    def flush(self) -> None: ...
    def seek(self, offset: int, /) -> int: ...


class AnyFile(Protocol):
    """What `open_output` gives: `AtomicFile`, `DirectFile`, `xcli.storage.uploads.ObjectFile`."""

    name: str
    stream: CheckedStream

    @property
    def direct(self) -> bool: ...
    def check(self) -> None: ...
    def prepare(self) -> None: ...
    def publish(self) -> None: ...
    def discard(self) -> None: ...
    def withdraw(self) -> None: ...


class CheckedStream:
    """A binary stream that writes everything it is given, or raises OutputError with the name of the file."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, data: bytes | memoryview, /) -> int:
        """Writes all of `data` and returns its length in bytes."""
        view = memoryview(data).cast("B")
        size = len(view)
        with reported(self._name):
            # Under `python -u` standard output is unbuffered, and then one write may take only a part.
            while len(view):
                taken = self._stream.write(view)
                if not taken:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                view = view[taken:]
        return size

    def flush(self) -> None:
        """Hands what is buffered to the system."""
        with reported(self._name):
            self._stream.flush()

    def seek(self, offset: int, /) -> int:
        """Moves to `offset` from the start."""
        with reported(self._name):
            return int(self._stream.seek(offset))

    def sync(self) -> None:
        """Waits until the content is on the disk."""
        self.flush()
        with reported(self._name):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Closes; an error that the system kept until now is reported like any other."""
        with reported(self._name):
            self._stream.close()

    def drop(self) -> None:
        """Closes without a complaint: what was written is not wanted."""
        with contextlib.suppress(OSError):
            self._stream.close()


class AtomicFile:
    """A regular file that takes its name only when it is whole; until then it has a hidden name in the same directory.

    A symbolic link stays one: the file it points to is replaced.

    Args:
        target: the final name.
        overwrite: whether a file of that name may be replaced; else one that exists, or appears in the meantime, is
            left alone and refused.
        locked: the caller sees to it that no other process writes this file. Its hidden name is then always the same,
            so that what a killed process has left is written over by the next, and does not stay for ever.

    Attributes:
        stream: where to write the content.

    Raises:
        OutputError: at construction, when the name is taken or its directory cannot be written to.
    """

    direct = False

    def __init__(self, target: str, overwrite: bool = False, *, locked: bool = False) -> None:
        self.name = target
        self._overwrite = overwrite
        self._final = os.path.realpath(target) if os.path.islink(target) else target
        directory, base = os.path.split(self._final)
        self._directory = directory or os.curdir
        if not os.path.isdir(self._directory):
            shown = one_line(self._directory)
            is_file = os.path.exists(self._directory)
            reason = f"{shown} is not a directory" if is_file else f"no such directory: {shown}, create it first"
            raise _failure(target, reason)
        self.check()
        # Cut, so that a name of the greatest length that the file system allows can still be written.
        short = os.fsdecode(os.fsencode(base)[:200])
        hidden = f".{short}.partial.tmp" if locked else f".{short}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
        self._temporary: str | None = None
        self._created = False
        temporary = os.path.join(self._directory, hidden)
        with reported(target):
            if locked:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._temporary = temporary
        self.stream = CheckedStream(os.fdopen(descriptor, "wb"), target)

    def check(self) -> None:
        """Refuses a name that is taken.

        Raises:
            OutputError: it is a directory, or a file that may not be replaced.
        """
        if os.path.isdir(self._final):
            raise _failure(self.name, "it is a directory; give the name of a file")
        if not self._overwrite and os.path.lexists(self._final):
            raise taken(self.name)

    def prepare(self) -> None:
        """Brings the content to the disk and closes it; nothing is left to do but give it its name."""
        self.stream.sync()
        self.stream.close()

    def publish(self) -> None:
        """Gives the file its name, and makes the name as durable as the content."""
        assert self._temporary is not None
        with reported(self.name):
            if self._overwrite:
                os.replace(self._temporary, self._final)
            else:
                self._link(self._temporary)
            self._temporary = None
            sync_directory(self._directory)

    def _link(self, temporary: str) -> None:
        """A rename that never replaces: unlike a check before a rename, no other process can come between."""
        try:
            os.link(temporary, self._final)
        except FileExistsError:
            raise taken(self.name) from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self.check()
            os.replace(temporary, self._final)
            self._created = True
        else:
            self._created = True
            os.unlink(temporary)

    def discard(self) -> None:
        """Leaves no trace of a file that was not published."""
        self.stream.drop()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = None

    def withdraw(self) -> None:
        """Takes the name away again, if nothing was replaced by it."""
        self.discard()
        if self._created:
            self._created = False
            with contextlib.suppress(OSError):
                os.unlink(self._final)


class DirectFile:
    """Standard output (`-` or None), a descriptor (`/dev/fd/3`), or an existing FIFO or device: written as it comes."""

    direct = True

    def __init__(self, target: str | None) -> None:
        self._owned = False
        if _is_stdout(target):
            self.name = "standard output"
            if sys.stdout is None or sys.stdout.closed:
                raise _failure(self.name, "it is closed; give a file with -o")
            with reported(self.name):
                sys.stdout.flush()  # text that was printed before stays before
            self.stream = CheckedStream(sys.stdout.buffer, self.name)
            return
        assert target is not None
        self.name = target
        self._owned = True
        with reported(target):
            descriptor = _descriptor(target)
            # A descriptor is duplicated: opened by name, a file that the shell redirected to would be truncated.
            opened = os.open(target, os.O_WRONLY | os.O_CLOEXEC) if descriptor is None else os.dup(descriptor)
        self.stream = CheckedStream(os.fdopen(opened, "wb"), target)

    def check(self) -> None:
        """Nothing can be in the way."""

    def prepare(self) -> None:
        """Hands everything to the system."""
        self.stream.flush()
        if self._owned:
            self.stream.close()

    def publish(self) -> None:
        """Was seen as it was written."""

    def discard(self) -> None:
        """Lets go; what was written cannot be taken back."""
        if self._owned:
            self.stream.drop()

    withdraw = discard


def open_output(target: str | None, overwrite: bool, *, locked: bool = False) -> AnyFile:
    """Opens `target` in the way its kind needs; None and `-` are standard output. `locked` is for `AtomicFile`.

    Raises:
        UsageError: the name is empty.
        OutputError: the name is taken, or cannot be written.
    """
    if target == "":
        raise UsageError("the name of the output is empty; give a file, or - for standard output")
    if target is None or is_direct(target):
        return DirectFile(target)
    return _open_whole(target, overwrite, locked)


def _open_whole(target: str, overwrite: bool, locked: bool) -> AnyFile:
    if is_url(target):
        from xcli.storage.uploads import ObjectFile

        return ObjectFile(target, overwrite)
    return AtomicFile(target, overwrite, locked=locked)


def finish(files: Sequence[AnyFile]) -> None:
    """Makes files that belong together appear, in the order given: all are complete before the first has its name.

    Raises:
        OutputError: one could not be; those that were new have been taken away again, the others remain.
    """
    for file in files:
        file.prepare()
    for file in files:
        file.check()
    started: list[AnyFile] = []
    try:
        for file in files:
            started.append(file)
            file.publish()
    except BaseException:
        for file in started:
            file.withdraw()
        raise


def write_whole(target: str, data: bytes | memoryview, *, overwrite: bool, locked: bool = False) -> None:
    """Writes a file or an object that appears whole or not at all; see `AtomicFile`.

    Raises:
        OutputError: it cannot be written.
    """
    file = _open_whole(target, overwrite, locked)
    try:
        file.stream.write(data)
        finish([file])
    except BaseException:
        file.discard()
        raise


def is_direct(target: str | None) -> bool:
    """Whether output goes straight to `target`: standard output, a descriptor, an existing FIFO or device."""
    if _is_stdout(target) or (target is not None and _DESCRIPTOR.fullmatch(target)):
        return True
    assert target is not None
    if is_url(target):
        return False
    try:
        mode = os.stat(target).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_stdout(target: str | None) -> bool:
    return target in (None, "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def _descriptor(target: str) -> int | None:
    match = _DESCRIPTOR.fullmatch(target)
    if match is None:
        return None
    return int(match[1]) if match[1] else 2


def sync_directory(directory: str) -> None:
    """Waits until the names in a directory are on the disk, where its file system can do that."""
    descriptor = -1
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot, and a directory may be writable but not readable; neither is a failure to write.
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _failure(name: str, reason: str) -> OutputError:
    return OutputError(f"cannot write {one_line(name)}: {reason}")


def taken(name: str) -> OutputError:
    """The error for a name that another file has."""
    return OutputError(f"{one_line(name)} exists; pass --overwrite to replace it")


@contextlib.contextmanager
def reported(name: str) -> Iterator[None]:
    """A context in which failures of the system become an OutputError that names a file; a closed pipe stays one."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _failure(name, one_line(error.strerror or str(error))) from error
