"""Threads that decode: what they keep, and those that hang."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.inference.test_pipeline import P, decode, no_thread_is_left, square, threads, until  # noqa: F401
from xcli.core import shortage
from xcli.core.errors import ExitCode, ImageError, MachineError, XcliError
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.inference.decoder_pool import DecoderPool
from xcli.storage.local import LocalFile


def test_an_error_does_not_keep_the_file_in_memory() -> None:
    kept: list[weakref.ref[np.ndarray]] = []

    def fail(_: str, __: Preprocessing) -> np.ndarray:
        data = np.zeros(1000)
        kept.append(weakref.ref(data))
        raise ImageError("corrupt", "bad") from ValueError(data)

    pool = DecoderPool(fail, timeout=10)
    error = pool.run(LocalFile(""), P)
    assert isinstance(error, ImageError)
    assert error.__traceback__ is None
    assert error.__cause__ is None
    assert until(lambda: kept[0]() is None), "by the error, or by the idle thread"
    pool.close()


def test_an_idle_thread_does_not_keep_the_image_in_memory() -> None:
    pool = DecoderPool(lambda _, __: np.zeros((4, 4, 3), np.uint8), timeout=10)
    kept = weakref.ref(pool.run(LocalFile(""), P))
    assert until(lambda: kept() is None)
    pool.close()


def test_a_thread_that_comes_back_late_is_forgiven() -> None:
    gates = [threading.Event() for _ in range(3)]

    def hang(location: LocalFile, _: Preprocessing) -> np.ndarray:
        gates[int(location.path)].wait()
        return square(0)

    pool = DecoderPool(hang, timeout=0.05, max_abandoned=1)
    assert isinstance(pool.run(LocalFile("0"), P), ImageError)
    assert threads() == ["xception-decode"]
    gates[0].set()
    assert until(lambda: not threads())
    assert isinstance(pool.run(LocalFile("1"), P), ImageError)
    assert pool.failure is None
    assert isinstance(pool.run(LocalFile("2"), P), ImageError)
    assert pool.failure is not None, "two at once"
    with pytest.raises(XcliError) as caught:
        pool.run(LocalFile("0"), P)
    assert caught.value is pool.failure
    assert caught.value.exit_code == ExitCode.OUTPUT, "a storage that hangs is no bug"
    gates[1].set()
    gates[2].set()
    pool.close()


def test_a_closed_pool_decodes_no_more() -> None:
    pool = DecoderPool(decode, timeout=10)
    pool.run(LocalFile("1"), P)
    pool.close()
    with pytest.raises(XcliError):
        pool.run(LocalFile("2"), P)
    assert until(lambda: not threads())


# ---- what the machine runs out of is no fault of an image ----


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortage, "PAUSES", (0.001, 0.001))


def refuse(times: int, error: BaseException) -> Callable[[LocalFile, Preprocessing], np.ndarray]:
    """Decodes after so many failures."""
    left = [error] * times

    def decode(_: LocalFile, __: Preprocessing) -> np.ndarray:
        if left:
            raise ImageError("too-large" if isinstance(error, MemoryError) else "unreadable", "refused") from left.pop()
        return square(0)

    return decode


TOO_MANY = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.usefixtures("impatient")
def test_an_image_waits_for_descriptors() -> None:
    pool = DecoderPool(refuse(2, TOO_MANY), timeout=10)
    assert isinstance(pool.run(LocalFile(""), P), np.ndarray)
    pool.close()


@pytest.mark.usefixtures("impatient")
def test_lasting_want_of_descriptors_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    original = os.open

    def refuse_it(name: str, *arguments: int) -> int:
        if name == str(path):
            raise TOO_MANY
        return original(name, *arguments)

    monkeypatch.setattr(os, "open", refuse_it)
    pool = DecoderPool(load_image, timeout=10)
    with pytest.raises(MachineError, match="no more files can be opened"):
        pool.run(LocalFile(str(path)), P)
    pool.close()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("memory", [True, False])
def test_want_of_memory_is_a_row_only_if_others_would_have_enough(
    memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcli.inference.decoder_pool.has_memory", lambda: memory)
    pool = DecoderPool(refuse(9, MemoryError()), timeout=10)
    if memory:
        assert str(pool.run(LocalFile(""), P)) == "too-large: refused"
    else:
        with pytest.raises(MachineError, match="not enough memory"):
            pool.run(LocalFile(""), P)
    pool.close()


@pytest.mark.usefixtures("impatient")
def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_it(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse_it)
    with pytest.raises(MachineError, match="no more threads"):
        DecoderPool(decode, timeout=10).run(LocalFile(""), P)
