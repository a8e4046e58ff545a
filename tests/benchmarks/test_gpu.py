"""`python -m benchmarks.gpu`: its sections, its limits, and what it advises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.children import ROOT
from benchmarks.gpu import LIMITS, line, run_section
from benchmarks.gpu_advice import MEMORY_COSINE, RATIO, advice
from benchmarks.gpu_sections import SECTIONS
from tests.thorough import thorough

if TYPE_CHECKING:
    from pathlib import Path

RESULT = "import json, os, time; print(json.dumps({'name': 'a', 'value': 1.0, 'unit': 's'}), flush=True); "


def test_every_section_has_a_limit() -> None:
    assert list(LIMITS) == list(SECTIONS)


@pytest.mark.parametrize(
    ("code", "limit", "ended"),
    [
        ("", 20.0, "done"),
        ("os.abort()", 20.0, "ended with -6: "),
        ("raise ValueError('no such layer')", 20.0, "ValueError: no such layer"),
        ("time.sleep(60)", 0.5, "out of time"),
        (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])",
            0.5,
            "out of",
        ),
    ],
)
def test_what_a_section_has_told_is_kept_however_it_ends(code: str, limit: float, ended: str) -> None:
    found: list[Any] = []
    begin = time.monotonic()
    assert ended in run_section("speed", ["-c", RESULT + code], limit, found.append)
    assert time.monotonic() - begin < 15
    assert found == [{"section": "speed", "name": "a", "value": 1.0, "unit": "s"}] or limit < 1


def test_results_of_an_h100_give_the_advice_that_was_taken() -> None:
    results = [
        _result("speed", "network alone, batches of 128", 11693),
        _result("timm", "compiled, batches of 128", 9383),
        _result("speed", "from memory and back, batches of 64, 1 at a time", 4874),
        _result("speed", "from memory and back, batches of 64, 2 at a time", 7466),
        _result("end-to-end", "host alone", 2598),
        _result("end-to-end", "whole run", 2642),
    ]
    said = advice(results)
    assert len(said) == 2
    assert said[0].startswith("With copies from and to the host's memory 7,466 images/s are left of 11,693")
    assert said[1].startswith("The GPU waits for the host: it would take 2.9 times the processors")


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([("precision", "float16: median cosine", 0.99)], "float16 is further from float32"),
        ([("precision", "bfloat16: same best class", 97.0)], "bfloat16 is further from float32"),
        (
            [("speed", "network alone, batches of 64", 100.0), ("keras", "float32, batches of 64", 101.0)],
            "The network alone computes 100 images/s, keras predict 101",
        ),
        (
            [("speed", f"from memory and back, batches of 64, {n} at a time", 100.0) for n in (1, 2)],
            "Two batches at a time (100 images/s) gain nothing over one (100): use one.",
        ),
        (
            [
                ("speed", "from memory and back, batches of 64, 1 at a time", 100.0),
                ("end-to-end", "host alone", 200.0),
                ("end-to-end", "whole run", 89.0),
            ],
            "A whole run reaches 89 images/s where the host alone feeds 200 and the network computes 100",
        ),
        ([("commands", RATIO, 0.76)], "From start to exit a Keras script takes 0.76 times as long as a command"),
        ([("memory", "finite", 0.0)], "Results after a back-off differ"),
        ([("memory", MEMORY_COSINE, 0.9)], "Results after a back-off differ"),
    ],
)
def test_each_goal_that_is_missed_is_named(results: list[tuple[str, str, float]], said: str) -> None:
    (sentence,) = advice([_result(*one) for one in results])
    assert sentence.startswith(said)


def test_what_could_not_be_measured_is_no_reason_for_advice() -> None:
    nothing = {"section": "memory", "name": "back-off", "value": None, "unit": "", "note": "no GPU"}
    assert advice([nothing]) == []
    assert line(nothing) == "memory: back-off: no GPU"


def _result(section: str, name: str, value: float) -> dict[str, Any]:
    return {"section": section, "name": name, "value": value, "unit": ""}


@thorough
def test_the_whole_command_on_a_processor(tmp_path: Path) -> None:
    target = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--small", "--json", str(target)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(target.read_text())
    ended = {name: section["ended"] for name, section in data["sections"].items()}
    ended.pop("timm")  # done where PyTorch is there
    assert set(ended) == set(SECTIONS) - {"timm"}
    assert set(ended.values()) == {"done"}, ended
    found = {(one["section"], one["name"]): one["value"] for one in data["results"]}
    assert found["precision", "float32: lowest cosine"] > 0.9999
    assert found["repeat", "continued: rows with the same bits"] == 100
    assert found["end-to-end", "host alone"] > found["end-to-end", "whole run"]
    assert os.listdir(tmp_path) == ["gpu.json"]
