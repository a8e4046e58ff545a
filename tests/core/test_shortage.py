"""What a machine runs out of: told apart from bugs, waited for, asked for beforehand."""

from __future__ import annotations

import errno
import os
import threading

import pyarrow as pa
import pytest

from xcli.core import shortage as module
from xcli.core.errors import ImageError, MachineError
from xcli.core.shortage import has_memory, patiently, require_resources, shortage


def chained() -> ImageError:
    try:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    except OSError:
        return ImageError("unreadable", "x")


def caused() -> ImageError:
    error = ImageError("unreadable", "x")
    error.__cause__ = OSError(errno.EMFILE, "x")
    return error


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (OSError(errno.EMFILE, "x"), "ulimit -n"),
        (OSError(errno.ENFILE, "x"), "fs.file-max"),
        (OSError(errno.ENOMEM, "x"), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
        (pa.ArrowMemoryError("malloc failed"), "ulimit -v"),
        (ImportError("libx.so.2: failed to map segment from shared object"), "ulimit -v"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (pa.ArrowException("Failed to launch worker thread: Resource temporarily unavailable"), "ulimit -u"),
        (caused(), "ulimit -n"),
        (OSError(errno.ENOSPC, "x"), None),
        (RuntimeError("another"), None),
        (ValueError("can't start new thread"), None),
        (ImportError("No module named x"), None),
        (chained(), None),
    ],
    ids=str,
)
def test_what_ran_out(error: BaseException, limit: str | None) -> None:
    found = shortage(error)
    assert (limit is None) == (found is None)
    assert limit is None or limit in (found or "")


def test_a_shortage_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.001, 0.001))
    errors = [OSError(errno.EMFILE, "x")] * 2

    def call() -> int:
        if errors:
            raise errors.pop()
        return 7

    assert patiently(call) == 7
    errors += [OSError(errno.EMFILE, "x")] * 3
    with pytest.raises(MachineError, match="ulimit -n"):
        patiently(call)
    errors.append(OSError(errno.ENOENT, "x"))
    with pytest.raises(FileNotFoundError):
        patiently(call)


def test_memory_that_nobody_has() -> None:
    assert has_memory(1 << 20)
    assert not has_memory(1 << 60)


def test_threads_are_tried_before_libraries_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    require_resources()
    assert threading.active_count() == before
    start, left = threading.Thread.start, [None] * 5

    def refuse(thread: threading.Thread) -> None:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MachineError, match="no more threads"):
        require_resources()
    assert threading.active_count() == before
