"""Images that are left out of a listing because a table names them: the findings of an audit, or copies."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError
from xcli.core.finding_kinds import KINDS
from xcli.core.text import escape_path, one_line
from xcli.sources.archives.members import WholeArchive
from xcli.sources.manifests import open_manifest
from xcli.sources.options import LIST_ON_STDIN

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Collection, Iterable, Iterator

    from xcli.core.records import ImageRef
    from xcli.sources.labelled import LabelledImages
    from xcli.sources.options import SourceOptions

EXCLUDED = "excluded by findings"
"""The reason under which images are counted that are left out."""

_ISSUE, _KEEP = "issue", "keep"

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


def read_exclusions(source: str, kinds: Collection[str] | None = None) -> Exclusions:
    """Reads which images are to be left out: those in the column `path` of CSV, Parquet or JSON lines.

    Args:
        source: the table. If it has a column `keep`, as that of `duplicates`, those of which it is true are kept.
        kinds: of findings; the table then has to have a column `issue`, as that of `audit`. None is all.

    Raises:
        SourceError: it cannot be read, or lacks a column.
    """
    if source == LIST_ON_STDIN:
        raise SourceError("the table of images to leave out is a file, not standard input ('-')")
    shown = f"'{escape_path(source)}'"
    manifest = open_manifest(source, escaped_paths=True, only=(_ISSUE, _KEEP), noun="table")
    try:
        names = [column.name for column in manifest.extra_columns]
        if kinds is not None and _ISSUE not in names:
            raise SourceError(f"the table {shown} has no column '{_ISSUE}', so kinds of findings cannot be chosen")
        found = set()
        for ref in manifest:
            if ref.error is not None and ref.error.reason != "missing":
                raise SourceError(f"{ref.error.message}; what it names cannot be left out")
            values = dict(zip(names, ref.extra, strict=True))
            # A finding about a class names no image.
            if _is_chosen(values, kinds, shown) and ref.error is None:
                found.add(ref.path)
        return Exclusions(source, frozenset(found))
    finally:
        manifest.close()


def _is_chosen(values: dict[str, Any], kinds: Collection[str] | None, shown: str) -> bool:
    """Says by the columns `issue` and `keep` of a row, if there are such, whether its image is left out."""
    chosen = True
    if _ISSUE in values:
        issue = values[_ISSUE]
        if issue not in KINDS:
            raise SourceError(f"the column '{_ISSUE}' of the table {shown} holds {one_line(repr(issue))}, no finding")
        chosen = kinds is None or issue in kinds
    if _KEEP in values:
        keep = str(values[_KEEP]).lower()
        if keep not in ("true", "false"):
            text = one_line(repr(values[_KEEP]))
            raise SourceError(f"the column '{_KEEP}' of the table {shown} holds {text}, neither true nor false")
        chosen = chosen and keep == "false"
    return chosen


def with_exclusions(options: SourceOptions) -> SourceOptions:
    """Returns options with the images that they leave out; raises SourceError as `read_exclusions` does."""
    if options.exclude_from is None or options.excluded is not None:
        return options
    return replace(options, excluded=read_exclusions(options.exclude_from, options.exclude_kinds))


def leave_out(data: LabelledImages, excluded: Exclusions, *, trains: bool) -> LabelledImages:
    """Returns labelled images without those that are excluded; they are counted among the skipped ones.

    Raises:
        SourceError: none of these images is excluded; or with `trains`, all images of a class are.
    """
    kept = tuple(sample for sample in data.samples if sample.ref.path not in excluded.paths)
    count = len(data.samples) - len(kept)
    if excluded.paths and data.samples and not count:
        raise SourceError(excluded.found_none(data.samples[0].ref.path))
    lost = set(data.labels) - {sample.label for sample in kept}
    if trains and lost:
        raise SourceError(f"{one_line(excluded.source)} leaves no image of the class {one_line(min(lost))!r}")
    log.info("%s images are left out for %s", f"{count:,}", one_line(excluded.source))
    return replace(data, samples=kept, skipped={**data.skipped, EXCLUDED: count})
