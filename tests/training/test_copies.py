"""Copies by features, which are kept on one side of a split."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from xcli.core.records import ImageRef
from xcli.sources.labelled import LabelledImages, Sample
from xcli.sources.splits import TRAIN, VALIDATION
from xcli.training.copies import copy_groups, count_copies, warn_of_copies
from xcli.training.split import Example, divide


def examples_of(labels: list[str], digests: list[str | None] | None = None, split: str = TRAIN) -> list[Example]:
    found = digests or [f"{number:04}" for number in range(len(labels))]
    refs: list[Any] = [ImageRef(f"{number}.jpg", None, b"") for number in range(len(labels))]  # type: ignore[arg-type]
    return [Example(Sample(ref, label), split, one) for ref, label, one in zip(refs, labels, found, strict=True)]


def different(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(0.4, (count, 64)).astype(np.float32)


def test_rows_that_are_alike_get_one_name_in_any_order() -> None:
    values = different(40)
    values[30] = values[3] * 1.01 + 0.001
    values[31] = values[3]
    examples = examples_of(["a", "b"] * 20)
    groups = copy_groups(examples, values)
    assert groups[3] == groups[30] == groups[31] == "0003"
    assert count_copies(groups) == 2
    order = np.random.default_rng(1).permutation(40)
    assert copy_groups([examples[place] for place in order], values[order]) == [groups[place] for place in order]


def test_equal_digests_are_copies_and_rows_without_one_are_in_no_group() -> None:
    values = different(12)
    values[5] = np.nan
    digests = [*"abcdefghijkl"]
    digests[7] = "b"
    found = copy_groups(examples_of(["x"] * 12, [*digests[:5], None, *digests[6:]]), values)
    assert found[5] is None
    assert found[7] == found[1] == "b"


def test_a_class_that_looks_alike_is_not_taken_for_copies_of_one_image() -> None:
    values = np.repeat(different(2, 3), 20, axis=0) + np.random.default_rng(2).normal(0, 1e-4, (40, 64))
    examples = examples_of(["a"] * 20 + ["b"] * 20)
    groups = copy_groups(examples, values.astype(np.float32))
    assert count_copies(groups) == 0
    few = copy_groups(examples_of(["a"] * 3 + ["b"] * 3), values[17:23].astype(np.float32))
    assert count_copies(few) == 0, "each class has to have something to validate on"


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_divided(seed: int) -> None:
    labels = [*"ab" * 30]
    groups = [f"{number // 2 % 13}{label}" for number, label in enumerate(labels)]
    examples = examples_of(labels)
    data = LabelledImages(tuple(one.sample for one in examples), ("a", "b"))
    split = divide(data, examples, groups, 0.2, seed)
    parts: dict[str, set[str]] = {}
    for one, name in zip(split.examples, groups, strict=True):
        parts.setdefault(name, set()).add(one.split)
    assert all(len(found) == 1 for found in parts.values())
    assert {VALIDATION} in parts.values()


def test_copies_that_the_data_have_divided_are_told(caplog: pytest.LogCaptureFixture) -> None:
    examples = examples_of(["a", "b", "a"]) + examples_of(["a"], ["x"], VALIDATION)
    with caplog.at_level(logging.WARNING, "xcli"):
        warn_of_copies(examples, ["g", "g", None, "g"])
    assert "1 of the validation and test images are copies of training images" in caplog.text
    assert "1 images have copies, by their features, with another label" in caplog.text
