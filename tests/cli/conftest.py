"""Running the command line: in this process where that is enough, in a real one where the boundary matters."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tracedonce import traced_once  # noqa: F401 - a fixture
from xcli.cli.main import run_command
from xcli.cli.verbosity import Messages


@dataclass(frozen=True)
class Result:
    """What a run of the command line left behind; shown whole when a test fails."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Invoke]:
    """Runs `xception ARGS...` in this process; TensorFlow stays imported for the next test."""
    monkeypatch.setattr("xcli.core.process.discard_native_stderr", lambda: None)
    # The command line sets the logger up for itself; the next test may want to catch what is logged.
    log = logging.getLogger("xcli")
    level = log.level
    for name in ("propagate", "handlers"):
        monkeypatch.setattr(log, name, list(log.handlers) if name == "handlers" else getattr(log, name))

    def run(*args: str | os.PathLike[str]) -> Result:
        monkeypatch.setattr(sys, "argv", ["xception", *map(os.fspath, args)])
        capfdbinary.readouterr()
        code = run_command(Messages())
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode())

    yield run
    log.setLevel(level)  # which also forgets what the logger has found to be below its level


COMMAND = (sys.executable, "-m", "xcli")


def clean_environment(**extra: str) -> dict[str, str]:
    """This environment without anything that would change what xception does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XCEPTION_", "TF_", "KERAS"))}
    return kept | extra


def run_process(
    *args: str | os.PathLike[str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    timeout: float = 120,
    launcher: Sequence[str] = COMMAND,
    **env: str,
) -> Result:
    """Runs `python -m xcli ARGS...`, or that with another launcher, as a process of its own."""
    done = subprocess.run(
        [*launcher, *map(os.fspath, args)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env=clean_environment(**env),
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def save_photos(directory: Path, names: Sequence[str], size: tuple[int, int] = (96, 80)) -> list[Path]:
    """Small JPEGs with different content."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, name in enumerate(names):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        path = directory / name
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, "JPEG", quality=95)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of five photographs and two things that are none."""
    root = tmp_path_factory.mktemp("photos")
    save_photos(root, ["a.jpg", "b.JPG", "sub/c.jpeg"[4:], "d.jpg"])
    save_photos(root / "sub", ["e.jpg"])
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.jpg").write_bytes(b"x")
    return root


def code_and_imports(args: Sequence[str]) -> str:
    """Runs a command in a process of its own; returns `IMPORTED`, its exit code and what it imported of TensorFlow."""
    script = (
        "import sys\nfrom xcli.cli.main import run_command\nfrom xcli.cli.verbosity import Messages\n"
        f"sys.argv = ['xception', *{[*args]!r}]\ncode = run_command(Messages())\n"
        "print('IMPORTED', code, sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    print(done.stdout + done.stderr)  # shown if the test fails
    return done.stdout.splitlines()[-1]
