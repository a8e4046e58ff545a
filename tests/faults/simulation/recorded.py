"""python -m tests.faults.simulation.recorded JOB...: runs jobs without a fault, and prints the calls that they made.

For a comparison with the calls that the system has seen (`tests/faults/test_simulation.py`).
"""

from __future__ import annotations

import json
import shutil
import sys

from tests.faults.simulation.__main__ import memory
from tests.faults.simulation.jobs import JOBS, add_shards
from tests.faults.simulation.process import Workplace, warm_up
from tests.faults.simulation.tree import write_tree


def main() -> None:
    """Prints a line of JSON for each call that changed something: the name of the call, and its path."""
    root = memory()
    try:
        warm_up()
        place = Workplace(root)
        everything = add_shards(place)
        for job in JOBS:
            if job.name in sys.argv[1:]:
                write_tree(place.case, everything)
                outcome = place.run(job.argv, record=True)
                for call in outcome.calls:
                    if call.changes and call.name != "fsync":
                        print(json.dumps([call.name, f"{place.case}/{call.path}"]))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
