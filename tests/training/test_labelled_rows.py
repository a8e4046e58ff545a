"""Rows of tables with labels by their paths: which are taken, and what is said of the others."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.featuretables import write_features
from tests.analysis.heads import MADE, table, vectors
from xcli.analysis.stored import open_stored
from xcli.analysis.truth import read_truth
from xcli.core.errors import SourceError
from xcli.sources.excluded import Exclusions
from xcli.sources.splits import TEST, TRAIN, VALIDATION
from xcli.training.labelled_rows import LabelledRows, read_rows


def write_truth(path: Path, labels: dict[str, str], splits: dict[str, str] | None = None) -> str:
    head = "path,label" + (",split" if splits else "")
    lines = [f"{name},{label}" + (f",{splits[name]}" if splits else "") for name, label in labels.items()]
    path.write_text("\n".join([head, *lines]) + "\n")
    return str(path)


def rows_of(tables: list[str], truth: str, excluded: Exclusions | None = None) -> LabelledRows:
    return read_rows(open_stored(tables), read_truth(truth), truth, excluded)


def labels(count: int) -> dict[str, str]:
    return {f"{number:04}.jpg": "cat" if number % 2 else "dog" for number in range(count)}


def test_rows_and_labels_are_joined_by_their_paths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = vectors(12)
    values[4, 0] = np.nan
    name = write_features(tmp_path / "t.parquet", values, provenance=MADE, failed=[2])
    truth = write_truth(tmp_path / "t.csv", {**labels(10), "gone.jpg": "cat"})
    with caplog.at_level(logging.INFO, "xcli"):
        rows = rows_of([name], truth)
    assert "2 rows have no label" in caplog.text
    assert "1 labels of" in caplog.text
    assert (rows.labels, len(rows.examples), rows.unlabelled) == (("cat", "dog"), 10, 2)
    assert [one.sample.label for one in rows.examples[:3]] == ["dog", "cat", "dog"]
    assert np.array_equal(rows.values[3], values[3])
    assert rows.errors == {
        2: "empty: no bytes",
        4: "not-finite: the stored features are NaN or infinite",
    }
    assert rows.examples[2].digest is None


def test_excluded_images_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = write_features(tmp_path / "t.parquet", vectors(12), provenance=MADE)
    truth = write_truth(tmp_path / "t.csv", labels(10))
    everything = rows_of([name], truth)
    with caplog.at_level(logging.INFO, "xcli"):
        rows = rows_of([name], truth, Exclusions("f.csv", frozenset({"0003.jpg", "0011.jpg", "other.jpg"})))
    assert "1 images are left out for f.csv" in caplog.text
    assert "have no row" not in caplog.text
    assert [one.sample.ref.path for one in rows.examples] == [name for name in labels(10) if name != "0003.jpg"]
    assert np.array_equal(rows.values, np.delete(everything.values, 3, axis=0))
    cats = frozenset(name for name, label in labels(10).items() if label == "cat")
    with pytest.raises(SourceError, match="leaves no row of the class 'cat'"):
        rows_of([name], truth, Exclusions("f.csv", cats))
    with pytest.raises(SourceError, match=r"none of the 1 images that f\.csv names is among the data"):
        rows_of([name], truth, Exclusions("f.csv", frozenset({"/elsewhere/0003.jpg"})))


def test_parts_of_the_labels_are_kept(tmp_path: Path) -> None:
    parts = {name: ("test", "val", "train")[number % 3] for number, name in enumerate(labels(18))}
    truth = write_truth(tmp_path / "t.csv", labels(18), parts)
    split, _ = rows_of([table(tmp_path / "t.npy", 18)], truth).split(0.1, 0)
    assert split.counts == {TRAIN: 6, VALIDATION: 6, TEST: 6}


@pytest.mark.slow
def test_a_share_of_each_class_is_split_off_and_copies_stay_together(tmp_path: Path) -> None:
    values = vectors(60)
    values[58] = values[7]
    values[59] = values[7] * 1.001
    name = write_features(tmp_path / "t.npy", values, provenance=MADE)
    for seed in range(6):
        split, copies = rows_of([name], write_truth(tmp_path / "t.csv", labels(60))).split(0.3, seed)
        assert copies == 2
        assert len({split.examples[row].split for row in (7, 58, 59)}) == 1
        assert 16 <= split.counts[VALIDATION] <= 20


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (
            {"x/0000.jpg": "cat", "x/0001.jpg": "dog"},
            r"no row of .* has a label in .* are like 'x/0000.jpg'",
        ),
        ({"0000.jpg": "cat", "0001.jpg": "dog", "y.jpg": "emu"}, "no row of .* has the label 'emu'"),
    ],
)
def test_labels_that_fit_no_row_are_refused(tmp_path: Path, truth: dict, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        rows_of([table(tmp_path / "t.npy", 5)], write_truth(tmp_path / "t.csv", truth))


def test_one_class_is_none(tmp_path: Path) -> None:
    rows = rows_of([table(tmp_path / "t.npy", 5)], write_truth(tmp_path / "t.csv", dict.fromkeys(labels(5), "cat")))
    with pytest.raises(SourceError, match="all images are of the one class 'cat'"):
        rows.split(0.1, 0)


def test_a_class_of_one_row_has_none_for_validation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = write_truth(tmp_path / "t.csv", {**labels(20), "0019.jpg": "emu"})
    with caplog.at_level(logging.WARNING, "xcli"):
        split, _ = rows_of([table(tmp_path / "t.npy", 20)], truth).split(0.1, 0)
    assert "only one image, so none for validation: 'emu'" in caplog.text
    assert split.examples[19].split == TRAIN
