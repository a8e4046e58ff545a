"""Two processes: one stops at each call while another one makes something of the same name; then it goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tests.faults.simulation.jobs import FINISHED, FRESH, PRIVATE, Start
from tests.faults.simulation.judges import DOCUMENTED, judge_foreign, judge_outcome
from tests.faults.simulation.process import Workplace
from tests.faults.simulation.system import PAUSE, Fault, Pause
from tests.faults.simulation.tree import below, content, described, read_tree, write_tree

OTHERS = {
    "csv": {"same": (), "table": ("classify", "in", "-o", "out/t.csv")},
    "npy": {"same": ()},
    "dir": {"same": ()},
    "merge": {"same": (), "table": ("features", "in", "-o", "out/m.parquet")},
    "two": {
        "same": (),
        "second": ("classify", "in", "-o", "out/other.jsonl", "--features-out", "out/f.npy"),
        "first": ("features", "in", "-o", "out/f.npy"),
    },
    "errors": {"list": ("features", "old", "-o", "out/u.csv", "--errors-out", "out/e.list")},
    "overwrite": {"same": ()},
    "finetune": {"same": ()},
}
"""By job: what the other process runs, by name; nothing is the same command."""


def keys(start: Start) -> Iterator[str]:
    """The cases of a start."""
    if start.state in (FRESH, FINISHED):
        for name in OTHERS.get(start.job.name, {}):
            yield from (f"{call.number}:{name}" for call in start.calls if call.name != "close")


def kind_of(key: str) -> str:
    """The class of a case in the report."""
    return "two processes"


def judge(place: Workplace, start: Start, key: str, say: list[str] | None = None) -> list[str]:
    """Tries a case; `say` gets what happened."""
    number, _, name = key.partition(":")
    argv = OTHERS[start.job.name][name] or start.job.argv
    write_tree(place.case, start.before)
    alone = place.run(argv)
    whole = [content(below(tree, "out")) for tree in (start.before, start.after, read_tree(place.case))]
    write_tree(place.case, start.before)
    here, go = os.pipe(), os.pipe()
    one = place.start(start.job.argv, Fault(int(number), PAUSE), pause=Pause(here[1], go[0]), record=say is not None)
    os.close(here[1])
    os.read(here[0], 1)
    other = place.start(argv, process=1)
    other.ended(1.0)  # or it waits for the first
    os.write(go[1], b".")
    outcomes = [one.wait(), other.wait()]
    for descriptor in (here[0], *go):
        os.close(descriptor)
    between = read_tree(place.case)
    wrong = [
        text
        for outcome in outcomes
        for text in judge_outcome(start.job, outcome, DOCUMENTED - {2, 3, 6, 129, 130, 143})
    ]
    if not any(outcome.code in (start.outcome.code, alone.code, 0) for outcome in outcomes):
        wrong.append(f"neither has made its output: exit codes {outcomes[0].code} and {outcomes[1].code}")
    wrong += judge_foreign(start.before, between) + _halves(whole, content(below(between, "out")))
    last = [place.run(start.job.argv, process=2), place.run(argv, process=3)]
    wrong += [
        f"again: {text}" for outcome in last for text in judge_outcome(start.job, outcome, DOCUMENTED - {2, 3, 6})
    ]
    end = read_tree(place.case)
    wrong += [
        f"again: {text}" for text in _halves(whole, content(below(end, "out"))) + judge_foreign(start.before, end)
    ]
    if all(outcome.code != 5 for outcome in last):
        known = {path for tree in whole for path in tree}
        wrong += [f"{path}: stays" for path in below(end, "out") if path not in known and "/d/part" not in path]
    if say is not None:
        for outcome in (*outcomes, *last):
            say += [*map(str, outcome.calls), f"exit code {outcome.code}", outcome.err]
        say += ["between:", described(between), "at the end:", described(end)]
    return list(dict.fromkeys(wrong))


def _halves(whole: list[dict[str, object]], found: dict[str, object]) -> list[str]:
    """Final names that hold what neither process makes alone."""
    wrong = []
    for path, entry in found.items():
        wanted = [tree[path] for tree in whole if path in tree]
        if wanted and entry not in wanted and PRIVATE not in path and "/d/" not in path:
            wrong.append(f"{path}: is what neither process makes")
    return wrong
