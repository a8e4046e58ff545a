"""The calls of `disk.System`: recorded, failed, interrupted, or the last one of the process."""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xcli.storage.disk import System

ERRNOS = ("EIO", "ENOSPC", "EMFILE", "EPERM")
FULL, EINTR, SHORT, TORN, PAUSE = "FULL", "EINTR", "short", "torn", "pause"
"""ENOSPC from here on; a signal whose handler does nothing; a part is written; likewise, and SIGKILL; see `Pause`."""

SIGNALS = ("SIGINT-after", "SIGTERM-before", "SIGKILL-before")
"""At calls that change something; before the others only SIGINT comes: nothing tells the rest from one call later."""

_GROWING = ("create", "write", "mkdir", "rename", "link")
_CHANGING = ("create", "write", "truncate", "fsync", "rename", "link", "unlink", "mkdir", "rmdir")
_FAILURES: dict[str, tuple[str, ...]] = {
    "open": ("EIO", "EMFILE", EINTR),
    "create": ("EIO", "ENOSPC", "EMFILE", FULL, EINTR),
    "read": ("EIO", SHORT, EINTR),
    "write": ("EIO", "ENOSPC", FULL, SHORT, TORN, EINTR),
    "truncate": ("EIO",),
    "fsync": ("EIO", "ENOSPC", EINTR),
    "close": ("EIO", "ENOSPC"),
    "lock": ("EIO", EINTR),
    "rename": ("EIO", "ENOSPC"),
    "link": ("EIO", "ENOSPC", "EPERM"),
    "unlink": ("EIO",),
    "mkdir": ("EIO", "ENOSPC", FULL),
    "rmdir": ("EIO",),
    "listdir": ("EIO", "EMFILE"),
    "utime": ("EIO",),
}


_SOURCE = {"open": ("EIO", "EMFILE"), "read": ("EIO", SHORT), "listdir": ("EIO", "EMFILE")}
SOURCES = ("in", "old", "data", "older", "shards")
"""Directories that a run only reads: images, and tables that are merged."""


class Call(NamedTuple):
    """One call of a run; `path` and `target` are relative to the directory of the case."""

    number: int
    name: str
    path: str
    target: str = ""
    descriptor: int = -1
    data: bytes = b""
    offset: int = 0
    flags: int = 0
    error: str = ""

    @property
    def changes(self) -> bool:
        """Whether the disk differs afterwards, at least in what a power cut leaves."""
        return self.name in _CHANGING and not self.error

    @property
    def of_source(self) -> bool:
        """Whether it reads what the run is given."""
        return self.path.split("/")[0] in SOURCES

    def kinds(self) -> Iterator[str]:
        """The faults that make sense for it."""
        if self.of_source:
            yield from _SOURCE.get(self.name, ())
            return
        yield from (*_FAILURES[self.name], "SIGINT-before")
        if self.changes:
            yield from SIGNALS

    def __str__(self) -> str:
        size = f" {len(self.data)} bytes at {self.offset}" if self.name == "write" else ""
        target = f" -> {self.target}" if self.target else ""
        return f"{self.number:4} {self.name} {self.path}{target}{size}{' = ' + self.error if self.error else ''}"


class Fault(NamedTuple):
    """What happens at the call of this number, counted from 0."""

    number: int
    kind: str


class Pause(NamedTuple):
    """Descriptors: one to say that the process has stopped, one to wait on."""

    here: int
    go: int


@dataclass
class FaultySystem(System):
    """Calls on files below a directory; others are passed through.

    Attributes:
        root: the directory of the case, absolute.
        fault: at most one.
        log: a descriptor for the pickled `Call`s; None records nothing.
        seed: of the order in which directories are listed.
        pause: for a fault of the kind `pause`.
    """

    root: str
    fault: Fault | None = None
    log: int | None = None
    seed: int = 0
    pause: Pause | None = None
    number: int = field(default=0, init=False)
    full: bool = field(default=False, init=False)
    names: dict[int, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.order = random.Random(self.seed)

    def _relative(self, path: Any) -> str | None:
        name = os.path.join(os.getcwd(), os.fsdecode(path))
        return os.path.relpath(name, self.root) if name.startswith(self.root + "/") else None

    def _call(self, name: str, path: str | None, perform: Callable[[], Any], size: int = 0, **details: Any) -> Any:
        if path is None:
            return perform()
        number, self.number = self.number, self.number + 1
        kind = self.fault.kind if self.fault is not None and self.fault.number == number else ""
        perform = self._with_fault(kind, name, path, perform, size, details)
        try:
            result = perform()
        except OSError as error:
            self._record(Call(number, name, path, error=errno.errorcode.get(error.errno or 0, "?"), **details))
            raise
        if name in ("open", "create"):
            details["descriptor"] = result
            self.names[result] = path
        elif name == "write":
            details["data"] = details["data"][:result]
        self._record(Call(number, name, path, **details))
        if kind == TORN:
            signal.raise_signal(signal.SIGKILL)
        if kind.endswith("-after"):
            signal.raise_signal(signal.Signals[kind.partition("-")[0]])
        return result

    def _with_fault(
        self, kind: str, name: str, path: str, perform: Callable[[], Any], size: int, details: dict[str, Any]
    ) -> Callable[[], Any]:
        """Does what comes before the call; returns what is left of it."""
        self.full |= kind == FULL
        error = "ENOSPC" if self.full and name in _GROWING else kind if kind in ERRNOS else ""
        if error:
            number = getattr(errno, error)
            if name == "close":
                perform()

            def fail() -> Any:
                raise OSError(number, os.strerror(number), path)

            return fail
        if kind == EINTR:
            signal.raise_signal(signal.SIGUSR1)  # Python runs the handler and repeats the call
        elif kind.endswith("-before"):
            signal.raise_signal(signal.Signals[kind.partition("-")[0]])
        elif kind == PAUSE and self.pause is not None:
            os.write(self.pause.here, b".")
            os.read(self.pause.go, 1)
        if kind in (SHORT, TORN) and name == "write":
            half = details["data"][: (len(details["data"]) + 1) // 2]
            return lambda: super(FaultySystem, self).write(details["descriptor"], half)
        if kind == SHORT and name == "read":
            return lambda: super(FaultySystem, self).read(details["descriptor"], max(1, size // 64))
        return perform

    def _record(self, call: Call) -> None:
        if self.log is not None:
            os.write(self.log, pickle.dumps(call))

    # The calls

    def open(self, path: Any, flags: int, mode: int = 0o666) -> int:
        name = "create" if flags & os.O_CREAT else "open"
        return self._call(
            name, self._relative(path), lambda: super(FaultySystem, self).open(path, flags, mode), flags=flags
        )

    def read(self, descriptor: int, size: int) -> bytes:
        return self._of(descriptor, "read", lambda: super(FaultySystem, self).read(descriptor, size), size=size)

    def write(self, descriptor: int, data: Any) -> int:
        content = bytes(data)
        offset = os.lseek(descriptor, 0, os.SEEK_CUR) if descriptor in self.names else 0
        return self._of(
            descriptor,
            "write",
            lambda: super(FaultySystem, self).write(descriptor, content),
            data=content,
            offset=offset,
        )

    def truncate(self, descriptor: int, length: int) -> None:
        self._of(descriptor, "truncate", lambda: super(FaultySystem, self).truncate(descriptor, length), offset=length)

    def fsync(self, descriptor: int) -> None:
        # tmpfs has nothing to do for it.
        self._of(descriptor, "fsync", lambda: None)

    def close(self, descriptor: int) -> None:
        self._of(descriptor, "close", lambda: super(FaultySystem, self).close(descriptor))
        self.names.pop(descriptor, None)

    def lock(self, descriptor: int, operation: int) -> None:
        self._of(descriptor, "lock", lambda: super(FaultySystem, self).lock(descriptor, operation), flags=operation)

    def _of(self, descriptor: int, name: str, perform: Callable[[], Any], **details: Any) -> Any:
        return self._call(name, self.names.get(descriptor), perform, descriptor=descriptor, **details)

    def rename(self, source: Any, target: Any) -> None:
        self._two("rename", source, target, lambda: super(FaultySystem, self).rename(source, target))

    def link(self, source: Any, target: Any) -> None:
        self._two("link", source, target, lambda: super(FaultySystem, self).link(source, target))

    def _two(self, name: str, source: Any, target: Any, perform: Callable[[], Any]) -> None:
        self._call(name, self._relative(source), perform, target=self._relative(target) or "")

    def unlink(self, path: Any) -> None:
        self._call("unlink", self._relative(path), lambda: super(FaultySystem, self).unlink(path))

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        self._call("mkdir", self._relative(path), lambda: super(FaultySystem, self).mkdir(path, mode))

    def rmdir(self, path: Any) -> None:
        self._call("rmdir", self._relative(path), lambda: super(FaultySystem, self).rmdir(path))

    def rmtree(self, path: Any) -> None:
        """Entry by entry, so that it can fail or end between two of them."""
        folder = os.fspath(path)
        for name in self.listdir(folder):
            entry = os.path.join(folder, name)
            if os.path.isdir(entry) and not os.path.islink(entry):
                self.rmtree(entry)
            else:
                self.unlink(entry)
        self.rmdir(folder)

    def listdir(self, path: Any) -> list[str]:
        names: list[Any] = self._call("listdir", self._relative(path), lambda: sorted(os.listdir(path)))
        self.order.shuffle(names)
        return names

    def scandir(self, path: Any) -> Any:
        return self._call("listdir", self._relative(path), lambda: os.scandir(path))

    def utime(self, path: Any) -> None:
        self._call("utime", self._relative(path), lambda: super(FaultySystem, self).utime(path))
