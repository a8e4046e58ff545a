"""Names of files as text that any table can hold, and back: the reversible escape of the `path` column.

A file name is bytes. Within the program it is what `os.fsdecode` makes of them; in a table it is valid UTF-8 text, in
which `\\xNN` stands for a byte that is not UTF-8 and `\\\\` for a backslash. Nothing else is changed.
"""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(rb"\\(?:(\\)|x([0-9a-fA-F]{2}))?")


def escape_path(location: str) -> str:
    """Turns a file system path into text for the `path` column.

    Args:
        location: a path as `os.fsdecode` gives it.

    Returns:
        Valid text; different paths give different texts.

    Raises:
        UnicodeEncodeError: `location` holds something that stands for no byte, so it can be no path.
    """
    if location.isascii() and "\\" not in location:
        return location
    return os.fsencode(location).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def unescape_path(text: str) -> str:
    """Turns text made by `escape_path` back into the path.

    Args:
        text: a value of the `path` column. Bytes that are not UTF-8 (as surrogates) are taken as they are.

    Returns:
        The path, as `os.fsdecode` gives it.

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
    """Gives the bytes of text that was read from a UTF-8 file with `surrogateescape`.

    Raises:
        UnicodeEncodeError: `text` holds a surrogate that stands for no byte.
    """
    return text.encode("utf-8", "surrogateescape")


def valid_text(text: str) -> str:
    """Makes text that was read with `surrogateescape` valid: a byte that is not UTF-8 becomes `\\xNN`.

    Unlike `escape_path` it leaves backslashes alone, so it is for text that need not be turned back.

    Raises:
        UnicodeEncodeError: `text` holds a surrogate that stands for no byte.
    """
    return text if text.isascii() else encode_text(text).decode("utf-8", "backslashreplace")


_NOT_ONE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def one_line(text: str) -> str:
    r"""Text with everything escaped that would break a line, drive a terminal, or not encode as UTF-8.

    Control characters, those for the direction of writing too, and line separators become `\n`, `\x1b`, `\u2028`;
    the surrogates by which Python carries undecodable bytes of file names become `\xff`.
    """
    return _NOT_ONE_LINE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return _SHORT_ESCAPES.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
