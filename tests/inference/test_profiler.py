"""The clocks of a run."""

from __future__ import annotations

import threading

import pytest

from xcli.inference.profiler import COMPILING, STAGES, Profile


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def by_name(profile: Profile) -> dict[str, tuple[float, float, float | None]]:
    return {one.stage: (one.waited, one.busy, one.rate) for one in profile.times()}


def test_a_moment_counts_for_the_engine_before_all_others() -> None:
    clock = Clock()
    profile = Profile(workers=2, clock=clock)
    with profile.stage("listing"):
        clock.now += 1
    with profile.stage("decode"), profile.stage("decode"):
        clock.now += 2
        with profile.stage("engine", 8):
            clock.now += 4
            with profile.stage("output", 8):
                clock.now += 1
        with profile.stage("output", 0):
            clock.now += 3
    found = by_name(profile)
    assert found == {
        "listing": (1, 1, 1.0),
        # Two images in twenty seconds of work, which two workers shared.
        "decode": (2, 10, pytest.approx(0.2)),
        "engine": (5, 5, pytest.approx(8 / 5)),
        "output": (3, 4, 2.0),
    }
    assert sum(waited for waited, _, _ in found.values()) == clock.now - 100
    assert "GPU" in profile.bottleneck()
    assert list(profile.as_dict()) == list(STAGES)
    assert profile.as_dict()["engine"] == {"waited": 5, "busy": 5, "images_per_second": 1.6}


@pytest.mark.parametrize(
    ("stage", "advice"),
    [
        ("listing", "manifest"),
        ("decode", "more processors"),
        ("engine", "GPU"),
        ("output", "Parquet"),
        (COMPILING, "once"),
    ],
)
def test_the_bottleneck_says_what_helps(stage: str, advice: str) -> None:
    clock = Clock()
    profile = Profile(clock=clock)
    with profile.stage(stage):
        clock.now += 1
    assert advice in profile.bottleneck()


def test_compiling_is_no_time_of_the_engine_and_shown_only_where_it_took_place() -> None:
    clock = Clock()
    profile = Profile(clock=clock)
    with profile.stage(COMPILING, 64), profile.stage("decode", 0):
        clock.now += 40
    with profile.stage("engine", 640):
        clock.now += 1
        with profile.stage(COMPILING, 64):  # of another GPU
            clock.now += 1
    found = by_name(profile)
    assert list(found) == [*STAGES, COMPILING]
    assert found["engine"] == (2, 2, 320.0)
    assert found[COMPILING][:2] == (40, 41)
    assert COMPILING in profile.as_dict()


def test_a_stage_that_did_nothing_has_no_rate() -> None:
    assert by_name(Profile()) == dict.fromkeys(STAGES, (0, 0, None))


def test_the_clock_stops_with_the_run() -> None:
    clock = Clock()
    profile = Profile(clock=clock)
    with profile.stage("engine"):
        clock.now += 1
    clock.now += 2
    profile.finish()
    clock.now += 100
    assert by_name(profile)["decode"] == (2, 0, None)
    clock.now += 100
    assert sum(waited for waited, _, _ in by_name(profile).values()) == 3


def test_from_many_threads() -> None:
    profile = Profile(workers=8)

    def work() -> None:
        for _ in range(200):
            with profile.stage("decode"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert profile._images["decode"] == 1600
    assert not any(profile._active.values())
