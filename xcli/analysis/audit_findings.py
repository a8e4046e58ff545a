"""Findings of an audit: their columns, and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from xcli.core.finding_kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

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
