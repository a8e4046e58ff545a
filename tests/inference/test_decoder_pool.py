"""Threads that decode: what they keep, and those that hang."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest

from tests.inference.test_pipeline import P, decode, no_thread_is_left, square, threads, until  # noqa: F401
from xcli.core.errors import ImageError, XcliError
from xcli.images.preprocessing import Preprocessing
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
