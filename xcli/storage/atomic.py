"""Files and objects that appear whole or not at all, under their final name only when they are complete.

A caller opens a file with `open_output`, writes to its `stream`, then calls `commit` on all files that belong together;
if anything fails before that, it calls `discard`.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from xcli.core.errors import OutputError, UsageError
from xcli.core.levels import DETAIL
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.object_store import open_writable_store
from xcli.storage.ownership import PUBLISH
from xcli.storage.staging import Staged, Staging, exists_error, final_path, publish
from xcli.storage.streams import CheckedStream, DirectFile, WritableFile, is_direct, write_error, write_errors
from xcli.storage.temporary import TemporaryDirectory
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger("xcli")

# From this size on s3fs may upload in several parts, which an interrupted upload leaves behind.
_MULTIPART_BYTES = 50 * 2**20


class AtomicFile(WritableFile):
    """A regular file that is in a private directory (`xcli.storage.staging`) until it is published.

    A symbolic link is kept: the file it points to is replaced. The constructor raises OutputError when the name is
    taken, another process writes the output, or its directory cannot be written to.

    Args:
        target: the final name.
        overwrite: whether a file of that name may be replaced, even one that appears before `publish`.
        staging: the private directory of the output to which the file belongs, which stays locked; without it the file
            is an output of its own.
    """

    def __init__(self, target: str, overwrite: bool = False, staging: Staging | None = None) -> None:
        self.name = target
        self._overwrite = overwrite
        self._final = final_path(target)
        self.check()
        self._owned: Staging | None = None
        if staging is None:
            staging = self._owned = Staging(target)
        path = staging.new_file()
        try:
            self._require_disk(staging)
            with write_errors(target):
                self.stream = CheckedStream(disk.create(path), target)
        except BaseException:
            self._close()
            raise
        self.staged = Staged(path, self._final, overwrite, target)
        self._published = False

    def check(self) -> None:
        if os.path.isdir(self._final):
            raise write_error(self.name, "it is a directory; give the name of a file")
        with write_errors(self.name), suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(self._final)  # a name that is too long is found now, and not at the end
        if not self._overwrite and os.path.lexists(self._final):
            raise exists_error(self.name)

    def _require_disk(self, staging: Staging) -> None:
        """Finds out at the start, not after the last image, that the file could not get its name without a copy."""
        folder = os.path.dirname(self._final) or os.curdir
        with write_errors(self.name):
            same = os.stat(folder).st_dev == os.stat(staging.path).st_dev
        if not same:
            raise write_error(
                self.name,
                f"the symbolic link leads to {one_line(folder)}, on another disk than {one_line(staging.path)}; the "
                "files of one output must be on one disk",
            )

    def prepare(self) -> None:
        self.stream.sync()
        self.stream.close()

    def publish(self) -> None:
        publish([self.staged])
        self.mark_published()

    def mark_published(self) -> None:
        """Ends the use of the private directory by a file that has its name."""
        self._published = True
        self._close()

    def discard(self) -> None:
        self.stream.drop()
        # While a publication is to be completed, its files stay.
        if not os.path.lexists(os.path.join(os.path.dirname(self.staged.staged), PUBLISH)):
            with suppress(OSError):
                disk.unlink(self.staged.staged)
        self._close()

    def withdraw(self) -> None:
        self.discard()
        if self._published and not self._overwrite:
            with suppress(OSError):
                disk.unlink(self._final)

    def _close(self) -> None:
        if self._owned is not None:
            self._owned.close()


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
            raise exists_error(self.name)

    def prepare(self) -> None:
        self.stream.flush()
        self.stream.close()

    def publish(self) -> None:
        # An interrupted upload may or may not complete later, so the first signal waits for it.
        with defer_signals():
            if os.path.getsize(self._temporary) >= _MULTIPART_BYTES:
                self._store.abort_uploads("")  # what an earlier process left, which was killed at this point
            if not self._store.upload(self._temporary, "", create=not self._overwrite):
                raise exists_error(self.name)
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
                log.log(DETAIL, "%s", error)


def open_output(target: str | None, overwrite: bool, staging: Staging | None = None) -> WritableFile:
    """Opens a file, FIFO, device, descriptor, URL, or standard output (None or `-`) for writing; see `AtomicFile`.

    Raises:
        UsageError: the name is empty.
        OutputError: the name is taken, or cannot be written.
    """
    if target == "":
        raise UsageError("the name of the output is empty; give a file, or - for standard output")
    if target is None or is_direct(target):
        return DirectFile(target)
    if is_url(target):
        return ObjectFile(target, overwrite)
    return AtomicFile(target, overwrite, staging)


@contextmanager
def published(target: str, overwrite: bool) -> Iterator[WritableFile]:
    """Opens a file as `open_output` does, and makes it appear at the end of the context, but not if that raises."""
    file = open_output(target, overwrite)
    try:
        yield file
        commit([file])
    except BaseException:
        file.discard()
        raise


def commit(files: Sequence[WritableFile]) -> None:
    """Makes files that belong together appear, in this order; all are complete before the first one is published.

    Raises:
        OutputError: one could not be written. Then none of the files of a disk appears (see `publish`); objects that
            are new were removed again, those that replaced another one remain.
    """
    for file in files:
        file.prepare()
    for file in files:
        file.check()
    local = [file for file in files if isinstance(file, AtomicFile)]
    if len(local) == len(files):
        publish([file.staged for file in local])
        for file in local:
            file.mark_published()
        return
    with defer_signals():
        started: list[WritableFile] = []
        try:
            for file in files:
                started.append(file)
                file.publish()
        except BaseException:
            for file in started:
                file.withdraw()
            raise


def write_atomically(path: str, data: bytes | memoryview) -> None:
    """Writes or replaces a local file in a directory that no other process writes to; see `disk.replace_file`.

    Raises:
        OutputError: that fails; the older file is still there.
    """
    with write_errors(path):
        disk.replace_file(path, data)
