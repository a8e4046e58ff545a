"""The state of an object, however a store reports it."""

from __future__ import annotations

from datetime import UTC, datetime

from xcli.storage.object_store.state import object_state

TIME = datetime(2026, 11, 2, 10, 0, 0, 123_456, tzinfo=UTC)


def test_a_state_is_the_same_whoever_tells_it() -> None:
    state = object_state(7, TIME, '"abc"')
    assert state is not None
    assert state.size == 7
    assert state.mtime // 10**9 == int(TIME.timestamp())
    told = ["Mon, 02 Nov 2026 10:00:00 GMT", "2026-11-02T10:00:00.999Z", TIME.replace(tzinfo=None), TIME.timestamp()]
    assert {object_state(7, time, tag) for time in told for tag in ('"abc"', "abc", 'W/"abc"')} == {state}


def test_odd_times_and_sizes_fit_in_64_bits() -> None:
    far, early = datetime(9999, 12, 31, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)
    for time in (far, early, far.timestamp(), "9999-12-31T23:59:59", 1e300, float("inf"), float("nan")):
        state = object_state(1 << 70, time, "abc")
        assert state is not None
        assert all(-(1 << 63) <= number < 1 << 63 for number in state)


def test_states_that_differ_are_told_apart() -> None:
    given = [(7, TIME, "abc"), (8, TIME, "abc"), (7, TIME, "abd"), (7, TIME.replace(second=1), "abc"), (7, None, "abc")]
    assert len({object_state(*one) for one in given}) == 5
    assert object_state(None, TIME, "abc") is None
    assert object_state(7, None, None) is None
    assert object_state(7, "yesterday", "") is None
