"""Lists archives, here or in a store, never unpacked: `.zip`, and `.tar` with or without gzip, bzip2, xz, Zstandard.

An archive is listed like a directory of the same name, but in its own order. A row is named `archive.tar::member`.
`--shard` hashes the member's path within the archive without empty components and `.` (`./a//b.jpg` is `a/b.jpg`); if
the archive was found in a directory, its own path relative to that comes before, with a slash between.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from xcli.core.errors import ImageError
from xcli.core.public_urls import public_url
from xcli.core.records import ImageRef
from xcli.core.shortage import patiently, raise_shortage
from xcli.core.text import escape_path, join_names
from xcli.images.formats import has_image_extension
from xcli.sources.archives.limits import Limits
from xcli.sources.archives.members import DIRECTORY, FILE, TAR_EXTENSIONS, Entry, Member, WholeArchive, is_archive_name
from xcli.sources.archives.tar import tar_entries
from xcli.sources.archives.tar_stream import CarryBudget
from xcli.sources.archives.zip import zip_entries
from xcli.sources.locations import file_ref
from xcli.sources.patterns import PathFilter, path_parts
from xcli.sources.system_folders import SYSTEM_FOLDER
from xcli.storage.local import LocalFile
from xcli.storage.readers import Reader, open_reader
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

SEPARATOR = "::"
"""Stands between the path of an archive and the name of a member."""

log = logging.getLogger("xcli")

_MAX_NAMES = 10_000  # members of one archive among which names are noticed that occur twice
_MAX_INDEXED = 1_000_000  # members, of all archives together, whose positions are kept for a list of members


class Archives:
    """Lists archives for one listing; `skipped` counts the members that are passed over, by reason."""

    def __init__(self, path_filter: PathFilter, skipped: Counter[str]) -> None:
        self._filter = path_filter
        self._skipped = skipped
        self._budget = CarryBudget()
        self._indexes: dict[bytes, _Index] = {}

    def members(self, archive: bytes, key: bytes, trusted: int | None = None) -> Iterator[ImageRef]:
        """Lists the images in an archive; at the end the archive itself if it is damaged or cannot be read.

        The key is the archive's path relative to the source; empty if it is the source itself. `trusted` is as in
        `LocalFile`.
        """
        shown = escape_path(public_url(os.fsdecode(archive))) + SEPARATOR
        names, repeated = set[int](), list[str]()
        try:
            with patiently(partial(open_reader, os.fsdecode(archive), trusted=trusted)) as file:
                limits = Limits(file.identity.size)
                for entry in _entries(file, self._budget):
                    ref = self._ref(shown, key, entry)
                    if ref is None:
                        continue
                    limits.spend("images")
                    limits.spend("bytes in its images", ref.location.size or 0)
                    if hash(entry.name) in names:
                        repeated.append(ref.path)
                    elif len(names) < _MAX_NAMES:
                        names.add(hash(entry.name))
                    yield ref
            if repeated:
                log.warning("%s", _describe_repeated(repeated))
            return
        except ImageError as error:
            raise_shortage(error)
            problem = error.with_traceback(None)
        yield file_ref(archive, key or archive, problem)

    def _ref(self, shown: str, key: bytes, entry: Entry) -> ImageRef | None:
        if entry.kind == DIRECTORY:
            return None
        parts = path_parts(os.fsdecode(entry.name))
        inner = os.fsencode("/".join(parts))
        key = key + b"/" + inner if key else inner
        reason = self._refusal(entry, parts, key)
        if reason is not None:
            self._skipped[reason] += 1
            return None
        # A name in an archive can hold a NUL byte, which a path cannot.
        path = shown + escape_path(os.fsdecode(entry.name)).replace("\0", "\\x00")
        if entry.take is None:
            return ImageRef(path, LocalFile(path), key, entry.error)
        return ImageRef(path, entry.take(True), key)

    def _refusal(self, entry: Entry, parts: list[str], key: bytes) -> str | None:
        # `..` is a name like any other here, because no name is ever used as a path.
        if any(part.startswith(".") and part != ".." for part in parts):
            return "hidden"
        if any(self._filter.refuses_system(os.fsencode(part)) for part in parts[:-1]):
            return SYSTEM_FOLDER
        if entry.kind != FILE:
            return entry.kind
        if self._filter.refuses_listed(key, directory=False):
            return "excluded"
        return self._filter.refuses_file(key, looks_like_image=has_image_extension(entry.name))

    def member(self, path: bytes) -> ImageRef | None:
        """Finds the member that a path such as `photos.tar::cats/1.jpg` names, whatever its extension.

        The archive is listed once, and the positions of its members are kept. For a member of a compressed tar the
        archive is decompressed from its beginning each time. Of members with the same name the last one counts, as it
        would if the archive were unpacked. Returns None if no path before a `::` is an archive.
        """
        separator = os.fsencode(SEPARATOR)
        end = path.find(separator)
        while end >= 0:
            archive, name = path[:end], path[end + len(separator) :]
            if is_archive_name(archive) and (is_url(os.fsdecode(archive)) or os.path.isfile(archive)):
                found = self._index(archive).find(name)
                if isinstance(found, ImageError):
                    return file_ref(path, error=found)
                return ImageRef(escape_path(public_url(os.fsdecode(path))), found, path)
            end = path.find(separator, end + 1)
        return None

    def _index(self, archive: bytes) -> _Index:
        index = self._indexes.pop(archive, None) or _Index(archive)
        self._indexes[archive] = index  # at the end, as the one that was used last
        while len(self._indexes) > 1 and sum(len(one) for one in self._indexes.values()) > _MAX_INDEXED:
            del self._indexes[next(iter(self._indexes))]
        return index


def _describe_repeated(paths: list[str]) -> str:
    what = "members have the names of earlier ones" if len(paths) > 1 else "member has the name of an earlier one"
    return (
        f"{len(paths):,} {what}: {join_names(paths, 3)}. Each is a row; unpacked, or named alone, the last one counts"
    )


class WholeArchives(Archives):
    """Lists each archive as one reference; its members are listed where they are read."""

    def members(self, archive: bytes, key: bytes, trusted: int | None = None) -> Iterator[ImageRef]:
        path = os.fsdecode(archive)
        yield ImageRef(escape_path(path), WholeArchive(path, key=key, trusted=trusted), key or archive)


class _Index:
    """The members of one archive by name."""

    def __init__(self, archive: bytes) -> None:
        self._members: dict[bytes, Member | ImageError] = {}
        self._damage: ImageError | None = None
        try:
            with patiently(partial(open_reader, os.fsdecode(archive))) as file:
                for entry in _entries(file, CarryBudget()):
                    found = entry.error if entry.take is None else entry.take(False)
                    self._members[entry.name] = found or ImageError(
                        "not-a-file", f"it is a {entry.kind}, not a regular file"
                    )
        except ImageError as error:
            raise_shortage(error)
            self._damage = error.with_traceback(None)

    def __len__(self) -> int:
        return len(self._members)

    def find(self, name: bytes) -> Member | ImageError:
        return self._members.get(name) or self._damage or ImageError("missing", "the archive has no such member")


def _entries(file: Reader, budget: CarryBudget) -> Iterator[Entry]:
    is_tar = os.fsencode(file.path).lower().endswith(TAR_EXTENSIONS)
    limits = Limits(file.identity.size)
    for entry in tar_entries(file, budget) if is_tar else zip_entries(file):
        limits.spend("members")
        limits.spend("bytes of names", len(entry.name))
        yield entry
