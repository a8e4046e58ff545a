"""The log of a `sort`: what goes where, on the disk before the first file is touched. It also takes everything back.

`DEST/_sort-DIGEST.jsonl` has a line about the command, then one for each file: `{"from": ..., "to": "folder/name"}`,
`from` as in the `path` column, but absolute. The digest is that of the settings and of the rows, so that the same
command finds its own log and goes on.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from xcli.core.errors import CheckError, SourceError
from xcli.core.text import escape_path, one_line, unescape_path
from xcli.storage import disk
from xcli.storage.streams import write_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

_MARK = "xception sort"
_VERSION = 1


class Placement(NamedTuple):
    """A file and its place: its path or URL, surrogates standing for undecodable bytes, a folder, and a name in it."""

    source: str
    folder: str
    name: str


@dataclass(frozen=True)
class SortLog:
    """What a log says.

    Attributes:
        mode: `copy`, `hardlink`, `symlink` or `move`.
        folders: those that were not there before.
        made: whether the destination itself was missing or empty.
        placements: the files, in the order of the table.
    """

    mode: str
    folders: list[str]
    made: bool
    placements: list[Placement]

    def write(self, path: str) -> None:
        """Writes the log, durably; raises OutputError."""
        head = {_MARK: _VERSION, "mode": self.mode, "folders": self.folders, "made": self.made}
        lines = [json.dumps(head)]
        for source, folder, name in self.placements:
            lines.append(json.dumps({"from": escape_path(source), "to": escape_path(f"{folder}/{name}")}))
        with write_errors(path):
            disk.replace_file(path, ("\n".join(lines) + "\n").encode())

    @classmethod
    def read(cls, path: str) -> SortLog:
        """Reads a log.

        Raises:
            SourceError: there is no such file.
            CheckError: it is no log of a sort.
        """
        try:
            lines = disk.read_file(path).decode().splitlines()
        except OSError as error:
            raise SourceError(f"cannot open {one_line(path)}: {error.strerror}") from None
        except UnicodeDecodeError:
            lines = []
        try:
            head = json.loads(lines[0])
            if head[_MARK] != _VERSION:
                raise ValueError
            placements = [_placement(json.loads(line)) for line in lines[1:]]
            folders = [one for one in head["folders"] if _is_name(one)]
            return cls(str(head["mode"]), folders, bool(head["made"]), placements)
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            raise CheckError(f"{one_line(path)} is not the log of an xception sort") from None


def _placement(line: dict[str, Any]) -> Placement:
    folder, slash, name = unescape_path(line["to"]).partition("/")
    if not slash or not _is_name(folder) or not _is_name(name):
        raise ValueError("no place in the destination")
    return Placement(unescape_path(line["from"]), folder, name)


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text


def log_name(settings: dict[str, Any], wishes: Iterable[Placement]) -> str:
    """Returns the name of the log of these settings and rows."""
    digest = blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8)
    for wish in wishes:
        digest.update("\0".join((*wish, "\n")).encode("utf-8", "surrogateescape"))
    return f"_sort-{digest.hexdigest()}.jsonl"


def absolute(path: str) -> str:
    """Returns a path from the root on; links in it stay as they are."""
    return os.path.join(os.getcwd(), path)
