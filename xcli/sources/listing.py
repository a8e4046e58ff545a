"""Lists the images that the user names: files, directories, archives, globs, lists and manifests, here or in a store.

Paths come out as the user gave them, joined with `/`. Entries of a directory come in the order of the bytes of their
names, subdirectories in place; objects in the order of their store. No image is opened.
"""

from __future__ import annotations

import logging
import os
import sys
from array import array
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from dataclasses import dataclass, field, replace
from errno import EILSEQ
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO

from xcli.core.errors import ImageError, SourceError, SourceNotFoundError
from xcli.core.levels import DETAIL
from xcli.core.text import escape_path
from xcli.sources.archives.listing import SEPARATOR, Archives
from xcli.sources.archives.members import WholeArchive, is_archive_name
from xcli.sources.buckets import begin_url_source, list_url
from xcli.sources.carried import MAX_NAME, CarriedBytes
from xcli.sources.directories import directory_images, glob_images, look_at
from xcli.sources.exclusions import with_exclusions
from xcli.sources.list_files import how_to_list
from xcli.sources.locations import file_ref, unlisted_object_ref
from xcli.sources.manifests import ExtraColumn, Manifest, open_manifest
from xcli.sources.missing_paths import PathCheck, not_found
from xcli.sources.options import LIST_ON_STDIN, SourceOptions
from xcli.sources.patterns import PathFilter, has_magic
from xcli.sources.selection import OTHER_SHARD, Selection, shard_of
from xcli.storage.object_store.web_client import allow_private_hosts
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xcli.core.records import ImageRef

log = logging.getLogger("xcli")

_MAX_ENTRY = 1 << 16  # bytes that are read at a time


def _is_in_other_shard(ref: ImageRef, number: int, count: int) -> bool:
    # The images in a whole archive are divided among the shards where they are listed.
    return not isinstance(ref.location, WholeArchive) and shard_of(ref.key, count) != number


class WholeListing:
    """What all shards of a run list together, as each of them sees it.

    Attributes:
        positions: of each reference of the shard, its number in the whole listing.
        images: number of all references.
    """

    def __init__(self) -> None:
        from xxhash import xxh3_128

        self.positions, self.images = array("q"), 0
        self._paths = xxh3_128()

    def add(self, ref: ImageRef, *, own: bool) -> None:
        """Adds the next reference, which is one of the shard's own or not."""
        self._paths.update(ref.path.encode("utf-8", "surrogatepass") + b"\0")
        if own:
            self.positions.append(self.images)
        self.images += 1

    def text(self) -> str:
        """Returns the number of references and a digest of their paths; the same in all shards of one run."""
        return f"{self.images} {self._paths.hexdigest()}"


@dataclass(eq=False)
class Listing:
    """A listing in progress: iterate over it once for its references.

    What `options` exclude is left out first; then `limit` and `shard` are applied.

    Attributes:
        refs: all references; use `list_images` to make a listing of sources.
        options: what is listed.
        skipped: number of entries that were passed over so far, by reason; a directory counts once.
        extra_columns: the manifest's other columns, whose values are each reference's `extra`; known from the start.
        close: closes the files that the listing reads from (standard input excepted); may be called twice.
        carried: of the manifest's rows so far.
        listed: number of references that were yielded so far.
        total: number of all, once the listing has ended, or from the start where that is known.
        whole: with `shard`, what all shards have listed together so far.
    """

    refs: Iterator[ImageRef]
    options: SourceOptions
    skipped: Counter[str] = field(default_factory=Counter)
    extra_columns: tuple[ExtraColumn, ...] = ()
    close: Callable[[], object] = lambda: None
    carried: CarriedBytes = field(default_factory=CarriedBytes)
    listed: int = 0
    total: int | None = None
    whole: WholeListing | None = None
    _begun: bool = False

    def __iter__(self) -> Iterator[ImageRef]:
        if self._begun:
            raise RuntimeError("a Listing can be iterated once; call list_images again")
        self._begun = True
        return self._iterate()

    def _iterate(self) -> Iterator[ImageRef]:
        shard = self.options.shard
        self.whole = whole = None if shard is None else WholeListing()
        excluded = self.options.excluded
        refs = self.refs if excluded is None else excluded.without(self.refs, self.skipped)
        for ref in islice(refs, self.options.limit):
            if shard is not None and whole is not None:
                is_other = _is_in_other_shard(ref, *shard)
                whole.add(ref, own=not is_other)
                if is_other:
                    self.skipped[OTHER_SHARD] += 1
                    continue
            self.listed += 1
            yield ref
        self.total = self.listed
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.skipped.items()))
        log.log(DETAIL, "listed in all: %s images; skipped: %s", f"{self.listed:,}", skipped or "nothing")
        self.close()

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def list_images(
    options: SourceOptions,
    *,
    stdin: BinaryIO | None = None,
    archives: type[Archives] = Archives,
    numbers: bool = False,
) -> Listing:
    """Begins to list the images that `options` names.

    Before the listing is iterated over, it is only seen whether each source exists; the first match of each glob, the
    first page of each prefix and the head of the manifest are read. Anything that goes wrong later is a reference with
    an error, never an exception.

    `-` is read from `stdin`, or standard input when that is None. `archives` may be `WholeArchives`. `numbers`: see
    `open_manifest`.

    Raises:
        SourceNotFoundError: sources do not exist, unless `missing_ok` is set, or globs match nothing.
        SourceError: an object store cannot be listed, or the manifest or the table of exclusions cannot be used.
        UsageError: packages for object stores are missing.
    """
    allow_private_hosts(options.allow_private_hosts)
    options = with_exclusions(options)
    stream = stdin
    if LIST_ON_STDIN in options.sources or options.manifest == LIST_ON_STDIN:
        stream = stdin or getattr(sys.stdin, "buffer", None)
        if stream is None:
            raise SourceError("'-' reads standard input, but it is closed; give a file or directory")
    path_filter, skipped = PathFilter(options.include, options.exclude, system=options.include_system), Counter[str]()
    selection = Selection(path_filter, skipped, archives(path_filter, skipped), options.archives, not options.no_follow)
    if options.manifest is None:
        if not options.sources:
            log.info("no SOURCE given: taking the current directory")
        return Listing(_Sources(options, selection, stream).refs(), options, skipped=skipped)
    manifest = open_manifest(
        options.manifest,
        path_column=options.path_column,
        escaped_paths=options.escaped_paths,
        base=options.manifest_base,
        stdin=stream,
        numbers=numbers,
    )
    refs = _manifest_images(manifest, selection, _check_of(options))
    extra, carried = manifest.extra_columns, manifest.carried
    return Listing(refs, options, skipped=skipped, extra_columns=extra, close=manifest.close, carried=carried)


def _check_of(options: SourceOptions) -> PathCheck:
    """Returns what looks whether the paths of a manifest exist."""
    name, base = options.manifest or "", options.manifest_base or ""
    is_file = name != LIST_ON_STDIN and not is_url(name)
    folder = os.fsencode(os.path.dirname(name)) if is_file and not base else None
    shown = f"the manifest '{escape_path(name)}'" if is_file else "the manifest"
    return PathCheck(shown, os.fsencode(base), folder or None)


def _manifest_images(manifest: Manifest, selection: Selection, check: PathCheck) -> Iterator[ImageRef]:
    """Filters the rows of a manifest, and puts the members of an archive in the place of its row."""
    for ref in manifest:
        if ref.error is not None:
            yield ref
            continue
        is_archive = is_archive_name(ref.key)
        if not selection.takes_listed(ref.key, directory=is_archive):
            continue
        file = ref.location.file
        path, remote = os.fsencode(file), is_url(file)
        if not remote:
            check.see(ref.key)
        if is_archive:
            yield from (replace(member, extra=ref.extra) for member in selection.archives.members(path, b""))
            continue
        found = _find_member(selection, path)
        if found is None and remote:
            found = unlisted_object_ref(file)
        yield ref if found is None else replace(found, key=ref.key, extra=ref.extra)
    check.end()


def _find_member(selection: Selection, path: bytes) -> ImageRef | None:
    """Returns the member of an archive that a path names, or None."""
    if os.fsencode(SEPARATOR) not in path or os.path.lexists(path):
        return None
    return selection.archives.member(path)


class _Sources:
    """The sources of one listing. Making it sees whether every one of them exists; see `list_images`."""

    def __init__(self, options: SourceOptions, selection: Selection, stdin: BinaryIO | None) -> None:
        self._options, self._selection, self._stdin = options, selection, stdin
        missing: dict[str, str] = {}
        self._begun: list[Iterator[ImageRef | None] | None] = []
        for source in options.sources:
            try:
                self._begun.append(self._begin(source))
            except SourceNotFoundError as error:
                missing[source] = str(error)
        if missing:
            raise not_found(missing)

    def _begin(self, source: str) -> Iterator[ImageRef | None] | None:
        """Begins a source, or returns None where there is nothing to begin; SourceNotFoundError says why not."""
        missing_ok = self._options.missing_ok
        if is_url(source):
            return begin_url_source(self._selection, source, missing_ok=missing_ok)
        if not has_magic(source) or os.path.lexists(source):
            if source != LIST_ON_STDIN:
                self._look_at(source)
            return None
        walk = glob_images(self._selection, source)
        try:
            return chain((next(walk),), walk)
        except StopIteration:
            raise SourceNotFoundError("as a pattern it matches nothing") from None

    def _look_at(self, source: str) -> None:
        path = os.fsencode(source)
        is_directory, problem = look_at(path)
        if problem is None and not is_directory and (hint := how_to_list(path)) is not None:
            log.warning("%s", hint)
        if self._options.missing_ok:
            return
        if problem is not None and (member := _find_member(self._selection, path)) is not None:
            problem = member.error
        if problem is not None and problem.reason == "missing":
            raise SourceNotFoundError(problem.message)

    def refs(self) -> Iterator[ImageRef]:
        if not self._options.sources:
            yield from directory_images(self._selection, b"")
        for source, begun in zip(self._options.sources, self._begun, strict=True):
            count = 0
            for ref in self._list(source, begun):
                count += 1
                yield ref
            log.log(DETAIL, "listed '%s': %s images", escape_path(source), f"{count:,}")
            if not count and begun is None and source != LIST_ON_STDIN and len(self._options.sources) > 1:
                log.warning("'%s' holds no images", escape_path(source))

    def _list(self, source: str, begun: Iterator[ImageRef | None] | None) -> Iterator[ImageRef]:
        if begun is not None:
            return (ref for ref in begun if ref is not None)
        if source == LIST_ON_STDIN:
            return self._list_on_stdin()
        path = os.fsencode(source)
        is_directory, problem = look_at(path)
        return self._expand(path, problem, is_directory=is_directory)

    def _expand(self, path: bytes, problem: ImageError | None, *, is_directory: bool) -> Iterator[ImageRef]:
        if is_directory:
            yield from directory_images(self._selection, path)
        elif problem is None and is_archive_name(path):
            yield from self._selection.archives.members(path, b"")
        else:
            member = None if problem is None else _find_member(self._selection, path)
            yield member or file_ref(path, error=problem)

    def _list_on_stdin(self) -> Iterator[ImageRef]:
        assert self._stdin is not None
        check = PathCheck("the list on standard input")
        try:
            for number, path in enumerate(read_entries(self._stdin, b"\0" if self._options.null else b"\n")):
                if not number:
                    path = _without_mark(path)
                if len(path) > MAX_NAME:
                    text = f"entry {number + 1} of the list has more than {MAX_NAME:,} bytes"
                    yield file_ref(path[:MAX_NAME], error=ImageError("missing", text))
                    continue
                check.see(path)
                if is_url(url := os.fsdecode(path)):
                    # Whether it is a prefix is not known yet; a name without an extension is taken for one.
                    is_prefix = b"." not in os.path.basename(path) or is_archive_name(path)
                    if self._selection.takes_listed(path, directory=is_prefix):
                        yield from list_url(self._selection, url)
                    continue
                is_directory, problem = look_at(path)
                is_archive = problem is None and is_archive_name(path)
                if self._selection.takes_listed(path, directory=is_directory or is_archive):
                    yield from self._expand(path, problem, is_directory=is_directory)
            check.end()
        except OSError as error:
            problem = ImageError("unreadable", f"cannot read the list on standard input: {error.strerror}")
            yield file_ref(LIST_ON_STDIN.encode(), error=problem)


def _without_mark(path: bytes) -> bytes:
    """Removes a byte-order mark from the first path of a list, unless there is a file whose name begins with it.

    Raises:
        OSError: the list is UTF-16.
    """
    if path.startswith(BOM_UTF8) and not os.path.lexists(path):
        return path[len(BOM_UTF8) :]
    if path.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) and (b"\0" in path or not os.path.lexists(path)):
        raise OSError(EILSEQ, "it is UTF-16; convert it (iconv -f UTF-16 -t UTF-8)")
    return path


def read_entries(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    """Reads the entries of a list that are not empty, each as soon as it arrives; raises OSError.

    Of one that is longer than `MAX_NAME` only the beginning is kept, one byte more than that.
    """
    read = getattr(stream, "read1", stream.read)  # read1 returns what a pipe has, read waits until it has enough
    pending = b""
    while chunk := read(_MAX_ENTRY):
        *entries, last = chunk.split(separator)
        for entry in entries:
            if pending or entry:
                yield (pending + entry)[: MAX_NAME + 1]
            pending = b""
        pending = (pending + last)[: MAX_NAME + 1]
    if pending:
        yield pending
