"""Findings of `merge` and `verify` for a person, and the complete list of them as a file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xcli.checks.findings import Findings
from xcli.cli.help import OUTPUT, fold, path
from xcli.core.errors import UsageError
from xcli.core.text import one_line
from xcli.sources.options import SourceOptions
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xcli.checks.findings import Finding


report_argument = path(
    "--report", OUTPUT, "FILE", "Write all findings to FILE as lines of JSON; an existing FILE is replaced."
)


def sources_if_given(values: dict[str, Any], name: str) -> SourceOptions | None:
    """Takes the sources out of a command's values.

    Args:
        values: of the command.
        name: what its sources are called.

    Returns:
        None where there are none, which unlike elsewhere does not mean the current directory.

    Raises:
        UsageError: filters were given without anything to narrow down.
    """
    options = fold(SourceOptions, values)
    if options.sources or options.manifest is not None:
        return options
    if options != SourceOptions(path_column=options.path_column):
        raise UsageError(f"filters were given without {name} or --manifest; they narrow these down")
    return None


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
            commit([file])
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
