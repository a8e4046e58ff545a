"""See `tests.record`."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.record.cases import quick_cases
from tests.record.compare import differences
from tests.record.inputs import make_inputs
from tests.record.masks import Masks, describe_files, digest
from tests.record.runner import Case, Program, run_case
from tests.record.state import continue_state, keep_state
from tests.record.store import serving
from tests.record.table_cases import table_cases
from tests.record.training_cases import training_cases

HERE = Path(__file__).resolve().parents[2]
AT_A_TIME = 2
LIBRARIES = """
import importlib.metadata, sys, xcli
print(xcli.__file__, *(f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:]), sep="\\n")
"""
NAMES = ("tensorflow", "keras", "numpy", "pillow", "pyarrow", "click", "rich", "matplotlib", "h5py", "fsspec", "s3fs")


def all_cases() -> list[Case]:
    """Every case; those that take long come first, so that no processor waits at the end."""
    return [*training_cases(), *table_cases(), *quick_cases()]


def environment(program: Program, inputs: Path) -> dict[str, Any]:
    """What a record depends on besides the program; a difference here explains many others.

    Raises:
        SystemExit: another copy of the program than the one of the checkout would be run.
    """
    with tempfile.TemporaryDirectory() as home:
        command, env = [program.python, "-c", LIBRARIES, *NAMES], program.environment(Path(home))
        done = subprocess.run(command, cwd=home, env=env, stdout=subprocess.PIPE, text=True, check=True)
    place, *libraries = done.stdout.splitlines()
    if not Path(place).is_relative_to(program.checkout):
        raise SystemExit(f"the program under test is {place}, which is not in {program.checkout}")
    made = describe_files(inputs, Masks({}))
    return {
        "libraries": libraries,
        "processors": len(os.sched_getaffinity(0)),
        "administrator": os.geteuid() == 0,
        "inputs": digest(json.dumps(made, sort_keys=True).encode()),
    }


def make_record(program: Program, only: str) -> dict[str, Any]:
    """Runs the cases whose names match, some at a time."""
    cases = [case for case in all_cases() if re.search(only, case.name)]
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="record-"))).resolve()
        inputs = root / "inputs"
        inputs.mkdir()
        make_inputs(inputs)
        about = environment(program, inputs)
        store = stack.enter_context(serving(inputs)) if any(case.prefix for case in cases) else None
        env = {} if store is None else store.env
        program = Program(program.python, program.checkout, env)
        executor = stack.enter_context(ThreadPoolExecutor(AT_A_TIME))

        def run(case: Case) -> dict[str, Any]:
            places = {
                str(root / "cases" / case.name): "<FOLDER>",
                str(root): "<ROOT>",
                str(program.checkout): "<CHECKOUT>",
                str(Path(program.python).parents[1]): "<PYTHON>",
            }
            begin = time.monotonic()
            result = run_case(case, program, inputs, root / "cases", Masks(places, case.masks), store)
            print(f"{case.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
            return result

        results = dict(zip((case.name for case in cases), executor.map(run, cases), strict=True))
    return {"environment": about, "cases": {name: results[name] for name in sorted(results)}}


def main() -> int:
    """Reads the arguments, and does what they say."""
    parser = argparse.ArgumentParser(prog="python -m tests.record", description="Write down what the program does.")
    parser.add_argument("record", nargs="?", metavar="OUT.json", help="run every command, and write the record here")
    parser.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="show what differs; exit 1 if so")
    parser.add_argument("--keep-state", metavar="DIR", help="make unfinished runs, and what they are to become")
    parser.add_argument("--continue-state", metavar="DIR", help="go on with a copy of them; exit 1 on a difference")
    parser.add_argument("--only", metavar="REGEX", default="", help="some of the cases")
    parser.add_argument("--ignore", choices=("out", "err"), action="append", default=[], help="compare no such streams")
    parser.add_argument("--checkout", metavar="DIR", default=str(HERE), help="of the program under test [this one]")
    parser.add_argument("--python", metavar="PATH", default=sys.executable, help="that runs it [this one]")
    arguments = parser.parse_args()
    program = Program(arguments.python, Path(arguments.checkout).resolve())
    if arguments.compare:
        before, after = (json.loads(Path(name).read_text(encoding="utf-8")) for name in arguments.compare)
        lines = list(differences(before, after, arguments.ignore, arguments.only))
        sys.stdout.writelines(lines or ["no difference\n"])
        return bool(lines)
    if arguments.keep_state:
        return keep_state(program, Path(arguments.keep_state))
    if arguments.continue_state:
        return continue_state(program, Path(arguments.continue_state))
    if not arguments.record:
        parser.error("name a file for the record")
    result = make_record(program, arguments.only)
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    Path(arguments.record).write_text(text, encoding="utf-8", errors="backslashreplace")
    return 0


if __name__ == "__main__":
    sys.exit(main())
