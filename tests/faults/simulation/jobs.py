"""The commands that are disturbed, and the directories in which they begin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.simulation.process import Outcome, Workplace
from tests.faults.simulation.system import Call, Fault
from tests.faults.simulation.tree import (
    DIRECTORY,
    FILE,
    LINK,
    MTIME,
    Entry,
    Tree,
    below,
    content,
    fingerprint,
    read_tree,
    write_tree,
)

NAMES = ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg")

FRESH, CONTINUED, CHANGED, FINISHED = "fresh", "continued", "changed", "finished"
"""States: nothing is there; a run was killed half way; and then the sources changed; the run has ended."""

PRIVATE = ".partial"


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: in reports.
        argv: in the directory of the case.
        groups: names that belong together, relative to that directory; those of a directory of parts end in a slash.
        before: a command that makes what is there already.
        sources: whether it reads `in/`.
    """

    name: str
    argv: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    before: tuple[str, ...] = ()
    sources: bool = True

    @property
    def states(self) -> Iterator[str]:
        """The states in which it begins."""
        yield from (FRESH, CONTINUED)
        if self.sources and "shards" not in " ".join(self.argv):
            yield CHANGED
        if "--overwrite" not in self.argv:
            yield FINISHED

    def finals(self) -> list[str]:
        """All names that it gives."""
        return [name for group in self.groups for name in group]


def _table(command: str, source: str, name: str, *more: str) -> tuple[str, ...]:
    return (command, source, "-o", f"out/{name}", "--part-rows", "2", *more)


def _group(name: str, *more: str) -> tuple[str, ...]:
    return (f"out/{name}", *(f"out/{one}" for one in more), f"out/{name}.meta.json")


_SHARDS = ("shards/shard-1.parquet", "shards/shard-2.parquet")
_TWO = ("--features-out", "out/f.npy")
_MERGE = ("merge", *_SHARDS, "--source", "in", "-o", "out/m.parquet")

JOBS = (
    Job("csv", _table("features", "in", "t.csv"), (_group("t.csv"),)),
    Job("jsonl", _table("classify", "in", "t.jsonl"), (_group("t.jsonl"),)),
    Job("parquet", _table("features", "in", "t.parquet"), (_group("t.parquet"),)),
    Job("npy", _table("features", "in", "t.npy"), (_group("t.npy", "t.npy.csv"),)),
    Job("dir", _table("features", "in", "d/"), (("out/d/",),)),
    Job("two", _table("classify", "in", "t.jsonl", *_TWO), (_group("t.jsonl"), _group("f.npy", "f.npy.csv"))),
    Job("errors", _table("features", "in", "t.csv", "--errors-out", "out/e.list"), (_group("t.csv"), ("out/e.list",))),
    # When the sources change, the list is in the opposite order: the rows of the parts are sorted in two passes.
    Job("reorder", ("features", "--manifest", "list.csv", *_table("", "", "t.csv")[2:]), (_group("t.csv"),)),
    Job("merge", _MERGE, (_group("m.parquet"),)),
    Job(
        "overwrite",
        _table("features", "in", "t.npy", "--overwrite"),
        (_group("t.npy", "t.npy.csv"),),
        _table("features", "old", "t.npy"),
    ),
    Job(
        "overwrite-dir", _table("features", "in", "d/", "--overwrite"), (("out/d/",),), _table("features", "old", "d/")
    ),
    Job(
        "overwrite-two",
        _table("classify", "in", "t.csv", "--features-out", "out/f.parquet", "--overwrite"),
        (_group("t.csv"), _group("f.parquet")),
        _table("classify", "old", "t.csv", "--features-out", "out/f.parquet"),
    ),
    Job(
        "overwrite-merge",
        (*_MERGE, "--overwrite"),
        (_group("m.parquet"),),
        _table("features", "old", "m.parquet"),
    ),
    Job(
        "finetune", ("finetune", "data", "-o", "out/run"), (("out/run/model.keras", "out/run/run.json"),), sources=False
    ),
    Job(
        "overwrite-finetune",
        ("finetune", "data", "-o", "out/run", "--overwrite"),
        (("out/run/model.keras", "out/run/run.json"),),
        ("finetune", "older", "-o", "out/run"),
        sources=False,
    ),
)


def _file(text: str, mtime: int = MTIME) -> Entry:
    return Entry(FILE, text.encode(), mtime)


def _folder(path: str, files: dict[str, str]) -> Tree:
    return {path: Entry(DIRECTORY)} | {f"{path}/{name}": _file(text) for name, text in files.items()}


FOREIGN = ("out/other.partial", "out/other.partial/note.txt", "out/part-00000.arrow", "out/link", "out/t.csv.bak")
"""Things in the directory of the outputs that belong to somebody else."""


def base_tree() -> Tree:
    """Sources, and what belongs to others: a file, a directory, a victim behind a link."""
    images = dict.fromkeys(NAMES, "an image") | {"c.jpg": ""}
    tree = _folder("in", images) | _folder("old", dict.fromkeys(NAMES[:3], "an older image"))
    for name in ("data", "older"):
        tree |= {name: Entry(DIRECTORY)}
        for label in "xy":
            tree |= _folder(f"{name}/{label}", {one: f"{name} {label} {one}" for one in NAMES[:3]})
    for name in ("out", "tmp", "victim", "out/other.partial"):
        tree[name] = Entry(DIRECTORY)
    for name in ("victim/run.json", "out/other.partial/note.txt", "out/part-00000.arrow", "out/t.csv.bak"):
        tree[name] = _file("not ours")
    return tree | {"out/link": Entry(LINK, b"../victim"), "list.csv": _list_of(NAMES)}


def _list_of(names: Iterable[str]) -> Entry:
    return _file("\n".join(["path", *(f"in/{name}" for name in names), ""]))


def changed_sources(tree: Tree) -> Tree:
    """One image is gone, one is new, one has other bytes, one has become empty."""
    changed = {path: entry for path, entry in tree.items() if path != "in/b.jpg"}
    changed["in/bb.jpg"] = _file("a new image")
    changed["in/a.jpg"] = _file("another image", MTIME + 10**9)
    changed["in/d.jpg"] = _file("", MTIME + 10**9)
    changed["list.csv"] = _list_of(reversed(NAMES))
    return changed


def add_shards(place: Workplace) -> Tree:
    """Writes the shards that are merged; returns the tree of all jobs."""
    from tests.writtentables import write_shards
    from xcli.sources.options import SourceOptions

    write_tree(place.case, base_tree() | {"shards": Entry(DIRECTORY)})
    here = os.getcwd()
    os.chdir(place.case)
    try:
        write_shards(Path("shards"), "parquet", "features", SourceOptions(sources=("in",)), 2)
    finally:
        os.chdir(here)
    tree = read_tree(place.case)
    shards = {path: entry._replace(mtime=MTIME) for path, entry in below(tree, "shards").items() if "whole" not in path}
    return base_tree() | {"shards": Entry(DIRECTORY)} | shards


@dataclass(frozen=True)
class Start:
    """A job and a state, with what an undisturbed run from there does.

    Attributes:
        job, state: which.
        before: the directory at the beginning.
        after: the directory at the end.
        outcome: of the run.
        again: of the same command once more.
        calls: of the run.
        wrong: what is not as it must be even without a fault.
        judged: see `tests.faults.simulation.calls.again`.
    """

    job: Job
    state: str
    before: Tree
    after: Tree
    outcome: Outcome
    again: Outcome
    calls: list[Call]
    wrong: list[str] = field(default_factory=list)
    judged: dict[int, tuple[list[str], list[str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.job.name}.{self.state}"


def prepare(place: Workplace, job: Job, state: str, everything: Tree) -> Start:
    """Makes the state in which a job begins, and runs it from there without a fault."""
    before = everything
    if job.before:
        write_tree(place.case, before)
        outcome = place.run(job.before)
        assert outcome.code in (0, 4), (job.name, outcome)
        before = read_tree(place.case)
    fresh = _undisturbed(place, job, changed_sources(before) if state == CHANGED else before)
    if state == FRESH:
        return Start(job, state, before, *fresh)
    if state == FINISHED:
        before = fresh[0]
    else:
        calls = _undisturbed(place, job, before)[3]
        changing = [call.number for call in calls if call.changes]
        write_tree(place.case, before)
        place.run(job.argv, Fault(changing[len(changing) // 2], "SIGKILL-before"))
        before = read_tree(place.case)
        if state == CHANGED:
            before = changed_sources(before)
    found = _undisturbed(place, job, before)
    wrong = []
    if job.groups[0] != ("out/d/",) and content(below(found[0], "out")) != content(below(fresh[0], "out")):
        wrong.append("the files are not those of a run that nothing disturbed")
    return Start(job, state, before, *found, wrong)


Undisturbed = tuple[Tree, Outcome, Outcome, list[Call]]


def _undisturbed(place: Workplace, job: Job, before: Tree) -> Undisturbed:
    key = job.name, fingerprint(before)
    if key not in place.undisturbed:
        write_tree(place.case, before)
        outcome = place.run(job.argv, record=True)
        after = read_tree(place.case)
        place.undisturbed[key] = after, outcome, place.run(job.argv, process=1), outcome.calls
    found: Undisturbed = place.undisturbed[key]
    return found
