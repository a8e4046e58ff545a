"""A directory that appears whole or not at all: it is filled in the private directory of the output, then renamed."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from xcli.core.errors import OutputError, UsageError
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.staging import OLD_DIRECTORY, Staging, check_directory, exists_error, final_path, staging_path
from xcli.storage.streams import is_direct, write_error, write_errors
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_new_directory(target: str, overwrite: bool, mark: str) -> None:
    """Refuses a name that a directory cannot get, before anything is computed.

    A directory that a killed process was replacing gets its name back first.

    Args:
        target: the name.
        overwrite: whether a directory that holds a file called `mark` may be replaced.
        mark: the file by which a directory of the same kind is told from the user's own.

    Raises:
        UsageError: the name is empty, a URL, or standard output.
        OutputError: something has the name that may not be replaced, or its directory is not there.
    """
    if not target.rstrip("/"):
        raise UsageError(f"the output is a new directory; received the name {target!r}")
    if is_url(target) or is_direct(target):
        raise UsageError(f"{target!r}: the output is a directory of this machine; give its name with -o")
    final = final_path(target.rstrip("/"))
    check_directory(final)
    if not os.path.lexists(final) and os.path.isdir(os.path.join(staging_path(final), OLD_DIRECTORY)):
        Staging(final).close()
    if not os.path.lexists(final):
        return
    if not overwrite:
        raise exists_error(target)
    if not os.path.isdir(final):
        raise write_error(target, "it is not a directory")
    if not os.path.isfile(os.path.join(final, mark)) and os.listdir(final):
        raise OutputError(
            f"{one_line(target)} has no {mark}, so it was not written by this command and is not replaced; give "
            "another -o"
        )


@contextmanager
def whole_directory(target: str, overwrite: bool, mark: str) -> Iterator[str]:
    """Yields an empty directory to fill, which gets the name `target` at the end, unless the context raises.

    What it replaces is removed after the new one has the name. Where the system cannot exchange the two in one step, it
    is moved away just before; if this process is killed in between, the next one that is to write the same output puts
    it back. The arguments are those of `check_new_directory`.

    Raises:
        UsageError, OutputError: as `check_new_directory`; another process writes the output, or it cannot be written.
    """
    check_new_directory(target, overwrite, mark)
    final = final_path(target.rstrip("/"))
    staging = Staging(final)
    path = staging.new_file()
    try:
        with write_errors(target):
            disk.make_directory(path)
        yield path
        check_new_directory(target, overwrite, mark)
        with write_errors(target):
            _sync(path)
            with defer_signals():
                _give_name(path, final, os.path.join(staging.path, OLD_DIRECTORY))
    finally:
        with suppress(OSError):
            disk.remove_tree(path)
        staging.close()


def _sync(path: str) -> None:
    """Waits until the directory and everything below it is on the disk."""
    for folder, _, files in os.walk(path):
        for name in files:
            disk.sync_file(os.path.join(folder, name))
        disk.sync_directory(folder)


def _give_name(path: str, final: str, old: str) -> None:
    """Gives the directory at `path` its name. What had that before stays at `path`, or is removed."""
    if not os.path.lexists(final):
        disk.rename(path, final)
    elif not disk.exchange(path, final):
        disk.rename(final, old)
        try:
            disk.rename(path, final)
        except OSError:
            disk.rename(old, final)
            raise
    disk.sync_directory(os.path.dirname(final))
    with suppress(OSError):
        disk.remove_tree(old)
