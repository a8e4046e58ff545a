"""What can be asked for together."""

from __future__ import annotations

from typing import Any

import pytest

from xcli.core.errors import UsageError
from xcli.models import loader as loader
from xcli.models.loader import load_model
from xcli.models.spec import ModelSpec


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"pooling": "mean", "include_top": False}, "received 'mean'"),
        ({"pooling": "avg"}, "pooling goes only without the top; received pooling='avg'"),
        ({"classes": 0}, "positive integer; received 0"),
        ({"classes": -1, "weights": "none"}, "positive integer; received -1"),
        ({"classes": 5}, "ImageNet weights have 1000 classes; received classes=5"),
        ({"classes": 5, "include_top": False, "weights": "none"}, "classes goes only with the top; received classes=5"),
        ({"image_size": 224}, "with the top the image size is 299; received 224"),
        ({"image_size": 70, "include_top": False}, "at least 71; received 70"),
        ({"image_size": 0, "include_top": False}, "at least 71; received 0"),
        ({"input_range": "unit"}, "--input-range goes with --model"),
        ({"input_range": "tf", "model": "m.keras"}, "xception, unit, raw; received 'tf'"),
        ({"model": "m.keras", "weights": "w.h5"}, "--model and --weights exclude each other; received --weights w.h5"),
        ({"model": "m.keras", "weights": "none"}, "exclude each other"),
    ],
)
def test_refuses_options_that_do_not_go_together(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        ModelSpec(**options)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(UsageError, match=match):
        load_model(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classes": 1000},
        {"image_size": 299},
        {"include_top": False, "image_size": 71, "pooling": "max"},
        {"weights": "none", "classes": 5},
        {"weights": "some.h5", "classes": 5},
        {"model": "m.keras", "input_range": "raw", "image_size": 150, "classes": 5},
    ],
)
def test_takes_options_that_do(options: dict[str, Any]) -> None:
    ModelSpec(**options)
