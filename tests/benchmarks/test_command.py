from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from benchmarks import machine
from benchmarks.__main__ import main
from benchmarks.children import ROOT
from benchmarks.end_to_end import check_rows
from benchmarks.settings import Settings
from tests.thorough import thorough

if TYPE_CHECKING:
    from pathlib import Path


@thorough
def test_two_parts_from_the_command_line(tmp_path: Path) -> None:
    target = tmp_path / "new" / "found.json"
    options = "--only listing --only decode --images 4 --listing-files 50 --repeats 1".split()
    command = [sys.executable, "-m", "benchmarks", *options, "--json", str(target)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Listing a directory of 50 files" in done.stdout
    assert "12 megapixels" in done.stdout

    data = json.loads(target.read_text())
    assert set(data["parts"]) == {"listing", "decode"}
    assert all(part["complete"] for part in data["parts"].values())
    assert data["machine"]["cores"] >= 1
    assert set(data["machine"]["instruction_sets"]) == set(machine.INSTRUCTION_SETS)
    assert data["versions"]["tensorflow"]
    assert data["bottleneck"] is None
    small, large = data["parts"]["decode"]["groups"]
    for group in (small, large):
        assert {"ours", "ours, full decode", "Pillow", "TensorFlow"} <= set(group["contestants"])
        assert ("libvips" in group["contestants"]) != ("libvips" in group["missing"])
        ratio = group["comparisons"][0]
        one, other = (group["contestants"][name]["samples"][0] for name in ("ours", "Pillow"))
        assert ratio["name"] == "ours / Pillow"
        assert ratio["samples"] == [one / other]
    same, shrunk = (fact["value"] for fact in data["parts"]["decode"]["facts"])
    assert same == 0
    assert 0 < shrunk < 3
    # Nothing stays behind.
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-sizes", "8,x"], "--batch-sizes takes numbers"),
        (["--only", "everything"], "Invalid value for '--only'"),
        (["--images", "0"], "Invalid value for '--images'"),
        (["no-such-directory"], "does not exist"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "x.json")])
    assert result.exit_code == 2
    assert message in result.output


def test_settings_travel_through_json() -> None:
    settings = Settings("p", 2, 4, "", None, "s", 3, (8, 16), "csv", 5, 6, 2, ("float32", "bfloat16"))
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


def test_rows_are_counted(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("path,f0\nx,1\ny,2\n")
    check_rows(str(table), 2)
    with pytest.raises(Exception, match="2 rows for 3 photographs"):
        check_rows(str(table), 3)
