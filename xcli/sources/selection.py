"""What is listed of a directory or bucket: globs, `--include` and `--exclude`, hidden names, archives."""

from __future__ import annotations

import os
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from xcli.images.formats import has_image_extension
from xcli.sources.archives.members import is_archive_name
from xcli.sources.patterns import PathFilter, PathPattern, Positions
from xcli.sources.references import file_ref

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

    from xcli.core.errors import ImageError
    from xcli.core.records import ImageRef
    from xcli.sources.archives.listing import Archives


class Scope(NamedTuple):
    """Why an entry of a walk belongs to the listing.

    Attributes:
        inherited: everything in the directory that holds the entry belongs to the listing, as in a directory source.
        matched: the glob matches the entry itself.
        positions: what the glob can match below the entry; empty when that is nothing, or there is no glob.
    """

    inherited: bool = True
    matched: bool = False
    positions: Positions = ()

    @property
    def whole(self) -> bool:
        """Whether everything below the entry belongs to the listing."""
        return self.inherited or self.matched


_INHERITED = Scope()


class Selection:
    """Decides which entries of directories and buckets are listed, and counts those that are not.

    Attributes:
        path_filter: the patterns of `--include` and `--exclude`.
        skipped: counts, by reason, of the entries that were passed over; a directory counts once.
        archives: lists archives.
        start: the scope of the directory in which a walk begins.
    """

    def __init__(
        self, path_filter: PathFilter, skipped: Counter[str], archives: Archives, *, into_archives: bool = False
    ) -> None:
        """Selects everything that the filter lets through.

        Args:
            path_filter: see above.
            skipped: see above.
            archives: see above.
            into_archives: list the archives that are found in directories too, not only those that match a glob.
        """
        self.path_filter, self.skipped, self.archives = path_filter, skipped, archives
        self.start = _INHERITED
        self._into_archives = into_archives
        self._pattern: PathPattern | None = None
        self._directories_only = False

    def narrowed(self, components: Iterable[str], *, directories_only: bool) -> Selection:
        """Returns a selection of what matches a glob, with the same filter and counters.

        Args:
            components: the glob's components.
            directories_only: whether a match must be a directory.
        """
        narrow = Selection(self.path_filter, self.skipped, self.archives, into_archives=self._into_archives)
        narrow._pattern = pattern = PathPattern(components, hidden=False)
        narrow._directories_only = directories_only
        narrow.start = Scope(pattern.matched(pattern.start()), positions=pattern.start())
        return narrow

    def step(self, above: Scope, name: bytes) -> Scope | None:
        """Returns the scope of an entry, or None for one that does not belong to the listing; hidden ones are counted.

        Args:
            above: the scope of the directory that holds the entry.
            name: the entry's name.
        """
        if above.positions and self._pattern is not None:
            positions = self._pattern.step(above.positions, os.fsdecode(name))
            if positions:
                below = positions if self._pattern.can_continue(positions) else ()
                return Scope(above.whole, self._pattern.matched(positions), below)
        if not above.whole:
            return None
        if name.startswith(b"."):
            self.skipped["hidden"] += 1
            return None
        return _INHERITED

    def enters(self, scope: Scope, key: bytes) -> bool:
        """Says whether a directory is walked, and counts it if it is excluded.

        Args:
            scope: its scope.
            key: its path relative to the source.
        """
        if not scope.whole and not scope.positions:
            return False
        if self.path_filter.refuses_directory(key):
            self.skipped["excluded"] += 1
            return False
        return True

    def unbounded(self, scope: Scope) -> bool:
        """Says whether what is listed can lie any number of directories below."""
        return scope.whole or (self._pattern is not None and self._pattern.unbounded(scope.positions))

    def only_name(self, scope: Scope) -> str | None:
        """Returns the only name in a directory that can match, or None where there can be several."""
        return None if self._pattern is None or scope.whole else self._pattern.only_name(scope.positions)

    def file(
        self,
        scope: Scope,
        path: bytes,
        key: bytes,
        problem: ImageError | None = None,
        make_ref: Callable[[bytes, bytes, ImageError | None], ImageRef] = file_ref,
    ) -> Iterable[ImageRef | None]:
        """Lists a file, or the images in an archive.

        Args:
            scope: its scope.
            path: its path or URL.
            key: its path relative to the source.
            problem: what is known to be wrong with it.
            make_ref: makes its reference from path, key and problem.

        Returns:
            References; among them None if the file matches the glob.
        """
        matched = scope.matched and not self._directories_only
        nothing = (None,) if matched else ()
        if (matched or (scope.inherited and self._into_archives)) and is_archive_name(path):
            if self.path_filter.refuses_directory(key):
                self.skipped["excluded"] += 1
                return nothing
            if problem is None:
                return chain(nothing, self.archives.members(path, key))
            return (make_ref(path, key, problem),)
        # A link that cannot be followed may lead to a directory that the glob goes through: it must not be lost.
        blocked = problem is not None and problem.reason == "unreadable" and bool(scope.positions)
        named = matched or blocked
        if not named and not scope.inherited:
            return ()
        reason = self.path_filter.refuses_file(key, looks_like_image=named or has_image_extension(path))
        if reason is None:
            return (make_ref(path, key, problem),)
        if reason == "not an image" and problem is not None and problem.reason != "not-a-file":
            reason = "broken symlink"  # it may have led to a directory of images
        self.skipped[reason] += 1
        return nothing

    def takes_listed(self, path: bytes, *, directory: bool) -> bool:
        """Says whether the filter lets a path from a list through, and counts it if not.

        Args:
            path: the path or URL.
            directory: whether it is a directory or an archive, to whose entries `--include` applies instead.
        """
        if self.path_filter.refuses_listed(path, directory=directory):
            reason: str | None = "excluded"
        else:
            reason = None if directory else self.path_filter.refuses_file(path, looks_like_image=True)
        if reason is not None:
            self.skipped[reason] += 1
        return reason is None
