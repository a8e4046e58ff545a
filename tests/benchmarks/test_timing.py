from __future__ import annotations

import pytest

from benchmarks.timing import DIFFERENCE, alternate, compare, compare_all, fastest, group, summary


def test_summary_has_median_and_spread() -> None:
    assert summary([3, 1, 2, 10]) == {"samples": [3.0, 1.0, 2.0, 10.0], "median": 2.5, "min": 1.0, "max": 10.0}
    with pytest.raises(ValueError, match="no samples"):
        summary([])


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was at half speed in the second round; the ratio of the medians would be 20 / 10.
    found = compare("a / b", [40, 20, 10], [10, 5, 20])
    assert found["samples"] == [4.0, 4.0, 0.5]
    assert (found["median"], found["min"], found["max"]) == (4.0, 0.5, 4.0)


def test_differences() -> None:
    found = compare("a - b", [3.0, 4.0], [1.0, 1.5], kind=DIFFERENCE, unit="s")
    assert (found["samples"], found["kind"], found["unit"]) == ([2.0, 2.5], "difference", "s")


def test_a_round_cut_short_is_left_out_of_ratios() -> None:
    assert compare("a / b", [2.0, 4.0], [1.0])["samples"] == [2.0]


def test_contestants_take_turns_and_each_begins_a_round() -> None:
    order: list[str] = []

    def sampler(name: str):
        def sample() -> float:
            order.append(name)
            return len(order)

        return sample

    rounds: list[int] = []
    samples = alternate({name: sampler(name) for name in "abc"}, 3, lambda found: rounds.append(len(found["a"])))
    assert "".join(order) == "abcbcacab"
    assert samples == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert rounds == [1, 2, 3]


def test_pairs_without_samples_are_not_compared() -> None:
    samples = {"a": [2.0], "b": [4.0], "c": []}
    found = compare_all(samples, [("a", "b"), ("a", "c"), ("d", "a")])
    assert [(one["name"], one["median"]) for one in found] == [("a / b", 0.5)]


def test_fastest_is_by_median() -> None:
    samples = {"a": [1.0, 9.0, 2.0], "b": [3.0, 3.0, 3.0]}
    assert fastest(samples, ["a", "b", "c"]) == "b"
    assert fastest(samples, ["c"]) is None


def test_group_keeps_who_is_missing_and_leaves_out_who_has_no_samples() -> None:
    found = group("title", "images/s", {"a": [1.0], "b": []}, missing={"c": "not installed"})
    assert list(found["contestants"]) == ["a"]
    assert found["missing"] == {"c": "not installed"}
