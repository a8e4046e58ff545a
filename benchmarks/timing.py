"""Samples, rounds, ratios: how every part measures and what it hands to the report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sampler = Callable[[], float]
"""Takes one sample; called once a round."""

Data = dict[str, Any]
"""What goes into the JSON file."""

Save = Callable[[Data], None]
"""Takes what has been measured so far, so that an interrupted part is not lost."""

RATIO, DIFFERENCE = "ratio", "difference"


def summary(samples: Sequence[float]) -> Data:
    """Median and spread of samples, and the samples themselves.

    Raises:
        ValueError: there are none.
    """
    if not samples:
        raise ValueError("no samples were taken")
    values = [float(sample) for sample in samples]
    return {"samples": values, "median": statistics.median(values), "min": min(values), "max": max(values)}


def alternate(
    contestants: Mapping[str, Sampler], repeats: int, after_round: Callable[[dict[str, list[float]]], None]
) -> dict[str, list[float]]:
    """Lets the contestants take turns, one sample each a round.

    Each round begins with another contestant, so that none of them always follows the same one.

    Args:
        contestants: by name.
        repeats: number of rounds.
        after_round: called with all samples so far.

    Returns:
        Samples by contestant, in the order of the rounds.
    """
    names = list(contestants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        shift = number % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            samples[name].append(contestants[name]())
        after_round(samples)
    return samples


def compare(
    name: str, first: Sequence[float], second: Sequence[float], *, kind: str = RATIO, unit: str = "times"
) -> Data:
    """Two contestants compared round by round.

    Args:
        name: what is compared, for the report.
        first, second: samples of the same rounds; what one has more than the other, of a round cut short, is left out.
        kind: `ratio` is first / second, `difference` is first - second.
        unit: of the result.
    """
    pairs = list(zip(first, second, strict=False))
    rounds = [one / other if kind == RATIO else one - other for one, other in pairs]
    return {"name": name, "kind": kind, "unit": unit, **summary(rounds)}


def group(
    title: str,
    unit: str,
    samples: Mapping[str, Sequence[float]],
    comparisons: Sequence[Data] = (),
    *,
    missing: Mapping[str, str] | None = None,
) -> Data:
    """One table of the report.

    Args:
        title: its heading.
        unit: of the samples.
        samples: by contestant; those without any are left out.
        comparisons: from `compare`.
        missing: contestants that could not take part, and why.
    """
    return {
        "title": title,
        "unit": unit,
        "contestants": {name: summary(values) for name, values in samples.items() if values},
        "missing": dict(missing or {}),
        "comparisons": list(comparisons),
    }


def compare_all(samples: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]) -> list[Data]:
    """The ratios of those pairs of contestants that both have samples, named `first / second`."""
    return [
        compare(f"{first} / {second}", samples[first], samples[second])
        for first, second in pairs
        if samples.get(first) and samples.get(second)
    ]


def fastest(samples: Mapping[str, Sequence[float]], names: Sequence[str]) -> str | None:
    """Of the contestants named, the one with the highest median; None where none of them took part."""
    present = [name for name in names if samples.get(name)]
    return max(present, key=lambda name: statistics.median(samples[name]), default=None)


def seconds(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
