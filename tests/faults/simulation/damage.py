"""Flipped bits, exchanged and missing files in what an interrupted run has left; and in a finished directory."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from tests.faults.simulation.jobs import CONTINUED, FINISHED, Start
from tests.faults.simulation.judges import judge_end, judge_finished, judge_foreign, judge_outcome
from tests.faults.simulation.process import Workplace
from tests.faults.simulation.tree import FILE, Tree, described, read_tree, write_tree

FLIPS = 24
"""Bits that are flipped in each file, at places that are spread over it."""

_JOURNAL = re.compile(r".*/_?run\.json|.*/state\.json")
_PART = re.compile(r".*/_?part-[0-9]+\.(arrow|parquet)")


def own_files(start: Start) -> list[str]:
    """Files with content that the run has left."""
    return [
        path
        for path, entry in sorted(start.before.items())
        if path.startswith("out/")
        and entry.kind == FILE
        and (".partial/" in path or path.startswith("out/d/"))
        and "other.partial" not in path
    ]


def keys(start: Start) -> Iterator[str]:
    """The cases of a start."""
    if (
        start.state not in (CONTINUED, FINISHED)
        or start.job.before
        or (start.state == FINISHED and start.job.name != "dir")
    ):
        return
    files = own_files(start)
    for path in files:
        size = len(start.before[path].data)
        numbers = random.Random(path)
        for number in range(min(FLIPS, size)):
            place = size * number // FLIPS + numbers.randrange(max(1, size // FLIPS))
            yield f"{path}:flip-{place}.{numbers.randrange(8)}"
        if size:
            yield f"{path}:half"
        if _JOURNAL.fullmatch(path):
            yield from (f"{path}:missing", f"{path}:null", f"{path}:empty")
        if _PART.fullmatch(path) and start.state == FINISHED:
            yield f"{path}:missing"
    parts = [path for path in files if _PART.fullmatch(path)]
    if len(parts) > 1:
        yield f"{parts[0]}:exchange"


def kind_of(key: str) -> str:
    """The class of a case in the report."""
    return "damage " + key.rpartition(":")[2].partition("-")[0]


def damaged(tree: Tree, key: str) -> Tree:
    """The tree with the damage."""
    path, _, kind = key.rpartition(":")
    found, data = dict(tree), tree[path].data
    if kind == "missing":
        del found[path]
        return found
    if kind == "exchange":
        ending = path.rpartition(".")[2]
        folder = path.rpartition("/")[0] + "/"
        other = max(one for one in tree if _PART.fullmatch(one) and one.endswith(ending) and one.startswith(folder))
        found[path], found[other] = tree[other], tree[path]
        return found
    if kind.startswith("flip"):
        offset, bit = map(int, kind.removeprefix("flip-").split("."))
        data = data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]
    else:
        data = {"half": data[: len(data) // 2], "null": b"null", "empty": b""}[kind]
    found[path] = tree[path]._replace(data=data)
    return found


def judge(place: Workplace, start: Start, key: str, say: list[str] | None = None) -> list[str]:
    """Tries a case; `say` gets what happened."""
    before = damaged(start.before, key)
    write_tree(place.case, before)
    if start.state == FINISHED:
        checked = place.run(("verify", "out/d", "in"))
        if say is not None:
            say += [checked.out, checked.err]
        code = checked.code
        return [] if code == 6 or key.endswith(("_SUCCESS:missing",)) else [f"verify has not seen it: exit code {code}"]
    outcome = place.run(start.job.argv, process=1)
    end = read_tree(place.case)
    refused = outcome.code in (2, 5)
    wrong = judge_outcome(start.job, outcome, {start.outcome.code, 2, 5}, failed=True)
    wrong += judge_finished(start, outcome, end, damaged=True)
    if refused:
        kept = [path for path in own_files(start) if _PART.fullmatch(path) or _JOURNAL.fullmatch(path)]
        gone = [path for path in kept if path in before and path not in end and path + ".damaged" not in end]
        wrong += [f"{path}: is gone, though the run was refused" for path in gone]
        wrong += judge_foreign(start.before, end)
    elif outcome.code == start.outcome.code:
        wrong += judge_end(start, end, damaged=True)
        said = [line for line in outcome.err.splitlines() if not line.startswith("xception: started;")]
        if key.endswith((":missing", ":null", ":empty")) and len(said) < 2:
            wrong.append(f"begins again without a word: {outcome.err!r}")
    if say is not None:
        say += [f"exit code {outcome.code}", outcome.err, "left:", described(end)]
    return list(dict.fromkeys(wrong))
