"""The directory RUN of a fine-tuning, and `RUN.partial`: checkpoints and the bundle are there until RUN is complete.

When RUN has its name, the state in `RUN.partial` is renamed to `finished.json`, and only then the rest is removed:
whoever finds that file continues nothing, and removes what is left. The directory is synced between these steps, so
that they reach the disk in this order.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xcli.core.checked_json import MAX_BYTES, parse_object
from xcli.core.errors import OutputError, UsageError
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.evaluation.report import is_within
from xcli.models.bundle import BUNDLE_RECIPE
from xcli.storage import disk
from xcli.storage.directories import is_of_another_user
from xcli.storage.locks import FileLock
from xcli.storage.streams import write_errors
from xcli.storage.urls import is_url
from xcli.tables.provenance import digest
from xcli.training.activation_cache import DEFAULT_CACHE_BYTES
from xcli.training.checkpoints import STATE, Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FINISHED, SPLIT = "finished.json", "split.json"

_LOCK, _BUNDLE, _OLD = ".lock", "bundle", "old"
_FILE = r"(?:state\.json|finished\.json|split\.json|start-\d+\.npz|(?:head|blocks)-(?:last|best)-\d+\.npz)"
_OURS = re.compile(rf"{_FILE}|\.{_FILE}\.\d+-[0-9a-f]+\.tmp|{_FILE}\.tmp|\.lock|bundle|old")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where a run reads and writes.

    Attributes:
        source: the data, as the user named them.
        run: the directory to make.
        cache_dir: of activations; None is the user's cache directory.
        cache_bytes: that all activations may take there.
        overwrite: replace RUN.
        restart: discard what an unfinished run has left.
        command_line: for `run.json`.
        csv_safe: in the CSV files, put an apostrophe before texts that spreadsheets take for formulas.
    """

    source: str
    run: str
    cache_dir: str | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    overwrite: bool = False
    restart: bool = False
    command_line: str = ""
    csv_safe: bool = False

    @property
    def partial(self) -> str:
        """The directory of checkpoints."""
        return self.run.rstrip("/") + ".partial"

    @property
    def bundle(self) -> str:
        """The directory that becomes RUN."""
        return os.path.join(self.partial, _BUNDLE)


def check_paths(paths: RunPaths) -> None:
    """Refuses a RUN that cannot be made, before anything is read.

    Raises:
        UsageError: RUN is within the data, has no name, or is a URL.
        OutputError: RUN exists and no run has made it, its parent directory does not exist, or `RUN.partial` was not
            made by a run.
    """
    if not paths.run.strip("/"):
        raise UsageError(f"-o takes the name of a directory to make; received {paths.run!r}")
    if is_url(paths.run):
        raise UsageError(f"{paths.run!r}: finetune writes a directory of this machine; copy that to the object store")
    parent = os.path.dirname(paths.run.rstrip("/")) or os.curdir
    shown = one_line(paths.run)
    if is_within(paths.run, paths.source) or is_within(parent, paths.source):
        raise UsageError(f"{shown} is within the data; give a directory elsewhere")
    if not os.path.isdir(parent):
        raise OutputError(f"cannot write {shown}: the directory {one_line(parent)} does not exist; create it first")
    exists = os.path.lexists(paths.run)
    if exists and not os.path.isdir(paths.run):
        raise OutputError(f"{shown} exists and is not a directory; give another name")
    # Not even --overwrite: all that is in the directory would be removed.
    if exists and os.listdir(paths.run) and finished_fingerprint(paths.run) is None:
        raise OutputError(f"{shown} is not empty, and was not made by finetune; give another name")
    if not exists or paths.overwrite:
        _refuse_foreign(paths.partial)


def finished_fingerprint(run: str) -> str | None:
    """Returns the fingerprint of a finished run, or None if the directory is not one."""
    try:
        found = parse_object(disk.read_file(os.path.join(run, BUNDLE_RECIPE), MAX_BYTES + 1), {"fingerprint": str})[
            "fingerprint"
        ]
    except (OSError, ValueError, KeyError):
        return None
    return str(found)


def is_finished(paths: RunPaths, *settings: dict[str, Any]) -> bool:
    """Returns whether RUN is finished, with any of some settings, and then clears what is left beside it.

    Raises:
        OutputError: it is there, is not to be replaced, and has other settings or data.
    """
    run = paths.run
    if not os.path.isdir(run) or paths.overwrite or not os.listdir(run):
        return False
    for one in settings:
        if finished_fingerprint(run) == digest(one):
            clear_leftovers(paths, one)
            return True
    raise OutputError(f"{one_line(run)} exists, of a run with other settings or data; pass --overwrite")


def _refuse_foreign(folder: str) -> None:
    """Raises OutputError if something is in place of the directory of checkpoints that no run has made."""
    shown, foreign = one_line(folder), ""
    if os.path.islink(folder):
        foreign = "is a symbolic link"
    elif os.path.isdir(folder) and is_of_another_user(folder):
        foreign = "belongs to another user"
    elif os.path.isdir(folder):
        names = os.listdir(folder)
        # Directories of any content may have these two names; those of a run have its state beside them.
        known = STATE in names or FINISHED in names
        ours = [name for name in names if _OURS.fullmatch(name) and (known or name not in (_BUNDLE, _OLD))]
        other = sorted(set(names).difference(ours))
        if other or "process" not in FileLock(os.path.join(folder, _LOCK)).holder():
            foreign = f"holds {one_line(other[0])}" if other else f"holds a file called {_LOCK}"
    elif os.path.exists(folder):
        raise OutputError(f"{shown} must be a directory for checkpoints, but is a file: move it")
    if foreign:
        raise OutputError(
            f"{shown} {foreign}, which no unfinished run has left there; move it away, or give another -o (checkpoints "
            "are kept under that name)"
        )


@contextmanager
def exclusive(paths: RunPaths) -> Iterator[str]:
    """Makes the directory of checkpoints, and locks it for this process.

    It is emptied if `paths.restart` says so, or if it is what an earlier process could not clear away.

    Raises:
        OutputError: it cannot be made, was not made by a run, or another process has locked it.
    """
    folder = paths.partial
    _refuse_foreign(folder)
    lock = FileLock(os.path.join(folder, _LOCK))
    with write_errors(folder):
        disk.make_directory(folder, 0o700)
        locked = lock.acquire()
    if not locked:
        raise OutputError(f"{one_line(paths.run)} is being written by {one_line(lock.holder())}; wait until it ends")
    try:
        if paths.restart or os.path.exists(os.path.join(folder, FINISHED)):
            with write_errors(folder):
                _clear(folder)
        yield folder
    finally:
        lock.release()


def publish(paths: RunPaths) -> None:
    """Renames the finished bundle to RUN; an older RUN and the checkpoints are removed afterwards.

    Raises:
        OutputError: it cannot be renamed.
    """
    old = os.path.join(paths.partial, _OLD)
    run = paths.run.rstrip("/")
    with defer_signals(), write_errors(paths.run):
        disk.remove_tree(old)
        _sync_tree(paths.bundle)
        if os.path.lexists(run):
            disk.rename(run, old)
        try:
            disk.rename(paths.bundle, run)
        except OSError:
            if os.path.lexists(old):
                disk.rename(old, run)
            raise
        disk.sync_directory(os.path.dirname(run))
        disk.sync_directory(paths.partial)
    with suppress(OSError):  # the same command does it
        _remove(paths.partial)


def clear_leftovers(paths: RunPaths, settings: Mapping[str, Any]) -> None:
    """Removes the checkpoints of the run that has made RUN, if its process could not.

    Those of an unfinished run with other settings stay, and what another process uses, or what cannot be removed now.
    """
    lock = FileLock(os.path.join(paths.partial, _LOCK))
    with suppress(OSError, OutputError, UsageError):
        if not os.path.isdir(paths.partial):
            return
        _refuse_foreign(paths.partial)
        if lock.acquire():
            Checkpoints(paths.partial, settings).load()
            _remove(paths.partial)
    lock.release()


def _sync_tree(folder: str) -> None:
    """Waits until a directory with everything in it is on the disk: not all writers of its files do."""
    for path, _, names in os.walk(folder):
        for name in names:
            disk.sync_file(os.path.join(path, name))
        disk.sync_directory(path)


def _remove(folder: str) -> None:
    """Removes the locked directory of checkpoints of a finished run, unless others have put something there."""
    if os.path.exists(os.path.join(folder, STATE)):
        disk.rename(os.path.join(folder, STATE), os.path.join(folder, FINISHED))
        disk.sync_directory(folder)
    _clear(folder)
    disk.unlink(os.path.join(folder, _LOCK))
    disk.remove_directory(folder)


def _clear(folder: str) -> None:
    """Removes what a run has left, except the lock; the state goes last, because it tells that the rest is of a run."""
    names = set(filter(_OURS.fullmatch, os.listdir(folder))) - {_LOCK, STATE, FINISHED}
    for name in sorted(names):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            disk.remove_tree(path)
        else:
            disk.unlink(path)
    disk.sync_directory(folder)
    disk.unlink(os.path.join(folder, STATE))
    disk.unlink(os.path.join(folder, FINISHED))
