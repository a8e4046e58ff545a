"""File names as text: the reversible escape of the `path` column, and text for messages of one line.

A file name is bytes. In the program it is what `os.fsdecode` returns for them; in a table it is valid UTF-8 text, in
which `\\xNN` stands for a byte that is not UTF-8 and `\\\\` for a backslash. Everything else stays as it is.
"""

from __future__ import annotations

import os
import re
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ESCAPE = re.compile(rb"\\(?:(\\)|x([0-9a-fA-F]{2}))?")


def escape_path(location: str) -> str:
    """Escapes a file system path, as `os.fsdecode` gives it, to valid UTF-8 text; different paths differ in it, too.

    Raises:
        UnicodeEncodeError: `location` holds a surrogate that stands for no byte, so it is no path.
    """
    if location.isascii() and "\\" not in location:
        return location
    return os.fsencode(location).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def unescape_path(text: str) -> str:
    """Reverses `escape_path`; in `text` surrogates that stand for bytes are allowed.

    Raises:
        ValueError: a backslash in `text` begins neither `\\\\` nor `\\xNN`.
    """
    return os.fsdecode(_ESCAPE.sub(_byte, encode_text(text)))


def _byte(match: re.Match[bytes]) -> bytes:
    backslash, digits = match.groups()
    if backslash:
        return b"\\"
    if digits:
        return bytes((int(digits, 16),))
    raise ValueError(f"the backslash at byte {match.start()} begins neither \\\\ nor \\xNN")


def encode_text(text: str) -> bytes:
    """Returns the bytes of text that was read with `surrogateescape`; UnicodeEncodeError for any other surrogate."""
    return text.encode("utf-8", "surrogateescape")


def valid_text(text: str) -> str:
    """Makes text that was read with `surrogateescape` valid: a byte that is not UTF-8 becomes `\\xNN`.

    Unlike `escape_path` it leaves backslashes alone, so it is for text that need not be turned back.
    """
    return text if text.isascii() else encode_text(text).decode("utf-8", "backslashreplace")


_NOT_ONE_LINE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: str) -> str:
    r"""Escapes characters that would break a line, control a terminal, hide, or cannot be encoded as UTF-8.

    Control characters (also of the writing direction), line separators, spaces without width, byte-order marks and tag
    characters become `\n`, `\x1b`, `\u2028`, `\U000e0041`; surrogates that stand for undecodable bytes become `\xff`.
    Joiners, U+200C and U+200D, stay: Persian and emoji need them.
    """
    return _NOT_ONE_LINE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    long = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT_ESCAPES.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else long)


def join_names(names: Iterable[str], most: int = 10, count: int | None = None) -> str:
    """Joins names for a message: the first `most` of them, and how many more there are of `count`, else of `names`."""
    shown = list(names if count is None else islice(names, most))
    more = (len(shown) if count is None else count) - most
    return ", ".join(shown[:most]) + (f" and {more} more" if more > 0 else "")


def short_text(value: object) -> str:
    """Text of a file or a library, as one short line without control characters."""
    text = f"{type(value).__name__}: {value}" if isinstance(value, Exception) else str(value)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
