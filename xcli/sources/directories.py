"""Walks directories and globs of this machine: lazily, in the order of the bytes of names, depth first.

Memory holds the names in one directory for each level, in long texts if they are many. Within the walk a path is
bytes, as the operating system has it; text is made only for references. Regular files are never stat-ed: their kind
comes with the directory entry.
"""

from __future__ import annotations

import heapq
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from xcli.core.errors import ImageError
from xcli.core.shortage import patiently
from xcli.sources.archives.members import LINK
from xcli.sources.locations import file_ref
from xcli.sources.patterns import split_glob, with_slash
from xcli.storage import disk
from xcli.storage.local import file_kind, open_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.core.records import ImageRef
    from xcli.sources.selection import Scope, Selection

_RUN, _JOINED = 1 << 16, 1 << 8  # names that are sorted together, and of these, names that are one text

_FILE, _DIRECTORY, _OTHER = range(3)  # _OTHER is whatever needs a stat: links, devices, kinds that scandir cannot tell


def directory_images(selection: Selection, top: bytes) -> Iterator[ImageRef]:
    """Lists the images below a directory.

    Entries whose name begins with a dot are passed over. Links are followed if the selection says so; a directory that
    is its own ancestor through a link is not entered again. What cannot be listed, and FIFOs, devices and dangling
    links with an image's name, become references with an error, so that every loss is a row. An empty `top` is the
    current directory, which then is no part of the paths.
    """
    selection = selection.beginning_in(top)
    return (ref for ref in _Walk(selection).run(_Level(top, b"", selection.start)) if ref is not None)


def glob_images(selection: Selection, pattern: str) -> Iterator[ImageRef | None]:
    """Lists what a glob matches: files whatever their extension, and directories as `directory_images` does.

    A match that gives no reference itself (a directory, a file that is filtered out) is None in the listing, so that
    the first item tells that the glob matches at all.

    Raises:
        SourceError: a `..` follows a wildcard (on the first item).
    """
    text, components = split_glob(pattern)
    base = os.fsencode(text)
    selection = selection.beginning_in(base).narrowed(components, directories_only=pattern.endswith("/"))
    if not os.path.isdir(base or b"."):
        return
    if selection.start.whole:
        yield None
    yield from _Walk(selection).run(_Level(base, base, selection.start))


def look_at(path: bytes) -> tuple[bool, ImageError | None]:
    """Says whether a path is a directory, and what is wrong if it is no regular file either; follows links."""
    try:
        mode = patiently(lambda: os.stat(path)).st_mode
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


def _kind(entry: os.DirEntry[Any]) -> int:
    try:
        if entry.is_file(follow_symlinks=False):
            return _FILE
        if entry.is_dir(follow_symlinks=False):
            return _DIRECTORY
    except OSError:
        pass  # this file system tells kinds only by stat, which failed, and will fail again when the entry is visited
    return _OTHER


class _Names:
    """The names in a directory; where they are many, each takes a byte more than its length, and not sixty."""

    def __init__(self) -> None:
        self._latest: list[bytes] = []
        self._runs: list[list[bytes]] = []  # each in order: names, joined by the only byte that none has

    def add(self, name: bytes) -> None:
        self._latest.append(name)
        if len(self._latest) == _RUN:
            self._latest.sort()
            self._runs.append([b"/".join(self._latest[at : at + _JOINED]) for at in range(0, _RUN, _JOINED)])
            self._latest = []

    def sorted(self) -> Iterator[bytes]:
        """Yields all names in the order of their bytes."""
        latest = self._latest
        latest.sort(reverse=True)
        # From the end, so that memory shrinks.
        rest = (latest.pop() for _ in range(len(latest)))
        return heapq.merge(*map(_split, self._runs), rest) if self._runs else rest


def _split(run: list[bytes]) -> Iterator[bytes]:
    return (name for joined in run for name in joined.split(b"/"))


@dataclass
class _Level:
    """A directory between the top of a walk and the entry that it visits."""

    path: bytes  # empty for the current directory
    key: bytes  # its path relative to the source; empty for the source itself
    scope: Scope
    linked: bool = False  # a symbolic link lies above. Only then can a directory be its own ancestor.
    names: Iterator[bytes] = field(default_factory=lambda: iter(()))  # not yet visited
    kinds: dict[bytes, int] = field(default_factory=dict)  # of the entries that are not regular files

    def read(self, only: str | None, trusted: int | None) -> ImageError | None:
        """Lists the directory, or looks for the only name that can matter; returns what went wrong.

        `trusted` is as in `LocalFile`.
        """
        if only is not None:
            self._read_one(os.fsencode(only))
            return None
        names = _Names()
        try:
            with patiently(lambda: self._scan(trusted)) as entries:
                for entry in entries:
                    name = entry.name if trusted is None else os.fsencode(entry.name)
                    names.add(name)
                    if (kind := _kind(entry)) != _FILE:
                        self.kinds[name] = kind
        except FileNotFoundError:
            return ImageError("missing", "cannot list the directory: it is gone since it was found")
        except OSError as error:
            return ImageError("unreadable", f"cannot list the directory: {error.strerror}")
        self.names = names.sorted()
        return None

    def _scan(self, trusted: int | None) -> Any:
        if trusted is None:
            return disk.system.scandir(self.path or b".")
        descriptor = open_below(os.fsdecode(self.path), trusted, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return disk.system.scandir(descriptor)
        finally:
            disk.close(descriptor)

    def _read_one(self, name: bytes) -> None:
        try:
            os.lstat(with_slash(self.path) + name)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return
        except OSError:
            pass  # it may be there: the walk meets the same error and makes it a row
        self.names, self.kinds = iter([name]), {name: _OTHER}

    @cached_property
    def prefixes(self) -> tuple[bytes, bytes]:
        """What comes before the names of its entries in their paths and keys."""
        return with_slash(self.path), with_slash(self.key)

    @cached_property
    def identity(self) -> tuple[int, int] | None:
        """Device and inode, or None if they cannot be determined."""
        try:
            status = os.stat(self.path or b".")
        except OSError:
            return None
        return status.st_dev, status.st_ino


class _Walk:
    """A walk in progress. The levels are a list, not recursion, so that only the file system limits the depth."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._levels: list[_Level] = []

    def run(self, top: _Level) -> Iterator[ImageRef | None]:
        """Walks; `glob_images` says what None means."""
        error = self._open(top)
        if error is not None:
            yield file_ref(top.path or b".", top.key or top.path, error)
        while self._levels:
            level = self._levels[-1]
            name = next(level.names, None)
            if name is None:
                self._levels.pop()
            else:
                yield from self._visit(level, name)

    def _open(self, level: _Level) -> ImageError | None:
        error = level.read(self._selection.only_name(level.scope), self._selection.trusted)
        if error is None:
            self._levels.append(level)
        return error

    def _visit(self, level: _Level, name: bytes) -> Iterable[ImageRef | None]:
        """Lists one entry; goes down if it is a directory that is to be walked."""
        scope = self._selection.step(level.scope, name)
        if scope is None:
            return ()
        above_path, above_key = level.prefixes
        path, key = above_path + name, above_key + name
        kind, problem = level.kinds.get(name, _FILE), None
        linked = level.linked or kind == _OTHER
        if kind == _OTHER:
            if not self._selection.follow and os.path.islink(path):
                self._selection.skipped[LINK] += 1
                return (None,) if scope.matched else ()
            is_directory, problem = look_at(path)
            kind = _DIRECTORY if is_directory else _FILE
        if kind == _FILE:
            return self._selection.file(scope, path, key, problem)
        below = _Level(path, key, scope, linked)
        error = self._open(below) if self._enters(below) else None
        if error is not None:
            return (file_ref(path, key, error),)
        return (None,) if scope.matched else ()

    def _enters(self, level: _Level) -> bool:
        """Says whether a directory is walked, and counts it if it is excluded or its own ancestor."""
        if not self._selection.enters(level.scope, level.key):
            return False
        # A glob of fixed depth cannot run in circles, and `*/x.jpg` means the x.jpg behind a link to `.` too.
        if not level.linked or not self._selection.unbounded(level.scope):
            return True
        if level.identity is None or all(above.identity != level.identity for above in self._levels):
            return True
        self._selection.skipped["symlink loop"] += 1
        return False
