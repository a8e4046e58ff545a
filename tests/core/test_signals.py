"""Signals that wait."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from xcli.core.signals import defer_signals


class Stopped(BaseException):
    pass


@pytest.fixture
def handler():
    def stop(number: int, frame: object) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    yield stop
    signal.signal(signal.SIGTERM, before)


def test_the_first_signal_waits_until_the_end(handler: object) -> None:
    done = []
    with pytest.raises(Stopped), defer_signals():  # noqa: PT012 - what comes before the end is the point
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("the rest")
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_second_one_acts_at_once(handler: object) -> None:
    done = []
    with pytest.raises(Stopped), defer_signals():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("first")
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("second")
    assert done == ["first"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_without_a_signal_nothing_happens(handler: object) -> None:
    with defer_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with defer_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_it_is_no_business_of_ours() -> None:
    failed = []

    def work() -> None:
        try:
            with defer_signals():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
