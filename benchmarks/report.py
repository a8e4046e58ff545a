"""From the data to tables and to a sentence on what limits the speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import decode, end_to_end, model
from benchmarks.timing import DIFFERENCE, Data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

WIDTH = 120
"""Columns of the report where it does not go to a terminal."""


def number(value: float) -> str:
    """A figure with as many digits as it deserves."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if 0.99 < size < 1 and value > 0:
        return f"{value:.6f}"  # cosines
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def show_machine(console: Console, data: Mapping[str, Any]) -> None:
    """The machine and the versions, in three lines."""
    found = data["machine"]
    sets = [name for name, there in found["instruction_sets"].items() if there] or ["none of those that matter"]
    console.print(
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, {', '.join(sets)}\n"
        f"{found['system']}, Python {found['python']}, {found['date']}, load {found['load']}",
        highlight=False,
    )
    known = [f"{name} {version or 'not installed'}" for name, version in data["versions"].items()]
    console.print(", ".join(known), style="dim", highlight=False)


def show_part(console: Console, part: Mapping[str, Any]) -> None:
    """The tables of one part."""
    for one in part.get("groups", ()):
        console.print(f"\n{one['title']}", style="bold", highlight=False)
        console.print(_samples(one))
        if one["comparisons"]:
            console.print(_comparisons(one))
    facts = part.get("facts", ())
    for fact in facts:
        value = "-" if fact["value"] is None else number(fact["value"])
        console.print(f"  {fact['name']}: [bold]{value}[/bold] {fact['unit']}", highlight=False)
    if "note" in part:
        console.print(part["note"])


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=bool(index))
    return table


def _samples(one: Mapping[str, Any]) -> Table:
    table = _table("contestant", f"median, {one['unit']}", "min .. max", "samples")
    for name, found in one["contestants"].items():
        spread = f"{number(found['min'])} .. {number(found['max'])}"
        table.add_row(name, number(found["median"]), spread, str(len(found["samples"])))
    for name, reason in one["missing"].items():
        table.add_row(name, reason, "", "", style="dim")
    return table


def _comparisons(one: Mapping[str, Any]) -> Table:
    table = _table("round by round", "median", "min .. max")
    for found in one["comparisons"]:
        unit = f" {found['unit']}" if found["kind"] == DIFFERENCE else ""
        spread = f"{number(found['min'])} .. {number(found['max'])}"
        table.add_row(found["name"], f"{number(found['median'])}{unit}", spread)
    return table


def show_conclusions(console: Console, data: Mapping[str, Any]) -> None:
    """What limits the speed, where enough was measured to say it."""
    found = bottleneck(data)
    if found is not None:
        console.print(f"\n[bold]Bottleneck[/bold]: {found['text']}", highlight=False)


def bottleneck(data: Mapping[str, Any]) -> Data | None:
    """Which stage takes more of the processor, from the rates of each by itself.

    One core decodes `decode` images/s, all of them together compute `model` images/s. An image costs the cores
    1 / (cores * decode) + 1 / model seconds, if both stages use all of them to the full.

    Args:
        data: of the whole run, with the parts `model` and `decode`.

    Returns:
        Rates (images/s), shares (of processor time) and a sentence; None where one of the two was not measured.
    """
    parts = data["parts"]
    rates = _median(parts.get("decode"), decode.OURS), _model_rate(parts.get("model"))
    if rates[0] is None or rates[1] is None:
        return None
    cores = data["machine"]["cores"]
    decoding, (network, precision) = rates[0] * cores, rates[1]
    both = 1 / (1 / decoding + 1 / network)
    share = both / network
    name = "the network" if share >= 0.5 else "decoding"
    text = (
        f"{name}. An image takes {1000 / network:.1f} ms of all {cores} cores in the network ({precision}) and "
        f"{1000 / decoding:.1f} ms in decoding, {100 * max(share, 1 - share):.0f}% for {name}; "
        f"together they allow {both:.1f} images/s."
    )
    reached = _median(parts.get("end-to-end"), end_to_end.ours(precision))
    if reached is not None:
        text += f" Whole processes reached {reached:.1f} images/s, start-up included."
    return {
        "stage": name,
        "decode_rate": decoding,
        "model_rate": network,
        "precision": precision,
        "network_share": share,
        "possible_rate": both,
        "end_to_end_rate": reached,
        "text": text,
    }


def _median(part: Mapping[str, Any] | None, name: str) -> float | None:
    """Median of a contestant in the first table of a part."""
    groups = (part or {}).get("groups") or [{"contestants": {}}]
    found = groups[0]["contestants"].get(name)
    return None if found is None else float(found["median"])


def _model_rate(part: Mapping[str, Any] | None) -> tuple[float, str] | None:
    """Our fastest way to compute the network as the tool does it: images/s, and the precision."""
    from xcli.inference.batch_size import STREAMS

    rates = [(_median(part, model.ours(one, STREAMS)), one) for one in ("float32", "bfloat16")]
    return max(((rate, one) for rate, one in rates if rate is not None), default=None)
