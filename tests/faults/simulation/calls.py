"""Each call of a run x each fault: the run with the fault is judged, then the same command undisturbed."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.simulation.jobs import Start
from tests.faults.simulation.judges import (
    allowed_codes,
    judge_end,
    judge_finished,
    judge_foreign,
    judge_kept,
    judge_names,
    judge_outcome,
)
from tests.faults.simulation.process import Workplace
from tests.faults.simulation.system import ERRNOS, FULL, Fault
from tests.faults.simulation.tree import Tree, described, read_tree, write_tree


def keys(start: Start) -> Iterator[str]:
    """The cases of a start."""
    for call in start.calls:
        yield from (f"{call.number}:{kind}" for kind in call.kinds())


def kind_of(key: str) -> str:
    """The class of a case in the report."""
    return key.partition(":")[2].partition("-")[0]


def judge(place: Workplace, start: Start, key: str, say: list[str] | None = None) -> list[str]:
    """Tries a case; `say` gets what happened."""
    number, _, kind = key.partition(":")
    write_tree(place.case, start.before)
    first = place.run(start.job.argv, Fault(int(number), kind), record=say is not None)
    found = read_tree(place.case)
    done = first.code in (start.outcome.code, start.again.code)
    wrong = judge_outcome(start.job, first, allowed_codes(start, kind), failed=kind in (*ERRNOS, FULL))
    wrong += judge_foreign(start.before, found)
    wrong += judge_names(start, found, promised=done and first.code != 5)
    wrong += judge_finished(start, first, found)
    second = place.run(start.job.argv, process=1)
    end = read_tree(place.case)
    wrong += [f"again: {one}" for one in after_all(start, second.code, end)]
    wrong += [f"again: {one}" for one in judge_outcome(start.job, second, {start.outcome.code, start.again.code})]
    wrong += [f"again: {one}" for one in judge_kept(start, second) if not done]
    if say is not None:
        say += [*map(str, first.calls), f"exit code {first.code}", first.err, "left:", described(found)]
        say += [f"again: exit code {second.code}", second.err, "left:", described(end)]
    return list(dict.fromkeys(wrong))


def after_all(start: Start, code: int, end: Tree) -> list[str]:
    """What is wrong at the end, unless the command has already been judged for its exit code."""
    return judge_end(start, end) if code in (start.outcome.code, start.again.code) else judge_foreign(start.before, end)
