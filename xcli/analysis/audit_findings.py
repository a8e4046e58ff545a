"""Findings of an audit: their kinds and columns, and what is left out for them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from xcli.analysis.picture_faults import BLANK, BLURRED, BRIGHT, DARK, ODD_SHAPE, TINY
from xcli.core.errors import SourceError, UsageError
from xcli.core.text import one_line
from xcli.sources.manifests import open_manifest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import pyarrow as pa

    from xcli.sources.labelled import LabelledImages

log = logging.getLogger("xcli")

UNREADABLE, WRONG_LABEL = "unreadable", "wrong-label"
ACROSS_CLASSES, ACROSS_SPLITS, IN_CLASS = "copy-across-classes", "copy-across-splits", "copy-in-class"
OUTLIER, SMALL_CLASS = "outlier", "small-class"

COPY_KINDS = ACROSS_CLASSES, ACROSS_SPLITS, IN_CLASS
FEATURE_KINDS = WRONG_LABEL, *COPY_KINDS, OUTLIER
PICTURE_KINDS = BLANK, BLURRED, DARK, BRIGHT, TINY, ODD_SHAPE

KINDS = UNREADABLE, *FEATURE_KINDS, *PICTURE_KINDS, SMALL_CLASS
"""In the order of the table."""

EXCLUDED = "left out for a finding"
"""The reason under which images are counted that are left out."""

COLUMNS = "path", "label", "issue", "severity", "detail", "suggested", "related"


class Finding(NamedTuple):
    """One row of the table.

    Attributes:
        path: of the image; None of a class.
        label: that it has; None where it has none.
        issue: one of `KINDS`.
        severity: from 0, at the limit, to 1.
        detail: what was found, in words.
        suggested: another label.
        related: the path of the image with which it is compared.
    """

    path: str | None
    label: str | None
    issue: str
    severity: float
    detail: str
    suggested: str | None = None
    related: str | None = None


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sorts findings by their kinds, and within a kind the worst first; equal ones stay in their order."""
    return sorted(findings, key=lambda one: (KINDS.index(one.issue), -one.severity))


def findings_schema() -> pa.Schema:
    """Returns the columns of the table."""
    import pyarrow as pa

    return pa.schema([(name, pa.float32() if name == "severity" else pa.string()) for name in COLUMNS])


def findings_batch(findings: Sequence[Finding]) -> pa.RecordBatch:
    """Returns the rows of the table."""
    import pyarrow as pa

    schema = findings_schema()
    columns = zip(*findings, strict=True) if findings else [()] * len(COLUMNS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Reads `KIND,...`.

    Raises:
        UsageError: one is unknown.
    """
    kinds = tuple(part.strip() for part in text.split(","))
    if unknown := [one for one in kinds if one not in KINDS]:
        raise UsageError(f"{unknown[0]!r} is no kind of finding; these are: {', '.join(KINDS)}")
    return kinds


def excluded_paths(source: str, kinds: Collection[str] = KINDS) -> set[str]:
    """Reads which images are to be left out: those in the column `path` of a table of findings, CSV or Parquet.

    Args:
        source: the table. Without the column `issue` all its paths are taken.
        kinds: of the findings.

    Raises:
        SourceError: it cannot be read, or has no column `path`.
    """
    manifest = open_manifest(source, escaped_paths=True)
    try:
        names = [column.name for column in manifest.extra_columns]
        at = names.index("issue") if "issue" in names else None
        found = set()
        for ref in manifest:
            # A finding about a class names no image, and its row is an error of the manifest.
            issue = None if at is None else ref.extra[at]
            if ref.path and (issue is None or issue in kinds):
                found.add(ref.path)
            if at is not None and issue not in KINDS:
                raise SourceError(f"{one_line(source)}: the column issue holds {one_line(str(issue))!r}, no finding")
        return found
    finally:
        manifest.close()


def leave_out(data: LabelledImages, source: str, kinds: Collection[str] = KINDS) -> LabelledImages:
    """Returns labelled images without those that `excluded_paths` names; they are counted among the skipped ones.

    Raises:
        SourceError: the table cannot be read, names images of other data only, or all images of a class.
    """
    paths = excluded_paths(source, kinds)
    kept = tuple(sample for sample in data.samples if sample.ref.path not in paths)
    count = len(data.samples) - len(kept)
    if paths and not count:
        raise SourceError(
            f"none of the {len(paths):,} images that {one_line(source)} names is among the data: paths have to be the "
            f"same; it has {one_line(min(paths))!r}, the data have {one_line(data.samples[0].ref.path)!r}"
        )
    lost = set(data.labels) - {sample.label for sample in kept}
    if lost:
        raise SourceError(f"{one_line(source)} leaves no image of the class {one_line(min(lost))!r}")
    log.info("%s images are left out for %s", f"{count:,}", one_line(source))
    return replace(data, samples=kept, skipped={**data.skipped, EXCLUDED: count})
