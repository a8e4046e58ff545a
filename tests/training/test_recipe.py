"""What a user can say of a fine-tuning."""

from __future__ import annotations

from typing import Any

import pytest

from xcli.core.errors import UsageError
from xcli.training import recipe as module
from xcli.training.augmentation import Augmentation
from xcli.training.recipe import (
    BLOCK_EPOCHS,
    BLOCK_RATE,
    BLOCK_VIEWS,
    HEAD_EPOCHS,
    HEAD_RATE,
    HEAD_VIEWS,
    Recipe,
    trained_dtype,
    training_precision,
)


def test_the_head_comes_first_then_the_blocks() -> None:
    head, blocks = Recipe(unfreeze="block13").phases()
    assert (head.name, head.epochs, head.rate) == ("head", HEAD_EPOCHS, HEAD_RATE)
    assert (blocks.name, blocks.epochs, blocks.rate) == ("blocks", BLOCK_EPOCHS, BLOCK_RATE)
    assert blocks.rate < head.rate
    (alone,) = Recipe(unfreeze="none").phases()
    assert alone == head


def test_epochs_and_rate_are_of_the_last_phase() -> None:
    head, blocks = Recipe(epochs=3, learning_rate=0.5, head_epochs=4, head_learning_rate=0.25).phases()
    assert [(one.epochs, one.rate) for one in (head, blocks)] == [(4, 0.25), (3, 0.5)]
    (alone,) = Recipe(unfreeze="none", epochs=3, learning_rate=0.5).phases()
    assert (alone.epochs, alone.rate) == (3, 0.5)


def test_views_are_as_many_as_are_worth_it() -> None:
    assert Recipe(unfreeze="none").view_count == HEAD_VIEWS
    assert Recipe().view_count == BLOCK_VIEWS == Recipe().as_dict()["views"]
    assert Recipe(views=7).view_count == 7
    assert Recipe(views=7, augmentation=Augmentation(crop=1, colour=0)).view_count == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"unfreeze": "head"}, "--unfreeze takes"),
        ({"views": 0}, "--views must be from 1"),
        ({"epochs": 0}, "--epochs must be from 1"),
        ({"label_smoothing": 1.0}, "--label-smoothing must be from 0"),
        ({"dropout": -0.1}, "--dropout must be from 0"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"mixup": -1.0}, "--mixup must be from 0"),
        ({"weight_decay": 101.0}, "--weight-decay must be from 0"),
        ({"class_weights": "some"}, "--class-weights must be one of none, auto"),
        ({"unfreeze": "none", "head_epochs": 3}, "give --epochs and --learning-rate"),
        ({"unfreeze": "none", "head_learning_rate": 0.1}, "give --epochs and --learning-rate"),
    ],
)
def test_refuses_what_makes_no_sense(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Recipe(**options)


def test_auto_is_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    assert training_precision("auto", "/CPU:0") == "bfloat16"
    assert training_precision("float32", "/CPU:0") == "float32"
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    assert training_precision("auto", "/CPU:0") == "float32"
    assert [trained_dtype(one) for one in ("float32", "bfloat16", "float16", "tf32")] == [
        "float32",
        "bfloat16",
        "float32",
        "float32",
    ]
