"""Names of folders and files that `sort` gives: safe on every file system, told apart, and turned back to labels."""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import count
from string import Formatter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from xcli.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

UNSURE, ERRORS = "_unsure", "_errors"
"""Folders of rows without a label or with a low score, and of error rows; no label gets such a name."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f%/\\:*?"<>|\ud800-\udfff]|^[ ._]|[ .]$')
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)")
_MAX_BYTES = 255
_MAX_LABEL = 200
_OWN_FIELDS = ("name", "stem", "ext", "row", "class")


def folder_of(label: str) -> str:
    """Returns the name of a label's folder: unsafe characters are %XX of their UTF-8 bytes; an empty label is `%`.

    `label_of` turns it back. Only a name of more than 200 bytes cannot be: it is cut, and ends in `%~` and a digest.
    """
    name = _UNSAFE.sub(_percent, label) or "%"
    if _RESERVED.match(name):
        name = _percent(name[0]) + name[1:]
    data = name.encode()
    if len(data) <= _MAX_LABEL:
        return name
    digest = blake2b(label.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{data[:_MAX_LABEL].decode('utf-8', 'ignore').rstrip(' .')}%~{digest}"


def label_of(folder: str) -> str:
    """Returns the label whose `folder_of` a name is."""
    return "" if folder == "%" else unquote(folder, errors="surrogatepass")


def _percent(char: re.Match[str] | str) -> str:
    text = char if isinstance(char, str) else char[0]
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def file_name(text: str) -> str:
    """Returns a text as a file name: a slash and NUL become %2F and %00, and a name that means a directory likewise."""
    name = re.sub(r"[\x00/]", _percent, text)
    return name.replace(".", "%2E") if name in (".", "..") else name or "%"


def candidates(name: str, path: str) -> Iterator[str]:
    """Yields the names that a file may get, best first: its own, then with the digest of its path before the extension.

    Args:
        name: that it would have.
        path: of the `path` column; other names depend on it alone, and not on the other rows.
    """
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > 10:
        stem, dot, extension = name, "", ""
    digest = blake2b(path.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    yield _fit(stem, "", dot + extension)
    for number in count(1):
        yield _fit(stem, f"~{digest}" + (f"-{number}" if number > 1 else ""), dot + extension)


def _fit(stem: str, mark: str, ending: str) -> str:
    """Joins the parts of a name; the stem is cut where the whole would be too long."""
    rest = _MAX_BYTES - len((mark + ending).encode("utf-8", "surrogateescape"))
    data = stem.encode("utf-8", "surrogateescape")
    return (stem if len(data) <= rest else data[:rest].decode("utf-8", "ignore")) + mark + ending


class Template:
    """A template of `--rename`: text with `{name}`, `{stem}`, `{ext}`, `{row}`, `{class}`, or columns: `{score_1:.2f}`.

    The extension follows where the template does not name it.

    Raises:
        UsageError: it is no such template, or names a column that the table does not have.
    """

    def __init__(self, text: str, columns: Collection[str]) -> None:
        self._text = text
        self.columns: list[str] = []  # of the table that it names
        try:
            self._parts = [*Formatter().parse(text)]
        except ValueError as error:
            raise UsageError(f"--rename {text!r}: {error}") from None
        for _, name, spec, conversion in self._parts:
            if name is None:
                continue
            if conversion or "{" in (spec or "") or (name not in _OWN_FIELDS and name not in columns):
                known = ", ".join([*_OWN_FIELDS, *columns][:20])
                raise UsageError(f"--rename {text!r}: {{{name}}} is not known; there are {known}")
            if name not in _OWN_FIELDS:
                self.columns.append(name)
        named = {name for _, name, _, _ in self._parts}
        self._adds_extension = not named & {"name", "ext"}

    def fill(self, values: Mapping[str, Any], *, name: str, row: int, folder: str) -> str:
        """Returns the name of a row's file; `values` are those of its columns."""
        stem, dot, extension = name.rpartition(".")
        stem, ending = (stem, dot + extension) if stem else (name, "")
        known = {**values, "name": name, "stem": stem, "ext": ending, "row": row, "class": folder}
        made = ""
        for text, field, spec, _ in self._parts:
            made += text
            if field is not None:
                value = known[field]
                try:
                    made += "" if value is None else format(value, spec or "")
                except (ValueError, TypeError) as error:
                    raise UsageError(f"--rename {self._text!r}: row {row:,} has {field} {value!r}: {error}") from None
        return file_name(made + (ending if self._adds_extension else ""))
