"""The report of an evaluation in files."""

from __future__ import annotations

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, classification_report

from tests.evaluation.conftest import measured
from xcli.core.errors import OutputError, UsageError
from xcli.core.records import ImageRef
from xcli.evaluation.evaluate import Evaluation
from xcli.evaluation.metrics import compute_metrics
from xcli.evaluation.report import REPORT_FILES, check_folder, is_within, worst_mistakes, write_report
from xcli.sources.labelled import Sample
from xcli.storage import staging
from xcli.storage.local import LocalFile


def evaluation(true, scores, errors, labels):
    samples = [Sample(ImageRef(f"{n}.png", LocalFile(f"{n}.png"), b""), "x") for n in range(len(true))]
    return Evaluation(tuple(samples), true, scores, tuple(errors), tuple(labels))


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


def test_formulas_in_the_report_are_escaped_if_that_is_asked_for(tmp_path):
    samples = (Sample(ImageRef("=cmd()", LocalFile("=cmd()"), b""), "@a"),)
    labels = ("@a", "+b")
    result = Evaluation(samples, np.array([0]), np.array([[0.25, 0.75]], np.float32), (None,), labels)
    for guard, mark in ((True, "'"), (False, "")):
        folder = tmp_path / str(guard)
        write_report(str(folder), result.metrics(), result.predictions(), escape_formulas=guard)
        (row,) = rows_of(folder / "predictions.csv")
        assert [row[name] for name in ("path", "label", "predicted")] == [f"{mark}=cmd()", f"{mark}@a", f"{mark}+b"]
        assert [row["label"] for row in rows_of(folder / "per_class.csv")] == [f"{mark}{label}" for label in labels]
        matrix = rows_of(folder / "confusion_matrix.csv")
        assert list(matrix[0]) == ["true", f"{mark}@a", f"{mark}+b"]
        assert matrix[0]["true"] == f"{mark}@a"


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


@pytest.mark.parametrize("death", ["before", "after"])
def test_what_a_killed_process_left_in_the_directory_does_not_stop_the_next(folders, tmp_path, monkeypatch, death):
    result, folder = measured(folders), str(tmp_path / "report")

    class Killed(BaseException):
        pass

    def die(self):
        raise Killed

    with monkeypatch.context() as patch:
        # Nothing is cleared away any more, as after SIGKILL.
        patch.setattr("xcli.evaluation.report.Staging.close", lambda self: self._folder._lock.release())
        patch.setattr("xcli.storage.atomic.AtomicFile.discard", lambda self: None)
        if death == "before":
            patch.setattr("xcli.evaluation.report.commit", die)
        else:
            give, given = staging._give_name, []

            def give_three(one):
                given.append(one)
                return die(one) if len(given) > 3 else give(one)

            patch.setattr("xcli.storage.staging._give_name", give_three)
            patch.setattr("xcli.storage.staging._undo", die)
        with pytest.raises(Killed):
            write_report(folder, result.metrics(), result.predictions(), overwrite=False)
    assert "report.partial" in os.listdir(folder)
    check_folder(folder, overwrite=False)
    write_report(folder, result.metrics(), result.predictions(), overwrite=False)
    assert sorted(os.listdir(folder)) == sorted(REPORT_FILES)
    (tmp_path / "report" / "report.partial").mkdir()
    (tmp_path / "report" / "report.partial" / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"contains thesis\.txt"):
        check_folder(folder, overwrite=True)


def test_labels_that_occur_twice_go_into_the_report(tmp_path):
    labels = ("crane", "crane", "a,b")
    true, scores = np.arange(3), np.eye(3, dtype=np.float32)
    predictions = evaluation(true, scores, [None] * 3, labels).predictions()
    assert all(one.correct for one in predictions)
    write_report(str(tmp_path), compute_metrics(true, scores, labels), predictions)
    assert (tmp_path / "confusion_matrix.csv").read_text().splitlines() == [
        'true,crane,crane,"a,b"',
        "crane,1,0,0",
        "crane,0,1,0",
        '"a,b",0,0,1',
    ]


def test_worst_mistakes_come_first():
    scores = np.array([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8]], np.float32)
    predictions = evaluation(np.zeros(4, int), scores, [None, None, None, "empty: zero bytes"], "ab").predictions()
    worst = worst_mistakes(predictions)
    assert [(one.ref.path, one.label, one.predicted) for one in worst] == [("2.png", "a", "b"), ("0.png", "a", "b")]
    assert worst[0].score == pytest.approx(0.9)


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
    assert is_within(data, data)
    assert is_within(f"{data}/new/report", data)
    assert is_within(str(tmp_path / "link" / "report"), data)
    assert not is_within(str(tmp_path / "data-2"), data)
    assert not is_within(str(tmp_path), data)
    assert not is_within(str(tmp_path / "report"), str(tmp_path / "m.csv"))
