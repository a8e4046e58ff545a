"""Training examples as batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xcli.training.batches import RowSubset, TrainingSet, apply_mixup, balanced_weights


def training_set(count: int = 10, views: int = 3, dtype: Any = np.float32) -> TrainingSet:
    """Examples that name themselves: view * 100 + number. They lie backwards in their arrays."""
    rows = np.arange(count)[::-1]
    arrays = [(view * 100 + np.arange(count)[::-1])[:, None].astype(dtype) for view in range(views)]
    classes = np.arange(count) % 2
    usable = np.ones((views, count), bool)
    return TrainingSet([RowSubset(one, rows) for one in arrays], usable, classes, 2, np.array([1, 2], np.float32))


def seen(data: TrainingSet, epoch: int, **options: Any) -> list[float]:
    settings = {"batch_size": 4, "seed": 0, "mixup": 0.0} | options
    return [float(x) for batch in data.epoch(epoch, **settings) for x in batch.x[: batch.count, 0]]


def test_every_image_comes_once_an_epoch_and_every_view_in_turn() -> None:
    data = training_set()
    epochs = [seen(data, number) for number in range(3)]
    for one in epochs:
        assert sorted(int(value) % 100 for value in one) == list(range(10))
    assert len({value for one in epochs for value in one}) == 30
    assert [int(value) % 100 for value in epochs[0]] != [int(value) % 100 for value in epochs[1]]


def test_epochs_follow_from_the_seed_and_their_number() -> None:
    assert seen(training_set(), 4) == seen(training_set(), 4)
    assert seen(training_set(), 4) != seen(training_set(), 4, seed=1)
    assert seen(training_set(), 4, mixup=0.5) == seen(training_set(), 4, mixup=0.5)


def test_batches_have_one_size_and_padding_no_weight() -> None:
    batches = list(training_set().epoch(0, 4, 0, 0.0))
    assert [batch.count for batch in batches] == [4, 4, 2]
    assert training_set().steps(4) == 3
    assert all(len(batch.x) == len(batch.targets) == len(batch.importance) == 4 for batch in batches)
    assert not batches[2].importance[2:].any()
    for batch in batches:
        classes = batch.targets.argmax(1)
        assert np.array_equal(classes[: batch.count], batch.x[: batch.count, 0].astype(int) % 2)
        assert np.array_equal(batch.importance[: batch.count], (1 + classes[: batch.count]).astype(np.float32))


def test_a_view_that_could_not_be_had_is_replaced_by_the_first() -> None:
    data = training_set()
    data.usable[1:, 3] = False
    values = [value for epoch in range(6) for value in seen(data, epoch)]
    assert {value for value in values if value % 100 == 3} == {3}
    assert {value for value in values if value % 100 == 4} == {4, 104, 204}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_mixing_blends_examples_and_targets_alike(dtype: Any) -> None:
    x = (np.arange(6) * 40)[:, None].astype(dtype)
    targets = np.eye(6, dtype=np.float32)
    blend, shares = apply_mixup(x, targets, 5, np.random.default_rng(0), 1.0)
    assert blend.dtype == dtype
    assert np.allclose(shares.sum(1), 1)
    assert np.abs(blend[:, 0].astype(float) - shares @ x[:, 0].astype(float)).max() <= 0.51
    assert (shares.argmax(1) == np.arange(6)).all()
    assert np.array_equal(shares[5], targets[5])
    assert (shares[:5].max(1) < 1).sum() >= 2  # some may have been paired with themselves


def test_mixing_leaves_the_padding_out() -> None:
    batch = list(training_set().epoch(0, 4, 0, 1.0))[-1]
    assert batch.count == 2
    assert not batch.importance[2:].any()


def test_rare_classes_weigh_more_and_the_mean_stays_one() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    weights = balanced_weights(classes, 2)
    assert weights[1] / weights[0] == pytest.approx(3)
    assert weights[classes].mean() == pytest.approx(1)
