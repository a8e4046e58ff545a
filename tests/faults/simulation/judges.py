"""What must hold after each run, whatever happened in it. A judge returns what is wrong, a line for each thing."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter

from tests.faults.simulation.jobs import FOREIGN, PRIVATE, Job, Start
from tests.faults.simulation.process import HUNG, Outcome, Workplace
from tests.faults.simulation.system import EINTR, ERRNOS, FULL, SHORT, TORN
from tests.faults.simulation.tree import Tree, below, content, write_tree

DOCUMENTED = {0, 2, 3, 4, 5, 6, 129, 130, 143}

_ADVICE = re.compile(
    r"same command|--overwrite|--restart|another|use |give |wait|free |move |choose|create|make sure", re.IGNORECASE
)
_KEPT = re.compile(r"continuing: ([0-9,]+) rows")
_FINISHED = re.compile(r"is finished and up to date|exists already, with the same data")
_DAMAGED = re.compile(r"\.damaged(-[0-9]+)?$")

_OUTSIDE = ("in", "old", "data", "older", "victim", "shards")


def judge_foreign(before: Tree, after: Tree) -> list[str]:
    """Nothing that belongs to others was touched."""
    paths = [path for path in before if path in FOREIGN or path.split("/")[0] in _OUTSIDE]
    wrong = [f"{path}: was touched, and is not ours" for path in paths if after.get(path) != before[path]]
    new = [path for path in after if path.split("/")[0] in _OUTSIDE and path not in before]
    return wrong + [f"{path}: was made beside the sources" for path in new]


def judge_outcome(job: Job, outcome: Outcome, allowed: set[int], *, failed: bool = False) -> list[str]:
    """The exit code is one of these, and what is said is one line that names a file and what to do."""
    wrong, text = [], outcome.err
    if outcome.code == HUNG:
        wrong.append("hangs")
    elif outcome.code not in allowed:
        wrong.append(f"exit code {outcome.code}, not {' or '.join(map(str, sorted(allowed)))}: {text.strip()[-300:]!r}")
    if "Traceback" in text or "a bug in" in text or "Exception ignored" in text:
        wrong.append(f"calls it a bug: {text.strip()[-400:]!r}")
    if failed and outcome.code == 5:
        lines = [line for line in text.splitlines() if "error: " in line]
        names = [os.path.basename(name.rstrip("/")) for name in job.finals()] + ["out"]
        if len(lines) != 1:
            wrong.append(f"{len(lines)} lines of error, not one: {text!r}")
        elif not any(name in lines[0] for name in names):
            wrong.append(f"does not name the file: {lines[0]!r}")
        elif not _ADVICE.search(lines[0].partition("error: ")[2]):
            wrong.append(f"does not say what to do: {lines[0]!r}")
    return wrong


def judge_names(start: Start, found: Tree, *, promised: bool = False, damaged: bool = False) -> list[str]:
    """Final names are absent, or as they were, or whole; those of one table together, unless a note says otherwise.

    Args:
        start: where the run began, and what it should make.
        found: what stands there now.
        promised: the run has said that it is done: everything must be whole.
        damaged: parts of a directory may have been damaged before; their rows then come last.
    """
    wrong = []
    for group in start.job.groups:
        if group == ("out/d/",):
            wrong += _judge_directory(start, found, promised, ordered=start.state != "changed" and not damaged)
            continue
        old, new = (content(tree, group) for tree in (start.before, start.after))
        now = content(found, group)
        for name in group:
            if now.get(name) not in (old.get(name), new.get(name), None):
                wrong.append(f"{name}: is neither absent, nor as before, nor whole")
        if promised and now != new:
            missing = [name for name in group if now.get(name) != new.get(name)]
            wrong.append(f"{', '.join(missing)}: not there, though the run was done")
        noted = any(PRIVATE in path and path.endswith("publish.json") for path in found)
        if now not in (old, new, {}) and not noted and not wrong:
            state = {name: _which(now.get(name), old.get(name), new.get(name)) for name in group}
            wrong.append(f"some names without the others, and no note: {state}")
    return wrong


def _which(now: object, old: object, new: object) -> str:
    return "absent" if now is None else "new" if now == new else "old" if now == old else "other"


def _judge_directory(start: Start, found: Tree, promised: bool, ordered: bool) -> list[str]:
    done = "out/d/_SUCCESS" in found
    if promised and not done:
        return ["out/d/_SUCCESS: not there, though the run was done"]
    if not done:
        return []
    rows = rows_of(found)
    before = rows_of(start.before) if "out/d/_SUCCESS" in start.before else None
    wanted = rows_of(start.after)
    if rows is None:
        return ["out/d/: cannot be read, but has _SUCCESS"]
    if rows == before:
        return []
    if not ordered:
        return [] if Counter(rows) == Counter(wanted or ()) else ["out/d/: rows are missing or twice, but has _SUCCESS"]
    return (
        [] if rows == wanted else [f"out/d/: has _SUCCESS, and {len(rows)} rows that are not the {len(wanted or ())}"]
    )


def rows_of(tree: Tree, folder: str = "out/d") -> list[str] | None:
    """The rows of the parts of a directory, in the order of their numbers; None if one cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[str] = []
    parts = [path for path in below(tree, folder) if re.fullmatch(r".*/part-[0-9]+\.parquet", path)]
    for path in sorted(parts, key=lambda path: int(re.findall("[0-9]+", path)[-1])):
        try:
            table = pq.ParquetFile(pa.BufferReader(tree[path].data)).read(use_threads=False)
        except (OSError, pa.ArrowException):
            return None
        rows += map(repr, table.to_pylist())
    return rows


def judge_end(start: Start, found: Tree, *, damaged: bool = False) -> list[str]:
    """After the same command once more: the files of an undisturbed run, and no file too many."""
    wrong = judge_foreign(start.before, found) + judge_names(start, found, promised=True, damaged=damaged)
    parts = re.compile(r"out/d/part-[0-9]+\.parquet")
    expected = {path for path in start.after if not parts.fullmatch(path)}
    there = {path for path in found if not parts.fullmatch(path)}
    more = sorted(path for path in there - expected if not (damaged and _is_damaged(path, there)))
    wrong += [f"{path}: stays" for path in more]
    return wrong + [f"{path}: is missing" for path in sorted(expected - there)]


def _is_damaged(path: str, there: set[str]) -> bool:
    inside = [one for one in there if one.startswith(path + "/")]
    return bool(_DAMAGED.search(path)) or bool(inside and all(_DAMAGED.search(one) for one in inside))


def judge_kept(start: Start, second: Outcome) -> list[str]:
    """The same command keeps the rows that were kept when the disturbed run began."""
    had = _KEPT.search(start.outcome.err)
    if had is None or start.state == "changed" or _FINISHED.search(second.err) or second.code == 5:
        return []
    has = _KEPT.search(second.err)
    rows = int(has[1]) if has else 0
    return [f"of {had[1]} rows that were kept, {rows} are left"] if rows < int(had[1]) else []


def judge_finished(start: Start, outcome: Outcome, found: Tree, *, damaged: bool = False) -> list[str]:
    """A run that says that the output is finished is right."""
    return judge_names(start, found, promised=True, damaged=damaged) if _FINISHED.search(outcome.err) else []


def judge_verify(place: Workplace, start: Start, found: Tree) -> list[str]:
    """`verify` agrees that the tables are whole."""
    wrong = []
    write_tree(place.case, found)
    for group in start.job.groups:
        if (len(group) == 1 and not group[0].endswith("/")) or "run.json" in group[-1]:
            continue
        sources = {"merge": (), "overwrite-merge": (), "reorder": ("--manifest", "list.csv")}.get(
            start.job.name, ("in",)
        )
        outcome = place.run(("verify", group[0], *sources))
        if outcome.code:
            wrong.append(f"verify {group[0]}: exit code {outcome.code}: {outcome.out.strip()[-300:]!r} {outcome.err!r}")
    return wrong


def judge_source(place: Workplace, start: Start, first: Outcome, found: Tree, *, listed: bool) -> list[str]:
    """After an image, or a directory of them, could not be read: each has one row, of an error, or the run was stopped.

    Args:
        place, start, first, found: the run, and what it has left.
        listed: the images could be listed; otherwise their directory has a row in their place.
    """
    wrong = judge_outcome(start.job, first, {start.outcome.code, 2, 4, 5, 6}, failed=listed)
    if first.code in (0, 4) and start.outcome.code in (0, 4):
        wrong += judge_verify(place, start, found) if listed else []
        wrong += [f"{path}: stays" for path in found if path not in start.after and ".partial" in path]
    return wrong


def allowed_codes(start: Start, kind: str) -> set[int]:
    """The exit codes of a run in which a fault of this kind happens."""
    normal = {start.outcome.code, start.again.code}
    if kind in ERRNOS or kind == FULL:
        return normal | {5}
    if kind in (EINTR, SHORT):
        return {start.outcome.code}
    if kind == TORN:
        return {-signal.SIGKILL}
    number = signal.Signals[kind.partition("-")[0]]
    return {-signal.SIGKILL} if number == signal.SIGKILL else {128 + number, *normal}
