"""Files and objects that appear whole or not at all, under their final name only when they are complete.

A caller opens a file with `open_output`, writes to its `stream`, then calls `commit` on all files that belong together;
if anything fails before that, it calls `discard`. `write_atomically` does all of it for content in memory.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from xcli.core.errors import OutputError, OutputExistsError, UsageError
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.object_store import open_writable_store
from xcli.storage.streams import CheckedStream, DirectFile, WritableFile, is_direct, write_error, write_errors
from xcli.storage.temporary import TemporaryDirectory, unique_name
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("xcli")

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

# From this size on s3fs may upload in several parts, which an interrupted upload leaves behind.
_MULTIPART_BYTES = 50 * 2**20


class AtomicFile(WritableFile):
    """A regular file that has a hidden name in the same directory until it is published.

    A symbolic link is kept: the file it points to is replaced. The constructor raises OutputError when the name is
    taken or its directory cannot be written to.

    Args:
        target: the final name.
        overwrite: whether a file of that name may be replaced, even one that appears before `publish`.
        exclusive: the caller guarantees that no other process writes this file. Its hidden name is then always the
            same, so that the next run overwrites the file that a killed process left.
    """

    def __init__(self, target: str, overwrite: bool = False, *, exclusive: bool = False) -> None:
        self.name = target
        self._overwrite = overwrite
        self._final = os.path.realpath(target) if os.path.islink(target) else target
        directory, base = os.path.split(self._final)
        self._directory = directory or os.curdir
        if not os.path.isdir(self._directory):
            shown = one_line(self._directory)
            is_file = os.path.exists(self._directory)
            reason = f"{shown} is not a directory" if is_file else f"no such directory: {shown}, create it first"
            raise write_error(target, reason)
        self.check()
        # Cut, so that a name of the greatest length that the file system allows can still be written.
        short = os.fsdecode(os.fsencode(base)[:200])
        hidden = f".{short}.partial.tmp" if exclusive else f".{unique_name(short)}.tmp"
        self._temporary = os.path.join(self._directory, hidden)
        self._created = False
        with write_errors(target):
            if exclusive:
                disk.unlink(self._temporary)
            self.stream = CheckedStream(disk.create(self._temporary), target)

    def check(self) -> None:
        if os.path.isdir(self._final):
            raise write_error(self.name, "it is a directory; give the name of a file")
        if not self._overwrite and os.path.lexists(self._final):
            raise _exists_error(self.name)

    def prepare(self) -> None:
        self.stream.sync()
        self.stream.close()

    def publish(self) -> None:
        with write_errors(self.name):
            if self._overwrite:
                disk.rename(self._temporary, self._final)
            else:
                self._link()
            disk.sync_directory(self._directory)

    def _link(self) -> None:
        """Renames without ever replacing: unlike a check before a rename, this leaves other processes no gap."""
        try:
            disk.link(self._temporary, self._final)
        except FileExistsError:
            raise _exists_error(self.name) from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self.check()
            disk.rename(self._temporary, self._final)
            self._created = True
        else:
            self._created = True
            disk.unlink(self._temporary)

    def discard(self) -> None:
        self.stream.drop()
        with suppress(OSError):
            disk.unlink(self._temporary)

    def withdraw(self) -> None:
        self.discard()
        if self._created:
            with suppress(OSError):
                disk.unlink(self._final)


class ObjectFile(WritableFile):
    """An object of a store that appears when it is complete; until then its content is in a local temporary file.

    Whether another process can create the object between the check and the upload depends on the store: S3 refuses
    the later of two new objects, other stores may not. The constructor raises OutputError when there is an object
    already or the bucket cannot be accessed, and UsageError as `open_writable_store` does.
    """

    def __init__(self, target: str, overwrite: bool = False) -> None:
        self.name = target
        self._overwrite = overwrite
        self._store = open_writable_store(target)
        self._created = False
        self.check()
        self._directory = TemporaryDirectory(target)
        self._temporary = os.path.join(self._directory.path, "content")
        name = f"{target} (in {self._temporary} until it is whole)"
        with write_errors(name):
            self.stream = CheckedStream(disk.create(self._temporary), name)

    def check(self) -> None:
        if self._store.exists() and not self._overwrite:
            raise _exists_error(self.name)

    def prepare(self) -> None:
        self.stream.flush()
        self.stream.close()

    def publish(self) -> None:
        # An interrupted upload may or may not complete later, so the first signal waits for it.
        with defer_signals():
            if os.path.getsize(self._temporary) >= _MULTIPART_BYTES:
                self._store.abort_uploads("")  # what an earlier process left, which was killed at this point
            if not self._store.upload(self._temporary, "", create=not self._overwrite):
                raise _exists_error(self.name)
            self._created = not self._overwrite
            self._directory.close()

    def discard(self) -> None:
        self.stream.drop()
        self._directory.close()

    def withdraw(self) -> None:
        self.discard()
        if self._created:
            try:
                self._store.unlink("")
            except OutputError as error:
                log.info("%s", error)


def open_output(target: str | None, overwrite: bool, *, exclusive: bool = False) -> WritableFile:
    """Opens a file, FIFO, device, descriptor, URL, or standard output (None or `-`) for writing; see `AtomicFile`.

    Raises:
        UsageError: the name is empty.
        OutputError: the name is taken, or cannot be written.
    """
    if target == "":
        raise UsageError("the name of the output is empty; give a file, or - for standard output")
    if target is None or is_direct(target):
        return DirectFile(target)
    return _open_atomic(target, overwrite, exclusive)


def _open_atomic(target: str, overwrite: bool, exclusive: bool) -> WritableFile:
    if is_url(target):
        return ObjectFile(target, overwrite)
    return AtomicFile(target, overwrite, exclusive=exclusive)


def commit(files: Sequence[WritableFile]) -> None:
    """Makes files that belong together appear, in this order; all are complete before the first one is published.

    Raises:
        OutputError: one could not be written. Those that are new were removed again; those that replaced another
            file remain.
    """
    for file in files:
        file.prepare()
    for file in files:
        file.check()
    started: list[WritableFile] = []
    try:
        for file in files:
            started.append(file)
            file.publish()
    except BaseException:
        for file in started:
            file.withdraw()
        raise


def write_atomically(target: str, data: bytes | memoryview, *, overwrite: bool, exclusive: bool = False) -> None:
    """Writes a file or an object that appears whole or not at all, or raises OutputError; see `AtomicFile`."""
    file = _open_atomic(target, overwrite, exclusive)
    try:
        file.stream.write(data)
        commit([file])
    except BaseException:
        file.discard()
        raise


def rename_durably(source: str, target: str) -> None:
    """Renames a closed file within its directory, after its content and before returning the name is on the disk."""
    disk.sync_file(source)
    disk.rename(source, target)
    disk.sync_directory(os.path.dirname(target))


def _exists_error(name: str) -> OutputExistsError:
    return OutputExistsError(f"{one_line(name)} exists; pass --overwrite to replace it")
