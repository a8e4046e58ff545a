"""Walking directories and globs to `ImageRef`s: lazily, in byte order, depth first, one directory listing a level.

Within the walk a path is bytes, as the operating system has it; text is made only where a ref is. Regular files are
never stat-ed: their kind comes with the directory entry.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, SourceError
from xcli.core.records import ImageRef
from xcli.core.text import escape_path
from xcli.images.formats import has_image_extension
from xcli.sources.archives.members import is_archive_name
from xcli.sources.patterns import PathFilter, PathPattern, Positions, has_magic
from xcli.storage.local import LocalFile, file_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.sources.archives.listing import Archives


_FILE, _DIRECTORY, _OTHER = range(3)  # _OTHER is whatever needs a stat: links, devices, kinds the listing did not tell


def make_ref(location: bytes, key: bytes, error: ImageError | None = None) -> ImageRef:
    """Makes the ref of a path."""
    text = os.fsdecode(location)
    return ImageRef(escape_path(text), LocalFile(text), key, error)


def look_at(path: bytes) -> tuple[bool, ImageError | None]:
    """Finds out what a path names, following links and opening nothing.

    Returns:
        Whether it is a directory; and, where it is neither directory nor regular file, what is wrong.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        return False, ImageError("missing", "the path holds a NUL byte, which no file name can")
    except (FileNotFoundError, NotADirectoryError):
        dangling = os.path.islink(path)
        return False, ImageError("missing", "a dangling symbolic link" if dangling else "no such file or directory")
    except OSError as error:
        return False, ImageError("unreadable", f"cannot look at the path: {error.strerror}")
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        return stat.S_ISDIR(mode), None
    return False, ImageError("not-a-file", f"it is {file_kind(mode)}, not a regular file")


def _kind(entry: os.DirEntry[bytes]) -> int:
    try:
        if entry.is_file(follow_symlinks=False):
            return _FILE
        if entry.is_dir(follow_symlinks=False):
            return _DIRECTORY
    except OSError:
        pass  # the file system tells kinds by stat only, and that failed: it will again when the entry's turn comes
    return _OTHER


@dataclass(slots=True)
class _Level:
    """A directory on the way from the top of a walk to where it stands.

    Attributes:
        path: the directory; empty for the current one.
        key: its path relative to the source; empty for the source itself.
        whole: whether everything below it belongs to the listing, as in a directory source.
        positions: where the glob stands here; empty when it leads no further, or there is none.
        linked: whether a symbolic link lies between the top and here. Only then can a directory be its own ancestor.
        names: entries not yet visited, last first, so that memory shrinks on the way.
        kinds: kinds of the entries that are not plain files.
    """

    path: bytes
    key: bytes = b""
    whole: bool = True
    positions: Positions = ()
    linked: bool = False
    names: list[bytes] = field(default_factory=list)
    kinds: dict[bytes, int] = field(default_factory=dict)
    _identity: tuple[int, int] | None = None

    def read(self, only: str | None) -> ImageError | None:
        """Lists the directory, or looks for the one name that can matter; returns what went wrong."""
        if only is not None:
            self._read_one(os.fsencode(only))
            return None
        try:
            with os.scandir(self.path or b".") as entries:
                for entry in entries:
                    self.names.append(entry.name)
                    if (kind := _kind(entry)) != _FILE:
                        self.kinds[entry.name] = kind
        except FileNotFoundError:
            return ImageError("missing", "cannot list the directory: it is gone since it was found")
        except OSError as error:
            return ImageError("unreadable", f"cannot list the directory: {error.strerror}")
        self.names.sort(reverse=True)
        return None

    def _read_one(self, name: bytes) -> None:
        try:
            os.lstat(_join(self.path, name))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return
        except OSError:
            pass  # it may be there: the walk finds the same error and makes it a row
        self.names, self.kinds = [name], {name: _OTHER}

    def identity(self) -> tuple[int, int] | None:
        if self._identity is None:
            self._identity = _identity(self.path or b".")
        return self._identity


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + name if not directory or directory.endswith(b"/") else directory + b"/" + name


class Walker:
    """Walks on behalf of one listing.

    Entries whose name begins with a dot are passed over, links are followed, and a directory that is its own ancestor
    through a link is not entered again. What cannot be listed, FIFOs, devices and dangling links with an image's name
    become refs with an error, so that every loss is a row.
    """

    def __init__(
        self, path_filter: PathFilter, skipped: dict[str, int], archives: Archives, *, into_archives: bool = False
    ) -> None:
        """Prepares to walk.

        Args:
            path_filter: which entries to leave out.
            skipped: counts, by reason, of the entries passed over; a directory counts once.
            archives: what lists archives.
            into_archives: list those that are found in directories too, not only those that a glob matches.
        """
        self.path_filter = path_filter
        self.archives = archives
        self.into_archives = into_archives
        self._skipped = skipped

    def skip(self, reason: str) -> None:
        """Counts one entry as passed over."""
        self._skipped[reason] = self._skipped.get(reason, 0) + 1

    def directory(self, top: bytes) -> Iterator[ImageRef]:
        """Lists the images below a directory; `top` is empty for the current one, without a prefix to the paths."""
        for ref in _Walk(self, None).run(_Level(top)):
            if ref is not None:
                yield ref

    def glob(self, pattern: str) -> Iterator[ImageRef | None]:
        """Lists what a glob matches: files whatever their extension, directories as `directory` lists them.

        Args:
            pattern: a path with `*`, `?`, `[...]` or `**` in it.

        Yields:
            A ref, or None for a match that gives no ref itself (a directory, a file that is filtered out), so that
            the first item tells that the glob matches at all.

        Raises:
            SourceError: a `..` follows a wildcard (on the first item).
        """
        components = pattern.split("/")
        fixed = next(index for index, text in enumerate(components) if has_magic(text))
        base = os.fsencode("/".join([*components[:fixed], ""]))
        wild = [text for text in components[fixed:] if text not in ("", ".")]
        if ".." in wild:
            raise SourceError(f"the pattern '{escape_path(pattern)}' has '..' after a wildcard; write it without")
        path_pattern = PathPattern(wild, hidden=False)
        start = path_pattern.start()
        if not os.path.isdir(base or b"."):
            return
        base_matches = path_pattern.matched(start)
        if base_matches:
            yield None
        walk = _Walk(self, path_pattern, directories_only=pattern.endswith("/"))
        yield from walk.run(_Level(base, key=base, whole=base_matches, positions=start))


class _Walk:
    """One walk under way. The levels are a list, not recursion, so that depth has no limit but the file system's."""

    def __init__(self, walker: Walker, pattern: PathPattern | None, *, directories_only: bool = False) -> None:
        self._walker = walker
        self._filter = walker.path_filter
        self._pattern = pattern
        self._directories_only = directories_only
        self._levels: list[_Level] = []
        self._matched = False  # whether the entry last visited matches the glob
        self._archive: tuple[bytes, bytes] | None = None  # path and key of one to be listed next

    def run(self, top: _Level) -> Iterator[ImageRef | None]:
        """Walks; see `Walker.glob` for what None means."""
        error = self._open(top)
        if error is not None:
            yield make_ref(top.path or b".", top.key or top.path, error)
        while self._levels:
            level = self._levels[-1]
            if not level.names:
                self._levels.pop()
                continue
            self._matched = False
            ref = self._visit(level, level.names.pop())
            if ref is not None or self._matched:
                yield ref
            if self._archive is not None:
                archive, self._archive = self._archive, None
                yield from self._walker.archives.members(*archive)

    def _open(self, level: _Level) -> ImageError | None:
        """Goes down one level, unless the directory cannot be listed."""
        only = None if self._pattern is None or level.whole else self._pattern.only_name(level.positions)
        error = level.read(only)
        if error is None:
            self._levels.append(level)
        return error

    def _visit(self, level: _Level, name: bytes) -> ImageRef | None:
        """Looks at one entry: gives its ref if it has one, goes down if it is a directory to be walked."""
        positions: Positions = ()
        leads_on = False
        if self._pattern is not None and level.positions:
            positions = self._pattern.step(level.positions, os.fsdecode(name))
            self._matched = self._pattern.matched(positions)
            leads_on = self._pattern.leads_on(positions)
        if not positions:
            if not level.whole:
                return None
            if name.startswith(b"."):
                self._walker.skip("hidden")
                return None
        path, key = _join(level.path, name), _join(level.key, name)
        kind, problem = level.kinds.get(name, _FILE), None
        linked = level.linked or kind == _OTHER
        if kind == _OTHER:
            is_directory, problem = look_at(path)
            kind = _DIRECTORY if is_directory else _FILE
        if kind == _DIRECTORY:
            below = _Level(path, key, level.whole or self._matched, positions if leads_on else (), linked)
            error = self._open(below) if self._enters(below) else None
            return None if error is None else make_ref(path, key, error)
        # A link that leads nobody knows where may be a directory that the glob goes through: not lost in silence.
        blocked = leads_on and problem is not None and problem.reason == "unreadable"
        self._matched = self._matched and not self._directories_only
        taken = blocked or self._matched
        if (self._matched or (level.whole and self._walker.into_archives)) and is_archive_name(name):
            return self._visit_archive(path, key, problem)
        if (taken or level.whole) and self._wants(name, key, problem, taken=taken):
            return make_ref(path, key, problem)
        return None

    def _visit_archive(self, path: bytes, key: bytes, problem: ImageError | None) -> ImageRef | None:
        """Leaves an archive to `run`, unless it is excluded, as a directory would be, or cannot be one."""
        if self._filter.refuses_directory(key):
            self._walker.skip("excluded")
            return None
        if problem is not None:
            return make_ref(path, key, problem)
        self._archive = path, key
        return None

    def _wants(self, name: bytes, key: bytes, problem: ImageError | None, *, taken: bool) -> bool:
        """Says whether a file is listed, and counts it if not."""
        reason = self._filter.refuses_file(key, looks_like_image=taken or has_image_extension(name))
        if reason is None:
            return True
        if reason == "not an image" and problem is not None and problem.reason != "not-a-file":
            reason = "broken symlink"  # it may have led to a directory of images
        self._walker.skip(reason)
        return False

    def _enters(self, level: _Level) -> bool:
        """Says whether a directory is entered, and counts it if it was excluded or is its own ancestor."""
        if not level.whole and not level.positions:
            return False
        if self._filter.refuses_directory(level.key):
            self._walker.skip("excluded")
            return False
        # A glob of fixed depth cannot run in circles, and `*/x.jpg` means the x.jpg behind a link to `.` too.
        endless = level.whole or (self._pattern is not None and self._pattern.unbounded(level.positions))
        if endless and level.linked:
            identity = level.identity()
            if identity is not None and any(identity == above.identity() for above in self._levels):
                self._walker.skip("symlink loop")
                return False
        return True
