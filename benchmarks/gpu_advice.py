"""From the results of `python -m benchmarks.gpu` to what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.timing import Data

COSINES = {"tf32": 0.9999, "bfloat16": 0.999, "float16": 0.9999}
"""Lowest median cosine to float32 that is as it should be."""

SAME_CLASS = 98.0
"""Per cent of images whose best class is the same."""

HOST_SHARE = 0.9
"""Of what the host feeds, or the network computes, that a whole run should reach."""

HIDDEN = 0.95
"""Of the speed of the network alone that is to be left with the copies from and to the host's memory."""

MEMORY_COSINE = "lowest cosine to the processor's float32"
"""Name of a result: that of features after the engine has backed off."""


RATIO = "ratio of the times"
"""Name of a result: the seconds of the Keras script over ours, in a round."""


def advice(results: Sequence[Data]) -> list[str]:
    """One sentence for each goal that was missed; goals whose figures are missing are passed over."""
    found = {(one["section"], one["name"]): one["value"] for one in results if one["value"] is not None}
    return [
        *_precision(found),
        *_speed(found),
        *_streams(found),
        *_end_to_end(found),
        *_commands(found),
        *_memory(found),
    ]


Found = dict[tuple[str, str], float]


def _precision(found: Found) -> list[str]:
    said = []
    for name, goal in COSINES.items():
        cosine = found.get(("precision", f"{name}: median cosine"), 1.0)
        same = found.get(("precision", f"{name}: same best class"), 100.0)
        if cosine < goal or same < SAME_CLASS:
            said.append(
                f"{name} is further from float32 than it should be (median cosine {cosine:.6f}, {same:.1f} % the same "
                "class): compare layer by layer, and keep `--precision auto` away from it."
            )
    return said


def best(found: Found, section: str, begin: str, end: str = "") -> tuple[float, str] | None:
    """The highest value, and its name, of a section's results that begin and end so."""
    return max(
        (
            (value, name)
            for (where, name), value in found.items()
            if where == section and name.startswith(begin) and name.endswith(end)
        ),
        default=None,
    )


def _speed(found: Found) -> list[str]:
    said = []
    ours = best(found, "speed", "network alone")
    for section, begin, who in (("timm", "compiled", "timm, compiled"), ("keras", "", "keras predict")):
        theirs = best(found, section, begin)
        if ours and theirs and ours[0] < theirs[0]:
            said.append(
                f"The network alone computes {ours[0]:,.0f} images/s, {who} {theirs[0]:,.0f} ({theirs[1]}): profile "
                "its kernels, the depthwise convolutions first, then the layout of the pointwise ones."
            )
    fed = best(found, "speed", "from memory")
    if ours and fed and fed[0] < HIDDEN * ours[0]:
        said.append(
            f"With copies from and to the host's memory {fed[0]:,.0f} images/s are left of {ours[0]:,.0f}: the copies "
            "are not hidden; copy the next batch while one computes."
        )
    return said


def _streams(found: Found) -> list[str]:
    one, two = (best(found, "speed", "from memory", f", {count} at a time") for count in (1, 2))
    if one and two and two[0] < 1.02 * one[0]:
        return [f"Two batches at a time ({two[0]:,.0f} images/s) gain nothing over one ({one[0]:,.0f}): use one."]
    return []


def _end_to_end(found: Found) -> list[str]:
    host, whole = (found.get(("end-to-end", name)) for name in ("host alone", "whole run"))
    fed = best(found, "speed", "from memory")
    if host is None or whole is None or fed is None:
        return []
    said = []
    if whole < HOST_SHARE * min(host, fed[0]):
        said.append(
            f"A whole run reaches {whole:,.0f} images/s where the host alone feeds {host:,.0f} and the network "
            f"computes {fed[0]:,.0f}: look at `--profile` for where it waits."
        )
    if host < fed[0]:
        said.append(
            f"The GPU waits for the host: it would take {fed[0] / host:.1f} times the processors (this machine feeds "
            f"{host:,.0f} images/s, the network computes {fed[0]:,.0f})."
        )
    return said


def _commands(found: Found) -> list[str]:
    ratio = found.get(("commands", RATIO), 1.0)
    if ratio < 1:
        return [
            f"From start to exit a Keras script takes {ratio:.2f} times as long as a command: look at what `--profile` "
            "says of compiling."
        ]
    return []


def _memory(found: Found) -> list[str]:
    said = []
    if found.get(("memory", "finite")) == 0 or found.get(("memory", MEMORY_COSINE), 1.0) < 0.999:
        said.append("Results after a back-off differ from those before it: do not trust runs that log one.")
    return said
