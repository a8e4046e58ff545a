"""What the user names as input, as a lazy, ordered listing of `ImageRef`s: files, directories, archives, globs, lists,
manifests; of this machine or of an object store.

Paths come out as the user gave them, joined with `/`. Entries of a directory come in the order of the bytes of their
names, subdirectories in place; objects in that of their store. Nothing here opens an image.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO

from xcli.core.errors import ImageError, SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.core.text import escape_path
from xcli.sources.archives.listing import SEPARATOR, Archives
from xcli.sources.archives.members import WholeArchive, is_archive_name
from xcli.sources.buckets import Prefixes, make_object
from xcli.sources.directories import Walker, look_at, make_ref
from xcli.sources.manifests import ExtraColumn, Manifest, open_manifest
from xcli.sources.patterns import PathFilter, has_magic
from xcli.storage.local import LocalFile
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

__all__ = ["ExtraColumn", "Listing", "SourceOptions", "list_images", "parse_shard", "shard_of"]

LIST_ON_STDIN = "-"

_MAX_ENTRY = 1 << 16  # no path is as long; keeps a list without separators from filling the memory


OTHER_SHARD = "other shard"
"""The reason under which a listing counts the images that belong to sibling shards."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What to list.

    Attributes:
        sources: files, directories, archives, single members of them (`photos.tar::a.jpg`), globs, or `-` for a list
            on standard input; none for the current directory. All but directories may be URLs (`s3://bucket/a.jpg`),
            and a prefix (`s3://bucket/photos/`) is what a directory is elsewhere.
        null: the list on standard input is separated by NUL, not by newlines.
        manifest: a CSV or Parquet file of paths and URLs, or the URL of one; `-` for CSV on standard input.
        path_column: the manifest's column of paths.
        escaped_paths: the manifest's paths are escaped as in the `path` column of this program's tables.
        archives: list the archives that are found in directories too; elsewhere they are listed without it.
        include: patterns, one of which a file found in a directory, archive, glob, list or manifest must match.
        exclude: patterns of files and directories to leave out of directories, archives, globs, lists and manifests.
        limit: list at most so many.
        shard: `(I, N)`: of all that, only the I-th of N parts, I from 1.

    Files named one by one in `sources` are never filtered.

    Raises:
        UsageError: a value is out of range, or two do not go together.
    """

    sources: tuple[str, ...] = ()
    null: bool = False
    manifest: str | None = None
    path_column: str = "path"
    escaped_paths: bool = False
    archives: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    shard: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for source in self.sources:
            _check_source(source)
        lists = self.sources.count(LIST_ON_STDIN)
        if lists > 1:
            raise UsageError(f"'-' was given {lists} times as a source; standard input can be read once")
        if self.null and not lists:
            raise UsageError("--null was given without '-' as a source; it says how the list on standard input is cut")
        if self.manifest is not None and self.sources:
            given = escape_path(self.sources[0])
            raise UsageError(f"both --manifest and a source ('{given}') were given; give one of them")
        if self.escaped_paths and self.manifest is None:
            raise UsageError("--escaped-paths was given without --manifest; sources are always taken verbatim")
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            if "" in patterns:
                raise UsageError(f"{option} was given an empty pattern; write one such as '*.png', or leave it out")
        for pattern in self.include:
            if pattern.endswith("/"):
                raise UsageError(
                    f"--include '{escape_path(pattern)}' names directories, but it selects files; "
                    f"write '{escape_path(pattern)}**'"
                )
        if self.limit is not None and self.limit < 0:
            raise UsageError(f"--limit must be 0 or more, not {self.limit}")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"--shard I/N needs I from 1 to N, not {self.shard[0]}/{self.shard[1]}")


def _check_source(source: str) -> None:
    if not source:
        raise UsageError(
            "a source is empty; give a path, or '.' for the current directory (is a shell variable unset?)"
        )
    try:
        os.fsencode(source)
    except UnicodeEncodeError:
        raise UsageError(f"the source {source!r} holds a character that no path can hold") from None


def parse_shard(text: str) -> tuple[int, int]:
    """Reads the value of `--shard`.

    Args:
        text: `I/N`, I from 1 to N.

    Returns:
        `(I, N)`.

    Raises:
        UsageError: `text` is something else.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard must be I/N with I from 1 to N, such as 3/8, not {text!r}")
    return int(match[1]), int(match[2])


def shard_of(key: bytes, count: int) -> int:
    """Says which of `count` shards an image belongs to, from 1. The rule is fixed for ever.

    Args:
        key: the bytes of the image's path relative to its source.
        count: number of shards.
    """
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") % count + 1


class Listing:
    """A listing under way: iterate over it once for its `ImageRef`s.

    Attributes:
        options: what is listed.
        extra_columns: the manifest's other columns, whose values are each ref's `extra`; known from the start.
        default_directory: whether nothing was given, so that the current directory is listed.
        skipped: what was passed over so far, by reason; a directory counts once.
        listed: how many refs were yielded so far.
    """

    def __init__(
        self,
        refs: Iterator[ImageRef],
        options: SourceOptions,
        *,
        skipped: dict[str, int] | None = None,
        extra_columns: tuple[ExtraColumn, ...] = (),
        close: Callable[[], None] | None = None,
    ) -> None:
        """Wraps the refs before `limit` and `shard`; use `list_images`."""
        self.extra_columns = extra_columns
        self.default_directory = not options.sources and options.manifest is None
        self.skipped: dict[str, int] = {} if skipped is None else skipped
        self.listed = 0
        self._refs = refs
        self.options = options
        self._close = close
        self._begun = False

    def __iter__(self) -> Iterator[ImageRef]:
        """Begins the listing.

        Raises:
            RuntimeError: it was begun before.
        """
        if self._begun:
            raise RuntimeError("a Listing can be iterated once; call list_images again")
        self._begun = True
        return self._iterate()

    def _iterate(self) -> Iterator[ImageRef]:
        shard = self.options.shard
        for ref in islice(self._refs, self.options.limit):
            # What is in a whole archive is divided where it is listed.
            whole = isinstance(ref.location, WholeArchive)
            if shard is not None and not whole and shard_of(ref.key, shard[1]) != shard[0]:
                self.skipped[OTHER_SHARD] = self.skipped.get(OTHER_SHARD, 0) + 1
                continue
            self.listed += 1
            yield ref
        self.close()

    def close(self) -> None:
        """Closes the files that the listing reads from (standard input excepted); may be called twice."""
        if self._close is not None:
            self._close()
            self._close = None

    def __enter__(self) -> Listing:
        """Returns the listing, for `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the listing."""
        self.close()


def list_images(
    options: SourceOptions, *, stdin: BinaryIO | None = None, archives: type[Archives] = Archives
) -> Listing:
    """Begins to list the images that `options` names.

    Nothing but the first match of each glob, the first page of each prefix and the head of the manifest is read before
    the listing is iterated over. What goes wrong later is a ref with an error, never an exception.

    Args:
        options: what to list.
        stdin: where `-` is read from; standard input when None.
        archives: lists archives; `WholeArchives` leaves them as they are.

    Returns:
        The listing.

    Raises:
        SourceError: a glob matches nothing, an object store cannot be listed, or the manifest cannot be used.
        UsageError: packages for object stores are missing.
    """
    stream = stdin
    if LIST_ON_STDIN in options.sources or options.manifest == LIST_ON_STDIN:
        stream = stdin or getattr(sys.stdin, "buffer", None)
        if stream is None:
            raise SourceError("'-' reads standard input, but it is closed; give a file or directory")
    path_filter = PathFilter(options.include, options.exclude)
    if options.manifest is not None:
        manifest = open_manifest(
            options.manifest, path_column=options.path_column, escaped_paths=options.escaped_paths, stdin=stream
        )
        skipped: dict[str, int] = {}
        refs = _filtered(manifest, path_filter, skipped, archives(path_filter, skipped))
        return Listing(refs, options, skipped=skipped, extra_columns=manifest.extra_columns, close=manifest.close)
    sources = _Sources(options, path_filter, stream, archives)
    return Listing(sources.refs(), options, skipped=sources.skipped)


def _filtered(
    manifest: Manifest, path_filter: PathFilter, skipped: dict[str, int], archives: Archives
) -> Iterator[ImageRef]:
    """Leaves rows of a manifest out, and puts the members of an archive in the place of its row."""
    for ref in manifest:
        if ref.error is not None:
            yield ref
            continue
        is_archive = is_archive_name(ref.key)
        reason = _refusal(path_filter, ref.key, directory=is_archive)
        if reason is not None:
            skipped[reason] = skipped.get(reason, 0) + 1
        elif is_archive:
            yield from (replace(member, extra=ref.extra) for member in archives.members(ref.key, b""))
        else:
            found = archives.member(ref.key) if _may_be_member(ref.key) else None
            if found is None and isinstance(ref.location, LocalFile) and is_url(ref.location.path):
                found = make_object(ref.location.path)
            yield ref if found is None else replace(found, extra=ref.extra)


def _refusal(path_filter: PathFilter, path: bytes, *, directory: bool) -> str | None:
    """Gives the reason to skip a path out of a list, or None."""
    if path_filter.refuses_listed(path, directory=directory):
        return "excluded"
    return None if directory else path_filter.refuses_file(path, looks_like_image=True)


def _may_be_member(path: bytes) -> bool:
    return os.fsencode(SEPARATOR) in path and not os.path.lexists(path)


class _Sources:
    """The sources of one listing; making it finds the first match of every glob, and the first page of every prefix."""

    def __init__(
        self, options: SourceOptions, path_filter: PathFilter, stdin: BinaryIO | None, archives: type[Archives]
    ) -> None:
        self.skipped: dict[str, int] = {}
        self._options = options
        self._filter = path_filter
        self._stdin = stdin
        self._archives = archives(path_filter, self.skipped)
        self._walker = Walker(path_filter, self.skipped, self._archives, into_archives=options.archives)
        self._prefixes = Prefixes(path_filter, self.skipped, self._archives, into_archives=options.archives)
        self._begun = {
            index: begun for index, source in enumerate(options.sources) if (begun := self._begin(source)) is not None
        }

    def _begin(self, source: str) -> Iterator[ImageRef | None] | None:
        """Begins what must be looked at before anything else is done."""
        if is_url(source):
            return self._prefixes.begin(source)
        return self._begin_glob(source) if has_magic(source) and not os.path.lexists(source) else None

    def _begin_glob(self, pattern: str) -> Iterator[ImageRef | None]:
        walk = self._walker.glob(pattern)
        try:
            first = next(walk)
        except StopIteration:
            raise SourceError(
                f"the source '{escape_path(pattern)}' names no file or directory, and as a pattern it matches none"
            ) from None
        return chain((first,), walk)

    def refs(self) -> Iterator[ImageRef]:
        if not self._options.sources:
            yield from self._walker.directory(b"")
        for index, source in enumerate(self._options.sources):
            if index in self._begun:
                yield from (ref for ref in self._begun.pop(index) if ref is not None)
            elif source == LIST_ON_STDIN:
                yield from self._list_on_stdin()
            else:
                path = os.fsencode(source)
                is_directory, problem = look_at(path)
                yield from self._expand(path, problem, is_directory=is_directory)

    def _expand(self, path: bytes, problem: ImageError | None, *, is_directory: bool) -> Iterator[ImageRef]:
        if is_directory:
            yield from self._walker.directory(path)
        elif problem is None and is_archive_name(path):
            yield from self._archives.members(path, b"")
        else:
            member = self._archives.member(path) if problem is not None and _may_be_member(path) else None
            yield member or make_ref(path, path, problem)

    def _list_on_stdin(self) -> Iterator[ImageRef]:
        assert self._stdin is not None
        try:
            for path in read_entries(self._stdin, b"\0" if self._options.null else b"\n"):
                if is_url(os.fsdecode(path)):
                    yield from self._url_on_stdin(path)
                    continue
                is_directory, problem = look_at(path)
                is_archive = problem is None and is_archive_name(path)
                reason = _refusal(self._filter, path, directory=is_directory or is_archive)
                if reason is None:
                    yield from self._expand(path, problem, is_directory=is_directory)
                else:
                    self._walker.skip(reason)
        except OSError as error:
            problem = ImageError("unreadable", f"cannot read the list on standard input: {error.strerror}")
            yield ImageRef(LIST_ON_STDIN, LocalFile(LIST_ON_STDIN), LIST_ON_STDIN.encode(), problem)

    def _url_on_stdin(self, path: bytes) -> Iterator[ImageRef]:
        # Whether it is a prefix or an object is not known yet; a name without an extension is taken for a prefix.
        reason = _refusal(self._filter, path, directory=b"." not in os.path.basename(path) or is_archive_name(path))
        if reason is None:
            yield from self._prefixes.listed(os.fsdecode(path))
        else:
            self._walker.skip(reason)


def read_entries(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    """Reads a list of paths as it arrives.

    Args:
        stream: where to read.
        separator: the byte that ends each entry.

    Yields:
        The entries that are not empty, verbatim.

    Raises:
        OSError: the stream cannot be read.
    """
    read = getattr(stream, "read1", stream.read)  # read1 returns what a pipe has, read waits until it has enough
    pending = b""
    while chunk := read(_MAX_ENTRY):
        *entries, pending = (pending + chunk).split(separator)
        yield from filter(None, entries)
        pending = pending[:_MAX_ENTRY]
    if pending:
        yield pending
