"""The scripts for schedulers in docs/scaling.md, run as a scheduler runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import clean_environment, run_process, save_photos
from tests.thorough import thorough

DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"
COUNT = 16


def scripts() -> dict[str, str]:
    """The shell script of each scheduler's recipe."""
    text = DOCUMENT.read_text(encoding="utf-8")
    slurm = re.search(r"### Slurm\n.*?```sh no-run\n(.*?)```", text, re.DOTALL)
    kubernetes = re.search(r"args:\n +- \|\n(.*?)\n +resources:", text, re.DOTALL)
    assert slurm is not None
    assert kubernetes is not None
    return {"slurm": slurm[1], "kubernetes": kubernetes[1]}


def run_script(name: str, task: int, folder: Path, xception: str) -> subprocess.CompletedProcess[str]:
    """Runs one task of a recipe, in a directory, with a program in the place of `xception`."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "xception"
    program.write_text(f"#!/bin/sh\n{xception}\n")
    program.chmod(0o755)
    variables = {"SLURM_ARRAY_TASK_ID": str(task)} if name == "slurm" else {"JOB_COMPLETION_INDEX": str(task)}
    environment = clean_environment(**variables, PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
    script = scripts()[name].replace("/data/photos", "photos").replace("s3://bucket/", "")
    script = script.replace(f"/{COUNT}", "/2")
    shell = "bash" if name == "slurm" else "/bin/sh"
    return subprocess.run(
        [shell, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("name", "first"), [("slurm", 1), ("kubernetes", 0)])
def test_shards_count_from_one_whatever_the_scheduler_does(name: str, first: int, tmp_path: Path) -> None:
    for number in (1, 2):
        done = run_script(name, first + number - 1, tmp_path, 'echo "$@"')
        assert done.returncode == 0, done
        words = done.stdout.split()
        assert words[0] == "features"
        assert words[words.index("--shard") + 1] == f"{number}/2"
        assert words[words.index("-o") + 1] == f"shards/{number}.parquet"


def test_rows_that_are_errors_do_not_fail_an_index(tmp_path: Path) -> None:
    codes = [run_script("kubernetes", 0, tmp_path, f"exit {code}").returncode for code in (0, 4, 5)]
    assert codes[:2] == [0, 0]
    assert codes[2] != 0


def test_the_numbers_of_tasks_agree() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert re.findall(r"--array=1-(\d+)", text) == [str(COUNT)]
    assert set(re.findall(r"(?:completions|parallelism): (\d+)", text)) == {str(COUNT)}
    for script in scripts().values():
        assert re.findall(r'--shard "[^"]*/(\d+)"', script) == [str(COUNT)]


@thorough
@pytest.mark.parametrize(("name", "first"), [("slurm", 1), ("kubernetes", 0)])
def test_all_tasks_and_a_merge_are_a_run_in_one_piece(name: str, first: int, tmp_path: Path) -> None:
    save_photos(tmp_path / "photos", [f"{number:02}.jpg" for number in range(20)])
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    (tmp_path / "shards").mkdir()
    (tmp_path / "logs").mkdir()
    small = {"XCEPTION_FEATURES_WEIGHTS": "none", "XCEPTION_FEATURES_IMAGE_SIZE": "71"}
    exports = " ".join(f"{key}={value}" for key, value in small.items())
    codes = [
        run_script(name, first + number, tmp_path, f'{exports} exec "{sys.executable}" -m xcli "$@"').returncode
        for number in range(2)
    ]
    assert sorted(codes) == ([0, 4] if name == "slurm" else [0, 0])
    shards = [f"shards/{number}.parquet" for number in (1, 2)]
    merged = run_process("merge", *shards, "-o", "features.parquet", "--source", "photos", cwd=tmp_path)
    assert merged.code == 0, merged
    one = run_process("features", "photos", "-o", "one.parquet", cwd=tmp_path, **small)
    assert one.code == 4, one
    assert pq.read_table(tmp_path / "features.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
