"""Patterns of paths: globs, matched one component at a time, and the filter of `--include` and `--exclude`."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import TYPE_CHECKING

from xcli.core.errors import SourceError
from xcli.core.text import escape_path
from xcli.sources.system_folders import is_system_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

Positions = tuple[int, ...]
"""The places in a pattern that a path may have reached after some of its components; empty when it cannot match."""

NOT_IMAGE, NO_EXTENSION = "not an image", "without an extension"
"""Reasons under which a listing counts files that do not look like images by their names."""


def not_image_reason(key: bytes) -> str:
    """Returns under which reason a file with this name or path is counted, which does not look like an image."""
    return NOT_IMAGE if b"." in key[key.rfind(b"/") + 1 :] else NO_EXTENSION


_MAGIC = re.compile(r"[*?[]")


def has_magic(text: str) -> bool:
    """Says whether `text` holds a character that makes it a pattern: `*`, `?` or `[`."""
    return _MAGIC.search(text) is not None


def path_parts(path: str) -> list[str]:
    """Returns the components of a path except empty ones and `.`: `./a//b/` is `a`, `b`."""
    return [part for part in path.split("/") if part not in ("", ".")]


def with_slash(directory: bytes) -> bytes:
    """Returns what comes before the names of a directory's entries; nothing if it is empty, the current one."""
    return directory if not directory or directory.endswith(b"/") else directory + b"/"


def split_glob(pattern: str) -> tuple[str, list[str]]:
    """Returns what comes before the first component with a wildcard, and the components from there on.

    Raises:
        SourceError: a `..` follows the wildcard.
    """
    components = pattern.split("/")
    fixed = next(index for index, text in enumerate(components) if has_magic(text))
    wild = [text for text in components[fixed:] if text not in ("", ".")]
    if ".." in wild:
        raise SourceError(f"the pattern '{escape_path(pattern)}' has '..' after a wildcard; write it without")
    return "/".join([*components[:fixed], ""]), wild


class PathPattern:
    """A glob, matched component by component, so that a walk visits every path once and only enters what can match.

    `*`, `?` and `[...]` match within one component; `**` as a whole component matches any number of components, also
    none.
    """

    def __init__(self, components: Iterable[str], *, hidden: bool) -> None:
        """Compiles the components, of which there is at least one; `hidden` lets wildcards match a leading dot."""
        self._components = tuple(components)
        self._fits = [re.compile(fnmatch.translate(text)).match for text in self._components]
        self._hidden = hidden
        self._end = len(self._components)

    def start(self) -> Positions:
        """Returns the positions before the first component of a path."""
        return self._past_recursive({0})

    def step(self, positions: Positions, name: str) -> Positions:
        """Returns the positions after one more component."""
        reached = set()
        for position in positions:
            if position < self._end and self._admits(position, name):
                reached.add(position if self._components[position] == "**" else position + 1)
        return self._past_recursive(reached) if reached else ()

    def _admits(self, position: int, name: str) -> bool:
        if not self._hidden and name.startswith(".") and not self._components[position].startswith("."):
            return False
        return self._fits[position](name) is not None

    def _past_recursive(self, positions: set[int]) -> Positions:
        """Adds the positions behind each `**`, which may match no component at all."""
        for position in sorted(positions):
            while position < self._end and self._components[position] == "**":
                position += 1
                positions.add(position)
        return tuple(sorted(positions))

    def matched(self, positions: Positions) -> bool:
        """Says whether a path that ends at these positions matches."""
        return self._end in positions

    def can_continue(self, positions: Positions) -> bool:
        """Says whether something below a path at these positions can match."""
        return any(position < self._end for position in positions)

    def unbounded(self, positions: Positions) -> bool:
        """Says whether matches can lie any number of directories below."""
        return any(self._components[position] == "**" for position in positions if position < self._end)

    def only_name(self, positions: Positions) -> str | None:
        """Returns the only name that can come next, or None where a wildcard can match several."""
        if len(positions) != 1 or positions[0] == self._end:
            return None
        text = self._components[positions[0]]
        return None if has_magic(text) else text

    def spells(self, name: str) -> bool:
        """Says whether `name` is a component of the pattern, as it is written."""
        return name in self._components

    def matches(self, parts: Iterable[str]) -> bool:
        """Says whether a whole path matches."""
        positions = self.start()
        for part in parts:
            positions = self.step(positions, part)
        return self.matched(positions)


class _Rule:
    """One argument of `--include` or `--exclude`."""

    def __init__(self, text: str) -> None:
        parts = path_parts(text) or [text]
        self._anchored = "/" in text.removesuffix("/")
        self._directories_only = text.endswith("/")
        self._pattern = PathPattern(parts, hidden=True)
        extension = parts[-1].rpartition(".")[2] if "." in parts[-1] else ""
        self.spells_extension = not has_magic(parts[-1]) or bool(extension.strip("*"))

    def fits(self, parts: list[str], *, directory: bool) -> bool:
        if self._directories_only and not directory:
            return False
        return self._pattern.matches(parts if self._anchored else parts[-1:])


class PathFilter:
    """The patterns of `--include` and `--exclude`.

    A pattern that contains a slash is matched against the whole path relative to its source, others against the bare
    name; a slash at its end restricts a pattern to directories. Excluding a directory excludes everything below it.
    Where there are includes, a file must match at least one. An include that spells out an extension (`*.img`) or a
    whole name also takes files without an image's extension.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = (), *, system: bool = False) -> None:
        """Compiles the patterns; `system` lets system folders through."""
        self._system = system
        self._include = [_Rule(text) for text in include]
        self._exclude = [_Rule(text) for text in exclude]

    def refuses_directory(self, key: bytes) -> bool:
        """Says whether a directory is excluded; `key` is its path relative to the source."""
        return bool(self._exclude) and self._excludes(path_parts(os.fsdecode(key)), directory=True)

    def refuses_system(self, name: bytes) -> bool:
        """Says whether a directory with this name is passed over because it belongs to a system."""
        return not self._system and is_system_folder(name)

    def refuses_listed(self, key: bytes, *, directory: bool) -> bool:
        """Says whether a path from a list is excluded, either itself or by one of its parent directories."""
        if not self._exclude:
            return False
        parts = path_parts(os.fsdecode(key))
        above = (self._excludes(parts[:depth], directory=True) for depth in range(1, len(parts)))
        return any(above) or self._excludes(parts, directory=directory)

    def refuses_file(self, key: bytes, *, looks_like_image: bool) -> str | None:
        """Returns the reason to skip a file, or None; one that the user named counts as looking like an image."""
        if not self._include and not self._exclude:
            return None if looks_like_image else not_image_reason(key)
        parts = path_parts(os.fsdecode(key))
        if self._include:
            rules = [rule for rule in self._include if rule.fits(parts, directory=False)]
            if not rules:
                return "not included"
            looks_like_image = looks_like_image or any(rule.spells_extension for rule in rules)
        if not looks_like_image:
            return not_image_reason(key)
        return "excluded" if self._excludes(parts, directory=False) else None

    def _excludes(self, parts: list[str], *, directory: bool) -> bool:
        return bool(parts) and any(rule.fits(parts, directory=directory) for rule in self._exclude)
