"""Two records side by side."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]

NOT_COMPARED = ("took",)
"""Of a step: how long it took."""


def differences(before: Record, after: Record) -> Iterator[str]:
    """What differs, in lines for a person; none where the records are equal."""
    yield from _lines("environment", _pretty(before["environment"]), _pretty(after["environment"]))
    old, new = before["cases"], after["cases"]
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            yield f"==== {name}: only in the record {'before' if name in old else 'after'}\n"
        else:
            yield from _case(name, old[name], new[name])


def _case(name: str, old: Record, new: Record) -> Iterator[str]:
    for number in range(max(len(old["steps"]), len(new["steps"]))):
        one, other = (steps[number] if number < len(steps) else {} for steps in (old["steps"], new["steps"]))
        shown = one.get("command") or one.get("do") or other.get("command") or other.get("do")
        changes = []
        for key in dict.fromkeys([*one, *other]):
            if key not in NOT_COMPARED and one.get(key) != other.get(key):
                changes += _lines(key, _pretty(one.get(key)), _pretty(other.get(key)))
        if changes:
            yield f"==== {name}, step {number + 1}: {shown}\n"
            yield from changes
    old_files, new_files = old["files"], new["files"]
    changes = []
    for file in sorted(old_files.keys() | new_files.keys()):
        if old_files.get(file) != new_files.get(file):
            changes += _lines(file, _pretty(old_files.get(file)), _pretty(new_files.get(file)))
    if changes:
        yield f"==== {name}, its files\n"
        yield from changes


def _pretty(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, dict) and list(value) == ["text"]:
        return str(value["text"]).splitlines()
    if isinstance(value, str):
        return value.splitlines()
    return json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True).splitlines()


def _lines(name: str, old: list[str], new: list[str]) -> list[str]:
    return [f"{line}\n" for line in difflib.unified_diff(old, new, f"{name} before", f"{name} after", "", "", 2, "")]
