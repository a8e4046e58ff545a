"""`python -m benchmarks rows`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.children import ROOT
from benchmarks.rows import FORMATS, STEPS
from tests.thorough import thorough

if TYPE_CHECKING:
    from pathlib import Path


@thorough
def test_every_step_of_every_format(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks", "rows", "--rows", "300,2500", "--json", str(target)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(target.read_text())["medians"]
    assert set(found) == {f"{form} {rows}" for form in FORMATS for rows in (300, 2500)}
    for key, steps in found.items():
        assert set(steps) == set(STEPS) - ({"merge"} if key.startswith("directory") else set())
        assert steps["continue"]["computed"] < steps["finish"]["computed"]
    assert os.listdir(tmp_path) == ["rows.json"]
