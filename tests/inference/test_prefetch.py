"""Prefetching: order, how much is under way, and that nothing is lost when it ends early. No server is needed."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from xcli.core.errors import ImageError, XcliError
from xcli.core.records import FileState, ImageRef
from xcli.inference import prefetch
from xcli.inference.prefetch import ByteBudget, ObjectPrefetcher, PrefetchedObject, with_states
from xcli.sources.archives.members import Member
from xcli.sources.locations import RemoteObject
from xcli.storage.local import LocalFile


@dataclass(frozen=True)
class Far(Member):
    """A location that takes a while to be read."""

    offset: int = 0
    size: int = 1
    identity: None = None
    give: Callable[[], bytes] = bytes

    @property
    def remote(self) -> bool:
        return True

    def _read(self) -> bytes:
        return self.give()

    def state(self) -> FileState | None:
        return FileState(self.size, 7)


def far(name: str, give: Callable[[], bytes] | None = None, size: int = 1) -> ImageRef:
    return ImageRef(name, Far(name, give=give or name.encode, size=size), name.encode())


def near(name: str) -> ImageRef:
    return ImageRef(name, LocalFile(name), name.encode())


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name in ("xception-fetch", "xception-listing")}


def test_local_files_pass_through_without_a_thread() -> None:
    refs = [near("a"), near("b"), ImageRef("c", Far("c", give=bytes), b"", ImageError("missing", "gone"))]
    begun = iter(refs)
    prefetcher = iter(ObjectPrefetcher(begun))
    assert next(prefetcher) == (refs[0], None)
    assert next(begun) == refs[1]  # nothing was taken in advance
    assert next(prefetcher) == (refs[2], None)
    assert list(prefetcher) == []
    assert not threads()


def test_the_order_is_kept_whatever_comes_first() -> None:
    def slow(number: int) -> Callable[[], bytes]:
        def give() -> bytes:
            time.sleep(0.02 * (number % 3))
            return str(number).encode()

        return give

    refs = [near(str(number)) if number % 5 == 4 else far(str(number), slow(number)) for number in range(60)]
    seen = list(ObjectPrefetcher(iter(refs)))
    assert [ref for ref, _ in seen] == refs
    for ref, prefetched in seen:
        assert (prefetched is None) == (not ref.location.remote)
        if prefetched is not None:
            assert prefetched.read(10) == ref.path.encode()
            assert prefetched.state == FileState(1, 7)
    wait_until(lambda: not threads())


def test_objects_are_fetched_side_by_side_and_not_too_far_ahead() -> None:
    gate, lock = threading.Event(), threading.Lock()
    under_way: list[int] = []

    def give() -> bytes:
        with lock:
            under_way.append(1)
        gate.wait(5)
        return b"x"

    listed: list[int] = []

    def refs() -> Iterator[ImageRef]:
        for number in range(1000):
            listed.append(number)
            yield far(str(number), give)

    prefetcher = ObjectPrefetcher(refs())
    seen = iter(prefetcher)
    next(seen)
    wait_until(lambda: len(under_way) == prefetch.MAX_OBJECTS)
    time.sleep(0.05)
    assert len(under_way) == prefetch.MAX_OBJECTS
    assert len(listed) <= prefetch.MAX_OBJECTS + 3
    gate.set()
    prefetcher.stop()
    wait_until(lambda: not threads())
    assert list(seen) == []
    assert len(under_way) < 100


def test_bytes_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "MAX_BYTES", 1000)
    sizes = [300, 300, 300, 300, 1001, 10, 900, 900, 50]
    prefetcher = ObjectPrefetcher(iter([far(str(size), lambda size=size: bytes(size), size) for size in sizes]))  # type: ignore[misc]
    held = []
    for number, (_, prefetched) in enumerate(prefetcher):
        assert prefetched is not None
        time.sleep(0.01)
        held.append(prefetcher._budget.used)
        assert len(prefetched.read(2000)) == sizes[number]
    assert max(held) <= 1000
    assert max(held) >= 900
    assert prefetcher._budget.used == 0


def test_what_is_larger_than_was_known_is_fetched_when_it_is_wanted() -> None:
    calls: list[int] = []

    class Grown(Far):
        def read(self, max_bytes: int) -> bytes:
            calls.append(max_bytes)
            if max_bytes < 100:
                raise ImageError("too-large", "more than that")
            return bytes(100)

    budget = ByteBudget(1000)
    prefetched = PrefetchedObject(Grown("a", bytes, size=50), budget)
    assert prefetched.reserve()
    prefetched.fetch()
    assert budget.used == 0
    assert prefetched.read(10_000) == bytes(100)
    assert calls == [50, 10_000]
    huge = PrefetchedObject(Grown("a", bytes, size=2000), budget)
    assert not huge.reserve()
    with pytest.raises(ImageError, match="too-large"):
        huge.read(99)
    assert huge.read(2000) == bytes(100)


def test_errors_come_with_the_bytes() -> None:
    def fail() -> bytes:
        raise ImageError("missing", "no such object")

    def bug() -> bytes:
        raise ZeroDivisionError

    prefetcher = ObjectPrefetcher(iter([far("a", fail), far("b", bug), far("c")]))
    (_, first), (_, second), (_, third) = prefetcher
    assert first is not None
    assert second is not None
    assert third is not None
    with pytest.raises(ImageError, match="missing: no such object"):
        first.read(10)
    with pytest.raises(ZeroDivisionError):
        second.read(10)
    assert third.read(10) == b"c"
    assert prefetcher._budget.used == 0
    with pytest.raises(XcliError):
        third.read(10)


def test_a_listing_that_fails_does_so_after_what_it_gave() -> None:
    def refs() -> Iterator[ImageRef]:
        yield near("a")
        yield far("b")
        yield far("c")
        raise XcliError("broken")

    prefetcher = iter(ObjectPrefetcher(refs()))
    assert [next(prefetcher)[0].path for _ in range(3)] == ["a", "b", "c"]
    with pytest.raises(XcliError, match="broken"):
        next(prefetcher)
    wait_until(lambda: not threads())


def test_a_listing_that_waits_does_not_keep_back_what_is_there() -> None:
    more = threading.Event()

    def refs() -> Iterator[ImageRef]:
        yield far("a")
        more.wait(5)
        yield far("b")

    seen = iter(ObjectPrefetcher(refs()))
    _, prefetched = next(seen)
    assert prefetched is not None
    assert prefetched.read(10) == b"a"
    more.set()
    assert [ref.path for ref, _ in seen] == ["b"]


def test_bytes_that_nobody_wants_are_let_go() -> None:
    class Bytes(bytearray):
        pass

    gate = threading.Event()
    kept: list[weakref.ref[Bytes]] = []

    def give() -> Any:
        gate.wait(5)
        data = Bytes(10)
        kept.append(weakref.ref(data))
        return data

    budget = ByteBudget(1000)
    early, late = (PrefetchedObject(Far(name, give=give, size=10), budget) for name in "ab")
    assert early.reserve()
    assert late.reserve()
    early.drop()
    gate.set()
    early.fetch()
    late.fetch()
    assert budget.used == 10
    late.drop()
    assert budget.used == 0
    gc.collect()
    assert [one() for one in kept] == [None, None]


def test_stopping_frees_who_waits() -> None:
    gate = threading.Event()

    def give() -> bytes:
        gate.wait(5)
        return b"x"

    prefetcher = ObjectPrefetcher(iter([far(str(number), give) for number in range(100)]))
    seen = [prefetched for (_, prefetched), _ in zip(prefetcher, range(prefetch.MAX_OBJECTS + 5), strict=False)]
    failed: list[Exception] = []

    def read() -> None:
        assert seen[-1] is not None
        try:
            seen[-1].read(10)
        except XcliError as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    prefetcher.stop()
    gate.set()
    reader.join(5)
    assert not reader.is_alive()
    assert "has been stopped" in str(failed[0])
    wait_until(lambda: not threads())


def test_an_object_whose_state_cannot_be_asked_for_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RemoteObject) -> None:
        raise UnicodeError("label empty or too long")

    monkeypatch.setattr(RemoteObject, "state", broken)
    url = "https://a..b/x.jpg"
    (ref,) = with_states(iter([ImageRef(url, RemoteObject(url), b"x")]), lambda ref: True)
    assert ref.location == RemoteObject(url)
