"""What is refused of the table that a command is to write, before it has an answer."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Invoke

COMMANDS = {
    "audit": ("photos",),
    "duplicates": ("features.parquet",),
    "search": ("features.parquet", "a.jpg"),
}
"""With arguments that are not looked at before."""


@pytest.mark.parametrize("command", ["audit", "duplicates", "search"])
@pytest.mark.parametrize(
    ("output", "message"),
    [("x/", "writes one file, and 'x/' is a directory"), ("x.npy", "does not write npy"), ("x", "end it in .csv")],
)
def test_a_table_that_cannot_be_written(invoke: Invoke, command: str, output: str, message: str) -> None:
    result = invoke(command, *COMMANDS[command], "-o", output)
    assert (result.code, message in result.err) == (2, True), result
    offered = "--format" in invoke(command, "--help").text
    assert ("--format" in result.err) == (offered and not output.endswith("/")), "no option is named that is not there"


@pytest.mark.parametrize("command", ["audit", "duplicates"])
def test_two_answers_on_standard_output(invoke: Invoke, command: str) -> None:
    result = invoke(command, *COMMANDS[command], "-o", "-", "--json")
    assert (result.code, "both write to standard output" in result.err) == (2, True), result
