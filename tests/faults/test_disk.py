"""A full disk, a directory that cannot be written to, a reader that goes away."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import COMMAND, clean_environment, save_photos
from tests.faults.harness import WHOLE, features, run_with, start
from tests.thorough import thorough

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    save_photos(root, [f"{n:03}.jpg" for n in range(200)])
    return root


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert features(source).run(folder).code == 0
    return (folder / "out.csv").read_bytes()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of that size at `folder`, where this user may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def grow(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@thorough
def test_a_disk_that_is_full(source: Path, expected: bytes, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "1m") as mounted:
        if not mounted:  # this user may not; the writes are patched
            check_write_that_fails("full-append:40", source, expected, tmp_path)
            return
        job = features(source)
        result = job.run(disk)
        assert result.code == 5, result
        assert "No space left on device" in result.err
        assert result.err.count("\n") <= 2
        assert list(disk.glob("out.csv.partial/part-*.arrow")), "the parts before stay"
        grow(disk, "64m")
        result = job.run(disk)
        assert result.code == 0, result
        assert "rows are kept from before" in result.err
        assert (disk / "out.csv").read_bytes() == expected


@pytest.mark.skipif(not WHOLE, reason="takes minutes: make test-faults")
@pytest.mark.parametrize("fault", ["full-append:40", "full-fsync:9", "full-write:3"])
def test_a_write_that_fails(fault: str, source: Path, expected: bytes, tmp_path: Path) -> None:
    check_write_that_fails(fault, source, expected, tmp_path)


def check_write_that_fails(fault: str, source: Path, expected: bytes, tmp_path: Path) -> None:
    job = features(source)
    result = run_with(fault, job, tmp_path)
    assert result.code == 5, result
    assert "No space left on device" in result.err
    assert not (tmp_path / "out.csv").exists()
    result = job.run(tmp_path)
    assert result.code == 0, result
    assert "rows are kept from before" in result.err
    assert (tmp_path / "out.csv").read_bytes() == expected


_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1  # of linux/prctl.h and linux/capability.h


def obey_permissions() -> None:
    """Makes root one whom the permissions of files bind, from the next program on."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux") and os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_to(source: Path, tmp_path: Path) -> None:
    for name in ("new/", "out.csv"):
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o555, exist_ok=True)
        command = [*COMMAND, *features(source, name).command(folder)]
        done = subprocess.run(
            command,
            capture_output=True,
            env=clean_environment(),
            check=False,
            preexec_fn=obey_permissions if os.getuid() == 0 else None,
        )
        errors = done.stderr.decode()
        assert done.returncode == 5, errors
        assert errors.startswith("xception: error: cannot write ")
        assert errors.count("\n") == 1
        assert os.listdir(folder) == []


@pytest.mark.skipif(not WHOLE, reason="test_process.py has one; with the same command again: make test-faults")
def test_a_broken_pipe(source: Path, expected: bytes, tmp_path: Path) -> None:
    job = features(source)
    with start(job, tmp_path, launcher=(*COMMAND,)) as process:
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        assert process.stderr is not None
        process.stderr.close()  # whoever read the messages has gone
        assert process.wait(120) == 0
    assert (tmp_path / "out.csv").read_bytes() == expected
