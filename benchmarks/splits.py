"""How decoding and the network share the cores: the pipeline's speed under different numbers of threads."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks import children
from benchmarks.timing import Data, Save, alternate, compare_all, fastest, group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.settings import Settings

ENOUGH = 500
"""Photographs for a rate to be worth something: batches that are under way when the first one ends count as well."""


@dataclass(frozen=True, slots=True)
class Split:
    """One way to share.

    Attributes:
        name: for the report.
        options: of `xcli.inference.options.RunOptions`.
        environment: variables of the process, such as TF_NUM_INTRAOP_THREADS.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def splits(cores: int) -> Sequence[Split]:
    """The ways that are compared; a new one needs a line here."""
    return [
        Split("defaults"),
        *(Split(f"{workers} decoding", {"workers": workers}) for workers in sorted({1, cores, 2 * cores})),
        Split("a core for decoding alone", {"workers": 1}, {"TF_NUM_INTRAOP_THREADS": str(max(1, cores - 1))}),
        Split("network with one thread a batch", {}, {"TF_NUM_INTRAOP_THREADS": "1"}),
    ]


def measure(settings: Settings, save: Save) -> Data:
    """Runs each split once a round, in a process of its own."""
    chosen = splits(settings.cores)
    default = chosen[0].name

    def sample(split: Split) -> float:
        data = children.run(
            "benchmarks.splits:speed",
            settings,
            lambda _: None,
            arguments={"options": split.options},
            extra=split.environment,
        )
        return float(data["rate"])

    def result(samples: dict[str, list[float]]) -> Data:
        pairs = [(split.name, default) for split in chosen[1:]]
        title = f"Sharing {settings.cores} cores, {settings.precisions[-1]}, {settings.images} photographs"
        data: Data = {"groups": [group(title, "images/s", samples, compare_all(samples, pairs))]}
        if settings.images < ENOUGH:
            data["note"] = (
                f"With fewer than {ENOUGH} photographs, batches begun before the clock make up too much of it."
            )
        return {**data, "fastest": fastest(samples, list(samples))}

    samplers = {split.name: lambda split=split: sample(split) for split in chosen}
    return result(alternate(samplers, settings.repeats, lambda samples: save(result(samples))))


def speed(settings: Settings, save: Save, options: dict[str, Any]) -> Data:
    """Images/s of the pipeline from the end of its first batch to the end of its last; for a child process."""
    from xcli.inference.options import RunOptions
    from xcli.inference.run import Run
    from xcli.inference.tasks import FeaturesTask
    from xcli.models.loader import load_model, preprocessing_for
    from xcli.sources.listing import list_images
    from xcli.sources.options import SourceOptions

    model = load_model(weights=settings.weights, include_top=False)
    with list_images(SourceOptions(sources=(settings.photographs,))) as listing:
        run_options = RunOptions(**{"device": "cpu", "precision": settings.precisions[-1], **options})
        run = Run(listing, model, FeaturesTask(), preprocessing_for(model), run_options)
        run.start()
        batches = run.batches()
        next(batches)
        begin, images = time.perf_counter(), 0
        for batch, _ in batches:
            images += len(batch.refs)
        passed = time.perf_counter() - begin
    if not images:
        raise ValueError(f"{settings.images} photographs are a single batch; give more with --images")
    return {"rate": images / passed}
