"""Labelled images through a model, and the report in files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, classification_report

from tests.colournet import COLOURS, colour_model, save_colour, save_folders
from xcli.core.errors import ModelError, OutputError, SourceError, UsageError
from xcli.core.records import ImageRef
from xcli.evaluation.evaluate import (
    REPORT_FILES,
    check_folder,
    choose_split,
    evaluate,
    inside,
    predictions_of,
    split_of,
    worst_mistakes,
    write_report,
)
from xcli.evaluation.metrics import compute
from xcli.inference.options import RunOptions
from xcli.models.loader import preprocessing_for
from xcli.sources.labelled import LabelledImages, Sample, read_labelled


def measured(top: Path, model=None, **options):
    images = read_labelled(str(top))
    model = model or colour_model()
    return evaluate(images.samples, model, preprocessing_for(model), RunOptions(**options), skipped=images.skipped)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Twelve images, one of them wrong, a broken one and a note."""
    top = save_folders(tmp_path_factory.mktemp("colours"))
    (top / "blue" / "broken.png").write_bytes(b"not an image")
    (top / "blue" / "note.txt").write_text("x")
    return top


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
    with pytest.raises(ModelError, match="12 of 12 images have a score that is NaN"):
        measured(folders, colour_model(broken=True)).metrics()


def test_nothing_but_broken_images(tmp_path):
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "x.png").touch()
    result = measured(tmp_path)
    metrics = result.metrics()
    assert (metrics.n, metrics.top1) == (0, None)
    write_report(str(tmp_path / "report"), metrics, result.predictions())
    assert sorted(os.listdir(tmp_path / "report")) == sorted(REPORT_FILES)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["top1"] is None


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_report(folders, tmp_path):
    result = measured(folders)
    folder = tmp_path / "report"
    write_report(str(folder), result.metrics(), result.predictions(), extra={"split": "all"})
    assert sorted(os.listdir(folder)) == sorted(REPORT_FILES)

    numbers = json.loads((folder / "metrics.json").read_text())
    assert numbers == result.metrics().as_dict() | {"errors": 1, "split": "all"}

    rows = rows_of(folder / "predictions.csv")
    assert list(rows[0]) == ["path", "status", "error", "label", "predicted", "score", "correct"]
    assert [row["path"] for row in rows] == [one.ref.path for one in result.samples]
    assert rows[4]["status"] == "error"
    assert rows[4]["error"].startswith("not-an-image: ")
    assert [rows[4][name] for name in ("label", "predicted", "score", "correct")] == ["blue", "", "", ""]
    assert [row["correct"] for row in rows if row["status"] == "ok"] == ["true"] * 7 + ["false"] + ["true"] * 4
    assert np.float32(rows[8]["score"]) == result.scores[8].max()

    # The exported figures are those that scikit-learn gives for the exported predictions.
    read = [row for row in rows if row["status"] == "ok"]
    true, predicted = ([row[name] for row in read] for name in ("label", "predicted"))
    theirs = classification_report(true, predicted, output_dict=True, zero_division=0)
    assert numbers["top1"] == pytest.approx(accuracy_score(true, predicted))
    for row in rows_of(folder / "per_class.csv"):
        for ours, name in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
            ("support", "support"),
        ):
            assert float(row[ours]) == pytest.approx(theirs[row["label"]][name])
    for average in ("macro", "weighted"):
        assert numbers[average]["f1"] == pytest.approx(theirs[f"{average} avg"]["f1-score"])

    matrix = rows_of(folder / "confusion_matrix.csv")
    assert [list(row.values()) for row in matrix] == [
        ["blue", "4", "0", "0"],
        ["green", "0", "3", "1"],
        ["red", "0", "0", "4"],
    ]
    for name in ("confusion_matrix.png", "mistakes.png"):
        with Image.open(folder / name) as image:
            image.load()
            assert image.width > 200


def test_a_report_takes_the_place_of_another(folders, tmp_path):
    result = measured(folders)
    (tmp_path / "model.keras").write_text("mine")
    for _ in range(2):
        write_report(str(tmp_path), result.metrics(), result.predictions())
    assert sorted(os.listdir(tmp_path)) == sorted([*REPORT_FILES, "model.keras"])
    with pytest.raises(OutputError, match=r"metrics\.json exists"):
        write_report(str(tmp_path), result.metrics(), result.predictions(), overwrite=False)


def test_no_report_is_left_half_written(folders, tmp_path, monkeypatch):
    result = measured(folders)

    def fail(items):
        raise RuntimeError

    monkeypatch.setattr("xcli.evaluation.plots.mistakes_png", fail)
    with pytest.raises(RuntimeError):
        write_report(str(tmp_path / "report"), result.metrics(), result.predictions())
    assert os.listdir(tmp_path / "report") == []


def test_labels_that_occur_twice_go_into_the_report(tmp_path):
    labels = ("crane", "crane", "a,b")
    samples = [Sample(ImageRef(f"{n}.png", f"{n}.png", b""), "x") for n in range(3)]
    true, scores = np.arange(3), np.eye(3, dtype=np.float32)
    predictions = predictions_of(samples, true, scores, [None] * 3, labels)
    assert all(one.correct for one in predictions)
    write_report(str(tmp_path), compute(true, scores, labels), predictions)
    assert (tmp_path / "confusion_matrix.csv").read_text().splitlines() == [
        'true,crane,crane,"a,b"',
        "crane,1,0,0",
        "crane,0,1,0",
        '"a,b",0,0,1',
    ]


def test_worst_mistakes_come_first():
    samples = [Sample(ImageRef(f"{n}.png", f"{n}.png", b""), "x") for n in range(4)]
    scores = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8]], np.float32)
    predictions = predictions_of(samples, np.zeros(4, int), scores, [None, None, None, "empty: zero bytes"], "ab")
    worst = worst_mistakes(predictions)
    assert [(one.path, one.true, one.predicted) for one in worst] == [("2.png", "a", "b"), ("0.png", "a", "b")]
    assert worst[0].probability == pytest.approx(0.9)


def images_of(*splits):
    samples = [Sample(ImageRef(f"{n}.png", f"{n}.png", b""), "x", split) for n, split in enumerate(splits)]
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
    with pytest.raises(UsageError, match="no such split, only train, validation"):
        choose_split(images_of("train", "validation"), "test")
    with pytest.raises(UsageError, match="does not say"):
        choose_split(images_of(None), "validation")
    with pytest.raises(UsageError, match="'dev'"):
        choose_split(images_of("train"), "dev")
    with pytest.raises(SourceError, match="only empty class folders: x"):
        choose_split(images_of(), None)


def test_folders_for_a_report(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    check_folder(str(tmp_path / "new") + "/", overwrite=False)
    check_folder(str(tmp_path / "empty"), overwrite=False)
    check_folder(str(tmp_path / "full"), overwrite=True)
    assert not (tmp_path / "new").exists()
    for name, message in (("full", "--overwrite"), ("file", "not a directory"), ("a/b", "create it first")):
        with pytest.raises(OutputError, match=message):
            check_folder(str(tmp_path / name), overwrite=False)
    with pytest.raises(UsageError, match="empty"):
        check_folder("", overwrite=False)


def test_folders_within_the_data(tmp_path):
    for name in ("data", "data-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "m.csv").touch()
    data = str(tmp_path / "data")
    assert inside(data, data)
    assert inside(f"{data}/new/report", data)
    assert inside(str(tmp_path / "link" / "report"), data)
    assert not inside(str(tmp_path / "data-2"), data)
    assert not inside(str(tmp_path), data)
    assert not inside(str(tmp_path / "report"), str(tmp_path / "m.csv"))


def test_colours_are_as_the_model_has_them():
    assert list(COLOURS) == sorted(COLOURS)
