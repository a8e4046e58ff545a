"""The images that a table names, and listings without them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

from xcli.core.text import one_line
from xcli.sources.archives.members import WholeArchive

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    from xcli.core.records import ImageRef

EXCLUDED = "excluded by findings"
"""The reason under which images are counted that are left out."""

log = logging.getLogger("xcli")


@dataclass(frozen=True)
class Exclusions:
    """The images that a table names.

    Attributes:
        source: the table.
        paths: of the images, as in the column `path` of an output.
    """

    source: str
    paths: frozenset[str]

    @cached_property
    def described(self) -> str:
        """Says for a fingerprint which images these are, whatever the name of the table."""
        digest = blake2b(digest_size=8)
        for path in sorted(self.paths):
            digest.update(path.encode("utf-8", "surrogatepass") + b"\0")
        return f"{len(self.paths)} image{'s' if len(self.paths) != 1 else ''}, {digest.hexdigest()}"

    def without(self, refs: Iterable[ImageRef], skipped: Counter[str], *, warns: bool = True) -> Iterator[ImageRef]:
        """Yields the other references; counts those that are left out, and warns at the end if there were none."""
        other = None
        count, is_known = 0, warns
        for ref in refs:
            if isinstance(ref.location, WholeArchive):
                is_known = False  # workers leave out its members
            elif ref.path in self.paths:
                skipped[EXCLUDED] += 1
                count += 1
                continue
            else:
                other = other or ref.path
            yield ref
        if self.paths and not count and is_known and other:
            log.warning("%s", self.found_none(other))

    def found_none(self, other: str) -> str:
        """Says that none of the images is among the data, of which `other` is one."""
        return (
            f"none of the {len(self.paths):,} images that {one_line(self.source)} names is among the data: paths have "
            f"to be the same; it has {one_line(min(self.paths))!r}, the data have {one_line(other)!r}"
        )
