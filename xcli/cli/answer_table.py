"""The table of a command whose answer is one file: what can be refused before there is an answer."""

from __future__ import annotations

from typing import Any

from xcli.core.errors import UsageError
from xcli.outputs.target import Directory, parse_target
from xcli.tables.formats import check_output, format_from_name

FORMATS = ("csv", "parquet", "jsonl")


def check_answer_table(command: str, values: dict[str, Any]) -> str:
    """Returns the format of the table that `-o` names; of a terminal or a pipe that of `--format`, or CSV.

    Args:
        command: its name, for messages.
        values: of its options: `output` and `overwrite`, and `format` and `json` where it has these.

    Raises:
        UsageError: the table is a directory, its name tells no format, or `--json` writes to the same place.
        OutputError: it exists already, or cannot be written.
    """
    target = values["output"]
    if target is not None and isinstance(parse_target(target), Directory):
        raise UsageError(f"{command} writes one file, and {target!r} is a directory")
    if target == "-" and values.get("json"):
        raise UsageError("--json and -o - both write to standard output; give -o a file")
    form: str = values.get("format") or format_from_name(target, FORMATS, "csv", has_option="format" in values)
    if target is not None:
        check_output(form, target, values["overwrite"])
    return form
