"""What the commands get instead of TensorFlow, and instead of the clock and the numbers that differ between runs."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from contextlib import nullcontext
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.stubrun import StubRun
from tests.writtentables import provenance
from xcli.core.records import RunCounts
from xcli.inference.profiler import Profile
from xcli.inference.tasks import ClassifyTask
from xcli.storage import disk
from xcli.storage.atomic import write_atomically
from xcli.storage.streams import write_errors
from xcli.tables.provenance import digest
from xcli.training.callbacks import EpochMetrics
from xcli.training.checkpoints import Checkpoints, TrainingState
from xcli.training.run_directory import RunPaths, exclusive, is_finished, publish

EPOCHS = 3


class SimulatedRun(StubRun):
    """A `StubRun` that is made as the command line makes a `Run`."""

    def __init__(self, listing: Any, model: Any, task: Any, preprocessing: Any, options: Any) -> None:
        self.listing, self.report, self.profile = listing, RunCounts(), Profile()
        self._command = "classify" if isinstance(task, ClassifyTask) else "features"
        self._batch_size, self._with_features = 2, getattr(task, "with_features", False)

    def provenance(self, command: str) -> dict[str, Any]:
        changes = {"options__top": 2} if command == "classify" else {}
        return provenance(command, batch_size=self._batch_size, **changes)


class SimulatedFineTuning:
    """The disk of `xcli.training.finetune.FineTuning`, which computes nothing: three epochs, a bundle of two files."""

    def __init__(
        self, split: Any, model: Any, spec: Any, preprocessing: Any, recipe: Any, paths: RunPaths, *_: Any
    ) -> None:
        self.split, self.paths = split, paths

    def run(self) -> Any:
        settings = {"data": [one.digest for one in self.split.examples]}
        run = self.paths.run
        done = SimpleNamespace(metrics=None, run=run, bad={}, counts={}, split="validation", test=None, kept=None)
        if is_finished(self.paths, settings):
            return done
        with exclusive(self.paths) as folder:
            checkpoints = Checkpoints(folder, settings)
            value = checkpoints.load()
            state = TrainingState() if value is None else TrainingState.from_dict(value)
            if state.epoch:
                checkpoints.arrays(f"head-last-{state.epoch}.npz")
            while state.epoch < EPOCHS:
                state.epoch += 1
                state.rows.append(EpochMetrics("head", state.epoch, 0.1, 0.5, 0.5, 0.5, 0.5, 1.0))
                name = f"head-last-{state.epoch}.npz"
                checkpoints.write(name, {"kernel": np.full(4, state.epoch, np.float32)})
                checkpoints.commit(asdict(state), {name})
            with write_errors(self.paths.bundle):
                disk.remove_tree(self.paths.bundle)
                disk.make_directory(self.paths.bundle)
            record = json.dumps({"fingerprint": digest(settings)}).encode()
            for name, text in (("model.keras", b"weights " * 9), ("run.json", record)):
                write_atomically(os.path.join(self.paths.bundle, name), text)
            publish(self.paths)
        return SimpleNamespace(**{**vars(done), "metrics": 1})


def replace_computation() -> None:
    """Puts the stubs in place, in this process."""
    import xcli.cli.commands.finetune as finetune
    import xcli.cli.table_run as table_run
    import xcli.outputs.ordered_rows as ordered_rows

    labels = SimpleNamespace(names=["a", "b", "c"], wnids=None, source="stub", digest="0")
    model = SimpleNamespace(notes=(), labels=labels)
    for module in (table_run, finetune):
        module.load_model = lambda *_: model
        module.preprocessing_for = lambda *_, **__: None
        module.quiet_libraries = lambda **_: None
    table_run.Run = SimulatedRun
    ordered_rows._WORTHWHILE = 0  # so that a few rows in another order are sorted as many would be
    finetune._be_repeatable = lambda: None
    finetune.TrainingDisplay = lambda **_: nullcontext(SimpleNamespace(close=lambda: None))
    finetune.FineTuning = SimulatedFineTuning
    finetune.show = lambda *_: None


def replace_chance(process: int) -> None:
    """Makes the clock, the number of this process, and random names those of every other run of the same case."""
    ticks = itertools.count()
    numbers = random.Random(process)

    def clock() -> float:
        return 1_700_000_000 + next(ticks) / 1000

    time.time = time.monotonic = clock
    os.getpid = lambda: 4000 + process
    os.urandom = numbers.randbytes
