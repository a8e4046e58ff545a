"""Labelled images through a model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.colournet import COLOURS, colour_model, save_colour
from tests.evaluation.conftest import measured
from xcli.core.errors import ModelError, SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.evaluation.evaluate import choose_split, split_of
from xcli.sources.labelled import LabelledImages, Sample
from xcli.storage.local import LocalFile


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_scores_errors_and_order(folders, batch_size):
    result = measured(folders, batch_size=batch_size)
    assert [one.label for one in result.samples] == ["blue"] * 5 + ["green"] * 4 + ["red"] * 4
    assert result.true.tolist() == [0] * 5 + [1] * 4 + [2] * 4
    assert [error and error.partition(":")[0] for error in result.errors] == [None] * 4 + ["not-an-image"] + [None] * 8
    best = result.scores.argmax(1)
    assert best[[0, 1, 2, 3, 5, 6, 7, 8, 9]].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert not result.scores[4].any()
    np.testing.assert_allclose(np.delete(result.scores, 4, 0).sum(1), 1, atol=1e-6)
    assert (result.report.listed, result.report.ok, result.report.errors) == (13, 12, {"not-an-image": 1})
    assert result.report.skipped == {"not an image": 1}
    assert result.provenance["model"]["sha256"] == "colours-3"
    assert result.provenance["options"]["labels"]["source"] == "colours.txt"


def test_metrics_leave_broken_images_out(folders):
    metrics = measured(folders).metrics()
    assert (metrics.n, metrics.top1, metrics.top5) == (12, 11 / 12, 1.0)
    assert metrics.confusion.tolist() == [[4, 0, 0], [0, 3, 1], [0, 0, 4]]


def test_folders_in_another_order_than_the_classes(tmp_path):
    names = {"n3": "red", "N1": "blue", "Green": "green"}
    for name, colour in names.items():
        save_colour(tmp_path / name / "x.png", colour)
    result = measured(tmp_path, colour_model(wnids=("n1", "n2", "n3")))
    assert result.metrics().top1 == 1
    assert {one.label: int(true) for one, true in zip(result.samples, result.true, strict=True)} == {
        "Green": 1,
        "N1": 0,
        "n3": 2,
    }


def test_a_folder_that_the_model_does_not_know(folders, tmp_path):
    save_colour(tmp_path / "pink" / "x.png", "red")
    save_colour(tmp_path / "grey" / "x.png", "red")
    with pytest.raises(SourceError, match="grey, pink are 2 names that are no classes"):
        measured(tmp_path)


def test_models_that_cannot_be_evaluated(folders):
    with pytest.raises(ModelError, match="no classifier"):
        measured(folders, colour_model(classifier=False))


def test_scores_that_are_not_finite_are_errors(folders):
    result = measured(folders, colour_model(broken=True))
    assert result.report.errors == {"not-an-image": 1, "not-finite": 12}
    assert result.metrics().n == 0


def images_of(*splits):
    samples = [Sample(ImageRef(f"{n}.png", LocalFile(f"{n}.png"), b""), "x", split) for n, split in enumerate(splits)]
    return LabelledImages(tuple(samples), ("x",), empty=("x",))


@pytest.mark.parametrize(
    ("splits", "asked", "chosen", "name"),
    [
        (("train", "validation", "test"), None, [2], "test"),
        (("train", "validation"), None, [1], "validation"),
        (("train", "train"), None, [0, 1], "train"),
        (("train", "validation", "test"), "all", [0, 1, 2], "all"),
        (("train", "validation", "test"), "train", [0], "train"),
        ((None, None), None, [0, 1], "all"),
        ((None, None), "all", [0, 1], "all"),
    ],
)
def test_choice_of_a_split(splits, asked, chosen, name):
    images = images_of(*splits)
    samples = choose_split(images, asked)
    assert list(samples) == [images.samples[index] for index in chosen]
    assert split_of(samples) == name


def test_splits_that_are_not_there():
    with pytest.raises(UsageError, match=r"no such split \(they have train, validation\)"):
        choose_split(images_of("train", "validation"), "test")
    with pytest.raises(UsageError, match="not divided into splits"):
        choose_split(images_of(None), "validation")
    with pytest.raises(UsageError, match="'dev'"):
        choose_split(images_of("train"), "dev")
    with pytest.raises(SourceError, match="only empty class folders: x"):
        choose_split(images_of(), None)


def test_colours_are_as_the_model_has_them():
    assert list(COLOURS) == sorted(COLOURS)
