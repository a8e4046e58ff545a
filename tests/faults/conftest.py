"""The account of all that was done to the program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.harness import TALLY

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how often it was killed, and what of it was lost."""
    if TALLY.kills:
        terminalreporter.write_line(
            f"faults: {TALLY.kills} kills survived, {TALLY.rows:,} rows held against undisturbed runs: "
            f"{TALLY.lost} lost, {TALLY.doubled} doubled"
        )
