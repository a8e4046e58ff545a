"""python -m tests.faults.simulation: tries the cases, prints the table; FAULT=job.state:call:kind replays one."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import selectors
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tests.faults.simulation import calls, damage, pairs, power
from tests.faults.simulation.jobs import JOBS, Start, add_shards, prepare
from tests.faults.simulation.process import Workplace, warm_up
from tests.faults.simulation.report import Report

CLASSES: dict[str, Any] = {"call": calls, "power": power, "damage": damage, "pair": pairs}
"""The modules of the classes of cases; a case is `class/job.state:key`, without the class for faults of calls."""

WORKERS = 2


def memory() -> str:
    """Makes a directory, in memory where that is possible."""
    return tempfile.mkdtemp(prefix="xception-faults-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)


def starts(place: Workplace, jobs: list[str], states: list[str]) -> Iterator[Start]:
    """Prepares the jobs in all their states."""
    everything = add_shards(place)
    for job in JOBS:
        for state in job.states:
            if (not jobs or job.name in jobs) and (not states or state in states):
                yield prepare(place, job, state, everything)


def cases(ready: list[Start], classes: list[str]) -> list[tuple[str, Start, str]]:
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


def work(chosen: list[tuple[str, Start, str]], place: Workplace, deadline: float, pipe: int) -> None:
    """Tries cases until the deadline, and writes what is wrong with each."""
    for name, start, key in chosen:
        if time.monotonic() > deadline:
            break
        try:
            wrong = CLASSES[name].judge(place, start, key)
        except Exception as error:  # noqa: BLE001 - a judge that fails is a case that is wrong
            wrong = [f"the judge failed: {type(error).__name__}: {error}"]
        data = pickle.dumps((CLASSES[name].kind_of(key), start.job.name, shown(name, start, key), wrong))
        os.write(pipe, len(data).to_bytes(4, "little") + data)


def try_all(chosen: list[tuple[str, Start, str]], root: str, seconds: float, workers: int = WORKERS) -> Report:
    """Tries cases in several processes."""
    report, deadline = Report(), time.monotonic() + seconds
    selector, buffers, pids = selectors.DefaultSelector(), {}, []
    for number in range(workers):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            # All workers use one path, so that what depends on it is the same everywhere.
            place = Workplace(os.path.join(root, str(number)))
            os.mkdir(place.root)
            work(chosen[number::workers], place, deadline, write)
            os._exit(0)
        os.close(write)
        selector.register(read, selectors.EVENT_READ)
        buffers[read] = b""
        pids.append(pid)
    while selector.get_map():
        for key, _ in selector.select():
            data = os.read(key.fd, 1 << 16)
            if not data:
                selector.unregister(key.fd)
                os.close(key.fd)
                continue
            buffers[key.fd] += data
            while len(rest := buffers[key.fd]) >= 4 and len(rest) >= (size := int.from_bytes(rest[:4], "little")) + 4:
                report.add(*pickle.loads(rest[4 : size + 4]))
                buffers[key.fd] = rest[size + 4 :]
    for pid in pids:
        os.waitpid(pid, 0)
    return report


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
    parser.add_argument("--seconds", type=float, default=480, help="after which no further case is tried")
    parser.add_argument("--sample", type=int, default=0, help="try so many cases; 0 is all")
    parser.add_argument("--job", action="append", default=[], choices=[job.name for job in JOBS])
    parser.add_argument("--class", action="append", default=[], dest="classes", choices=list(CLASSES))
    options = parser.parse_args()
    begin, root = time.monotonic(), memory()
    try:
        warm_up()
        if os.environ.get("FAULT"):
            return replay(os.environ["FAULT"], root)
        ready = list(starts(Workplace(root), options.job, []))
        chosen = cases(ready, options.classes)
        total = len(chosen)
        random.Random(options.seed).shuffle(chosen)
        chosen = chosen[: options.sample or total]
        print(f"{total:,} cases of {len(ready)} jobs and states", flush=True)
        report = try_all(chosen, root, options.seconds)
        for start in ready:
            report.add("undisturbed", start.job.name, f"{start.name}:0:EINTR", start.wrong + power.unexplained(start))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    tried = sum(report.tried.values())
    print("\n".join(report.lines()))
    for case, wrong in sorted(report.wrong):
        print(f"FAULT={case} make faults  # {wrong[0]}")
    left = f", {len(ready) + total - tried:,} not tried (--seconds, --sample)" if tried < total else ""
    seconds = time.monotonic() - begin
    print(f"{tried:,} cases tried{left}, {len(report.wrong):,} wrong, {seconds:.0f} s, seed {options.seed}")
    return bool(report.wrong)


if __name__ == "__main__":
    sys.exit(main())
