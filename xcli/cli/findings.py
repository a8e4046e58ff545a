"""Findings of `merge` and `verify` for a person, and the complete list of them as a file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from xcli.matching import Findings
from xcli.output import finish, open_output
from xcli.tables import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.matching import Finding


@contextmanager
def reporting(target: str | None) -> Iterator[Findings]:
    """Findings, each of which also becomes a line of `target`; the file appears however the check ends.

    Raises:
        OutputError: the file cannot be written.
    """
    if target is None:
        yield Findings()
        return
    file = open_output(target, overwrite=True)
    try:
        try:
            yield Findings(file.stream)
        finally:
            finish([file])
    except BaseException:
        file.discard()
        raise


def described(findings: Iterable[Finding]) -> Iterator[str]:
    """Lines: what was found and how often, then the first of them."""
    for finding in findings:
        yield f"{finding.what}: {finding.count:,}"
        yield from (f"  {one_line(example)}" for example in finding.examples)
        if finding.count > len(finding.examples):
            yield f"  ... and {finding.count - len(finding.examples):,} more"
