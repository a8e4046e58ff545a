"""The split by features, and the one that an unfinished run keeps."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.test_copies import different, examples_of
from xcli.sources.labelled import LabelledImages
from xcli.sources.splits import TEST, TRAIN, VALIDATION
from xcli.training.activations import ViewActivations
from xcli.training.checkpoints import Checkpoints
from xcli.training.copy_split import divide_by_features, holds_state, read_split, write_split
from xcli.training.run_directory import SPLIT
from xcli.training.split import Split


def split_of(count: int, tests: int = 0) -> tuple[LabelledImages, Split]:
    examples = examples_of([*"ab"] * (count // 2)) + examples_of(["a"] * tests, [f"t{n}" for n in range(tests)])
    examples = [
        replace(one, sample=replace(one.sample, split=TEST), split=TEST) if place >= count else one
        for place, one in enumerate(examples)
    ]
    samples = tuple(one.sample for one in examples)
    return LabelledImages(samples, ("a", "b")), Split(tuple(examples), ("a", "b"))


@pytest.mark.parametrize("seed", range(4))
def test_copies_by_features_are_in_one_part(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    data, before = split_of(40, tests=3)
    values = different(40)
    values[38], values[39] = values[4] * 1.001, values[5] * 0.999
    values[9] = 0
    plain = ViewActivations(values, None, {9: "truncated: it ends early"}, reused=False, size=0)
    with caplog.at_level(logging.INFO, "xcli"):
        split = divide_by_features(data, before, plain, 0.4, seed)
    assert "2 of 40 images are copies of others" in caplog.text
    assert split.examples[4].split == split.examples[38].split
    assert split.examples[5].split == split.examples[39].split
    assert [one.split for one in split.examples[40:]] == [TEST] * 3
    assert 12 <= split.counts[VALIDATION] <= 18
    assert not np.array_equal(plain.pooled, np.zeros_like(values)), "the activations stay as they are"
    assert plain.pooled[9].sum() == 0


def test_the_split_of_an_unfinished_run_is_kept(tmp_path: Path) -> None:
    _, split = split_of(10, tests=1)
    assert read_split(str(tmp_path), split) is None
    chosen = tuple(
        replace(one, split=VALIDATION) if place in (2, 7) else one for place, one in enumerate(split.examples)
    )
    write_split(str(tmp_path), replace(split, examples=chosen))
    found = read_split(str(tmp_path), split)
    assert found is not None
    assert found.examples == chosen
    assert found.counts == {TRAIN: 8, VALIDATION: 2, TEST: 1}
    (tmp_path / SPLIT).write_text("[]")
    assert read_split(str(tmp_path), split) is None


def test_a_state_is_told_by_its_settings(tmp_path: Path) -> None:
    assert not holds_state(str(tmp_path), {"one": 1})
    Checkpoints(tmp_path, {"one": 1}).commit({}, set())
    assert holds_state(str(tmp_path), {"one": 1})
    assert not holds_state(str(tmp_path), {"one": 2})
