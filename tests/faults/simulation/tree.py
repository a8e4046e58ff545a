"""What a directory holds, as a value."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from typing import NamedTuple

from xcli.tables.provenance import is_unchanged

FILE, DIRECTORY, LINK = "file", "directory", "link"

MTIME = 1_700_000_000_000_000_000
"""Of files that no run has written, in nanoseconds."""

_OF_ONE_RUN = ("started", "finished", "seconds", "profile", "command_line", "sha256")
"""Members of a `.meta.json` that say how a run went, not what it made."""


class Entry(NamedTuple):
    """A file with its content, a link with its target, or a directory.

    Attributes:
        kind, data, mtime: what it is, what it holds, and when it was written, in nanoseconds.
        inode: the same number for all names of one file; 0 if it has one name.
    """

    kind: str
    data: bytes = b""
    mtime: int = MTIME
    inode: int = 0


Tree = dict[str, Entry]
"""Everything below a directory, by relative path."""


def read_tree(root: str) -> Tree:
    """Reads a directory; links are not followed."""
    tree: Tree = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        for entry in os.scandir(os.path.join(root, folder)):
            path = os.path.join(folder, entry.name)
            if entry.is_symlink():
                tree[path] = Entry(LINK, os.readlink(entry.path).encode())
            elif entry.is_dir():
                tree[path] = Entry(DIRECTORY)
                pending.append(path)
            else:
                found = entry.stat()
                with open(entry.path, "rb") as file:
                    content = file.read()
                tree[path] = Entry(FILE, content, found.st_mtime_ns, found.st_ino if found.st_nlink > 1 else 0)
    return tree


def write_tree(root: str, tree: Tree) -> None:
    """Makes a directory hold this and nothing else."""
    shutil.rmtree(root, ignore_errors=True)
    os.mkdir(root)
    named: dict[int, str] = {}
    for path in sorted(tree):
        entry, name = tree[path], os.path.join(root, path)
        if entry.kind == DIRECTORY:
            os.mkdir(name)
        elif entry.kind == LINK:
            os.symlink(entry.data.decode(), name)
        elif entry.inode in named:
            os.link(named[entry.inode], name)
        else:
            if entry.inode:
                named[entry.inode] = name
            with open(name, "wb") as file:
                file.write(entry.data)
            os.utime(name, ns=(entry.mtime, entry.mtime))


def below(tree: Tree, folder: str) -> Tree:
    """The part of a tree in a directory."""
    return {path: entry for path, entry in tree.items() if path.startswith(folder + "/")}


def content(tree: Tree, paths: Iterable[str] | None = None) -> dict[str, object]:
    """Kind and content by path, without what differs between two runs that make the same."""
    chosen = tree if paths is None else [path for path in paths if path in tree]
    return {path: _content(path, tree[path]) for path in chosen}


def _content(path: str, entry: Entry) -> object:
    if entry.kind != FILE or not path.endswith("meta.json"):
        return (entry.kind, entry.data)
    try:
        meta = json.loads(entry.data)
        rest = {name: value for name, value in meta.items() if name not in _OF_ONE_RUN}
        rest["unchanged"] = is_unchanged(meta)
        rest["images"] = {name: value for name, value in meta["images"].items() if name != "resumed"}
    except (ValueError, TypeError, KeyError, AttributeError):
        return (entry.kind, entry.data)
    return rest


def fingerprint(tree: Tree) -> int:
    """The same for directories in which the same command does the same: times matter only of what it reads."""
    return hash(tuple((path, *(tree[path][:2] if path.startswith("out/") else tree[path])) for path in sorted(tree)))


def described(tree: Tree) -> str:
    """A line for each entry where outputs are."""
    chosen = sorted((path, entry) for path, entry in tree.items() if path.startswith(("out/", "tmp/")))
    return "\n".join(f"    {path}  {entry.kind} {len(entry.data)}" for path, entry in chosen)
