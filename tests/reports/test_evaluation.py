"""`xception report` of an evaluation, of a run, and of a table with true classes; without a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Invoke, invoke  # noqa: F401 - a fixture
from tests.reports.conftest import MakeEvaluation, MakeTable, make_run, save_image
from tests.reports.test_report import data_of
from xcli.analysis.pairing import NO_LABEL
from xcli.analysis.truth import read_truth
from xcli.evaluation.metrics import compute_metrics
from xcli.models.labels import imagenet_labels
from xcli.reports.against_truth import read_against
from xcli.reports.evaluation_files import EvaluationFiles
from xcli.reports.outcomes import Outcomes, chosen_rows
from xcli.tables.formats import open_table

ROWS: list[Any] = [
    ("a.png", 0, [0.9, 0.1, 0]),
    ("b.png", 0, [0.3, 0.7, 0]),
    ("c.png", 1, [0.8, 0.2, 0]),
    ("d.png", 1, [0.4, 0.6, 0]),
    ("bad.png", 1, "empty: the file has zero bytes"),
]
LABELS = ("cat", "dog", "ferret")


def test_an_evaluation(invoke: Invoke, make_evaluation: MakeEvaluation, tmp_path: Path) -> None:  # noqa: F811
    image = save_image(tmp_path / "a.png")
    metrics = make_evaluation([(image, *ROWS[0][1:]), *ROWS[1:]], LABELS)
    page = tmp_path / "report.html"
    result = invoke("report", tmp_path / "report", "-o", page)
    assert result.code == 0, result
    assert "5 rows, 4 of them shown, 1 thumbnails, 3 images not found" in result.err
    data = data_of(page)
    found = data["labelled"]
    assert found["names"] == ["cat", "dog"]
    assert sorted(found["cells"]) == [[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]]
    assert found["classes"] == [[2, 2, 0.5, 0.5, 0.5], [2, 2, 0.5, 0.5, 0.5]]
    assert found["rows"][0] == ["c.png", 1, 0, 0.8, "missing"]
    assert [row[4] for row in found["rows"] if row[0] == image] == [0]
    assert [bin for bin in found["bins"] if bin[0]] == [[1, 0.6, 1], [1, 0.7, 0], [1, 0.8, 0], [1, 0.9, 1]]
    assert data["errors"]["rows"] == [["bad.png", "empty: the file has zero bytes"]]
    assert "history" not in data
    text = page.read_text()
    assert f"{metrics.ece:.4f}" in text
    assert "1 more classes have no image" in text


def test_a_run_has_its_history(invoke: Invoke, make_evaluation: MakeEvaluation, tmp_path: Path) -> None:  # noqa: F811
    make_evaluation(ROWS, LABELS, "run")
    make_run(tmp_path / "run")
    page = tmp_path / "report.html"
    assert invoke("report", tmp_path / "run", "-o", page).code == 0
    history = data_of(page)["history"]
    assert history["kept"] == 3
    assert history["epochs"][0] == ["head", 1, 0.5, 0.5, 0.5, None, 0.5, 0.5]
    assert [epoch[:2] for epoch in history["epochs"]] == [["head", 1], ["head", 2], ["blocks", 1], ["blocks", 2]]
    text = page.read_text()
    assert "epoch 1 of the phase <bdi>blocks</bdi>" in text
    assert "model <bdi>base</bdi>" in text


def test_classes_of_one_name_and_escaped_names(make_evaluation: MakeEvaluation, tmp_path: Path) -> None:
    rows = [("a", 0, [1, 0, 0]), ("b", 1, [0, 1, 0]), ("=c", 2, [0, 1, 0])]
    make_evaluation(rows, ("crane", "crane", "=x"), escape_formulas=True)
    outcomes = EvaluationFiles(str(tmp_path / "report")).outcomes()
    assert outcomes.cells.true.tolist() == [0, 1, 2]
    assert outcomes.cells.predicted.tolist() == [0, 1, 1]
    assert outcomes.true.tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("predictions.csv", "cat", "cow", "has the class 'cow' and metrics.json has not"),
        ("predictions.csv", "a.png,ok", "a.png,error", "has 3 images and metrics.json 4"),
        ("predictions.csv", "label", "word", "cannot be read"),
        ("confusion_matrix.csv", "\ndog,1,1,0", "", "it has 2 rows for 3 classes"),
        ("confusion_matrix.csv", "dog,1,1,0", "dog,1,1", "a row has 3 fields instead of 4"),
        ("confusion_matrix.csv", "dog,1,1,0", "dog,-1,3,0", "a number is negative"),
        ("confusion_matrix.csv", "dog,1,1,0", "dog,x,3,0", "cannot be read"),
        ("metrics.json", '"macro"', '"other"', "'macro' is missing"),
        ("metrics.json", '"n": 4', '"n": "4"', "cannot be read"),
        ("metrics.json", "{", "[", "cannot be read"),
    ],
)
def test_damage_is_named(
    invoke: Invoke,  # noqa: F811
    make_evaluation: MakeEvaluation,
    tmp_path: Path,
    file: str,
    old: str,
    new: str,
    problem: str,
) -> None:
    make_evaluation(ROWS, LABELS)
    damaged = tmp_path / "report" / file
    text = damaged.read_text()
    assert old in text
    damaged.write_text(text.replace(old, new))
    result = invoke("report", tmp_path / "report", "-o", tmp_path / "report.html")
    assert result.code == 6, result
    assert problem in result.err
    assert not (tmp_path / "report.html").exists()


def test_numbers_that_are_none_end_no_report(invoke: Invoke, make_evaluation: MakeEvaluation, tmp_path: Path) -> None:  # noqa: F811
    make_evaluation(ROWS, LABELS)
    make_run(tmp_path / "report")
    metrics = tmp_path / "report" / "metrics.json"
    value = json.loads(metrics.read_text())
    value |= {"top1": float("nan"), "ece": float("inf")}
    value["macro"]["f1"] = value["per_class"][0]["f1"] = float("nan")
    metrics.write_text(json.dumps(value))
    history = tmp_path / "report" / "history.csv"
    history.write_text(history.read_text().replace("0.25", "nan"))
    assert invoke("report", tmp_path / "report", "-o", tmp_path / "report.html").code == 0


def test_a_directory_of_parts_is_no_evaluation(tmp_path: Path) -> None:
    for name in ("metrics.json", "predictions.csv"):
        (tmp_path / name).touch()
    assert EvaluationFiles.recognizes(str(tmp_path))
    (tmp_path / "part-00000.parquet").touch()
    assert not EvaluationFiles.recognizes(str(tmp_path))
    assert not EvaluationFiles.recognizes(str(tmp_path / "metrics.json"))


def against(tmp_path: Path, table: str, truth: str) -> Outcomes:
    (tmp_path / "truth.csv").write_text(truth)
    return read_against(open_table(table), read_truth(str(tmp_path / "truth.csv")))


def table_of(make_table: MakeTable, scores: Any, labels: Any, top: int, **changes: Any) -> str:
    """A table of the best classes of images 0.png, 1.png, ...; its indices are those of the labels."""
    import pyarrow as pa

    from xcli.tables.schema import classify_schema

    table = make_table([], "empty.csv", top)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    schema = classify_schema(top, "name", ())
    columns: dict[str, Any] = {
        "path": [f"{number}.png" for number in range(len(scores))],
        "status": ["ok"] * len(scores),
        "error": [None] * len(scores),
    }
    for k in range(top):
        columns[f"label_{k + 1}"] = [labels[index] for index in order[:, k]]
        columns[f"index_{k + 1}"] = order[:, k]
        columns[f"score_{k + 1}"] = np.take_along_axis(scores, order, 1)[:, k]
    from tests.writtentables import provenance, write

    return write(
        Path(table).with_name("t.parquet"),
        pa.RecordBatch.from_pydict(columns, schema),
        provenance("classify", **changes),
    )


def test_a_table_has_the_figures_that_evaluate_has(make_table: MakeTable, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = [f"class {number}" for number in range(8)]
    raw = random.random((500, 8)).astype(np.float32) ** 4
    scores = raw / raw.sum(1, keepdims=True)
    true = np.where(random.random(500) < 0.6, scores.argmax(1), random.integers(0, 8, 500))
    table = table_of(make_table, scores, labels, 5)
    truth = "path,label\n" + "".join(f"{number}.png,CLASS_{true[number]}\n" for number in range(500))
    found = against(tmp_path, table, truth)
    wanted = compute_metrics(true, scores, labels)
    assert (found.top1, found.top5, found.ece) == pytest.approx((wanted.top1, wanted.top5, wanted.ece))
    assert found.names == tuple(labels)
    dense = np.zeros((8, 8), np.int64)
    dense[found.cells.true, found.cells.predicted] = found.cells.counts
    assert dense.tolist() == wanted.confusion.tolist()
    assert found.figures.macro == pytest.approx(wanted.macro)
    assert found.figures.f1 == pytest.approx(wanted.f1)


def test_rows_without_label_and_labels_without_row(make_table: MakeTable, tmp_path: Path) -> None:
    table = make_table(
        [
            ("a.png", [("cat", 0.9), ("dog", 0.1)]),
            ("b.png", [("cat", 0.6), ("dog", 0.4)]),
            ("c.png", []),
            ("d.png", "missing: no such file"),
            ("e.png", "missing: no such file"),
            ("f.png", [("dog", 0.6)]),
        ],
        "t.jsonl",
    )
    text = "path,label\na.png,cat\nb.png,cow\nc.png,cat\nd.png,cat\ngone.png,cat\nf.png,dog\nf.png,cat\n"
    found = against(tmp_path, table, text)
    assert (found.without_label, found.without_row, dict(found.errors)) == (2, 1, {"missing": 1})
    assert len(found.true) == 3
    assert found.predicted.tolist()[2] == NO_LABEL
    assert found.top1 == pytest.approx(1 / 3)
    assert found.top5 is None
    assert any("cow" in note for note in found.notes)
    assert any("1 paths have more than one label" in note for note in found.notes)
    assert list(found.paths(found.rows)) == ["a.png", "b.png", "c.png"]


def test_wnids_of_imagenet(make_table: MakeTable, tmp_path: Path) -> None:
    known = imagenet_labels()
    scores = np.zeros((3, 1000), np.float32)
    scores[[0, 1, 2], [134, 517, 0]] = 1  # both cranes
    digest = {"source": "imagenet", "sha256": known.digest}
    table = table_of(make_table, scores, known.names, 2, options={"labels": digest})
    assert known.wnids is not None
    text = f"path,label\n0.png,{known.wnids[134]}\n1.png,{known.wnids[134]}\n2.png,{known.wnids[9]}\n"
    found = against(tmp_path, table, text)
    assert (found.true == found.predicted).tolist() == [True, False, False]
    assert found.names.count("crane") == 2


def test_refusals(invoke: Invoke, make_table: MakeTable, make_evaluation: MakeEvaluation, tmp_path: Path) -> None:  # noqa: F811
    table, page = make_table([("x/a.png", [("cat", 0.9), ("dog", 0.1)])]), tmp_path / "report.html"
    truth = tmp_path / "truth.csv"

    def refused(text: str, code: int, problem: str, source: Any = table) -> None:
        truth.write_text(text)
        result = invoke("report", source, "--truth", truth, "-o", page)
        assert result.code == code, result
        assert problem in result.err
        assert not page.exists()

    refused("path,label\na.png,cat\n", 2, "its paths are like 'x/a.png', those with labels like 'a.png'")
    refused("path,label\nx/a.png,cow\n", 2, "none of the labels (cow) is a class of the table (cat, dog)")
    refused("path\nx/a.png\n", 2, "no column 'label'")
    make_evaluation(ROWS, LABELS)
    refused("path,label\na.png,cat\n", 2, "has the true classes itself", tmp_path / "report")


def test_a_page_with_both(invoke: Invoke, make_table: MakeTable, tmp_path: Path) -> None:  # noqa: F811
    table = make_table([("a.png", [("cat", 0.9)]), ("b.png", [("cat", 0.6)]), ("c.png", "empty: zero bytes")])
    (tmp_path / "truth.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    page = tmp_path / "report.html"
    assert invoke("report", table, "--truth", tmp_path / "truth.csv", "-o", page).code == 0
    data = data_of(page)
    assert set(data) == {"classify", "labelled", "errors", "thumbnails"}
    assert data["labelled"]["cells"] == [[0, 0, 1], [1, 0, 1]]


def test_which_rows_are_shown(make_evaluation: MakeEvaluation, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    scores = random.random((400, 3)) + 3 * np.eye(3)[random.integers(0, 3, 400)]
    scores /= scores.sum(1, keepdims=True)
    make_evaluation([(str(number), number % 3, row) for number, row in enumerate(scores.tolist())], LABELS)
    outcomes = EvaluationFiles(str(tmp_path / "report")).outcomes()
    chosen = chosen_rows(outcomes, 2)
    wrong = np.flatnonzero(~outcomes.right)
    first = wrong[np.argsort(-outcomes.scores[wrong], kind="stable")[:240]]
    assert chosen[: len(first)].tolist() == first.tolist()
    assert len(set(chosen.tolist())) == len(chosen)
    for label in range(3):
        own = np.flatnonzero((outcomes.true == label) & outcomes.right)
        own = own[np.argsort(-outcomes.scores[own], kind="stable")]
        shown = [one for one in chosen.tolist() if outcomes.true[one] == label and outcomes.right[one]]
        assert shown == [own[0], own[-1], own[1], own[-2]]
