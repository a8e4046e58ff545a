"""Decoders of the tests' own, and what must not be left of any."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from xcli.inference import decoder_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def until(true: Callable[[], bool], seconds: float = 10) -> bool:
    """Waits for something to become true; whether it did."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("xception")]


def children(pid: int | None = None) -> set[int]:
    """The processes that a process has started, and theirs."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid or os.getpid()}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | (children(child) if Path(f"/proc/{child}").exists() else set())
    return found


@pytest.fixture
def own_decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has `tests.inference.decoders` run in the processes that decode."""
    monkeypatch.setattr(decoder_server, "MODULE", "tests.inference.decoders")
    decoder_server.close_spare()
    yield
    decoder_server.close_spare()


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Fails if threads or processes that decode outlive the test."""
    known, processes = len(threads()), children()
    yield
    assert until(lambda: len(threads()) <= known), threads()
    assert until(lambda: children() <= processes), "processes"
