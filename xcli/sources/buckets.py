"""Prefixes and globs of object stores as `ImageRef`s: what `xcli.sources.directories` is for directories.

A store has no directories, only keys with slashes in them. They are listed flat, some at a time, in the order of the
store; components of keys are filtered as directories are. Of S3 that order is the one of the bytes of whole keys,
which differs from a directory's where a name has a character before the slash: `a-b/1.jpg` comes before `a/1.jpg`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError, SourceError
from xcli.core.records import ImageRef
from xcli.core.text import escape_path
from xcli.images.formats import has_image_extension
from xcli.sources.archives.listing import SEPARATOR
from xcli.sources.archives.members import is_archive_name
from xcli.sources.locations import RemoteObject
from xcli.sources.patterns import PathFilter, PathPattern, Positions, has_magic
from xcli.storage.local import LocalFile
from xcli.storage.urls import CloudError, NoBucket, as_image_error, open_place, scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xcli.sources.archives.listing import Archives
    from xcli.storage.object_store import Found

_FIRST_ATTEMPTS = 3
"""How often the first request for a source is tried: with nothing begun, a server that is not there is soon said."""

_BEFORE_MAGIC = re.compile(r"[^*?\[]*")


def make_object(url: str) -> ImageRef:
    """The ref of an object that is named without being listed; nothing is asked of its store.

    Raises:
        UsageError: packages are missing.
    """
    problem = _not_a_name(url)
    if problem is not None:
        return _failed(url, problem)
    open_place(url)
    return ImageRef(escape_path(url), RemoteObject(url), os.fsencode(url))


def _not_a_name(url: str) -> ImageError | None:
    """What is wrong with a URL by itself, or None."""
    if not url.partition("://")[2].strip("/"):
        return ImageError("missing", "the URL names nothing but a kind of store")
    return None


class Prefixes:
    """Lists object stores on behalf of one listing.

    Args:
        path_filter: which objects to leave out.
        skipped: counts, by reason, of those passed over; what stands for a directory counts once.
        archives: what lists archives.
        into_archives: list those that are found below a prefix too, not only those that are named or match a glob.
    """

    def __init__(
        self, path_filter: PathFilter, skipped: dict[str, int], archives: Archives, *, into_archives: bool = False
    ) -> None:
        """Prepares to list."""
        self.path_filter = path_filter
        self.archives = archives
        self.into_archives = into_archives
        self._skipped = skipped

    def skip(self, reason: str) -> None:
        """Counts one object as passed over."""
        self._skipped[reason] = self._skipped.get(reason, 0) + 1

    def begin(self, source: str) -> Iterator[ImageRef]:
        """Begins to list a source; asks for the first page where there is something to be listed.

        Args:
            source: an object, a prefix, an archive, a member of one, or a glob.

        Raises:
            SourceError: the store cannot be listed, or the glob matches nothing.
            UsageError: packages are missing, or there is no bucket in the URL.
        """
        walk = self._walk(source, _FIRST_ATTEMPTS)
        try:
            first = next(walk)
        except StopIteration:
            raise SourceError(f"the source '{escape_path(source)}' is a pattern, and matches no object") from None
        except CloudError as error:
            raise SourceError(f"cannot list '{escape_path(source)}': {error.message}") from None

        def refs() -> Iterator[ImageRef]:
            if first is not None:
                yield first
            yield from self._rest(walk, source)

        return refs()

    def listed(self, url: str) -> Iterator[ImageRef]:
        """Lists what an entry of a list names, which is never a pattern; whatever is wrong with it is a row.

        Raises:
            UsageError: packages are missing.
        """
        problem = _not_a_name(url)
        if problem is None:
            try:
                yield from self._rest(self._walk(url, _FIRST_ATTEMPTS, literal=True), url)
            except SourceError as error:
                problem = ImageError("unreadable", str(error))
        if problem is not None:
            yield _failed(url, problem)

    def _rest(self, walk: Iterator[ImageRef | None], source: str) -> Iterator[ImageRef]:
        try:
            yield from (ref for ref in walk if ref is not None)
        except CloudError as error:
            problem = as_image_error(error)
            yield _failed(source, ImageError(problem.reason, f"cannot list all of it: {problem.message}"))

    def _walk(self, source: str, attempts: int, literal: bool = False) -> Iterator[ImageRef | None]:
        """The refs of a source, and None for what gives none itself (see `Walker.glob`); errors come with the first.

        Raises:
            SourceError: the URL can be no source.
        """
        open_place(source)
        web = scheme_of(source) == "http"
        if web and source.endswith("/"):
            raise SourceError(
                f"'{escape_path(source)}' ends in a slash, but web servers have no listing; name the files one by one, "
                "on standard input ('-') or with --manifest"
            )
        if not literal and not web and has_magic(source):
            return self._pattern(source, attempts)
        return self._named(source, attempts, web)

    def _named(self, url: str, attempts: int, web: bool) -> Iterator[ImageRef | None]:
        path = os.fsencode(url)
        if is_archive_name(path):
            yield None
            yield from self.archives.members(path, b"")
        elif SEPARATOR in url and (member := self.archives.member(path)) is not None:
            yield member
        elif web or has_image_extension(path):
            # Not asked whether it is a prefix after all: who may read a bucket may not always list it, and a list of
            # a million names would take a million requests.
            yield make_object(url)
        else:
            yield from self._object_or_prefix(url, attempts)

    def _object_or_prefix(self, url: str, attempts: int) -> Iterator[ImageRef | None]:
        from xcli.storage.object_store import pages

        key = url.partition("://")[2].partition("/")[2]
        if key and not key.endswith("/") and (ref := _object_at(url, attempts)) is not None:
            yield ref
            return
        base = url if url.endswith("/") else url + "/"
        walk = _Walk(self, base, b"", None)
        empty = True
        for page in pages(base, attempts=attempts):
            empty = empty and not page
            yield None
            yield from walk.take(page)
        if empty and key:
            yield _failed(url, ImageError("missing", "no such object, and none below it"))

    def _pattern(self, source: str, attempts: int) -> Iterator[ImageRef | None]:
        from xcli.storage.object_store import pages

        scheme, _, path = source.partition("://")
        components = path.split("/")
        fixed = next(index for index, text in enumerate(components) if has_magic(text))
        if fixed == 0:
            raise SourceError(f"the bucket of '{escape_path(source)}' is a pattern; name it")
        if (ref := _object_at(source, attempts)) is not None:
            yield ref  # a key with a bracket in it
            return
        wild = [text for text in components[fixed:] if text not in ("", ".")]
        if ".." in wild:
            raise SourceError(f"the pattern '{escape_path(source)}' has '..' after a wildcard; write it without")
        base = f"{scheme}://{'/'.join(components[:fixed])}/"
        walk = _Walk(
            self,
            base,
            os.fsencode(base),
            PathPattern(wild, hidden=False),
            directories_only=source.endswith("/"),
        )
        begin = _BEFORE_MAGIC.match(wild[0])
        assert begin is not None
        for page in pages(base, begin[0], attempts):
            yield from walk.take(page)


def _object_at(url: str, attempts: int) -> ImageRef | None:
    """The ref of a URL that names an object, or None; nobody who may not look at it needs to be told yet."""
    from xcli.storage.object_store import look

    try:
        stamp = look(url, attempts)
    except NoBucket:
        raise
    except CloudError as error:
        if error.reason == "unreadable":
            raise
        return None
    return ImageRef(escape_path(url), RemoteObject(url, stamp), os.fsencode(url))


def _failed(url: str, problem: ImageError) -> ImageRef:
    return ImageRef(escape_path(url), LocalFile(url), os.fsencode(url), problem)


@dataclass(slots=True)
class _Level:
    """A component of the key that was looked at last, as the directory that it stands for.

    Attributes:
        name: the component.
        key: its path relative to the source.
        whole: whether everything below it belongs to the listing.
        positions: where the glob stands here; empty when it leads no further, or there is none.
        entered: whether anything below it does.
    """

    name: str
    key: bytes
    whole: bool
    positions: Positions = ()
    entered: bool = True


class _Walk:
    """Objects of one listing, in order, to refs; objects of one directory come one after the other."""

    def __init__(
        self,
        prefixes: Prefixes,
        base: str,
        key: bytes,
        pattern: PathPattern | None,
        *,
        directories_only: bool = False,
    ) -> None:
        self._prefixes, self._filter = prefixes, prefixes.path_filter
        self._base, self._key = base, key
        self._pattern, self._directories_only = pattern, directories_only
        start = () if pattern is None else pattern.start()
        whole = pattern is None or pattern.matched(start)
        self._levels = [_Level("", key, whole, start)]
        self._matched = False

    def take(self, page: list[Found]) -> Iterator[ImageRef | None]:
        """The refs of some objects, and None where a match of the glob gives none itself."""
        for found in page:
            *directories, name = found.name.split("/")
            self._matched = False
            level = self._go_to(directories)
            # A key that ends in a slash, and holds nothing, is how some programs make a directory.
            placeholder = not name and (found.stamp is None or found.stamp.size == 0)
            ref = self._visit(level, name, found) if level.entered and not placeholder else None
            if isinstance(ref, bytes):
                yield None
                yield from self._prefixes.archives.members(os.fsencode(self._base + found.name), ref)
            elif ref is not None or self._matched:
                yield ref

    def _go_to(self, directories: list[str]) -> _Level:
        """The level of the last of these directories; those that were not there before are looked at."""
        depth = 0
        while depth < len(directories) and depth + 1 < len(self._levels):
            if self._levels[depth + 1].name != directories[depth]:
                break
            depth += 1
        del self._levels[depth + 1 :]
        for name in directories[depth:]:
            self._levels.append(self._enter(self._levels[-1], name))
        return self._levels[-1]

    def _enter(self, above: _Level, name: str) -> _Level:
        key = _join(above.key, name)
        closed = _Level(name, key, False, (), entered=False)
        if not above.entered:
            return closed
        positions, matched, leads_on = self._step(above, name)
        if not positions:
            if not above.whole:
                return closed
            if name.startswith("."):
                self._prefixes.skip("hidden")
                return closed
        self._matched = self._matched or matched
        below = _Level(name, key, above.whole or matched, positions if leads_on else ())
        if not below.whole and not below.positions:
            return closed
        if self._filter.refuses_directory(key):
            self._prefixes.skip("excluded")
            return closed
        return below

    def _step(self, level: _Level, name: str) -> tuple[Positions, bool, bool]:
        if self._pattern is None or not level.positions:
            return (), False, False
        positions = self._pattern.step(level.positions, name)
        return positions, self._pattern.matched(positions), self._pattern.leads_on(positions)

    def _visit(self, level: _Level, name: str, found: Found) -> ImageRef | bytes | None:
        """The ref of an object, or the key of an archive that is to be listed, or None."""
        positions, matched, _ = self._step(level, name)
        if not positions:
            if not level.whole:
                return None
            if name.startswith("."):
                self._prefixes.skip("hidden")
                return None
        matched = matched and not self._directories_only
        self._matched = self._matched or matched
        key, encoded = self._key + os.fsencode(found.name), os.fsencode(name)
        if (matched or (level.whole and self._prefixes.into_archives)) and is_archive_name(encoded):
            if self._filter.refuses_directory(key):
                self._prefixes.skip("excluded")
                return None
            return key
        if not matched and not level.whole:
            return None
        reason = self._filter.refuses_file(key, looks_like_image=matched or has_image_extension(encoded))
        if reason is not None:
            self._prefixes.skip(reason)
            return None
        url = self._base + found.name
        return ImageRef(escape_path(url), RemoteObject(url, found.stamp), key)


def _join(directory: bytes, name: str) -> bytes:
    encoded = os.fsencode(name)
    return directory + encoded if not directory or directory.endswith(b"/") else directory + b"/" + encoded
