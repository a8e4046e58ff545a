"""What is listed of a directory or bucket: globs, `--include` and `--exclude`, hidden names, archives."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from xcli.core.public_urls import public_url
from xcli.images.formats import has_image_extension
from xcli.sources.archives.members import is_archive_name
from xcli.sources.locations import file_ref
from xcli.sources.patterns import NO_EXTENSION, NOT_IMAGE, PathFilter, PathPattern, Positions, with_slash
from xcli.sources.system_folders import SYSTEM_FOLDER

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

    from xcli.core.errors import ImageError
    from xcli.core.records import ImageRef
    from xcli.sources.archives.listing import Archives


class Scope(NamedTuple):
    """Why an entry of a walk belongs to the listing."""

    inherited: bool = True  # with everything else in its directory, as in a directory source
    matched: bool = False  # the glob matches the entry itself
    positions: Positions = ()  # what the glob can match below the entry; empty when that is nothing

    @property
    def whole(self) -> bool:
        """Whether everything below the entry belongs to the listing."""
        return self.inherited or self.matched


_INHERITED = Scope()

OTHER_SHARD = "other shard"
"""The reason under which a listing counts the images that belong to sibling shards."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Decides which entries of directories and buckets are listed, and counts those that are not.

    Attributes:
        skipped: counts, by reason, of the entries that were passed over; a directory counts once.
        into_archives: whether archives that are found in directories are listed, not only those that match a glob.
        follow: whether symbolic links below the directory in which a walk begins are followed.
        trusted: as in `LocalFile`: how much of each path leads to that directory; None if links are followed.
        pattern: the glob, if there is one.
        directories_only: whether a match of the glob must be a directory.
        start: the scope of the directory in which a walk begins.
    """

    path_filter: PathFilter
    skipped: Counter[str]
    archives: Archives
    into_archives: bool = False
    follow: bool = True
    trusted: int | None = None
    pattern: PathPattern | None = None
    directories_only: bool = False
    start: Scope = _INHERITED

    def narrowed(self, components: Iterable[str], *, directories_only: bool) -> Selection:
        """Returns a selection of what matches a glob, with the same filter and counters."""
        pattern = PathPattern(components, hidden=False)
        start = Scope(pattern.matched(pattern.start()), positions=pattern.start())
        return replace(self, pattern=pattern, directories_only=directories_only, start=start)

    def beginning_in(self, top: bytes) -> Selection:
        """Returns a selection for the walk of this directory, with the same filter and counters."""
        return self if self.follow else replace(self, trusted=len(os.fsdecode(with_slash(top))))

    def step(self, above: Scope, name: bytes) -> Scope | None:
        """Returns the scope of an entry in `above`, or None if it is not listed; counts hidden entries."""
        if above.positions and self.pattern is not None:
            positions = self.pattern.step(above.positions, os.fsdecode(name))
            if positions:
                below = positions if self.pattern.can_continue(positions) else ()
                return Scope(above.whole, self.pattern.matched(positions), below)
        if not above.whole:
            return None
        if name.startswith(b"."):
            self.skipped["hidden"] += 1
            return None
        return _INHERITED

    def enters(self, scope: Scope, key: bytes) -> bool:
        """Says whether a directory is walked, and counts it if it is excluded or belongs to a system."""
        if not scope.whole and not scope.positions:
            return False
        name = key[key.rfind(b"/") + 1 :]
        # As with hidden names, a glob that spells the name out asks for it.
        spelled = self.pattern is not None and self.pattern.spells(os.fsdecode(name))
        if self.path_filter.refuses_system(name) and not spelled:
            self.skipped[SYSTEM_FOLDER] += 1
            return False
        return not self._refuses_directory(key)

    def _refuses_directory(self, key: bytes) -> bool:
        if not self.path_filter.refuses_directory(key):
            return False
        self.skipped["excluded"] += 1
        return True

    def unbounded(self, scope: Scope) -> bool:
        """Says whether what is listed can lie any number of directories below."""
        return scope.whole or (self.pattern is not None and self.pattern.unbounded(scope.positions))

    def only_name(self, scope: Scope) -> str | None:
        """Returns the only name in a directory that can match, or None where there can be several."""
        return None if self.pattern is None or scope.whole else self.pattern.only_name(scope.positions)

    def file(
        self,
        scope: Scope,
        path: bytes,
        key: bytes,
        problem: ImageError | None = None,
        make_ref: Callable[[bytes, bytes, ImageError | None], ImageRef] | None = None,
    ) -> Iterable[ImageRef | None]:
        """Lists a file, or the images in an archive; `problem` is what is known to be wrong with it.

        Returns references, made from path, key and problem; None stands for a match of the glob that gives none itself.
        """
        make_ref = make_ref or partial(file_ref, trusted=self.trusted)
        matched = scope.matched and not self.directories_only
        nothing = (None,) if matched else ()
        if (matched or (scope.inherited and self.into_archives)) and is_archive_name(path):
            if self._refuses_directory(key):
                return nothing
            if problem is None:
                return chain(nothing, self.archives.members(path, key, self.trusted))
            return (make_ref(path, key, problem),)
        # A link that cannot be followed may lead to a directory that the glob goes through: it must not be lost.
        blocked = problem is not None and problem.reason == "unreadable" and bool(scope.positions)
        named = matched or blocked
        if not named and not scope.inherited:
            return ()
        reason = self.path_filter.refuses_file(key, looks_like_image=named or has_image_extension(path))
        if reason is None:
            return (make_ref(path, key, problem),)
        if reason in (NOT_IMAGE, NO_EXTENSION) and problem is not None and problem.reason != "not-a-file":
            reason = "broken symlink"  # it may have led to a directory of images
        self.skipped[reason] += 1
        return nothing

    def takes_listed(self, path: bytes, *, directory: bool) -> bool:
        """Says whether the filter lets a path from a list through, and counts it if not.

        A `directory` may be an archive too; `--include` applies to its entries instead.
        """
        if self.path_filter.refuses_listed(path, directory=directory):
            reason: str | None = "excluded"
        else:
            reason = None if directory else self.path_filter.refuses_file(path, looks_like_image=True)
        if reason is not None:
            self.skipped[reason] += 1
        return reason is None


def shard_of(key: bytes, count: int) -> int:
    """Says which of `count` shards, from 1, an image belongs to by its `ImageRef.key`. The rule is fixed for ever.

    Of a URL what `public_url` leaves counts, so that a new signature does not change the shard.
    """
    if b"://" in key:
        key = os.fsencode(public_url(os.fsdecode(key)))
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") % count + 1
