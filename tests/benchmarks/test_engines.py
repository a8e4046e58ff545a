"""`python -m benchmarks engines`: how it divides photographs, and what it tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import engines
from benchmarks.engines import Bench, Contestant, contestants, losses, prepare

FLOAT, OTHER = Contestant("tensorflow", "float32"), Contestant("openvino", "int8")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "in" / name / f"{number}.jpg").write_bytes(b"photograph")
    values: dict[str, Any] = {"compared": 4, "images": 6, "weights": None, "model": "RUN"}
    (tmp_path / "scratch").mkdir()
    return prepare(tmp_path / "scratch", str(tmp_path / "in"), str(tmp_path / "in"), values)


def listed(manifest: str) -> list[str]:
    return Path(manifest).read_text().splitlines()[1:]


def test_no_photograph_that_is_compared_is_calibrated_on(bench: Bench) -> None:
    compared, others = set(listed(bench.compared)), set(listed(bench.others))
    assert (len(compared), len(others)) == (4, 6)
    assert not compared & others
    assert len(listed(bench.timed)) == 6
    assert bench.labels == [Path(path).parent.name for path in listed(bench.compared)]


def test_both_engines_take_part() -> None:
    assert contestants()[0] == FLOAT
    assert {one.engine for one in contestants()} == {"tensorflow", "openvino"}


def test_the_loss_is_against_float32(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.eye(4, 8, dtype=np.float32)
    turned = features + 0.1 * np.roll(features, 1, 1)
    classes = np.array(bench.labels)
    wrong = np.where(np.arange(4) == 2, "bird", classes)
    found = {FLOAT: (features, classes), OTHER: (turned, wrong)}
    monkeypatch.setattr(engines.Bench, "results", lambda self, one: found[one])
    facts: list[dict[str, Any]] = []
    lowest = losses(bench, [FLOAT, OTHER], facts)
    told = {fact["name"]: fact["value"] for fact in facts}
    assert lowest == pytest.approx({FLOAT.name: 1.0, OTHER.name: 1 / np.sqrt(1.01)})
    assert told["openvino, int8: same best class"] == 75
    assert told["openvino, int8: best class is the directory's"] == 75
    assert told["tensorflow, float32: best class is the directory's"] == 100
