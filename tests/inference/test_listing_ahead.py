"""Listing ahead of the computing: order, what is held, and that it ends."""

from __future__ import annotations

import threading
import time
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import pytest

from tests.inference.test_prefetch import far, near, wait_until
from xcli.core.errors import ImageError, XcliError
from xcli.core.records import FileState, ImageRef
from xcli.inference import listing_ahead
from xcli.inference.listing_ahead import ListingAhead, pack, unpack
from xcli.sources.locations import RemoteObject
from xcli.storage.local import LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterator


class Source:
    """References without end, or until an error."""

    def __init__(self, end: int | None = None, error: Exception | None = None) -> None:
        self.taken, self._end, self._error = 0, end, error

    def __iter__(self) -> Iterator[ImageRef]:
        for number in count() if self._end is None else range(self._end):
            self.taken += 1
            yield near(f"folder/{number:09}.jpg")
        if self._error is not None:
            raise self._error


def test_all_references_come_in_their_order_and_as_they_were() -> None:
    refs = [
        ImageRef("a", LocalFile("/a", trusted=3), b"key", None, ("x", 1, None)),
        ImageRef("b", LocalFile("/b"), b"b", ImageError("empty", "no bytes"), ()),
        ImageRef("c", RemoteObject("s3://bucket/c", FileState(1, 2)), b"c"),
        ImageRef("d", RemoteObject("s3://bucket/d"), b"\xff\0", None, (1.5, float("inf"), True, 2**70)),
        ImageRef("\\xff", LocalFile("\udcff\0"), b"\xff", None, (b"bytes", (1, 2), {"a": 1})),
    ]
    again = unpack(pack(refs))
    assert [str(ref.error) for ref in again] == [str(ref.error) for ref in refs]
    assert [again[0], *again[2:]] == [refs[0], *refs[2:]]
    assert (again[1].path, again[1].location) == ("b", refs[1].location)
    many = [near(f"{number}") for number in range(5000)]
    many[2000:2000] = [far(f"member {number}") for number in range(100)]
    assert [ref.path for ref in ListingAhead(iter(many))] == [ref.path for ref in many]


def test_the_listing_goes_ahead_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(20_000)
    ahead = ListingAhead(iter(source))
    taken = iter(ahead)
    next(taken)
    wait_until(lambda: source.taken == 20_000)
    monkeypatch.setattr(listing_ahead, "_MOST_BYTES", 20_000)
    source = Source()
    ahead = ListingAhead(iter(source))
    next(iter(ahead))
    time.sleep(0.2)
    before = source.taken
    time.sleep(0.1)
    assert 1000 < source.taken == before < 100_000
    ahead.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "xception-listing-ahead"]


def test_members_of_archives_are_listed_as_they_are_needed() -> None:
    taken: list[int] = []

    def members() -> Iterator[ImageRef]:
        for number in range(1000):
            taken.append(number)
            yield far(str(number))

    ahead = ListingAhead(members(), whole=True)
    refs = iter(ahead)
    assert [ref.path for ref in islice(refs, 20)] == [str(number) for number in range(20)]
    time.sleep(0.05)
    assert len(taken) < 40
    ahead.stop()
    assert len(list(refs)) < 20


def test_rows_of_a_manifest_that_carry_much_are_not_gathered() -> None:
    text = "x" * 100_000
    refs = [ImageRef(str(n), LocalFile(str(n)), b"", None, (text + str(n),)) for n in range(100)]
    ahead = ListingAhead(iter(refs))
    most: list[int] = []
    found = []
    for ref in ahead:
        most.append(len(ahead._waiting))
        found.append(ref)
    assert found == refs
    assert max(most) <= 11


def test_an_error_of_the_listing_comes_after_the_references_before() -> None:
    refs = iter(ListingAhead(iter(Source(3000, XcliError("broken")))))
    assert len(list(islice(refs, 3000))) == 3000
    with pytest.raises(XcliError, match="broken"):
        next(refs)


def test_whole_waits_for_the_end_of_the_listing_and_raises_before_anything_else() -> None:
    go = threading.Event()

    def slow() -> Iterator[ImageRef]:
        yield near("a")
        go.wait()
        yield near("b")

    found: list[Any] = []
    ahead = ListingAhead(slow(), whole=True)
    reader = threading.Thread(target=lambda: found.extend(ahead))
    reader.start()
    time.sleep(0.05)
    assert found == []
    go.set()
    reader.join(5)
    assert [ref.path for ref in found] == ["a", "b"]
    with pytest.raises(XcliError, match="broken"):
        next(iter(ListingAhead(iter(Source(3000, XcliError("broken"))), whole=True)))


def test_what_is_listed_slowly_does_not_wait_for_more() -> None:
    go = threading.Semaphore(0)

    def slow() -> Iterator[ImageRef]:
        for number in range(3):
            yield near(str(number))
            go.acquire()

    refs = iter(ListingAhead(slow()))
    for number in range(3):
        assert next(refs).path == str(number)
        go.release()
