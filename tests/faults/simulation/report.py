"""The table of cases."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Cases tried and right, by class and job; `total` is the number of all that there are."""

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    right: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[tuple[str, list[str]]] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)
    total: int = 0

    def add(self, kind: str, job: str, case: str, wrong: list[str]) -> None:
        """Counts a case."""
        self.tried[kind, job] += 1
        self.cases.append(case)
        self.right[kind, job] += not wrong
        if wrong:
            self.wrong.append((case, wrong))

    def tried_by(self, kind: str) -> int:
        """The number of cases tried of one class."""
        return sum(count for (one, _), count in self.tried.items() if one == kind)

    def summary(self) -> list[str]:
        """What is wrong, by kind: how often, an example, and the command that replays it."""
        kinds: dict[str, list[str]] = {}
        for case, wrong in self.wrong:
            for one in wrong:
                kinds.setdefault(re.sub(r"out/[^\s':;,]*|[0-9]+", "#", one)[:120], []).append(
                    f"{case.split()[0]}  {one}"
                )
        ordered = sorted(kinds.values(), key=len, reverse=True)
        return [f"{len(one):6}  FAULT={min(one, key=len)}" for one in ordered]

    def lines(self) -> list[str]:
        """The table: a row for each class, a column for each job; `right/tried` where they differ."""
        jobs = list(dict.fromkeys(job for _, job in sorted(self.tried)))
        kinds = list(dict.fromkeys(kind for kind, _ in self.tried))
        rows = [["", *jobs, "all"]]
        for kind in (*sorted(kinds), "all"):
            row = [kind]
            for job in (*jobs, "all"):
                chosen = [one for one in self.tried if kind in (one[0], "all") and job in (one[1], "all")]
                tried, right = (sum(found[one] for one in chosen) for found in (self.tried, self.right))
                row.append("" if not tried else f"{right}" if right == tried else f"{right}/{tried}")
            rows.append(row)
        widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
        return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
