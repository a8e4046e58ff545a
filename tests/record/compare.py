"""Two records side by side."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

Record = dict[str, Any]


def differences(before: Record, after: Record, ignored: Collection[str] = (), only: str = "") -> Iterator[str]:
    """What differs, in lines for a person; none where the records are equal.

    Args:
        before, after: the records.
        ignored: members of a step that are not compared, as `err`.
        only: a regular expression; only cases whose names match it are compared.
    """
    ignored = {*ignored, "took"}
    yield from difference("environment", before["environment"], after["environment"])
    old, new = before["cases"], after["cases"]
    for name in sorted(old.keys() | new.keys()):
        if not re.search(only, name):
            continue
        if name not in new or name not in old:
            yield f"==== {name}: only in the record {'before' if name in old else 'after'}\n"
        else:
            yield from _case(name, old[name], new[name], ignored)


def _case(name: str, old: Record, new: Record, ignored: Collection[str]) -> Iterator[str]:
    for number in range(max(len(old["steps"]), len(new["steps"]))):
        one, other = (steps[number] if number < len(steps) else {} for steps in (old["steps"], new["steps"]))
        shown = one.get("command") or one.get("do") or other.get("command") or other.get("do")
        changes = []
        for key in dict.fromkeys([*one, *other]):
            if key not in ignored and one.get(key) != other.get(key):
                changes += difference(key, one.get(key), other.get(key))
        if changes:
            yield f"==== {name}, step {number + 1}: {shown}\n"
            yield from changes
    old_files, new_files = old["files"], new["files"]
    changes = []
    for file in sorted(old_files.keys() | new_files.keys()):
        if old_files.get(file) != new_files.get(file):
            changes += difference(file, old_files.get(file), new_files.get(file))
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


def difference(name: str, old: Any, new: Any) -> list[str]:
    """Two values as a unified diff, in lines; as they are where they differ only in how lines end."""
    if old != new and _pretty(old) == _pretty(new):
        return [f"{name} before: {old!r}\n", f"{name} after:  {new!r}\n"]
    lines = difflib.unified_diff(_pretty(old), _pretty(new), f"{name} before", f"{name} after", "", "", 2, "")
    return [f"{line}\n" for line in lines]
