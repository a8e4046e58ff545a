"""Faults that once lost rows, each as the cases of the simulation in which it showed."""

from __future__ import annotations

import re

import pytest

from tests.faults.test_simulation import simulate, wrong_of
from tests.thorough import slow

FINDINGS = {
    "a finished directory whose notes are being cleared away is whole": (
        r"^dir\.fresh:\d+:(SIGKILL-before|SIGINT-after|EIO) unlink out/d/_"
    ),
    "two jobs that write one second table do not mix": r"^pair/two\.fresh:\d+:second (link|rename) .*f\.npy",
    "a signal at the very moment of publication": r"^two\.fresh:\d+:SIG(INT|TERM)\S+ link ",
    "a flipped bit in a part or in the journal": (
        r"^damage/dir\.continued:\S+(part-00000|run)\S+:(flip-\d*[05]\.|half|null)"
    ),
    "parts that changed places": r"^damage/dir\.continued:.*exchange",
    "a journal that is gone": r"^damage/dir\.continued:.*missing",
    "a part that cannot be opened now is not damaged": r"^dir\.continued:\d+:(EIO|EMFILE) open out/.*part-",
    "merge that fails or dies between its two files": r"^merge\.fresh:\d+:(ENOSPC|SIGKILL-before) (link|rename) ",
    "an overwritten file keeps its record": r"^overwrite\.fresh:\d+:(EIO|SIGKILL-before) rename ",
    "a disk that is full from the start": r"^dir\.fresh:\d:FULL ",
    "nothing temporary is left behind": r"^errors\.fresh:\d+:SIGKILL-before (create|link) ",
    "a power cut while a directory is made, or replaced": (
        r"^power/(dir|overwrite-dir)\.fresh:\d+:\S+ (mkdir out/d|unlink out/d/_SUCCESS|rename \S+ -> out/d/_)"
    ),
    "a power cut at merge": r"^power/merge\.fresh:\d+:\S+ (mkdir|link) ",
}
"""The cases, as a regular expression of what `--list` prints of them."""


@pytest.fixture(scope="module")
def tried() -> tuple[list[str], list[str]]:
    """The cases that were tried, and those that were wrong."""
    options = [f"--job={name}" for name in ("dir", "two", "merge", "overwrite", "errors", "overwrite-dir")]
    options += ["--state=fresh", "--state=continued"]
    done = simulate(*options, "--match", "|".join(FINDINGS.values()), "--list", "--seconds", "90")
    wrong = wrong_of(done)
    assert "not tried" not in done.stdout, done.stdout[-200:]
    return re.findall("^tried (.*)$", done.stdout, re.MULTILINE), wrong


@slow
@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_stays_cured(finding: str, tried: tuple[list[str], list[str]]) -> None:
    cases, wrong = tried
    chosen = [case for case in cases if re.search(FINDINGS[finding], case)]
    assert chosen, "the program does not make these calls any more: choose others that show the fault"
    replays = {f"FAULT={case.split()[0]} " for case in chosen}
    assert [line for line in wrong if any(line.startswith(one) for one in replays)] == []
