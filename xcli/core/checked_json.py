"""JSON objects of this program that somebody else may have written: limits, and a schema for the members it reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from types import UnionType

Schema: TypeAlias = "type | UnionType | range | list[Any] | dict[Any, Any]"
"""A type of JSON (`int` is no bool), a range of integers, `[schema]` for a list, `{name: schema}` for an object whose
members may be absent, or `{str: schema}` for an object with members of any name."""

MAX_BYTES = 1 << 26
_MAX_DEPTH, _MAX_NAME = 12, 256
_MAX_VALUES = 1 << 20  # in lists, and members whose name the schema leaves open, as for the parts of a directory
_MAX_MEMBERS = 100_000  # of all objects; a comparison writes the name of each with those of the objects around it


def parse_object(content: bytes | str, schema: Schema, free: str | None = None) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        content: UTF-8 text.
        schema: of the object; members that it does not name may be anything within the limits.
        free: a member with very many short members, which are counted as values of a list are.

    Raises:
        ValueError: it is no such object, or beyond what such a record ever holds: in bytes, in depth, in members.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes, which no record of a run has")
    separators = content.count(b",") + content.count(b"[") if isinstance(content, bytes) else content.count(",")
    if separators > 2 * _MAX_VALUES:
        raise ValueError("it has more members than any record of a run")
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    _check_limits(value, free)
    _check(value, schema, "")
    return value


def _check_limits(value: dict[str, Any], free: str | None) -> None:
    members = 0
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                members += 0 if free is not None and one is value.get(free) else len(one)
                if max(map(len, one), default=0) > _MAX_NAME:
                    raise ValueError(f"the name of a member has more than {_MAX_NAME} characters")
                inner.extend(one.values())
            elif isinstance(one, list):
                inner.extend(one)
            elif isinstance(one, int) and one.bit_length() > 63:
                raise ValueError("a number has more than 64 bits")
        level = inner
    if level:
        raise ValueError("it is nested too deeply")
    if members > _MAX_MEMBERS:
        raise ValueError("it has more members than any record of a run")


def _check(value: Any, schema: Any, name: str) -> None:
    kind: Any = type(schema) if isinstance(schema, (dict, list)) else int if isinstance(schema, range) else schema
    numeric = isinstance(value, bool) and kind is not bool
    if numeric or not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list", str: "a text"}.get(kind, getattr(kind, "__name__", kind))
        raise ValueError(f"{name or 'it'} is not {wanted}")
    if isinstance(schema, range) and value not in schema:
        raise ValueError(f"{name} is {value}, not from {schema.start} to {schema.stop - 1}")
    if isinstance(schema, list):
        for one in value:
            _check(one, schema[0], f"an element of {name}")
    elif isinstance(schema, dict):
        for key, inner in schema.items():
            for member in value if key is str else {key} & value.keys():
                _check(value[member], inner, f"{name}.{member}" if name else str(member))
