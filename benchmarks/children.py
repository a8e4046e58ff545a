"""Functions and programs in processes of their own, so that no contestant meets the threads of another part.

python -m benchmarks.children MODULE:FUNCTION SETTINGS RESULT     (what `run` starts; not for the command line)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from benchmarks.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.timing import Data, Save

ROOT = Path(__file__).resolve().parent.parent

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
"""For every child: the processor alone is measured, and TensorFlow keeps its remarks to itself."""

_TAIL = 2_000
"""Bytes of a failed child's standard error to show."""

_PATIENCE = 3
"""Seconds that a child has to end in."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child that can import this package from wherever it is started."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, **QUIET, "PYTHONPATH": path, **(extra or {})}


def execute(
    arguments: Sequence[str], *, extra: Mapping[str, str] | None = None, stdout: IO[bytes] | int = subprocess.DEVNULL
) -> None:
    """Runs a program to its end; on Ctrl-C it gets the chance to end by itself.

    Raises:
        click.ClickException: it failed; the end of its standard error is in the message.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(arguments, stdout=stdout, stderr=errors, env=environment(extra)) as process,
    ):
        try:
            code = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
        if code != 0:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL))
            told = errors.read().decode("utf-8", "replace").strip()
            raise click.ClickException(f"{' '.join(arguments[:4])} ... ended with {code}:\n{told}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks a child to end, ever more firmly; one that is inside of a C library may not hear the first time."""
    # The terminal has sent it SIGINT too, but a signal that came from elsewhere was for this process alone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        return


def run(
    function: str,
    settings: Settings,
    save: Save,
    *,
    arguments: Mapping[str, Any] | None = None,
    extra: Mapping[str, str] | None = None,
) -> Data:
    """Calls `function(settings, save, **arguments)` in a child process.

    Args:
        function: `module:name`.
        settings: passed on.
        save: gets what the function had saved when Ctrl-C ended it.
        arguments: further ones; values that JSON can hold.
        extra: further environment variables.

    Returns:
        What the function returned.

    Raises:
        click.ClickException: the child failed.
    """
    with tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        given, result = Path(folder, "settings.json"), Path(folder, "result.json")
        given.write_text(json.dumps({"settings": settings.as_dict(), "arguments": dict(arguments or {})}))
        command = [sys.executable, "-m", "benchmarks.children", function, str(given), str(result)]
        try:
            execute(command, extra=extra)
        except KeyboardInterrupt:
            if result.exists():
                save(json.loads(result.read_text()))
            raise
        data: Data = json.loads(result.read_text())
        return data


def main(function: str, given: str, result: str) -> None:
    """The child's side of `run`."""
    module, _, name = function.partition(":")
    values = json.loads(Path(given).read_text())

    def save(data: Data) -> None:
        partial = Path(f"{result}.new")
        partial.write_text(json.dumps(data))
        partial.replace(result)

    settings = Settings.from_dict(values["settings"])
    save(getattr(import_module(module), name)(settings, save, **values["arguments"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
