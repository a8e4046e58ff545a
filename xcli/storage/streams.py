"""Output streams: standard output, open descriptors, FIFOs and devices, which are written to directly.

Every failure of the operating system becomes an OutputError that names the file, except a closed pipe: that stays a
BrokenPipeError, on which the command line ends quietly. Files that appear whole are in `xcli.storage.atomic`.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from xcli.core.errors import OutputError
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDOUT = (None, "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_DESCRIPTOR = re.compile(r"/dev/stdout|/dev/stderr|(?:/dev/fd|/proc/self/fd)/([0-9]+)")


class ByteStream(Protocol):
    """What a table writer writes to: a binary file, `sys.stdout.buffer`, `io.BytesIO`."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...
    def flush(self) -> None: ...
    def seek(self, offset: int, /) -> int: ...


class CheckedStream:
    """A binary stream that writes everything it is given, or raises an OutputError with the name of the file."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, data: bytes | memoryview, /) -> int:
        """Writes all of `data` and returns its length in bytes."""
        view = memoryview(data).cast("B")
        size = len(view)
        with write_errors(self._name):
            # Under `python -u` standard output is unbuffered, and then one write may take only a part.
            while len(view):
                written = self._stream.write(view)
                if not written:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                view = view[written:]
        return size

    def flush(self) -> None:
        """Passes buffered bytes to the operating system."""
        with write_errors(self._name):
            self._stream.flush()

    def seek(self, offset: int, /) -> int:
        """Moves to `offset` from the start."""
        with write_errors(self._name):
            return int(self._stream.seek(offset))

    def sync(self) -> None:
        """Waits until the content is on the disk."""
        self.flush()
        with write_errors(self._name):
            disk.system.fsync(self._stream.fileno())

    def close(self) -> None:
        """Closes the stream, which may raise an error that the system has delayed until now."""
        with write_errors(self._name):
            self._stream.close()

    def drop(self) -> None:
        """Closes the stream and ignores errors: its content is not wanted."""
        with suppress(OSError):
            self._stream.close()


class WritableFile(ABC):
    """An output that is written to `stream`, then published: `DirectFile`, or a file that appears whole."""

    name: str
    stream: CheckedStream
    direct = False  # whether readers see the content at once, before `publish`

    @abstractmethod
    def check(self) -> None:
        """Raises an OutputError if the name is taken."""

    @abstractmethod
    def prepare(self) -> None:
        """Completes and closes the content, so that only `publish` remains."""

    @abstractmethod
    def publish(self) -> None:
        """Gives the file its name."""

    @abstractmethod
    def discard(self) -> None:
        """Removes every trace of a file that was not published."""

    @abstractmethod
    def withdraw(self) -> None:
        """Removes a published file again, unless it replaced another one."""


class DirectFile(WritableFile):
    """Standard output (`-` or None), a descriptor (`/dev/fd/3`), or an existing FIFO or device.

    What was written to it cannot be taken back, so `publish` does nothing and `discard` only closes.
    """

    direct = True

    def __init__(self, target: str | None) -> None:
        self._owned = False
        if target is None or target in _STDOUT:
            self.name = "standard output"
            if sys.stdout is None or sys.stdout.closed:
                raise write_error(self.name, "it is closed; give a file with -o")
            with write_errors(self.name):
                sys.stdout.flush()  # text that was printed before stays before
            self.stream = CheckedStream(sys.stdout.buffer, self.name)
            return
        self.name = target
        self._owned = True
        with write_errors(target):
            match = _DESCRIPTOR.fullmatch(target)
            # A descriptor is duplicated: opened by name, a file that the shell redirected to would be truncated.
            opened = os.dup(int(match[1] or 2)) if match else disk.open_device(target)
        self.stream = CheckedStream(os.fdopen(opened, "wb"), target)

    def check(self) -> None:
        """Does nothing."""

    def prepare(self) -> None:
        self.stream.flush()
        if self._owned:
            self.stream.close()

    publish = check

    def discard(self) -> None:
        if self._owned:
            self.stream.drop()

    withdraw = discard


def is_direct(target: str | None) -> bool:
    """Says whether output goes directly to `target`: standard output, a descriptor, an existing FIFO or device."""
    if target is None or target in _STDOUT or _DESCRIPTOR.fullmatch(target):
        return True
    return not is_url(target) and os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target))


def write_error(name: str, reason: str) -> OutputError:
    return OutputError(f"cannot write {one_line(name)}: {reason}")


@contextmanager
def write_errors(name: str) -> Iterator[None]:
    """A context that turns OSError into an OutputError naming the file; BrokenPipeError passes."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise write_error(name, one_line(error.strerror or str(error))) from error


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """A context that turns what keeps a file of an unfinished output from being read into an OutputError naming it."""
    try:
        yield
    except (OSError, MemoryError) as error:
        reason = one_line(getattr(error, "strerror", None) or str(error) or "no memory")
        raise OutputError(f"cannot read {one_line(name)}: {reason}") from error
