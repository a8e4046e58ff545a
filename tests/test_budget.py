from __future__ import annotations

import pytest

from tests.budget import check_cost, measure

EAT = "import sys; eaten = b'x' * (int(sys.argv[1]) << 20); print('ate'); sys.exit(len(sys.argv) - 2)"


def test_measures_a_child() -> None:
    cost = measure(EAT, "100", "more")
    assert (cost.code, cost.text, cost.killed) == (1, "ate\n", "")
    assert 100 << 20 < cost.peak < 140 << 20
    assert cost.seconds < 10


def test_takes_a_command() -> None:
    assert measure(("sh", "-c", 'echo "$1"; exit 3', "sh"), "said")[:2] == (3, "said\n")


def test_a_child_within_its_budget_passes() -> None:
    assert check_cost(EAT, ["20"], ["1"], memory=30 << 20).text == "ate\n"


def test_a_child_is_killed_beyond_its_budget() -> None:
    with pytest.raises(AssertionError, match=r"killed for its memory|MiB more"):
        check_cost(EAT, ["400"], ["1"], memory=30 << 20)
    with pytest.raises(AssertionError, match="killed for its time"):
        check_cost("import sys, time; time.sleep(float(sys.argv[1]))", ["30"], ["0"], seconds=0.1)


def test_the_honest_file_must_pass() -> None:
    with pytest.raises(AssertionError, match="ate"):
        check_cost(EAT, ["1"], ["1", "more"])
