"""Why sources, or the paths of a list or manifest, do not exist: looks for what usually is wrong, and names it.

Paths are taken as they are, because a file name may hold any of this; nothing here changes a row.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache, partial
from itertools import chain, islice, permutations
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from xcli.core.errors import SourceNotFoundError
from xcli.core.text import escape_path, unescape_path
from xcli.sources.archives.listing import SEPARATOR
from xcli.sources.patterns import has_magic
from xcli.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOOKED_AT = 100
"""Paths at the beginning that are looked at; a warning comes while there is time to stop."""

_TRIED = 20  # missing ones on which each change is tried

_COMPARED = 10_000  # names in a directory that are compared with one that is not there
_SIMILAR = 0.75  # of `difflib`: "dta" is 0.86 of "data"
_DIGITS = re.compile("[0-9]+")

log = logging.getLogger("xcli")


class PathCheck:
    """Looks whether the first paths of a list exist, and warns once if most do not.

    Args:
        shown: what holds the paths, for the message.
        base: what the paths are relative to; empty for the current directory.
        folder: the directory of the manifest, in which they may have been meant; None for a list.
    """

    def __init__(self, shown: str, base: bytes = b"", folder: bytes | None = None) -> None:
        self._shown, self._base, self._folder = shown, base, folder
        self._seen, self._done = 0, False
        self._missing: list[bytes] = []

    def see(self, path: bytes) -> None:
        """Looks at the next path, as the list has it."""
        if self._done or is_url(os.fsdecode(path)):
            return
        self._seen += 1
        if not _exists(self._base, path):
            self._missing.append(path)
        if self._seen == _LOOKED_AT:
            self.end()

    def end(self) -> None:
        """Warns, if that has not been done; to be called after the last path."""
        if self._done:
            return
        self._done = True
        if not self._missing or 2 * len(self._missing) < self._seen:
            return
        reason = self._reason()
        if reason is None and self._seen > 2 and len(self._missing) == self._seen:
            where = os.path.abspath(os.path.join(self._base, self._missing[0]))
            reason = f"the first would be '{escape_path(os.fsdecode(where))}'"
        if reason is not None:
            count = f"{len(self._missing)} of the first {self._seen} paths of {self._shown} do not exist"
            log.warning("%s: %s", count, reason)

    def _reason(self) -> str | None:
        """Tries what usually is wrong, alone and in pairs, here and in the manifest's folder; then other beginnings."""
        both = (
            (f"{one}; and {other}", _chained(first, then)) for (one, first), (other, then) in permutations(_CHANGES, 2)
        )
        bases = [(self._base, ""), *([] if self._folder is None else [(self._folder, self._option())])]
        for text, change in chain((("", bytes),), _CHANGES, both):
            for base, option in bases:
                if (text or option) and self._mends(base, change):
                    return "; and ".join(filter(None, (option, text)))
        for text, change in (("", bytes), _BACKSLASHES, _WINDOWS):
            for base, option in bases:
                if beginning := self._foreign_beginning(base, change):
                    return "; and ".join(filter(None, (beginning, option, text)))
        return None

    def _option(self) -> str:
        folder = escape_path(os.fsdecode(self._folder or b"."))
        return f"they are relative to the manifest's folder: add --manifest-base {folder}"

    def _mends(self, base: bytes, change: Callable[[bytes], bytes]) -> bool:
        """Says whether most of the missing paths exist once they are changed."""
        found, tried = 0, self._missing[:_TRIED]
        for path in tried:
            with suppress(ValueError):  # a change that does not apply
                changed = change(path)
                found += (changed != path or base != self._base) and _exists(base, changed)
        return 2 * found > len(tried)

    def _foreign_beginning(self, base: bytes, change: Callable[[bytes], bytes]) -> str | None:
        """Says which directories the changed paths begin with that are not here, while the rest of them is."""
        parts = change(self._missing[0]).split(b"/")
        for start in range(1, len(parts)):
            beginning = b"/".join([*parts[:start], b""])
            if self._mends(base, _chained(change, partial(_without, beginning))):
                return f"they begin with '{escape_path(os.fsdecode(beginning))}', and are found without that: remove it"
        return None


def _chained(first: Callable[[bytes], bytes], then: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda path: then(first(path))


def _without(beginning: bytes, path: bytes) -> bytes:
    return path.removeprefix(beginning)


def _exists(base: bytes, path: bytes) -> bool:
    archive = path.partition(os.fsencode(SEPARATOR))[0]
    try:
        return bool(path) and os.path.lexists(os.path.join(base, archive))
    except ValueError:
        return False


def _unquoted(path: bytes) -> bytes:
    return path[1:-1] if len(path) > 1 and path[:1] == path[-1:] and path[:1] in (b'"', b"'") else path


def _without_scheme(path: bytes) -> bytes:
    rest = path[len(b"file://") :] if path[:7].lower() == b"file://" else path
    return unquote_to_bytes(rest.removeprefix(b"localhost")) if rest != path else path


def _as_listed(path: bytes) -> bytes:
    """Returns the path with its last name as its directory has it, but for case and the normal form of Unicode."""
    directory, slash, name = path.rpartition(b"/")
    names = _names_in(os.path.abspath(directory or b"/" * len(slash) or b"."))
    return directory + slash + names.get(_folded(name), name)


@lru_cache(maxsize=16)
def _names_in(directory: bytes) -> dict[str, bytes]:
    try:
        return {_folded(name): name for name in os.listdir(directory)}
    except OSError:
        return {}


def _folded(name: bytes) -> str:
    return unicodedata.normalize("NFC", os.fsdecode(name)).casefold()


def _normal(form: str) -> Callable[[bytes], bytes]:
    return lambda path: unicodedata.normalize(form, path.decode()).encode()  # type: ignore[arg-type]


_NORMAL_FORM = "they spell accents in another normal form of Unicode than the file names; convert them (uconv -x nfc)"

_BACKSLASHES: tuple[str, Callable[[bytes], bytes]] = (
    r"they have backslashes, as on Windows: replace them (tr '\\' /)",
    lambda path: path.replace(b"\\", b"/"),
)
_WINDOWS = (
    f"{_BACKSLASHES[0]}, and carriage returns (tr -d '\\r')",
    lambda path: path.rstrip(b"\r").replace(b"\\", b"/"),
)

_CHANGES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("they end in NUL, as `find -print0` writes them: add -0", lambda path: path.partition(b"\0")[0]),
    ("they end in a newline, not in NUL: leave -0 out", lambda path: path.partition(b"\n")[0]),
    ("they end in a carriage return, as lines on Windows do: remove it (tr -d '\\r')", lambda path: path.rstrip(b"\r")),
    ("they have blanks around them: remove these (sed 's/^ *//; s/ *$//')", lambda path: path.strip(b" \t\r\n")),
    ("they are in quotes: remove these (tr -d '\"')", lambda path: _unquoted(path.strip())),
    ("they are file:// URLs: write the paths alone", _without_scheme),
    ("'~' is replaced only by a shell: write the home directory", os.path.expanduser),
    (
        r"they are escaped as in the path column of this program's tables (\xNN, \\): add --escaped-paths",
        lambda path: os.fsencode(unescape_path(os.fsdecode(path))),
    ),
    _BACKSLASHES,
    ("they are percent-encoded, as in URLs: decode them", unquote_to_bytes),
    (_NORMAL_FORM, _normal("NFC")),
    (_NORMAL_FORM, _normal("NFD")),
    (
        "they are not UTF-8 but Windows-1252: convert the file (iconv -f WINDOWS-1252 -t UTF-8)",
        lambda path: path.decode("cp1252").encode(),
    ),
    (
        "their accents were garbled when UTF-8 was opened as Windows-1252: export the file again",
        lambda path: path.decode().encode("cp1252"),
    ),
    ("the files are there with other upper and lower case: write the names as they are", _as_listed),
)
"""What is said, and what it does to a path; a change that does not apply raises ValueError, or changes nothing."""


def not_found(missing: Mapping[str, str]) -> SourceNotFoundError:
    """Returns the error for sources that do not exist, each with the reason, which names all of them."""
    names = ", ".join(f"'{escape_path(source)}' ({_instead(source) or reason})" for source, reason in missing.items())
    count, rows = ("1 source does", "it an error row")
    if len(missing) > 1:
        count, rows = f"{len(missing):,} sources do", "them error rows"
    advice = "" if all(map(has_magic, missing)) else f"; --missing-ok makes {rows}"
    return SourceNotFoundError(f"{count} not exist: {names}{advice}")


def _instead(source: str) -> str | None:
    """Asks whether a path was meant that exists: one that a change makes of the source, or one with a similar name."""
    if is_url(source) or has_magic(source) or "\0" in source:
        return None
    path = os.fsencode(source)
    for _, change in _CHANGES:
        with suppress(ValueError):
            if (changed := change(path)) != path and _exists(b"", changed):
                return f"did you mean '{escape_path(os.fsdecode(changed))}'?"
    above, name = os.path.split(source.rstrip("/"))
    while above and not os.path.exists(above):
        above, name = os.path.split(above)
    if not os.path.lexists(os.path.join(above, name)):
        with suppress(OSError), os.scandir(above or ".") as entries:
            for close in get_close_matches(name, (one.name for one in islice(entries, _COMPARED)), 1, _SIMILAR):
                if _DIGITS.sub("", close) != _DIGITS.sub("", name):  # of numbered files, no other one was meant
                    return f"did you mean '{escape_path(os.path.join(above, close))}'?"
    return None
