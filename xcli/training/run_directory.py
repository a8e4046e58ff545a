"""The directory RUN that a fine-tuning makes, and `RUN.partial`, which holds its checkpoints until RUN is complete."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xcli.core.errors import OutputError, UsageError
from xcli.core.text import one_line
from xcli.evaluation.report import is_within
from xcli.models.bundle import BUNDLE_RECIPE
from xcli.storage.locks import FileLock
from xcli.storage.streams import write_errors
from xcli.storage.urls import is_url
from xcli.training.activation_cache import DEFAULT_CACHE_BYTES
from xcli.training.checkpoints import prepare_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class RunPaths:
    """Where a run reads and writes.

    Attributes:
        source: the data, as the user named them.
        run: the directory to make.
        cache_dir: of activations; None is the user's cache directory.
        cache_bytes: that all activations may take there.
        overwrite: replace RUN.
        restart: discard what an unfinished run has left.
        command_line: for `run.json`.
    """

    source: str
    run: str
    cache_dir: str | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    overwrite: bool = False
    restart: bool = False
    command_line: str = ""

    @property
    def partial(self) -> str:
        """The directory of checkpoints."""
        return self.run.rstrip("/") + ".partial"

    @property
    def bundle(self) -> str:
        """The directory that becomes RUN."""
        return os.path.join(self.partial, "bundle")

    @property
    def parent(self) -> str:
        """The directory that RUN is in."""
        return os.path.dirname(self.run.rstrip("/")) or os.curdir


def check_paths(paths: RunPaths) -> None:
    """Refuses a RUN that cannot be made, before anything is read.

    Raises:
        UsageError: RUN is within the data, has no name, or is a URL.
        OutputError: RUN exists and must not be replaced, or its parent directory does not exist.
    """
    if not paths.run.strip("/"):
        raise UsageError(f"-o takes the name of a directory to make; received {paths.run!r}")
    if is_url(paths.run):
        raise UsageError(f"{paths.run!r}: finetune writes a directory of this machine; copy that to the object store")
    shown, parent = one_line(paths.run), one_line(paths.parent)
    if is_within(paths.run, paths.source) or is_within(paths.parent, paths.source):
        raise UsageError(f"{shown} is within the data; give a directory elsewhere")
    if not os.path.isdir(paths.parent):
        raise OutputError(f"cannot write {shown}: the directory {parent} does not exist; create it first")
    if not os.path.lexists(paths.run) or paths.overwrite:
        return
    if not os.path.isdir(paths.run):
        raise OutputError(f"{shown} exists and is not a directory; give another name")
    if os.listdir(paths.run) and finished_fingerprint(paths.run) is None:
        raise OutputError(f"{shown} exists and was not made by finetune; give another name, or --overwrite")


def finished_fingerprint(run: str) -> str | None:
    """Returns the fingerprint of a finished run, or None if the directory is not one."""
    try:
        with open(os.path.join(run, BUNDLE_RECIPE), encoding="utf-8") as file:
            found = json.load(file)["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


@contextmanager
def exclusive(paths: RunPaths) -> Iterator[str]:
    """Makes the directory of checkpoints and locks it for this process.

    Raises:
        OutputError: it cannot be made, or another process has locked it.
    """
    folder = prepare_folder(paths.partial, paths.restart)
    lock = FileLock(folder / ".lock")
    if not lock.acquire():
        raise OutputError(f"{one_line(paths.run)} is being written by {one_line(lock.holder())}; wait until it ends")
    try:
        yield str(folder)
    finally:
        lock.release()


def publish(paths: RunPaths) -> None:
    """Renames the finished bundle to RUN; an older RUN is removed afterwards.

    Raises:
        OutputError: it cannot be renamed.
    """
    old = f"{paths.partial}/old"
    with write_errors(paths.run):
        shutil.rmtree(old, ignore_errors=True)
        if os.path.lexists(paths.run):
            os.rename(paths.run.rstrip("/"), old)
        os.rename(paths.bundle, paths.run.rstrip("/"))
    with suppress(OSError):
        shutil.rmtree(paths.partial)
