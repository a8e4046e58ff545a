"""The closing table of `--profile`, and the same figures beside the file."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import save_photos
from xcli.inference.profiler import STAGES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Invoke


def test_profile_closes_with_a_table(invoke: Invoke, tmp_path: Path) -> None:
    save_photos(tmp_path / "in", [f"{n}.jpg" for n in range(5)])
    (tmp_path / "in" / "bad.jpg").write_bytes(b"")
    target = tmp_path / "out.csv"
    arguments = ("features", tmp_path / "in", "--weights", "none", "--image-size", "71", "-o", target)
    done = invoke(*arguments, "--profile", "-q")
    assert (done.code, done.out) == (4, b"")
    stages = re.findall(r"^(\w+) +([\d.]+) +\d+% +([\d.]+) +([\d,.]+)$", done.err, re.MULTILINE)
    assert [stage for stage, *_ in stages] == list(STAGES)
    assert "Most of the time went into" in done.err
    kept = json.loads((tmp_path / "out.csv.meta.json").read_text())["profile"]
    # Both are rounded from one figure, to three and to two digits.
    shown = [float(waited) for _, waited, _, _ in stages]
    assert [kept[stage]["waited"] for stage in STAGES] == pytest.approx(shown, abs=0.0056)
    assert kept["engine"]["busy"] > 0


def test_what_a_gpu_compiles_has_a_line_of_its_own(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcli.inference.engines.tensorflow.Engine.is_cold", True)
    save_photos(tmp_path / "in", ["0.jpg"])
    target = tmp_path / "out.csv"
    done = invoke("features", tmp_path / "in", "--weights", "none", "--image-size", "71", "-o", target, "--profile")
    assert done.code == 0
    assert re.search(r"^compiling +\d", done.err, re.MULTILINE)
    kept = json.loads((tmp_path / "out.csv.meta.json").read_text())["profile"]
    assert kept["compiling"]["busy"] > kept["engine"]["busy"] == 0


def test_without_it_there_is_none(invoke: Invoke, tmp_path: Path) -> None:
    save_photos(tmp_path / "in", ["0.jpg"])
    done = invoke("features", tmp_path / "in", "--weights", "none", "--image-size", "71", "--format", "csv")
    assert done.code == 0
    assert "listing" not in done.err
