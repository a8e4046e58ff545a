"""Lists prefixes and globs of object stores, as `xcli.sources.directories` does directories.

A store has no directories, only keys with slashes in them. They are listed flat, a page at a time, in the order of the
store; components of keys are filtered as directories are. S3 orders whole keys by their bytes, which differs from the
order in a directory where a name has a character before the slash: `a-b/1.jpg` comes before `a/1.jpg`.
"""

from __future__ import annotations

import os
import re
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from xcli.core.errors import ImageError, SourceError, SourceNotFoundError
from xcli.core.text import escape_path
from xcli.images.formats import has_image_extension
from xcli.sources.archives.members import is_archive_name
from xcli.sources.locations import file_ref, object_ref, unlisted_object_ref, url_problem
from xcli.sources.patterns import has_magic, split_glob, with_slash
from xcli.storage.object_store import open_store
from xcli.storage.object_store.errors import NoBucketError, StoreError, as_image_error
from xcli.storage.urls import open_url, scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.core.records import ImageRef
    from xcli.sources.selection import Scope, Selection
    from xcli.storage.object_store.state import ListedObject

_FIRST_ATTEMPTS = 3
"""Attempts at the first request for a source: nothing is lost yet, so a server that is not there is reported soon."""

_BEFORE_MAGIC = re.compile(r"[^*?\[]*")


def begin_url_source(selection: Selection, source: str, *, missing_ok: bool = False) -> Iterator[ImageRef | None]:
    """Begins to list the URL of an object, a prefix, an archive, a member of one, or a glob; requests the first page.

    Raises:
        SourceNotFoundError: the glob matches nothing; or, unless that is a reference with an error, there is no object.
            The text says only why.
        SourceError: the store cannot be listed.
        UsageError: packages are missing, or there is no bucket in the URL.
    """
    walk = _walk(selection, source)
    try:
        first = next(walk)
    except StopIteration:
        raise SourceNotFoundError("as a pattern it matches no object") from None
    except StoreError as error:
        raise SourceError(f"cannot list '{escape_path(source)}': {error.message}") from None
    if not missing_ok and (scheme_of(source) == "http" or not has_magic(source)):
        _require(source, first)
    return chain((first,), _rest(walk, source))


def _require(url: str, first: ImageRef | None) -> None:
    """Raises SourceNotFoundError if there is no object; what else is wrong, or cannot be told, is left for its row."""
    problem = None if first is None else first.error
    unlisted = is_archive_name(os.fsencode(url)) if first is None else first.location.size is None
    if problem is None and unlisted:
        try:
            open_store(url).state(_FIRST_ATTEMPTS)
        except StoreError as error:
            problem = as_image_error(error)
    if problem is not None and problem.reason == "missing":
        raise SourceNotFoundError(problem.message)


def list_url(selection: Selection, url: str) -> Iterator[ImageRef]:
    """Lists what an entry of a list names, which is never a glob; whatever is wrong with it is a row.

    Raises:
        UsageError: packages are missing.
    """
    problem = url_problem(url)
    if problem is None:
        try:
            yield from _rest(_walk(selection, url, literal=True), url)
        except SourceError as error:
            problem = ImageError("unreadable", str(error))
    if problem is not None:
        yield file_ref(os.fsencode(url), error=problem)


def _rest(walk: Iterator[ImageRef | None], source: str) -> Iterator[ImageRef]:
    try:
        yield from (ref for ref in walk if ref is not None)
    except StoreError as error:
        problem = as_image_error(error)
        problem = ImageError(problem.reason, f"cannot list all of it: {problem.message}")
        yield file_ref(os.fsencode(source), error=problem)


def _walk(selection: Selection, source: str, *, literal: bool = False) -> Iterator[ImageRef | None]:
    """Lists a source, with None for a match that gives no reference (see `glob_images`)."""
    open_url(source)
    web = scheme_of(source) == "http"
    if web and source.endswith("/"):
        raise SourceError(
            f"'{escape_path(source)}' ends in a slash, but web servers have no listing; name the files one by one, "
            "on standard input ('-') or with --manifest"
        )
    if not literal and not web and has_magic(source):
        return _glob(selection, source)
    return _named(selection, source, web)


def _named(selection: Selection, url: str, web: bool) -> Iterator[ImageRef | None]:
    path = os.fsencode(url)
    if is_archive_name(path):
        yield None
        yield from selection.archives.members(path, b"")
    elif (member := selection.archives.member(path)) is not None:
        yield member
    elif web or has_image_extension(path):
        # The store is not asked whether it is a prefix after all: those who may read a bucket may not always list it,
        # and a list of a million names would take a million requests.
        yield unlisted_object_ref(url)
    else:
        yield from _object_or_prefix(selection, url)


def _object_or_prefix(selection: Selection, url: str) -> Iterator[ImageRef | None]:
    key = url.partition("://")[2].partition("/")[2]
    if key and not key.endswith("/") and (ref := _object_at(url)) is not None:
        yield ref
        return
    base = url if url.endswith("/") else url + "/"
    keys = _Keys(selection, base, b"")
    empty = True
    for page in open_store(base).pages(attempts=_FIRST_ATTEMPTS):
        empty = empty and not page
        yield from chain((None,) if page else (), keys.take(page))
    if empty:
        problem = ImageError("missing", "no such object, and none below it")
        yield file_ref(os.fsencode(url), error=problem) if key else None


def _glob(selection: Selection, source: str) -> Iterator[ImageRef | None]:
    if has_magic(source.split("/")[2]):
        raise SourceError(f"the bucket of '{escape_path(source)}' is a pattern; name it")
    if (ref := _object_at(source)) is not None:
        yield ref  # a key with a bracket in it
        return
    base, components = split_glob(source)
    selection = selection.narrowed(components, directories_only=source.endswith("/"))
    keys = _Keys(selection, base, os.fsencode(base))
    begin = _BEFORE_MAGIC.match(components[0])
    assert begin is not None
    for page in open_store(base).pages(begin[0], _FIRST_ATTEMPTS):
        yield from keys.take(page)


def _object_at(url: str) -> ImageRef | None:
    """Returns the reference to the object that a URL names, or None where there is none, or access is denied."""
    try:
        return object_ref(url, open_store(url).state(_FIRST_ATTEMPTS))
    except NoBucketError:
        raise
    except StoreError as error:
        if error.reason == "unreadable":
            raise
        return None


class _Level(NamedTuple):
    """A component of the key that was visited last, as the directory that it stands for."""

    name: str
    key: bytes  # the directory's path relative to the source
    scope: Scope | None  # why it belongs to the listing; None if nothing below it does


class _Keys:
    """Lists the objects of one prefix, page by page. Objects of one directory come one after the other."""

    def __init__(self, selection: Selection, base: str, key: bytes) -> None:
        self._selection = selection
        self._base, self._key = base, key
        self._levels = [_Level("", key, selection.start)]

    def take(self, page: list[ListedObject]) -> Iterator[ImageRef | None]:
        """Lists some objects, with None for a match of the glob that gives no reference."""
        for found in page:
            *directories, name = found.name.split("/")
            depth = 0  # number of directories that the object has in common with the one before
            for directory, level in zip(directories, self._levels[1:], strict=False):
                if directory != level.name:
                    break
                depth += 1
            del self._levels[depth + 1 :]
            for directory in directories[depth:]:
                yield from self._enter(directory)
            # Some programs make a directory as an empty object whose key ends in a slash.
            placeholder = not name and (found.state is None or found.state.size == 0)
            above = self._levels[-1].scope
            if above is not None and not placeholder:
                yield from self._visit(above, found)

    def _enter(self, name: str) -> Iterable[None]:
        """Goes down one level; returns None in a tuple if the glob matches the directory."""
        above, encoded = self._levels[-1], os.fsencode(name)
        key = with_slash(above.key) + encoded
        scope = None if above.scope is None else self._selection.step(above.scope, encoded)
        entered = scope is not None and self._selection.enters(scope, key)
        self._levels.append(_Level(name, key, scope if entered else None))
        return (None,) if scope is not None and scope.matched else ()

    def _visit(self, above: Scope, found: ListedObject) -> Iterable[ImageRef | None]:
        name, url = os.fsencode(found.name), self._base + found.name
        key = self._key + name
        scope = self._selection.step(above, name[name.rfind(b"/") + 1 :])
        if scope is None:
            return ()
        return self._selection.file(
            scope, os.fsencode(url), key, make_ref=lambda path, key, problem: object_ref(url, found.state, key)
        )
