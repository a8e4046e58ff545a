"""A power cut after each call: what a file system may have kept of the changes that were not synced.

The method is that of ALICE (Pillai and others, "All File Systems Are Not Created Equal", OSDI 2014) and CrashMonkey:
the log of an undisturbed run is replayed on a model of a disk. What was written to a file is certain to be there after
fsync of that file; a name that was given or taken away, after fsync of its directory. Of everything else any part may
be missing, in any order; only a name that a rename has moved is in one place at least.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.simulation.calls import again
from tests.faults.simulation.jobs import Start
from tests.faults.simulation.judges import judge_names
from tests.faults.simulation.process import Workplace
from tests.faults.simulation.system import Call
from tests.faults.simulation.tree import DIRECTORY, FILE, LINK, Entry, Tree, described

NOTHING, ALL, HALF, ZEROS = "nothing", "all", "half", "zeros"
"""What is left of writes that were not synced."""

_SINGLE = 6

_OF_DESCRIPTORS = ("read", "write", "truncate", "fsync", "close", "lock")


@dataclass
class Node:
    """A file, a link or a directory of the model.

    Attributes:
        writes: offset and data of each write to a file; a cut to a length has no data.
        synced: number of the writes that are certain.
        names: of a directory: by name, what it meant, the last one now.
        certain: by name, the number in that list that is certain.
    """

    kind: str
    mtime: int = 0
    target: bytes = b""
    writes: list[tuple[int, bytes | None]] = field(default_factory=list)
    synced: int = 0
    names: dict[str, list[Node | None]] = field(default_factory=dict)
    certain: dict[str, int] = field(default_factory=dict)

    def give(self, name: str, node: Node | None) -> int:
        """Changes what a name means; returns the number of the change."""
        versions = self.names.setdefault(name, [None])
        versions.append(node)
        return len(versions) - 1

    def data(self, left: str) -> bytes:
        """The content, with this much of what is not certain."""
        pending = self.writes[self.synced :]
        content = _applied(b"", self.writes[: self.synced])
        if left == ALL:
            return _applied(content, pending)
        if left == ZEROS:
            return content + bytes(max(0, len(_applied(content, pending)) - len(content)))
        if left == HALF and pending:
            offset, data = pending[0]
            return _applied(content, [(offset, data[: len(data) // 2] if data else data)])
        return content


def _applied(content: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    found = bytearray(content)
    for offset, data in writes:
        if data is None:
            del found[offset:]
            found.extend(bytes(offset - len(found)))
            continue
        found.extend(bytes(max(0, offset - len(found))))
        found[offset : offset + len(data)] = data
    return bytes(found)


@dataclass
class Disk:
    """A model of a disk.

    Attributes:
        root: the directory of the case.
        open: nodes by descriptor.
        renames: for each, directory, name and change of what it took away, then of what it gave.
        unseen: names that a call used though no call had made them.
    """

    root: Node
    open: dict[int, Node] = field(default_factory=dict)
    renames: list[tuple[Node, str, int, Node, str, int]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, tree: Tree) -> Disk:
        """A disk on which this is certain to be."""
        disk = cls(Node(DIRECTORY))
        for path in sorted(tree):
            entry = tree[path]
            node = Node(entry.kind, entry.mtime, entry.data if entry.kind == LINK else b"")
            if entry.kind == FILE:
                node.writes, node.synced = [(0, entry.data)], 1
            folder, name = disk.place(path)
            folder.certain[name] = folder.give(name, node)
        return disk

    def place(self, path: str) -> tuple[Node, str]:
        """The directory and the name of a path."""
        *folders, name = path.rstrip("/").split("/")
        node = self.root
        for folder in folders:
            if folder in ("", "."):
                continue
            inner = node.names.get(folder, [None])[-1]
            if inner is None:
                self.unseen.append(path)
                inner = Node(DIRECTORY)
                node.give(folder, inner)
            node = inner
        return node, name

    def apply(self, call: Call) -> None:
        """Does what a call did."""
        if call.error:
            return
        if call.name in _OF_DESCRIPTORS:
            self._apply_to_open(call)
            return
        folder, name = self.place(call.path)
        node = self.root if name in ("", ".") else folder.names.get(name, [None])[-1]
        if node is None and call.name in ("open", "rename", "link"):
            self.unseen.append(call.path)
        if call.name in ("open", "create"):
            if node is None:
                node = Node(FILE)
                folder.give(name, node)
            self.open[call.descriptor] = node
        elif call.name == "mkdir":
            folder.give(name, Node(DIRECTORY))
        elif call.name in ("unlink", "rmdir"):
            folder.give(name, None)
        elif call.name in ("rename", "link"):
            other, target = self.place(call.target)
            given = other.give(target, node or Node(FILE))
            if call.name == "rename":
                self.renames.append((folder, name, folder.give(name, None), other, target, given))

    def _apply_to_open(self, call: Call) -> None:
        opened = self.open[call.descriptor]
        if call.name in ("write", "truncate"):
            opened.writes.append((call.offset, call.data if call.name == "write" else None))
        elif call.name == "fsync":
            opened.synced = len(opened.writes)
            opened.certain = {one: len(versions) - 1 for one, versions in opened.names.items()}

    def pending(self) -> tuple[list[tuple[Node, str]], list[Node]]:
        """Names and files whose state is not certain, of all directories that may be there."""
        names: list[tuple[Node, str]] = []
        files: dict[int, Node] = {}
        seen: set[int] = set()
        stack = [self.root]
        while stack:
            folder = stack.pop()
            if id(folder) in seen:
                continue
            seen.add(id(folder))
            for name, versions in folder.names.items():
                certain = folder.certain.get(name, 0)
                if certain < len(versions) - 1:
                    names.append((folder, name))
                for node in versions[certain:]:
                    if node is not None and node.kind == DIRECTORY:
                        stack.append(node)
                    elif node is not None and node.synced < len(node.writes):
                        files[id(node)] = node
        return names, list(files.values())

    def tree(self, newest: set[tuple[int, str]], left: dict[int, str], rest: str) -> Tree:
        """What is there if these names have their newest meaning, all others the one that is certain."""
        chosen: dict[tuple[int, str], int] = {}

        def version(folder: Node, name: str) -> int:
            certain = folder.certain.get(name, 0)
            return len(folder.names[name]) - 1 if (id(folder), name) in newest else certain

        for source, name, taken, other, target, given in self.renames:
            if version(source, name) >= taken and version(other, target) < given:
                chosen[id(other), target] = max(given, chosen.get((id(other), target), 0))
            elif source is other and version(other, target) >= given and version(source, name) < taken:
                chosen[id(source), name] = max(taken, chosen.get((id(source), name), 0))
        tree: Tree = {}
        paths: dict[int, list[str]] = {}

        def walk(folder: Node, prefix: str, depth: int = 0) -> None:
            for name, versions in folder.names.items():
                node = versions[max(version(folder, name), chosen.get((id(folder), name), 0))]
                if node is None or depth > 9:
                    continue
                path = prefix + name
                if node.kind == DIRECTORY:
                    tree[path] = Entry(DIRECTORY)
                    walk(node, path + "/", depth + 1)
                elif node.kind == LINK:
                    tree[path] = Entry(LINK, node.target)
                else:
                    mtime = {"mtime": node.mtime} if node.mtime else {}
                    tree[path] = Entry(FILE, node.data(left.get(id(node), rest)), **mtime)
                    paths.setdefault(id(node), []).append(path)

        walk(self.root, "")
        for inode, names in paths.items():
            if len(names) > 1:
                tree |= {path: tree[path]._replace(inode=inode) for path in names}
        return tree

    def states(self, seed: int) -> Iterator[tuple[str, Tree]]:
        """States in which a power cut now can leave the disk, by what tells them apart."""
        names, files = self.pending()
        every = {(id(folder), name) for folder, name in names}
        yield "all", self.tree(every, {}, ALL)
        yield "nothing", self.tree(set(), {}, NOTHING)
        yield "names", self.tree(every, {}, NOTHING)
        yield "zeros", self.tree(every, {}, ZEROS)
        yield "data", self.tree(set(), {}, ALL)
        numbers = random.Random(seed)
        for number, (folder, name) in enumerate(names[-_SINGLE:]):
            yield f"without-{number}", self.tree(every - {(id(folder), name)}, {}, ALL)
            yield f"only-{number}", self.tree({(id(folder), name)}, {}, ALL)
        for number, node in enumerate(files[-_SINGLE:]):
            yield f"half-{number}", self.tree(every, {id(node): HALF}, ALL)
        for number in range(2):
            some = {one for one in sorted(every, key=lambda one: one[1]) if numbers.random() < 0.5}
            left = {id(node): numbers.choice((NOTHING, ALL, HALF, ZEROS)) for node in files}
            yield f"random-{number}", self.tree(some, left, ALL)


def unexplained(start: Start) -> list[str]:
    """What the undisturbed run left that its log does not explain: calls that the simulation does not see."""
    disk = Disk.of(start.before)
    for call in start.calls:
        disk.apply(call)
    names, _ = disk.pending()
    found = disk.tree({(id(folder), name) for folder, name in names}, {}, ALL)
    paths = found.keys() | start.after.keys()
    different = [path for path in sorted(paths) if _bare(found.get(path)) != _bare(start.after.get(path))]
    return [f"{path}: changed by calls that are not seen" for path in dict.fromkeys((*disk.unseen, *different))]


def _bare(entry: Entry | None) -> tuple[str, bytes] | None:
    return None if entry is None else entry[:2]


def keys(start: Start) -> Iterator[str]:
    """One case for each state that no earlier moment could leave."""
    if unexplained(start):
        return
    seen = set()
    disk = Disk.of(start.before)
    for call in start.calls:
        disk.apply(call)
        if call.changes or call is start.calls[-1]:
            for name, tree in disk.states(call.number):
                state = hash(tuple(sorted(tree.items())))
                last = call is start.calls[-1]
                if (state, last) not in seen:
                    seen.add((state, last))
                    yield f"{call.number}:{name}"


def kind_of(key: str) -> str:
    """The class of a case in the report."""
    return "power " + key.partition(":")[2].partition("-")[0]


def judge(place: Workplace, start: Start, key: str, say: list[str] | None = None) -> list[str]:
    """Tries a case; `say` gets what happened."""
    number, _, name = key.partition(":")
    disk = Disk.of(start.before)
    for call in start.calls[: int(number) + 1]:
        disk.apply(call)
    left = dict(disk.states(int(number)))[name]
    last = int(number) == start.calls[-1].number
    wrong = judge_names(start, left, promised=last and start.outcome.code != 5)
    if say is not None:
        say += [*map(str, start.calls[: int(number) + 1]), "left:", described(left)]
    return list(dict.fromkeys(wrong + again(place, start, left, kept=False, say=say)))
