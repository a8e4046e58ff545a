"""What a machine can run out of, and what its disks can answer: neither is a bug or the fault of an image."""

from __future__ import annotations

import errno
import mmap
import re
import resource
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from xcli.core.errors import MachineError, ModelError
from xcli.core.process import processor_count

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")

_DESCRIPTORS = "no more files can be opened: raise the limit (ulimit -n), or use --workers 1"
_MEMORY = "there is not enough memory: use --workers 1 or a smaller --batch-size, or raise the limit (ulimit -v)"
_THREADS = "no more threads can be started: use --workers 1, or raise the limit (ulimit -u)"

_ERRNOS = {
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: "this machine can open no more files: end other programs, or raise fs.file-max",
    errno.ENOMEM: _MEMORY,
}
_TEXTS = (  # of exceptions that have no type of their own: of Python, the dynamic linker, Arrow and TensorFlow
    (re.compile(r"can't start new thread|launch worker thread|pthread_create|thread constructor failed"), _THREADS),
    (re.compile(r"failed to map segment|annot allocate memory|bad_alloc"), _MEMORY),
    (re.compile(r"Too many open files"), _DESCRIPTORS),
)

_AGAIN = "and run the same command again"
_SPACE = f"free some space there {_AGAIN}, or write to another disk"
_CONNECTION = f"check the disk, or the network that it is on, {_AGAIN}"
_PERMISSION = f"change the permissions {_AGAIN}, or write somewhere else"

_DISK = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: f"raise the limit of the size of files (ulimit -f) {_AGAIN}, or write to another disk",
    errno.EROFS: f"mount the disk for writing {_AGAIN}, or write to another",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENAMETOOLONG: "choose a shorter name",
}
for _number in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO):
    _DISK[_number] = _CONNECTION

PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds to wait for others to release what is missing, before each new attempt."""

_PHOTOGRAPH = 256 << 20  # bytes with which an ordinary one can be decoded
_ADDRESS_SPACE = 5 << 29  # measured: 1.7 GiB for TensorFlow's libraries, and up to 5 with the network


def shortage(error: BaseException | None) -> str | None:
    """Returns what ran out and what to do about it, if that caused an error; else None."""
    while error is not None:
        if isinstance(error, MemoryError):
            return _MEMORY
        if isinstance(error, OSError) and error.errno in _ERRNOS:
            return _ERRNOS[error.errno]
        if isinstance(error, RuntimeError | ImportError) or type(error).__module__.startswith(
            ("pyarrow", "tensorflow")
        ):
            for pattern, text in _TEXTS:
                if pattern.search(str(error)):
                    return text
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def advice(error: BaseException) -> str | None:
    """Returns what to do about a shortage or an answer of a disk, if that caused an error; else None."""
    if (text := shortage(error)) is not None:
        return text
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return _DISK[cause.errno]
        cause = cause.__cause__
    return None


def raise_shortage(error: BaseException) -> None:
    """Raises MachineError if an error was caused by a shortage; else returns."""
    if (text := shortage(error)) is not None:
        raise MachineError(text) from error


def patiently(call: Callable[[], Value]) -> Value:
    """Calls a function, and for some seconds again as long as a shortage makes it fail.

    Raises:
        MachineError: the shortage stays.
        Exception: what else the function raised.
    """
    for pause in PAUSES:
        try:
            return call()
        except Exception as error:
            if shortage(error) is None:
                raise
        time.sleep(pause)
    try:
        return call()
    except Exception as error:
        raise_shortage(error)
        raise


def has_memory(size: int = _PHOTOGRAPH) -> bool:
    """Returns whether so many bytes can be had; by default those for any ordinary photograph."""
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError):
        return False
    return True


def require_resources() -> None:
    """Checks that this process can map as much memory and start as many threads as its libraries need at least.

    They cannot cope with less: OpenBLAS sends this process a SIGINT, TensorFlow aborts it or damages its memory.

    Raises:
        ModelError: TensorFlow has not enough address space.
        MachineError: too few threads can be started.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY and not has_memory(_ADDRESS_SPACE):
        raise ModelError(
            f"TensorFlow cannot be loaded: it needs {_ADDRESS_SPACE >> 20:,} MiB of address space; raise the limit "
            "(ulimit -v)"
        )
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait, daemon=True) for _ in range(4 * processor_count() + 20)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise MachineError(_THREADS) from error
    finally:
        enough.set()
        for thread in started:
            thread.join()
