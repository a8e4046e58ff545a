"""Reads which images a table names that are to be left out of a listing: the findings of an audit, or copies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import SourceError
from xcli.core.finding_kinds import KINDS
from xcli.core.text import escape_path, one_line
from xcli.sources.excluded import Exclusions
from xcli.sources.manifests import open_manifest
from xcli.sources.options import LIST_ON_STDIN

if TYPE_CHECKING:
    from collections.abc import Collection

    from xcli.sources.options import SourceOptions

_ISSUE, _KEEP = "issue", "keep"


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
