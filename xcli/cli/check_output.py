"""How `merge` and `verify` show their findings, and write all of them to a file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from xcli.checks.findings import Finding, Findings
from xcli.cli.help import OUTPUT, fold, path
from xcli.core.errors import UsageError
from xcli.core.text import one_line
from xcli.sources.options import SourceOptions
from xcli.storage.atomic import commit, open_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

report_argument = path(
    "--report", OUTPUT, "FILE", "Write all findings to FILE as lines of JSON; an existing FILE is replaced."
)


def sources_if_given(values: dict[str, Any], name: str) -> SourceOptions | None:
    """Returns the sources of a command that may have none; then, unlike elsewhere, the current directory is not taken.

    Args:
        values: of the command.
        name: what its sources are called.

    Raises:
        UsageError: filters were given without sources.
    """
    options = fold(SourceOptions, values)
    if options.sources or options.manifest is not None:
        return options
    if options != SourceOptions(path_column=options.path_column):
        raise UsageError(f"filters were given without {name} or --manifest; they narrow these down")
    return None


@contextmanager
def reporting(target: str | None) -> Iterator[Findings]:
    """A context with findings that are also written to `target`, which appears however the check ends.

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
    """Yields lines: how many findings there are of each kind, then the first examples of each."""
    findings = list(findings)
    if len(findings) > 1:
        yield f"{sum(finding.count for finding in findings):,} findings of {len(findings)} kinds:"
    for finding in findings:
        yield f"{one_line(finding.what)}: {finding.count:,}"
        yield from (f"  {one_line(example)}" for example in finding.examples)
        if finding.count > len(finding.examples) > 0:
            yield f"  ... and {finding.count - len(finding.examples):,} more (--report FILE lists all of them)"
