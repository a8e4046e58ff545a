"""Findings: what a check finds wrong, counted by kind, with examples."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xcli.storage.streams import ByteStream

MAX_SHOWN = 20


@dataclass(slots=True)
class Finding:
    """One kind of thing that is wrong.

    Attributes:
        check: a short machine-readable word.
        what: a noun phrase in the plural: `sources without a row`.
        examples: the first `MAX_SHOWN`, unless the kind says enough; as paths of the `path` column or other names.
        warning: whether it deserves attention but is no failure.
    """

    check: str
    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)
    warning: bool = False


class Findings:
    """All findings of a check, by kind; each occurrence also becomes a line of JSON in a report.

    Args:
        report: where the lines go; None for nowhere.
    """

    def __init__(self, report: ByteStream | None = None) -> None:
        self._by_kind: dict[tuple[str, str], Finding] = {}
        self._report = report

    def add(self, check: str, what: str, names: Iterable[str], *, warning: bool = False, listed: bool = True) -> None:
        """Adds one occurrence for each of `names`; unless `listed`, they go only to the report."""
        for name in names:
            finding = self._by_kind.setdefault((check, what), Finding(check, what, warning=warning))
            finding.count += 1
            if listed and finding.count <= MAX_SHOWN:
                finding.examples.append(name)
            if self._report is not None:
                line = json.dumps({"check": check, "what": what, "name": name}, ensure_ascii=False) + "\n"
                self._report.write(line.encode("utf-8", "backslashreplace"))

    @property
    def all(self) -> list[Finding]:
        return list(self._by_kind.values())

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.all if not finding.warning]
