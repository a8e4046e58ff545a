"""The ranges of the options of a run."""

from __future__ import annotations

import pytest

from xcli.core.errors import UsageError
from xcli.inference.options import RunOptions

INT8 = {"engine": "openvino", "precision": "int8"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_timeout": float("inf")},
        {"batch_size": 10**9},
        {"workers": 10**5},
        {"batch_size": 0},
        {"workers": 0},
        {"image_timeout": 0},
        {"image_timeout": float("nan")},
        {**INT8, "calibration": 0},
        {**INT8, "calibration": 10_001},
        {**INT8, "min_agreement": 1.01},
        {**INT8, "min_agreement": float("nan")},
    ],
)
def test_options_out_of_range(wrong: dict) -> None:
    with pytest.raises(UsageError):
        RunOptions(**wrong)


@pytest.mark.parametrize("given", [{"calibration": 200}, {"calibration_model": "a.int8"}, {"min_agreement": 0.9}])
def test_options_of_int8_are_for_int8(given: dict) -> None:
    option = "--" + next(iter(given)).replace("_", "-")
    with pytest.raises(UsageError, match=f"{option} is for --precision int8, and this is --precision auto"):
        RunOptions(**given)
    RunOptions(**INT8, **given)


def test_int8_is_of_openvino() -> None:
    with pytest.raises(UsageError, match="add --engine openvino"):
        RunOptions(precision="int8")
