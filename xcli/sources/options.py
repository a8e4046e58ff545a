"""The options that say which images to list: `SourceOptions`, and the value of `--shard`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xcli.core.errors import UsageError
from xcli.core.finding_kinds import check_kinds
from xcli.core.public_urls import public_url
from xcli.core.records import settings_as_dict
from xcli.core.text import escape_path

if TYPE_CHECKING:
    from xcli.sources.excluded import Exclusions

LIST_ON_STDIN = "-"
"""The source that stands for a list of paths on standard input."""

_NEWER = ("manifest_base", "include_system", "no_follow")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What to list. Files named one by one in `sources` are never filtered.

    Attributes:
        sources: files, directories, archives, single members of them (`photos.tar::a.jpg`), globs, or `-` for a list
            on standard input; none for the current directory. All but directories may be URLs (`s3://bucket/a.jpg`),
            and a prefix (`s3://bucket/photos/`) takes the place of a directory.
        null: the list on standard input is separated by NUL, not by newlines.
        manifest: a CSV or Parquet file of paths and URLs, or the URL of one; `-` for CSV on standard input.
        path_column: the manifest's column of paths.
        escaped_paths: the manifest's paths are escaped as in the `path` column of this program's tables.
        manifest_base: the directory, or the URL of a prefix, that the manifest's relative paths are relative to; None
            for the current directory.
        archives: also list the archives that are found in directories; those given in other ways are always listed.
        include: patterns, one of which a file found in a directory, archive, glob, list or manifest must match.
        exclude: patterns of files and directories to leave out of directories, archives, globs, lists and manifests.
        include_system: also walk folders that belong to a system, such as `@eaDir` (`xcli.sources.system_folders`).
        limit: the largest number of images to list.
        shard: `(I, N)`: of these, only the I-th of N parts, I from 1.
        missing_ok: one of `sources` that does not exist is a reference with an error. It changes no row of the others.
        no_follow: symbolic links in directories, and in what a glob matches, are passed over, also if they appear after
            the listing. What leads to the directory, and files that are named one by one, may be links.
        allow_private_hosts: http and https URLs may lead to addresses that are not public. It is not part of what is
            computed either, and holds for the whole process until the next listing begins.
        exclude_from: a table, CSV or Parquet, whose images are left out; see `xcli.sources.exclusions`.
        exclude_kinds: of its findings; None for all.
        excluded: these images, once the listing has begun; the fingerprint has them in place of the table's name.

    Raises:
        UsageError: a value is out of range, or two do not go together.
    """

    sources: tuple[str, ...] = ()
    null: bool = False
    manifest: str | None = None
    path_column: str = "path"
    escaped_paths: bool = False
    archives: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    shard: tuple[int, int] | None = None
    manifest_base: str | None = None
    include_system: bool = False
    missing_ok: bool = False
    no_follow: bool = False
    allow_private_hosts: bool = False
    exclude_from: str | None = None
    exclude_kinds: tuple[str, ...] | None = None
    excluded: Exclusions | None = None

    def __post_init__(self) -> None:
        for source in self.sources:
            if not source:
                raise UsageError(
                    "a source is empty; give a path, or '.' for the current directory (is a shell variable unset?)"
                )
            try:
                os.fsencode(source)
            except UnicodeEncodeError:
                raise UsageError(f"the source {source!r} holds a character that no path can hold") from None
        lists = self.sources.count(LIST_ON_STDIN)
        if lists > 1:
            raise UsageError(f"'-' was given {lists} times as a source; standard input can be read once")
        if self.null and not lists:
            raise UsageError(
                "--null was given without '-' as a source; it says how the list on standard input is separated"
            )
        if self.manifest is not None and self.sources:
            given = escape_path(self.sources[0])
            raise UsageError(f"both --manifest and a source ('{given}') were given; give one of them")
        if self.escaped_paths and self.manifest is None:
            raise UsageError("--escaped-paths was given without --manifest; sources are always taken verbatim")
        if self.manifest_base is not None and self.manifest is None:
            raise UsageError("--manifest-base was given without --manifest; only its paths can have a base")
        if self.missing_ok and not self.sources:
            raise UsageError("--missing-ok was given without a source; what a manifest lists may always be missing")
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            if "" in patterns:
                raise UsageError(f"{option} was given an empty pattern; write one such as '*.png', or leave it out")
        for pattern in self.include:
            if pattern.endswith("/"):
                raise UsageError(
                    f"--include '{escape_path(pattern)}' names directories, but it selects files; "
                    f"write '{escape_path(pattern)}**'"
                )
        if self.exclude_kinds is not None:
            if self.exclude_from is None:
                raise UsageError("--exclude-kinds is for --exclude-from FINDINGS, which was not given")
            check_kinds(self.exclude_kinds)
        if self.limit is not None and self.limit < 0:
            raise UsageError(f"--limit must be 0 or more, not {self.limit}")
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise UsageError(f"--shard I/N needs I from 1 to N, not {self.shard[0]}/{self.shard[1]}")

    def as_dict(self) -> dict[str, Any]:
        """Returns the options that decide which rows there are by name, for a fingerprint."""
        settings = settings_as_dict(replace(self, excluded=None), _NEWER)
        for name in ("missing_ok", "allow_private_hosts", "exclude_from", "exclude_kinds", "excluded"):
            del settings[name]
        if self.exclude_from is not None:
            assert self.excluded is not None, "the listing has not begun"
            settings["exclude_from"] = self.excluded.described
        for name in ("manifest", "manifest_base"):
            if settings.get(name):
                settings[name] = public_url(settings[name])
        settings["sources"] = [public_url(source) for source in settings["sources"]]
        return settings


def parse_shard(text: str) -> tuple[int, int]:
    """Returns `(I, N)` for the value `I/N` of `--shard`; raises UsageError for anything but I from 1 to N."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--shard must be I/N with I from 1 to N, such as 3/8, not {text!r}")
    return int(match[1]), int(match[2])
