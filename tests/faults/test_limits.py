"""A machine that has too little: every process ends with a documented code, and says what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Result, clean_environment, save_photos
from tests.faults.harness import features
from tests.thorough import thorough


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    save_photos(root, [f"{n:03}.jpg" for n in range(60)])
    return root


def run_under(source: Path, folder: Path, before: str, *launcher: str) -> Result:
    """Runs a job in a shell, after some lines of it."""
    command = [*launcher, *COMMAND, *features(source).command(folder)]
    done = subprocess.run(
        ["bash", "-c", f'{before}\nexec "$@"', "bash", *command],
        capture_output=True,
        env=clean_environment(),
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def check(result: Result, code: int, text: str) -> None:
    assert result.code == code, result
    assert text in result.err
    assert "a bug" not in result.err
    assert "Traceback" not in result.err
    kept = "the same command goes on" in result.err
    assert result.err.count("\n") == 1 + kept, result


LIMITS = [
    ("ulimit -v 300000", 3, "address space"),
    ("ulimit -n 5", 5, "no more files can be opened"),
    pytest.param("ulimit -f 8", 5, "File too large", marks=thorough),
    pytest.param("ulimit -v 2000000", 3, "address space", marks=thorough),
]


@pytest.mark.parametrize(("limit", "code", "text"), LIMITS)
def test_limits(limit: str, code: int, text: str, source: Path, tmp_path: Path) -> None:
    check(run_under(source, tmp_path, limit), code, text)


SURROUNDINGS = [
    "exec <&-",
    'mkdir "$0.gone"; cd "$0.gone"; rmdir "$0.gone"',
    "export TMPDIR=/proc/none",
    "ulimit -n 24",
]


@thorough
@pytest.mark.parametrize("before", SURROUNDINGS)
def test_surroundings_that_do_not_matter(before: str, source: Path, tmp_path: Path) -> None:
    before = before.replace("$0", str(tmp_path / "x"))
    result = run_under(source, tmp_path, before)
    assert result.code == 0, result


@thorough
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("first", [1, 2, 10, 28])
def test_no_more_threads(first: int, source: Path, tmp_path: Path) -> None:
    inject = f"inject=clone,clone3:error=EAGAIN:when={first}+"
    trace = ("strace", "-f", "-o", str(tmp_path / "trace"), "-e", "trace=clone,clone3", "-e", inject)
    check(run_under(source, tmp_path, "", *trace), 5, "no more threads can be started")


INTERRUPTED = """
import runpy, sys
class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
runpy.run_module("xcli", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["click", "xcli.core.errors"])
def test_ctrl_c_while_the_program_is_imported(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module], capture_output=True, env=clean_environment(), check=False
    )
    assert (done.returncode, done.stderr) == (130, b"xception: error: interrupted (SIGINT)\n")
