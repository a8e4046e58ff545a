"""Metrics against scikit-learn on the same predictions, and calibration against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from xcli.evaluation.metrics import calibrate, compute_metrics


def random_case(classes, n, seed):
    """Scores that are right more often than not; the last class never has an image, the one before is never chosen."""
    random = np.random.default_rng(seed)
    true = random.integers(0, max(1, classes - 1), n)
    logits = random.normal(0, 1, (n, classes))
    logits[np.arange(n), true] += 1.2
    if classes > 2:
        logits[:, classes - 2] -= 50
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return true, scores.astype(np.float32)


@pytest.mark.parametrize(("classes", "n"), [(2, 50), (3, 40), (5, 300), (10, 341), (10, 7), (100, 900), (1000, 300)])
def test_agrees_with_scikit_learn(classes, n):
    true, scores = random_case(classes, n, seed=classes + n)
    metrics = compute_metrics(true, scores, [f"class {index}" for index in range(classes)])
    predicted, everything = scores.argmax(1), np.arange(classes)
    assert metrics.n == n
    assert metrics.top1 == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
    if classes > 5:
        top5 = top_k_accuracy_score(true, scores, k=5, labels=everything)
        assert metrics.top5 == pytest.approx(top5, abs=1e-12)
    else:
        assert metrics.top5 == 1
    np.testing.assert_array_equal(metrics.confusion, confusion_matrix(true, predicted, labels=everything))
    assert metrics.confusion.dtype == np.int64
    each = precision_recall_fscore_support(true, predicted, labels=everything, zero_division=0)
    for ours, theirs in zip((metrics.precision, metrics.recall, metrics.f1, metrics.support), each, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    for average, ours in (("macro", metrics.macro), ("weighted", metrics.weighted)):
        theirs = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)[:3]
        assert list(ours) == ["precision", "recall", "f1"]
        np.testing.assert_allclose(list(ours.values()), theirs, rtol=1e-12, atol=1e-12)


def test_many_images_in_several_chunks(monkeypatch):
    true, scores = random_case(7, 1000, seed=1)
    whole = compute_metrics(true, scores, "abcdefg")
    monkeypatch.setattr("xcli.evaluation.metrics._CHUNK", 7 * 33)
    pieces = compute_metrics(true, scores, "abcdefg")
    assert whole.as_dict() == pieces.as_dict()
    np.testing.assert_array_equal(whole.confusion, pieces.confusion)


def test_ties_go_to_the_first_class():
    scores = np.full((2, 7), 1 / 7, np.float32)
    metrics = compute_metrics(np.array([0, 5]), scores, "abcdefg")
    assert (metrics.top1, metrics.top5) == (0.5, 0.5)
    assert metrics.confusion[0, 0] == metrics.confusion[5, 0] == 1


def test_as_dict():
    true, scores = np.array([0, 1, 1]), np.array([[0.75, 0.25], [0.5, 0.5], [0, 1]], np.float32)
    assert compute_metrics(true, scores, ("cat", "dog")).as_dict() == {
        "top1": pytest.approx(2 / 3),
        "top5": 1.0,
        "n": 3,
        "macro": {"precision": 0.75, "recall": 0.75, "f1": pytest.approx(2 / 3)},
        "weighted": {"precision": pytest.approx(2.5 / 3), "recall": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)},
        "ece": pytest.approx((0.25 + 0.5) / 3),
        "per_class": [
            {"label": "cat", "index": 0, "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
            {"label": "dog", "index": 1, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        ],
    }


def test_calibration_by_hand():
    # Four bins: (0, .25], (.25, .5], (.5, .75], (.75, 1]; 0 belongs to the first.
    confidence = np.array([0.0, 0.25, 0.5, 0.6, 0.75, 1.0])
    right = np.array([True, False, True, False, True, True])
    gaps = abs(1 - 0.25) + abs(1 - 0.5) + abs(1 - 1.35) + abs(1 - 1.0)
    assert calibrate(confidence, right, bins=4).error == pytest.approx(gaps / 6)


def test_calibration_of_the_calibrated_and_of_the_sure():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1, 200_000)
    assert calibrate(confidence, random.random(200_000) < confidence).error < 0.005
    assert calibrate(np.ones(10, np.float32), np.arange(10) < 3).error == pytest.approx(0.7)


def test_scores_that_are_no_probabilities_have_no_calibration_error():
    scores = np.array([[3.0, -1.0], [0.2, 0.9]], np.float32)
    metrics = compute_metrics(np.array([0, 1]), scores, "ab")
    assert (metrics.top1, metrics.ece) == (1.0, None)


def test_no_images():
    metrics = compute_metrics(np.zeros(0, np.int64), np.zeros((0, 3), np.float32), "abc")
    assert (metrics.n, metrics.top1, metrics.top5, metrics.ece) == (0, None, None, None)
    assert metrics.macro == metrics.weighted == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert metrics.occurring().tolist() == []
    assert metrics.confusion.tolist() == [[0] * 3] * 3


def test_classes_that_occur():
    metrics = compute_metrics(np.array([0, 0]), np.array([[0.9, 0, 0.1], [0, 0, 1]], np.float32), "abc")
    assert metrics.occurring().tolist() == [0, 2]


@pytest.mark.parametrize(
    ("true", "scores", "labels"),
    [
        ([0, 1], np.zeros((2, 3)), "ab"),
        ([0], np.zeros((2, 2)), "ab"),
        ([0, 2], np.zeros((2, 2)), "ab"),
        ([0, -1], np.zeros((2, 2)), "ab"),
        ([0, 1], np.array([[0, 1], [np.nan, 1]]), "ab"),
        ([], np.zeros((0, 0)), ""),
    ],
)
def test_what_does_not_fit_is_refused(true, scores, labels):
    with pytest.raises(ValueError):
        compute_metrics(np.array(true, np.int64), scores.astype(np.float32), labels)
