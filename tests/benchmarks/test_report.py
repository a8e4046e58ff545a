from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from benchmarks import decode, end_to_end, model, report
from benchmarks.steady import Windows, facts
from benchmarks.timing import DIFFERENCE, compare, compare_all, group
from xcli.inference.batch_size import STREAMS


def made_up(decoded: float, computed: float) -> dict[str, Any]:
    """The data of a run with those rates, in images/s: of one thread, and of the network."""
    network = {model.ours("float32", STREAMS): [computed / 2], model.ours("bfloat16", STREAMS): [computed]}
    return {
        "machine": {"cores": 4},
        "parts": {
            "model": {"groups": [group("model", "images/s", network)]},
            "decode": {"groups": [group("decode", "images/s", {decode.OURS: [decoded]})]},
        },
    }


def shown(part: dict[str, Any]) -> str:
    stream = io.StringIO()
    report.show_part(Console(file=stream, width=report.WIDTH), part)
    return stream.getvalue()


def test_the_network_is_the_bottleneck() -> None:
    found = report.bottleneck(made_up(decoded=225, computed=100))
    assert found is not None
    assert (found["stage"], found["precision"]) == ("the network", "bfloat16")
    assert found["network_share"] == pytest.approx(0.9)
    assert found["possible_rate"] == pytest.approx(90)
    assert "10.0 ms of all 4 cores in the network (bfloat16) and 1.1 ms in decoding, 90%" in found["text"]
    assert "reached" not in found["text"]


def test_decoding_is_the_bottleneck() -> None:
    data = made_up(decoded=5, computed=80)
    data["parts"]["end-to-end"] = {"groups": [group("whole", "images/s", {end_to_end.ours("bfloat16"): [15.5]})]}
    found = report.bottleneck(data)
    assert found is not None
    assert found["stage"] == "decoding"
    assert found["network_share"] == pytest.approx(0.2)
    assert "reached 15.5 images/s" in found["text"]


@pytest.mark.parametrize("gone", ["model", "decode"])
def test_no_bottleneck_without_both_rates(gone: str) -> None:
    data = made_up(100, 100)
    del data["parts"][gone]
    assert report.bottleneck(data) is None


def test_tables_show_medians_spread_ratios_and_who_is_missing() -> None:
    samples = {"ours": [30.0, 20.0, 24.0], "theirs": [10.0, 10.0, 10.0]}
    found = group(
        "A title", "images/s", samples, compare_all(samples, [("ours", "theirs")]), missing={"x": "not installed"}
    )
    text = shown({"groups": [found], "facts": [{"name": "cosine", "value": 0.99987654, "unit": ""}]})
    for part in (
        "A title",
        "24.0",
        "20.0 .. 30.0",
        "ours / theirs",
        "2.40",
        "2.00 .. 3.00",
        "not installed",
        "0.999877",
    ):
        assert part in text


def test_differences_have_their_unit_and_what_was_not_measured_says_so() -> None:
    pairs = [compare("a - b", [3.0], [1.0], kind=DIFFERENCE, unit="s")]
    text = shown({"groups": [group("t", "s", {"a": [3.0], "b": [1.0]}, pairs)]})
    assert "2.00 s" in text
    text = shown({"facts": [{"name": "same best class", "value": None, "unit": "not measured"}]})
    assert "same best class: - not measured" in text


def test_windows_leave_the_start_up_out() -> None:
    windows = Windows(20)
    for number in range(7):
        windows.add(10, 100 + number * (1 if number < 4 else 2), [(50 + number) << 20, (52 + number) << 20])
    assert windows.rates == pytest.approx([10, 20 / 6, 5])
    assert windows.memory == [52.5, 54.5, 56.5]
    found = {one["name"]: one["value"] for one in facts(windows, 3.0)}
    assert found["speed, last window against first"] == pytest.approx(-50)
    assert found["resident memory, last window against first"] == pytest.approx(100 * (56.5 / 52.5 - 1))


def test_openvinos_better_setting_is_the_yardstick() -> None:
    tool, one = model.ours("float32", STREAMS), model.openvino("float32", "LATENCY")
    samples = {tool: [12.0], one: [10.0], model.openvino("float32", "THROUGHPUT"): [8.0]}
    found = model.comparisons(samples, ["float32"], 16)
    assert [(pair["name"], pair["median"]) for pair in found] == [(f"{tool} / {one}", 1.2)]


def test_the_work_of_an_image() -> None:
    assert model.multiply_adds() == pytest.approx(8.36e9, rel=0.01)
    assert model.main_shape(16) == (16 * 361, 728, 728)
