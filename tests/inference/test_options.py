"""The ranges of the options of a run."""

from __future__ import annotations

import pytest

from xcli.core.errors import UsageError
from xcli.inference.options import RunOptions


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
    ],
)
def test_options_out_of_range(wrong: dict) -> None:
    with pytest.raises(UsageError):
        RunOptions(**wrong)
