"""`FILE.partial/`: the private directory of an output, where everything is until it is finished.

    lock           held by the process that writes the output, and names it; shows that the directory is this program's
    staged-...-0   complete files that wait for their names
    publish.json   the names that they are about to get; see `publish`
    old-0, ...     the files that they replace, or the directory, while that may still be undone

A run keeps its finished rows here too (`xcli.outputs.partial_file`). What a killed process left is found by the next
one that locks the directory, because nothing temporary is anywhere else.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.checked_json import MAX_BYTES
from xcli.core.errors import OutputError, OutputExistsError
from xcli.core.signals import defer_signals
from xcli.core.text import one_line
from xcli.storage import disk
from xcli.storage.directories import LocalFolder
from xcli.storage.ownership import LEFT, LOCK, PUBLISH, STAGED, SUFFIX, check_ownership
from xcli.storage.streams import write_error, write_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

log = logging.getLogger("xcli")

OLD_DIRECTORY = "old-0"
"""What `xcli.storage.whole_directory` calls the directory that it replaces, until the new one has the name."""

_MAX_NAME = 255  # bytes, of a file name on Linux
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def final_path(target: str) -> str:
    """Returns the path that an output gets: that of the file to which a symbolic link leads, which stays a link."""
    return os.path.realpath(target) if os.path.islink(target) else target


def staging_path(target: str) -> str:
    """Returns the private directory of an output; a name that would be too long is cut, and gets a digest."""
    folder, base = os.path.split(final_path(target))
    name = os.fsencode(base)
    if len(name) + len(SUFFIX) > _MAX_NAME:
        base = f"{os.fsdecode(name[:200])}-{blake2b(name, digest_size=8).hexdigest()}"
    return os.path.join(folder, base + SUFFIX)


@dataclass(frozen=True, slots=True)
class Staged:
    """A complete file in a private directory, and the name that it is to get.

    Attributes:
        staged, final: paths.
        replace: whether it may replace a file.
        shown: the name for messages.
    """

    staged: str
    final: str
    replace: bool
    shown: str


class PrivateFolder(LocalFolder):
    """The private directory of one output, as a folder."""

    def __init__(self, target: str) -> None:
        super().__init__(staging_path(target))
        self._target = target

    def make(self) -> bool:
        check_ownership(self.name)
        with write_errors(self._target):
            return self._make(0o700)

    def lock(self, name: str, target: str) -> None:
        """Locks the directory, which is made if necessary, and completes a publication that was cut short in it.

        Raises:
            OutputError: another process has locked it, it cannot be made, or is not this program's.
        """
        check_directory(target)
        _refuse_older(self.name, target)
        super().lock(name, target)
        try:
            with write_errors(target):
                disk.sync_directory(self.name)  # the lock tells whose the directory is, so it is there before the rest
            recover(self.name, target)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Removes the directory, unless it has something else than the lock; releases the lock."""
        if self._lock is not None:
            with suppress(OSError):
                if set(disk.names(self.name)) <= {LOCK}:
                    with suppress(OSError):
                        disk.sync_directory(self.name)  # for the same reason the rest is gone before it
                    disk.unlink(self._lock.path)
                    disk.remove_directory(self.name)
        super().close()


class Staging:
    """Files that are staged in the private directory of one output.

    Args:
        target: the output.
        locked: another object of this process holds the lock, and the directory is there.

    Raises:
        OutputError: as `PrivateFolder.lock` does.
    """

    def __init__(self, target: str, *, locked: bool = False) -> None:
        self._folder = PrivateFolder(target)
        # No other process uses these names, so that what it writes is never taken for a file of this one.
        self._prefix = os.path.join(self.path, f"staged-{os.urandom(4).hex()}")
        self._files = 0
        if not locked:
            self._folder.lock(LOCK, target)

    @property
    def path(self) -> str:
        """The directory."""
        return self._folder.name

    def new_file(self) -> str:
        """Returns a path for the next file to stage; nothing is there."""
        self._files += 1
        return f"{self._prefix}-{self._files - 1}"

    def close(self) -> None:
        """Releases the lock, if it is this object's, and removes the directory, unless it has something else."""
        self._folder.close()


def _refuse_older(path: str, target: str) -> None:
    """Raises OutputError if an older version began to write the output, where it kept rows beside a symbolic link."""
    older = target + SUFFIX
    if os.path.islink(target) and os.path.lexists(os.path.join(older, LOCK)):
        raise OutputError(
            f"{one_line(older)} has an unfinished run of an older version. Rename it to {one_line(path)} to continue "
            "that run, or remove it"
        )


def publish(files: Sequence[Staged]) -> None:
    """Gives files that belong together their names, in this order: all of them or none.

    `publish.json`, in the directory of the last one, says which. Once it is on the disk, whoever locks that directory
    completes what this process could not. Signals wait until the end; the note then stays, so that the same command
    can tell an output that it has finished from one that it must not replace.

    Args:
        files: staged, and on the disk.

    Raises:
        OutputError: one cannot get its name. Those before have lost theirs again, and what they replaced is back; if
            even that fails, the next process completes the publication.
    """
    folder = os.path.dirname(files[-1].staged)
    # Paths are relative, because the directory that holds the output may be moved.
    notes = []
    for one in files:
        staged, final = os.path.relpath(one.staged, folder), os.path.relpath(one.final, folder)
        notes.append({"staged": staged, "final": final, "replace": one.replace})
    with defer_signals() as signals:
        for one in files:
            if not one.replace and os.path.lexists(one.final):
                raise exists_error(one.shown)
        begun: list[_Begun] = []
        try:
            with write_errors(files[-1].shown):
                _sync_directories(one.staged for one in files)
                disk.replace_file(os.path.join(folder, PUBLISH), json.dumps(notes).encode())
            for number, one in enumerate(files):
                with write_errors(one.shown):
                    begun.append(_keep_old(one, os.path.join(os.path.dirname(one.staged), f"old-{number}")))
                    _give_name(one)
            with write_errors(files[-1].shown):
                _sync_directories(one.final for one in files)
        except BaseException:
            with suppress(OSError):
                _undo(begun)
                if begun:
                    _sync_directories(one.final for one in files)
                disk.unlink(os.path.join(folder, PUBLISH))
            raise
        # What cannot be removed now does no harm: the next process sees that all have their names.
        with suppress(OSError):
            if not signals:
                disk.unlink(os.path.join(folder, PUBLISH))
            for one, old, _ in begun:
                disk.unlink(one.staged)
                if old is not None:
                    disk.unlink(old)


def _sync_directories(paths: Iterable[str]) -> None:
    for folder in dict.fromkeys(map(os.path.dirname, paths)):
        disk.sync_directory(folder)


class _Begun(NamedTuple):
    """A file that is getting its name; the second name of the one that it replaces, and whether it replaces one."""

    file: Staged
    old: str | None
    replaces: bool


def _keep_old(one: Staged, path: str) -> _Begun:
    """Gives the file that is about to be replaced a second name, if there is such a file, and names can be added."""
    try:
        if one.replace:
            disk.link(one.final, path)
            return _Begun(one, path, replaces=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (*_NO_HARD_LINKS, errno.EXDEV):
            raise
        return _Begun(one, None, replaces=True)
    return _Begun(one, None, replaces=False)


def _give_name(one: Staged) -> None:
    """Gives a staged file its final name; a name that it keeps beside is removed when the new one is on the disk."""
    if one.replace:
        disk.rename(one.staged, one.final)
        return
    try:
        # Unlike a check before a rename, a link leaves other processes no gap.
        disk.link(one.staged, one.final)
    except FileExistsError:
        if not _is_named(one):
            raise exists_error(one.shown) from None
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if os.path.lexists(one.final):
            raise exists_error(one.shown) from None
        disk.rename(one.staged, one.final)


def _undo(begun: Sequence[_Begun]) -> None:
    for one, old, replaces in reversed(begun):
        if old is not None:
            disk.rename(old, one.final)
            disk.unlink(old)  # rename does nothing if both are names of one file
        elif not os.path.lexists(one.staged):
            if replaces:
                raise OSError(errno.ENOENT, "what was replaced has no second name")  # the note stays
            disk.unlink(one.final)
        elif _is_named(one):
            disk.unlink(one.final)


def _is_named(one: Staged) -> bool:
    """Returns whether a staged file has its final name already."""
    with suppress(FileNotFoundError):
        return os.path.samefile(one.staged, one.final)
    return False


def recover(path: str, target: str) -> None:
    """Completes a publication that was cut short in a private directory that this process has locked.

    Raises:
        OutputError: that is not possible now.
    """
    with defer_signals(), write_errors(target):
        files = pending(path, target)
        try:
            for one in files:
                if os.path.lexists(one.staged):
                    log.warning("completing %s, which an earlier process could not", one_line(one.final))
                    _give_name(one)
        except OutputExistsError:
            # Somebody has used the name in the meantime. What stands there stays.
            log.warning("%s has appeared since an earlier process was ended: its table is dropped", one_line(one.final))
        _sync_directories(one.final for one in files)
        for one in files:
            disk.unlink(one.staged)
        disk.unlink(os.path.join(path, PUBLISH))
        for left in (os.path.join(path, name) for name in disk.names(path) if LEFT.fullmatch(name)):
            if os.path.isdir(left) and not os.path.islink(left):
                _settle_directory(left, final_path(target))
            else:
                disk.unlink(left)


def _settle_directory(left: str, final: str) -> None:
    """Removes what `whole_directory` left; but what it was replacing gets its name back, if nothing has that."""
    if os.path.basename(left) == OLD_DIRECTORY and not os.path.lexists(final):
        log.warning("putting back %s, which an earlier process was ended at replacing", one_line(final))
        disk.rename(left, final)
        disk.sync_directory(os.path.dirname(final))
    else:
        disk.remove_tree(left)


def complete(target: str) -> bool:
    """Completes the publication of an output, if an earlier process was killed at it; returns whether it was.

    Raises:
        OutputError: that is not possible now, or another process writes the output.
    """
    if not pending(staging_path(target), target):
        return False
    Staging(target).close()
    return True


def pending(path: str, target: str) -> list[Staged]:
    """Returns the files of the private directory of an output that wait for their names: a publication was cut short.

    Raises:
        OutputError: that cannot be read now.
    """
    try:
        notes = json.loads(disk.read_file(os.path.join(path, PUBLISH), MAX_BYTES + 1))
        return [_noted(path, target, note) for note in notes]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise OutputError(f"cannot read {one_line(os.path.join(path, PUBLISH))}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        # It appears whole, so it was damaged later. The rows are still there, and are assembled again.
        return []


def _noted(path: str, target: str, note: dict[str, Any]) -> Staged:
    """Returns a file that `publish` has noted; ValueError where it has not, and a stranger would move or remove it."""
    staged, final = (os.path.normpath(os.path.join(path, note[name])) for name in ("staged", "final"))
    folder, name = os.path.split(staged)
    try:
        check_ownership(folder)
    except OutputError as error:
        raise ValueError(str(error)) from None
    # A file stands beside its private directory, or beside the symbolic link that leads there.
    folders = {os.path.realpath(os.path.dirname(one)) for one in (folder, target)}
    if not (folder.endswith(SUFFIX) and STAGED.fullmatch(name) and os.path.realpath(os.path.dirname(final)) in folders):
        raise ValueError("no publication notes such a file")
    return Staged(staged, final, bool(note["replace"]), final)


def exists_error(name: str) -> OutputExistsError:
    return OutputExistsError(f"{one_line(name)} exists; pass --overwrite to replace it")


def check_directory(target: str) -> None:
    """Raises OutputError if the directory of an output is not there."""
    directory = os.path.dirname(final_path(target)) or os.curdir
    if not os.path.isdir(directory):
        shown = one_line(directory)
        is_file = os.path.exists(directory)
        reason = f"{shown} is not a directory" if is_file else f"no such directory: {shown}, create it first"
        raise write_error(target, reason)
