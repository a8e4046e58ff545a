"""Checks that no dependency may be, or is locked to, a version with a hole that is known to concern this program.

    python tools/known_holes.py    exits 1 and names what is too old

The list is kept by hand: advisories are read when a dependency changes, and the check needs no network.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FIRST_SAFE = {
    "aiohttp": ("3.14.3", "CVE-2026-69243, CVE-2026-69244"),
    "click": ("8.4.2", "prints control characters of unknown options as they are"),
    "filelock": ("3.20.3", "CVE-2025-68146, CVE-2026-22701"),
    "imagecodecs": ("2026.3.6", "CVE-2026-1837 in the libjxl that it bundles"),
    "keras": ("3.15.0", "code and file access through model files"),
    "pillow": ("12.3", "CVE-2026-25990, CVE-2026-40192, CVE-2026-55379"),
    "pillow-heif": ("1.8", "holes in the libheif that it bundles"),
    "pytest": ("9.0.3", "CVE-2025-71176"),
    "ray": ("2.56", "CVE-2026-27482, CVE-2026-32981, CVE-2026-57516"),
    "requests": ("2.33", "CVE-2024-47081, CVE-2026-25645"),
    "urllib3": ("2.6.3", "CVE-2026-21441"),
}
"""The first version without the hole, and the hole."""

TRANSITIVE = frozenset({"urllib3"})
"""Packages that are not declared, because those that need them set floors; they are checked in the lock alone."""


def key(version: str) -> tuple[int, ...]:
    """A version as something that compares; zeros at the end do not count."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def too_old(declared: list[str], lock: str) -> list[str]:
    """Names what is too old among requirements, such as `click>=8.4.2`, and in the text of a lock file."""
    problems, found = [], set[str]()
    for requirement in declared:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(?:>=([0-9.]+))?", requirement)
        assert match is not None, requirement
        name, floor = match[1].lower(), match[2]
        if name in FIRST_SAFE:
            found.add(name)
            safe, hole = FIRST_SAFE[name]
            if key(floor or "0") < key(safe):
                problems.append(f"pyproject.toml allows {requirement}, but {name} is safe from {safe} on: {hole}")
    problems += [f"pyproject.toml sets no floor for {name}" for name in sorted(set(FIRST_SAFE) - TRANSITIVE - found)]
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([0-9.]+)", lock, re.MULTILINE):
        if name in FIRST_SAFE and key(version) < key(FIRST_SAFE[name][0]):
            safe, hole = FIRST_SAFE[name]
            problems.append(f"requirements-dev.lock has {name} {version}, which is safe from {safe} on: {hole}")
    return problems


def main() -> int:
    """Checks this repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    problems = too_old(declared, (ROOT / "requirements-dev.lock").read_text(encoding="utf-8"))
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
