"""What `tests.record` masks, and what it calls a difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.record.compare import differences
from tests.record.inputs import make_inputs
from tests.record.masks import Masks, describe_content, describe_files


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("8 ok in 0.7 s, 1,009.7 images/s", "8 ok in 12 s, 3.1 images/s"),
        ("written by process 17 on here; wait", "written by process 4242 on a-b.c; wait"),
        ("    head 1/3  0.69  0.33  0.4, 0:06 left at most", "    head 1/3  0.69  0.33  1.2"),
        ("/tmp/one/x.csv", "/tmp/other/x.csv"),
    ],
)
def test_what_differs_between_two_runs_is_masked(one: str, other: str) -> None:
    masks = Masks({"/tmp/one": "<ROOT>", "/tmp/other": "<ROOT>"})
    assert masks.text(one) == masks.text(other) != one


@pytest.mark.parametrize("text", ["8 images: 6 ok, 2 errors", "score 0.20001225", "part-00001.arrow", "3.5,4.5"])
def test_what_does_not_differ_is_kept(text: str) -> None:
    assert Masks({}).text(text) == text


def test_times_in_json_are_masked_at_any_depth() -> None:
    entry = describe_content("x.json", b'{"a": [{"seconds": 3, "rows": 4}]}', Masks({}))
    assert entry == {"json": {"a": [{"seconds": "<seconds>", "rows": 4}]}}
    assert "damaged" in describe_content("x.json", b"{", Masks({}))


def _record(**step: Any) -> dict[str, Any]:
    case = {"steps": [{"command": "xception info", "exit": 0, "took": 1, **step}], "files": {"x": {"bytes": "1"}}}
    return {"environment": {}, "cases": {"info": case}}


def test_a_comparison_names_the_command_and_what_differs() -> None:
    assert not list(differences(_record(), _record(took=2)))
    found = "".join(differences(_record(), _record(exit=4)))
    assert "info, step 1: xception info" in found
    assert "-0\n+4\n" in found
    assert list(differences(_record(err={"text": "a\n"}), _record(err={"text": "a"})))
    assert not list(differences(_record(err={"text": "a"}), _record(err={"text": "b"}), ignored=["err"]))
    assert "only in the record before" in "".join(differences(_record(), {"environment": {}, "cases": {}}))


def test_inputs_are_the_same_each_time(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        make_inputs(tmp_path / name)
        made.append(json.dumps(describe_files(tmp_path / name, Masks({})), sort_keys=True))
    assert made[0] == made[1]
