"""Patterns of paths: quoted globs as they are walked along, and the filter behind `--include` and `--exclude`."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Positions = tuple[int, ...]
"""Where in a pattern a path may stand after some of its components; empty when it no longer fits."""

_MAGIC = re.compile(r"[*?[]")


def has_magic(text: str) -> bool:
    """Says whether `text` holds a character that makes it a pattern: `*`, `?` or `[`."""
    return _MAGIC.search(text) is not None


def path_parts(path: str) -> list[str]:
    """Gives the components of a path without those that name nothing: `./a//b/` is `a`, `b`."""
    return [part for part in path.split("/") if part not in ("", ".")]


@dataclass(frozen=True, slots=True)
class _Component:
    text: str
    hidden: bool
    fits: Callable[[str], object | None] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fits", re.compile(fnmatch.translate(self.text)).match)

    @property
    def recursive(self) -> bool:
        return self.text == "**"

    def admits(self, name: str) -> bool:
        """Says whether this component stands for `name`; a hidden name must be asked for by a leading dot."""
        if not self.hidden and name.startswith(".") and not self.text.startswith("."):
            return False
        return self.fits(name) is not None


class PathPattern:
    """A glob, followed component by component, so that a walk visits every path once and only where it can lead.

    `*`, `?` and `[...]` stay within one component; `**` as a whole component is any number of components, none
    included.
    """

    def __init__(self, components: Iterable[str], *, hidden: bool) -> None:
        """Prepares the pattern.

        Args:
            components: the pattern's components, in order; at least one.
            hidden: whether a wildcard stands for a leading dot too.
        """
        self._components = tuple(_Component(text, hidden) for text in components)
        self._end = len(self._components)

    def start(self) -> Positions:
        """Gives the positions before the first component of a path."""
        return self._closed({0})

    def step(self, positions: Positions, name: str) -> Positions:
        """Gives the positions after one more component."""
        reached = set()
        for position in positions:
            if position < self._end:
                component = self._components[position]
                if component.admits(name):
                    reached.add(position if component.recursive else position + 1)
        return self._closed(reached) if reached else ()

    def _closed(self, positions: set[int]) -> Positions:
        for position in sorted(positions):
            while position < self._end and self._components[position].recursive:
                position += 1
                positions.add(position)
        return tuple(sorted(positions))

    def matched(self, positions: Positions) -> bool:
        """Says whether a path that ends here matches."""
        return self._end in positions

    def leads_on(self, positions: Positions) -> bool:
        """Says whether something below a path that stands here can match."""
        return any(position < self._end for position in positions)

    def unbounded(self, positions: Positions) -> bool:
        """Says whether matches can lie any number of directories below."""
        return any(self._components[position].recursive for position in positions if position < self._end)

    def only_name(self, positions: Positions) -> str | None:
        """Gives the one name that can come next where no wildcard does, else None."""
        if len(positions) != 1 or positions[0] == self._end:
            return None
        text = self._components[positions[0]].text
        return None if has_magic(text) else text

    def matches(self, parts: Iterable[str]) -> bool:
        """Says whether a whole path matches."""
        positions = self.start()
        for part in parts:
            positions = self.step(positions, part)
            if not positions:
                return False
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
    """What `--include` and `--exclude` let through.

    A pattern with a slash within is matched against the whole path relative to its source, one without against the
    bare name; a slash at the end keeps a pattern to directories. A directory that is excluded is excluded with
    everything below it. With includes, a file must match at least one. An include that spells out an extension
    (`*.img`), or a whole name, also takes files that do not look like images by their name.
    """

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        """Prepares the patterns of `--include` and `--exclude`."""
        self._include = [_Rule(text) for text in include]
        self._exclude = [_Rule(text) for text in exclude]

    def refuses_directory(self, key: bytes) -> bool:
        """Says whether a directory is excluded; `key` is its path relative to the source."""
        return bool(self._exclude) and self._excludes(path_parts(os.fsdecode(key)), directory=True)

    def refuses_listed(self, key: bytes, *, directory: bool) -> bool:
        """Says whether a path out of a list is excluded, itself or by one of the directories that lead to it."""
        if not self._exclude:
            return False
        parts = path_parts(os.fsdecode(key))
        above = (self._excludes(parts[:depth], directory=True) for depth in range(1, len(parts)))
        return any(above) or self._excludes(parts, directory=directory)

    def refuses_file(self, key: bytes, *, looks_like_image: bool) -> str | None:
        """Gives the reason to skip a file, or None.

        Args:
            key: the file's path relative to its source.
            looks_like_image: whether its extension is an image's, or does not matter.
        """
        if not self._include and not self._exclude:
            return None if looks_like_image else "not an image"
        parts = path_parts(os.fsdecode(key))
        if self._include:
            rules = [rule for rule in self._include if rule.fits(parts, directory=False)]
            if not rules:
                return "not included"
            looks_like_image = looks_like_image or any(rule.spells_extension for rule in rules)
        if not looks_like_image:
            return "not an image"
        return "excluded" if self._excludes(parts, directory=False) else None

    def _excludes(self, parts: list[str], *, directory: bool) -> bool:
        return bool(parts) and any(rule.fits(parts, directory=directory) for rule in self._exclude)
