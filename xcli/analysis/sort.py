"""`sort`: the files of a table put into a folder for each class, and taken back.

The plan is in a log on the disk before the first file is touched (`sort_log`). Each placement is one call of the system
that gives a name, so a process that is killed anywhere has made it or has not; the same command looks, and goes on.
Across file systems a move is a copy that is compared, and then removed at its source.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xcli.analysis.destination import Destination, LocalSource, Source, copy_new, locate, same_content, status_in
from xcli.analysis.sort_log import Placement, SortLog
from xcli.analysis.sort_plan import COPY, HARDLINK, IN_PLACE, MOVE, SYMLINK, Plan, SortOptions
from xcli.core.errors import ImageError, OutputError
from xcli.core.text import escape_path, one_line
from xcli.sources.archives.listing import SEPARATOR, Archives
from xcli.sources.patterns import PathFilter
from xcli.storage import disk
from xcli.storage.streams import write_error, write_errors
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable

    Told = Callable[[int, int], object]


@dataclass
class Sorted:
    """What was done.

    Attributes:
        log: the path of the log; an empty text where nothing had to be done.
        done: number of files that are in their places now.
        problems: paths, as in the table, that are not, with the reason.
        passed_over: rows that have no place, by reason.
    """

    log: str = ""
    done: int = 0
    problems: list[tuple[str, ImageError]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def _untold(*numbers: int) -> None:
    pass


def _archives() -> Archives:
    return Archives(PathFilter(), Counter())


def foresee(plan: Plan, path: str, options: SortOptions) -> None:
    """Gives the files of a plan names in a destination, which may be missing; nothing is changed.

    Files that were placed by the same command are passed over, and those that cannot be placed become problems.
    """
    if not os.path.isdir(path):
        plan.settle(lambda folder: [], lambda place: False)
    else:
        with Destination(path) as destination:
            log = os.path.join(destination.path, plan.log)
            if os.path.lexists(log):
                _leave_undone(plan, SortLog.read(log), destination)
            else:
                _settle(plan, destination, options)
    wanted, plan.placements = plan.placements, []
    for place in wanted:
        try:
            if not is_url(place.source) and (SEPARATOR not in place.source or os.path.lexists(place.source)):
                _require_file(place.source, follow=options.mode != MOVE)
        except ImageError as error:
            plan.problems.append((escape_path(place.source), error))
        else:
            plan.placements.append(place)


def _leave_undone(plan: Plan, log: SortLog, destination: Destination) -> None:
    """Gives a plan the placements of a log that are not made yet."""
    archives = _archives()
    for place in log.placements:
        is_done = False
        if destination.has_folder(place.folder):
            with destination.folder(place.folder) as folder, suppress(ImageError):
                if log.mode == MOVE and not os.path.lexists(place.source):
                    is_done = status_in(folder, place.name) is not None
                else:
                    is_done = _is_placed(place, locate(place.source, archives), folder, log.mode)
        if is_done:
            plan.passed_over[IN_PLACE] += 1
        else:
            plan.placements.append(place)


def _settle(plan: Plan, destination: Destination, options: SortOptions) -> None:
    archives = _archives()

    def names_in(folder: str) -> list[str]:
        if not destination.has_folder(folder):
            return []
        with destination.folder(folder) as descriptor:
            return os.listdir(descriptor)

    def is_placed(place: Placement) -> bool:
        with destination.folder(place.folder) as descriptor, suppress(ImageError):
            return _is_placed(place, locate(place.source, archives), descriptor, options.mode)
        return False

    plan.settle(names_in, is_placed)


def _is_placed(place: Placement, source: Source, folder: int, mode: str) -> bool:
    """Says whether what has the name in the folder is this file; raises ImageError."""
    status = status_in(folder, place.name)
    if status is None:
        return False
    if mode == SYMLINK:
        return stat.S_ISLNK(status.st_mode) and os.readlink(place.name, dir_fd=folder) == place.source
    if mode in (HARDLINK, MOVE) and isinstance(source, LocalSource):
        with suppress(OSError):
            return os.path.samestat(os.stat(source.path, follow_symlinks=mode == HARDLINK), status)
        return False
    return same_content(source, folder, place.name)


def sort_files(
    plan: Plan,
    path: str,
    options: SortOptions,
    *,
    progress: Told = _untold,
    on_total: Callable[[int], object] = _untold,
) -> Sorted:
    """Puts the files of a plan into a destination, which is made if necessary; continues what was interrupted.

    Args:
        plan: what is to be done.
        path: of the destination.
        options: those of the plan.
        progress: is told of each file: 1, and 1 if it could not be placed.
        on_total: is told how many files there are, before the first of them.

    Raises:
        OutputError: the destination cannot be written, a folder in it is a link, or another process sorts into it.
    """
    with write_errors(path):
        disk.make_directories(path)
    result = Sorted(problems=list(plan.problems), passed_over=plan.passed_over)
    with Destination(path) as destination:
        log = os.path.join(destination.path, plan.log)
        if os.path.lexists(log):
            found = SortLog.read(log)
        else:
            made = not [one for one in disk.names(destination.path) if not one.startswith(plan.log)]
            _settle(plan, destination, options)
            folders = sorted({one.folder for one in plan.placements})
            new = [one for one in folders if not destination.has_folder(one)]
            found = SortLog(options.mode, new, made, plan.placements)
            if found.placements:
                found.write(log)
        placer = _Placer(destination, options.mode, log)
        on_total(len(found.placements))
        for place in found.placements:
            progress(1, _count(result, place, placer.place))
        placer.sync({one.folder for one in found.placements})
        result.log = log if found.placements else ""
    return result


def _count(result: Sorted, place: Placement, act: Callable[[Placement], None]) -> int:
    """Counts a file as done, or as a problem; returns the number of problems."""
    try:
        act(place)
    except ImageError as error:
        result.problems.append((escape_path(place.source), error))
        return 1
    result.done += 1
    return 0


class _Placer:
    """Gives files their places, or takes them back from there; what is done already is left."""

    def __init__(self, destination: Destination, mode: str, log: str) -> None:
        self._destination, self._mode = destination, mode
        self._archives = _archives()
        # In the destination, whose folders are on its file system; the name is the log's, so it is nobody else's.
        self._temporary = os.path.basename(log) + ".part"

    def place(self, place: Placement) -> None:
        """Puts a file into its place; ImageError says why that cannot be, OutputError that nothing more can be."""
        with self._destination.folder(place.folder, make=True) as folder:
            try:
                getattr(self, f"_{self._mode}")(place, folder)
            except FileExistsError:
                raise ImageError("unreadable", f"{self._shown(place)} is another file, and stays") from None
            except OSError as error:
                raise write_error(self._shown(place), one_line(error.strerror or str(error))) from error

    def _shown(self, place: Placement) -> str:
        return one_line(os.path.join(self._destination.path, place.folder, place.name))

    def _copy(self, place: Placement, folder: int) -> None:
        source = locate(place.source, self._archives)
        if status_in(folder, place.name) is None:
            copy_new(source, folder, place.name, self._temporary, self._destination.descriptor)
        elif not same_content(source, folder, place.name):
            raise FileExistsError

    def _link(self, place: Placement, folder: int, make: Callable[[str, int, str], None]) -> None:
        _require_file(place.source, follow=True)
        try:
            make(place.source, folder, place.name)
        except FileExistsError:
            if not _is_placed(place, LocalSource(place.source), folder, self._mode):
                raise

    def _hardlink(self, place: Placement, folder: int) -> None:
        try:
            self._link(place, folder, disk.system.link_in)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            reason = "hard links do not lead to another file system; use --mode copy or symlink"
            raise write_error(self._shown(place), reason) from None

    def _symlink(self, place: Placement, folder: int) -> None:
        self._link(place, folder, disk.system.symlink_in)

    def _move(self, place: Placement, folder: int) -> None:
        source, there = LocalSource(place.source), status_in(folder, place.name)
        here = source.status()
        if here is None and there is not None and stat.S_ISREG(there.st_mode):
            return
        _require_file(place.source, follow=False)
        if there is None:
            try:
                disk.rename_new(place.source, place.name, folder=folder)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            copy_new(source, folder, place.name, self._temporary, self._destination.descriptor, check=True)
            disk.system.fsync(folder)
        elif _is_same_name(place, folder):
            return
        elif not same_content(source, folder, place.name):
            raise FileExistsError
        disk.unlink(place.source)

    def sync(self, folders: set[str]) -> None:
        """Waits until the names are on the disk."""
        for name in sorted(folders):
            if self._destination.has_folder(name):
                with self._destination.folder(name):
                    disk.sync_directory(os.path.join(self._destination.path, name))
        with write_errors(self._destination.path):
            disk.sync_directory(self._destination.path)

    def take_back(self, place: Placement) -> None:
        """Takes a file back from its place; ImageError says why it stays there."""
        if not self._destination.has_folder(place.folder):
            there = None
        else:
            with self._destination.folder(place.folder) as folder:
                there = status_in(folder, place.name)
                if there is not None:
                    self._take_back(place, folder)
                    return
        if self._mode == MOVE and LocalSource(place.source).status() is None:
            raise ImageError("missing", f"it is no longer at {self._shown(place)}")

    def _take_back(self, place: Placement, folder: int) -> None:
        try:
            if self._mode == MOVE:
                self._move_back(place, folder)
            elif _is_placed(place, locate(place.source, self._archives), folder, self._mode):
                disk.unlink_in(folder, place.name)
            else:
                raise ImageError("unreadable", f"{self._shown(place)} is not what was put there, and stays")
        except OSError as error:
            raise ImageError("unreadable", f"{self._shown(place)} stays: {error.strerror}") from None

    def _move_back(self, place: Placement, folder: int) -> None:
        source = LocalSource(place.source)
        if source.status() is not None:
            if _is_same_name(place, folder) or not same_content(source, folder, place.name):
                raise ImageError("unreadable", f"another file has its old name; it stays at {self._shown(place)}")
            disk.unlink_in(folder, place.name)
            return
        try:
            disk.rename_new(place.name, place.source, source_folder=folder)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            inner = LocalSource(f"/proc/self/fd/{folder}/{place.name}")
            above = disk.system.open(os.path.dirname(place.source), os.O_RDONLY | os.O_DIRECTORY)
            try:
                copy_new(inner, above, os.path.basename(place.source), self._temporary, above, check=True)
                disk.system.fsync(above)
            finally:
                disk.close(above)
            disk.unlink_in(folder, place.name)


def _require_file(path: str, *, follow: bool) -> None:
    """Raises ImageError if a path is not a regular file."""
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from error
    if stat.S_ISLNK(mode):
        raise ImageError("not-a-file", "it is a symbolic link, which is not moved; use another --mode")
    if not stat.S_ISREG(mode):
        raise ImageError("not-a-file", "it is not a regular file")


def _is_same_name(place: Placement, folder: int) -> bool:
    """Says whether source and place are one name of one file, by whichever path."""
    if os.path.basename(place.source) != place.name:
        return False
    with suppress(OSError):
        return os.path.samestat(os.stat(os.path.dirname(place.source)), os.fstat(folder))
    return False


def undo(log: str, *, progress: Told = _untold, on_total: Callable[[int], object] = _untold) -> Sorted:
    """Takes back what a log says, the last file first; then removes the folders that were made, and the log.

    Args:
        log: its path.
        progress, on_total: as in `sort_files`.

    Raises:
        SourceError, CheckError: there is no such log.
        OutputError: the destination cannot be changed.
    """
    found = SortLog.read(log)
    if found.mode not in (COPY, HARDLINK, SYMLINK, MOVE):
        raise OutputError(f"{one_line(log)} is of another version: it has the mode {one_line(found.mode)}")
    result = Sorted(log=log)
    with Destination(os.path.dirname(os.path.abspath(log))) as destination:
        placer = _Placer(destination, found.mode, log)
        on_total(len(found.placements))
        for place in reversed(found.placements):
            progress(1, _count(result, place, placer.take_back))
        with write_errors(log):
            disk.unlink_in(destination.descriptor, os.path.basename(log) + ".part")
            for folder in found.folders:
                with suppress(OSError):  # something else is in it, or it is gone
                    disk.system.rmdir_in(destination.descriptor, folder)
            if not result.problems:
                disk.unlink(log)
                if found.made:
                    with suppress(OSError):
                        disk.remove_directory(destination.path)
    return result
