"""Locks against other processes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from xcli.storage.locks import HOLDER, FileLock

if TYPE_CHECKING:
    from pathlib import Path


def test_one_at_a_time(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert one.acquire()
    assert one.acquire(), "it is held already"
    assert not other.acquire()
    assert other.holder() == f"process {os.getpid()} on {socket.gethostname()}"
    assert (tmp_path / "lock").read_bytes().startswith(HOLDER)
    one.release()
    one.release()
    with other:
        assert not one.acquire()
    assert one.acquire()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    code = "import os, sys; from xcli.storage.locks import FileLock; FileLock(sys.argv[1]).acquire(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "lock"], check=False, timeout=60)
    assert FileLock(tmp_path / "lock").acquire()


def test_waiting_for_another_process(tmp_path: Path) -> None:
    code = (
        "import sys; from xcli.storage.locks import FileLock\n"
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        lock = FileLock(tmp_path / "lock")
        assert not lock.acquire()
        assert lock.holder().startswith(f"process {child.pid} on ")
        child.stdin.close()
        with lock:
            assert lock.holder().startswith(f"process {os.getpid()} on ")


def test_a_file_that_was_removed_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, calls = fcntl.flock, []

    def remove_first(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        if not calls:
            os.unlink(tmp_path / "lock")
        calls.append(descriptor)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert len(calls) == 2
    monkeypatch.setattr(fcntl, "flock", flock)
    assert not FileLock(tmp_path / "lock").acquire()


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"content")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        FileLock(tmp_path / "lock").acquire()
    assert (tmp_path / "precious").read_bytes() == b"content"


def test_a_second_name_of_a_file_that_is_no_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"content")
    os.link(tmp_path / "precious", tmp_path / "lock")
    with pytest.raises(OSError, match="another name of a file"):
        FileLock(tmp_path / "lock").acquire()
    assert (tmp_path / "precious").read_bytes() == b"content"
    # A backup may have given a lock a second name.
    FileLock(tmp_path / "ours").acquire()
    os.link(tmp_path / "ours", tmp_path / "backup")
    assert FileLock(tmp_path / "backup").acquire(wait=False) is False


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = errno.ENOLCK

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert FileLock(tmp_path / "lock").acquire()
    assert "this file system has no locks; make sure that one process writes it" in caplog.text
    error = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        FileLock(tmp_path / "lock").acquire()
