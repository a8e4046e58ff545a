"""True classes by path, of a manifest or of class folders."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xcli.analysis.truth import read_truth
from xcli.core.errors import SourceError


def labels_of(source: Path, paths: list[str]) -> list[str | None]:
    truth = read_truth(str(source))
    return [None if place < 0 else truth.labels[truth.numbers[place]] for place in truth.places(paths).tolist()]


def test_labels_by_path(tmp_path: Path) -> None:
    rows = [(f"photos/{number}.jpg", f"class {number % 7}") for number in range(10_000)]
    pq.write_table(
        pa.table({"path": [row[0] for row in rows], "label": [row[1] for row in rows]}), tmp_path / "t.parquet"
    )
    (tmp_path / "t.csv").write_text("label,path\n" + "".join(f"{label},{path}\n" for path, label in rows))
    for name in ("t.parquet", "t.csv"):
        assert labels_of(tmp_path / name, ["photos/9999.jpg", "9999.jpg", "photos/3.jpg", ""]) == [
            "class 3",
            None,
            "class 3",
            None,
        ]


def test_paths_with_several_labels_have_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\na,cat\nb,dog\na,dog\nb,dog\nc,cat\n")
    assert labels_of(tmp_path / "t.csv", ["a", "b", "c"]) == [None, "dog", "cat"]
    assert read_truth(str(tmp_path / "t.csv")).conflicting == 1


def test_class_folders(tmp_path: Path) -> None:
    for name in ("cat/a.jpg", "dog/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert labels_of(tmp_path, [f"{tmp_path}/cat/a.jpg", f"{tmp_path}/dog/b.jpg", "a.jpg"]) == ["cat", "dog", None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [("path\na\n", "no column 'label'"), ("path,label\n", "no images"), ("path,label\na,\n", "empty")],
)
def test_refusals(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SourceError, match=problem):
        read_truth(str(tmp_path / "t.csv"))
