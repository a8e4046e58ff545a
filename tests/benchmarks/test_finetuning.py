"""What is compared of two trainings, and who is in which fold."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.crossvalidation import fold_of
from benchmarks.finetuning import compared
from xcli.core.records import ImageRef
from xcli.sources.labelled import Sample
from xcli.sources.splits import TRAIN
from xcli.training.split import Example


def test_times_are_those_to_the_accuracy_that_both_have_reached() -> None:
    peer = {"seconds": [100, 200, 300, 400], "course": [0.5, 0.7, 0.8, 0.8], "best": 0.8}
    found = compared({"seconds": 20, "course": [0.9], "best": 0.9}, peer)
    assert found == {"accuracy": 0.8, "times_all_epochs": 20, "times_to_accuracy": 15}
    found = compared({"seconds": 20, "course": [0.6], "best": 0.6}, peer)
    assert found == {"accuracy": 0.6, "times_all_epochs": 20, "times_to_accuracy": 10}


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_are_stratified_and_keep_copies_together(folds: int) -> None:
    def example(number: int, label: str, digest: str) -> Example:
        ref = ImageRef(f"{number}.jpg", f"{number}.jpg", b"")
        return Example(Sample(ref, label), digest=digest, split=TRAIN)

    examples = [example(n, "ab"[n % 3 == 0], str(n // 2 if n < 20 else n)) for n in range(100)]
    chosen = fold_of(examples, folds, 0)
    assert chosen == fold_of(examples, folds, 0)
    assert chosen != fold_of(examples, folds, 1)
    together: dict[str, set[int]] = {}
    for one, fold in zip(examples, chosen, strict=True):
        together.setdefault(one.digest, set()).add(fold)
    assert all(len(found) == 1 for found in together.values())
    for label in "ab":
        digests = {one.digest: fold for one, fold in zip(examples, chosen, strict=True) if one.sample.label == label}
        sizes = Counter(digests.values())
        assert len(sizes) == folds
        assert max(sizes.values()) - min(sizes.values()) <= 8
