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
    judge_source,
    judge_verify,
)
from tests.faults.simulation.process import Workplace
from tests.faults.simulation.system import ERRNOS, FULL, Fault
from tests.faults.simulation.tree import Tree, described, fingerprint, read_tree, write_tree


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
    disturbed = start.calls[int(number)]
    if disturbed.of_source and kind in ERRNOS:
        if say is not None:
            say += [*map(str, first.calls), f"exit code {first.code}", first.err, "left:", described(found)]
        return judge_foreign(start.before, found) + judge_source(
            place, start, first, found, listed=disturbed.name != "listdir"
        )
    done = first.code in (start.outcome.code, start.again.code)
    wrong = judge_outcome(start.job, first, allowed_codes(start, kind), failed=kind in (*ERRNOS, FULL))
    wrong += judge_foreign(start.before, found)
    wrong += judge_names(start, found, promised=done and first.code != 5)
    wrong += judge_finished(start, first, found)
    # With --overwrite the same command computes an output again that was whole before the run was disturbed.
    done = done or not judge_names(start, found, promised=True)
    if say is not None:
        say += [*map(str, first.calls), f"exit code {first.code}", first.err, "left:", described(found)]
    return list(dict.fromkeys(wrong + again(place, start, found, kept=not done, say=say)))


def again(place: Workplace, start: Start, found: Tree, *, kept: bool, say: list[str] | None = None) -> list[str]:
    """What is wrong with the same command once more.

    Args:
        found: what a run or a power cut has left; what follows from it is the same each time, and is tried once.
        kept: whether the rows that the run began with must still be kept.
    """
    key = fingerprint(found)
    if key not in start.judged or say is not None:
        write_tree(place.case, found)
        outcome = place.run(start.job.argv, process=1)
        end = read_tree(place.case)
        if outcome.code in (start.outcome.code, start.again.code):
            wrong = judge_end(start, end)
        else:
            wrong = judge_foreign(start.before, end)
        wrong += judge_outcome(start.job, outcome, {start.outcome.code, start.again.code})
        if not wrong and start.job.name.endswith("dir"):
            wrong = judge_verify(place, start, end)
        start.judged[key] = wrong, judge_kept(start, outcome)
        if say is not None:
            say += [f"again: exit code {outcome.code}", outcome.err, "left:", described(end)]
    wrong, lost = start.judged[key]
    return [f"again: {one}" for one in (wrong + lost if kept else wrong)]
