"""python -m tests.faults.simulation: tries the cases, prints the table; FAULT=job.state:call:kind replays one."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import re
import selectors
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from tests.faults.simulation import calls, damage, pairs, power
from tests.faults.simulation.jobs import JOBS, Start, add_shards, prepare
from tests.faults.simulation.judges import judge_verify
from tests.faults.simulation.process import Workplace, warm_up
from tests.faults.simulation.report import Report

CLASSES: dict[str, Any] = {"call": calls, "power": power, "damage": damage, "pair": pairs}
"""The modules of the classes of cases; a case is `class/job.state:key`, without the class for faults of calls."""

WORKERS = min(os.cpu_count() or 1, len(JOBS))


@dataclass(frozen=True)
class Choice:
    """What to try.

    Attributes:
        jobs, states, classes: names; none are all.
        match: a regular expression of the cases, see `described`.
        sample: number of cases; 0 is all.
        seed: of their order.
        deadline: on the monotonic clock, after which no further case is tried.
    """

    jobs: Sequence[str] = ()
    states: Sequence[str] = ()
    classes: Sequence[str] = ()
    match: str = ""
    sample: int = 0
    seed: int = 0
    deadline: float = float("inf")


def memory() -> str:
    """Makes a directory, in memory where that is possible."""
    return tempfile.mkdtemp(prefix="xception-faults-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def starts(place: Workplace, jobs: Sequence[str], states: Sequence[str]) -> Iterator[Start]:
    """Prepares the jobs in all their states."""
    everything = add_shards(place)
    for job in JOBS:
        for state in job.states:
            if (not jobs or job.name in jobs) and (not states or state in states):
                yield prepare(place, job, state, everything)


def cases(ready: list[Start], classes: Sequence[str]) -> list[tuple[str, Start, str]]:
    """All cases: class, start, key."""
    return [
        (name, start, key)
        for name, module in CLASSES.items()
        if not classes or name in classes
        for start in ready
        for key in module.keys(start)
    ]


def shown(name: str, start: Start, key: str) -> str:
    """A case as FAULT takes it."""
    return f"{'' if name == 'call' else name + '/'}{start.name}:{key}"


def described(name: str, start: Start, key: str) -> str:
    """A case as FAULT takes it, followed by the call that it disturbs."""
    number = key.partition(":")[0]
    call = f" {' '.join(str(start.calls[int(number)]).split()[1:])}" if number.isdigit() else ""
    return shown(name, start, key) + call


def work(place: Workplace, choice: Choice, number: int, send: Callable[[Any], None]) -> None:
    """Prepares the jobs of one worker, and tries their cases until the deadline; sends what is wrong with each."""
    names = [job.name for job in JOBS if not choice.jobs or job.name in choice.jobs][number::WORKERS]
    ready = list(starts(place, names, choice.states)) if names else []
    chosen = [case for case in cases(ready, choice.classes) if re.search(choice.match, described(*case))]
    random.Random(choice.seed).shuffle(chosen)
    send(len(chosen))
    for start in ready:
        wrong = start.wrong + power.unexplained(start) + judge_verify(place, start, start.after)
        send(("undisturbed", start.job.name, start.name, wrong))
    for name, start, key in chosen[: choice.sample // WORKERS if choice.sample else None]:
        if time.monotonic() > choice.deadline:
            break
        try:
            wrong = CLASSES[name].judge(place, start, key)
        except Exception as error:  # noqa: BLE001 - a judge that fails is a case that is wrong
            wrong = [f"the judge failed: {type(error).__name__}: {error}"]
        send((CLASSES[name].kind_of(key), start.job.name, described(name, start, key), wrong))


def try_all(choice: Choice, root: str, plant: Callable[[], None] | None = None) -> Report:
    """Tries cases in several processes; `plant` puts a fault into the program."""
    report, selector = Report(), selectors.DefaultSelector()
    pids = []
    for number in range(WORKERS):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                place = Workplace(os.path.join(root, str(number)), plant)
                os.mkdir(place.root)
                with os.fdopen(write, "wb", 0) as pipe:
                    work(place, choice, number, lambda value, pipe=pipe: pickle.dump(value, pipe))  # type: ignore[misc]
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        selector.register(os.fdopen(read, "rb"), selectors.EVENT_READ)
        pids.append(pid)
    while selector.get_map():
        for key, _ in selector.select():
            pipe = cast("BinaryIO", key.fileobj)
            try:
                found = pickle.load(pipe)
            except EOFError:
                selector.unregister(pipe)
                pipe.close()
                continue
            if isinstance(found, int):
                report.total += found
            else:
                report.add(*found)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    assert not failed, "a worker has failed"
    return report


def planted(text: str) -> Callable[[], None] | None:
    """A fault in the program: statements that each run begins with, for the tests of the simulation."""
    return (lambda: exec(text, {})) if text else None


def replay(case: str, root: str) -> int:
    """Tries one case, and prints all that happened."""
    name, _, rest = case.rpartition("/") if case.split("/")[0] in CLASSES else ("", "", case)
    name = name or "call"
    where, _, key = rest.partition(":")
    job, _, state = where.partition(".")
    place = Workplace(root)
    (start,) = starts(place, [job], [state])
    print("xception", *start.job.argv)
    said: list[str] = []
    wrong = CLASSES[name].judge(place, start, key, said)
    print("\n".join([*said, "", *(f"WRONG: {one}" for one in wrong)] if wrong else [*said, "", "right"]))
    return bool(wrong)


def main() -> int:
    """Returns 0 if all cases are right."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the order in which cases are tried")
    parser.add_argument("--seconds", type=float, default=540, help="after which no further case is tried")
    parser.add_argument("--sample", type=int, default=0, help="try so many cases; 0 is all")
    parser.add_argument("--job", action="append", default=[], choices=[job.name for job in JOBS])
    parser.add_argument("--state", action="append", default=[])
    parser.add_argument("--class", action="append", default=[], dest="classes", choices=list(CLASSES))
    parser.add_argument("--match", default="", help="try the cases that match this regular expression")
    parser.add_argument("--list", action="store_true", help="print what was tried, not only what is wrong")
    options = parser.parse_args()
    begin, root = time.monotonic(), memory()
    try:
        warm_up()
        if os.environ.get("FAULT"):
            return replay(os.environ["FAULT"], root)
        deadline = begin + options.seconds
        chosen = (options.job, options.state, options.classes, options.match)
        choice = Choice(*chosen, options.sample, options.seed, deadline)
        report = try_all(choice, root, planted(os.environ.get("FAULT_PLANT", "")))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print("\n".join(report.lines()))
    for case in sorted(report.cases) if options.list else ():
        print(f"tried {case}")
    for case, wrong in sorted(report.wrong):
        print(f"FAULT={case.split()[0]} make faults  # {wrong[0]}" if ":" in case else f"{case}: {wrong[0]}")
    print("\n".join(report.summary()))
    tried = sum(report.tried.values()) - report.tried_by("undisturbed")
    left = f", {report.total - tried:,} not tried (--seconds, --sample)" if tried < report.total else ""
    seconds = time.monotonic() - begin
    print(f"{tried:,} cases tried{left}, {len(report.wrong):,} wrong, {seconds:.0f} s, seed {options.seed}")
    return bool(report.wrong)


if __name__ == "__main__":
    sys.exit(main())
