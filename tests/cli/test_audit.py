"""`xception audit`, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.analysis.audited import COUNT, Folders, picture
from tests.cli.conftest import Invoke, code_and_imports
from tests.colournet import colour_model
from xcli.analysis.audit_findings import COLUMNS, KINDS
from xcli.inference.tasks import FeaturesTask


@pytest.fixture
def faulty(tmp_path: Path) -> Folders:
    """Splits of class folders with a fault of most kinds."""
    data = Folders(tmp_path / "data", ("train", "validation"))
    data.save("train/cat/wrong.png", "owl")
    original = data.vectors["validation/dog/03.png"]
    image = Image.open(data.top / "validation/dog/03.png").copy()
    data.save("train/dog/leak.png", "dog", image, original)
    data.save(
        "train/owl/conflict.png",
        "dog",
        Image.open(data.top / "train/dog/05.png").copy(),
        data.vectors["train/dog/05.png"],
    )
    data.save(
        "train/owl/twice.png", "owl", Image.open(data.top / "train/owl/07.png").copy(), data.vectors["train/owl/07.png"]
    )
    data.save("train/cat/blank.png", "cat", Image.new("RGB", (100, 100), "white"))
    data.save("train/cat/tiny.png", "cat", picture(1000, (60, 50)))
    data.save("train/emu/0.png", "cat")
    (data.top / "train/dog/bad.png").write_bytes(b"")
    data.vectors["train/dog/bad.png"] = np.zeros(48)
    return data


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_how_far_each_stage_is(invoke: Invoke, faulty: Folders, tmp_path: Path) -> None:
    """The rows of the table, between them the images and the pairs whose pixels are compared, then all images."""
    table = faulty.features(tmp_path / "t.parquet", ("train/dog/bad.png",))
    result = invoke("audit", faulty.top, "--features", table, "--progress", "json")
    told = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    units = [next(key for key in one if key.endswith("_per_second")).partition("_")[0] for one in told]
    stages = [(unit, one) for unit, one in zip(units, told, strict=True) if one["event"] == "end"]
    assert [unit for unit, _ in stages] == ["rows", "images", "pairs", "rows", "images"], result
    for _, one in stages[1:]:
        assert one["done"] == one["total"] > 0
    assert 0 < stages[0][1]["done"] < stages[0][1]["total"] == stages[3][1]["done"]


def test_findings_of_every_sort(invoke: Invoke, faulty: Folders, tmp_path: Path) -> None:
    table = faulty.features(tmp_path / "t.parquet", ("train/dog/bad.png",))
    result = invoke("audit", faulty.top, "--features", table, "-o", tmp_path / "f.csv")
    assert result.code == 0, result
    rows = rows_of(tmp_path / "f.csv")
    assert tuple(rows[0]) == COLUMNS
    found = {kind: [row for row in rows if row["issue"] == kind] for kind in KINDS}
    top = f"{faulty.top}/"
    names = {kind: [row["path"].removeprefix(top) for row in some] for kind, some in found.items()}
    assert names["unreadable"] == ["train/dog/bad.png"]
    assert found["unreadable"][0]["detail"].startswith("empty")
    assert "train/cat/wrong.png" in names["wrong-label"]
    wrong = found["wrong-label"][names["wrong-label"].index("train/cat/wrong.png")]
    assert (wrong["label"], wrong["suggested"]) == ("cat", "owl")
    assert wrong["related"].split("/")[-2] == "owl"
    assert set(names["copy-across-classes"]) == {"train/owl/conflict.png", "train/dog/05.png"}
    assert names["copy-across-splits"] == ["train/dog/leak.png"]
    assert found["copy-across-splits"][0]["related"] == f"{top}validation/dog/03.png"
    assert names["copy-in-class"] == ["train/owl/twice.png"]
    assert found["copy-in-class"][0]["related"] == f"{top}train/owl/07.png"
    assert names["blank"] == ["train/cat/blank.png"]
    assert names["tiny"] == ["train/cat/tiny.png"]
    assert [(row["path"], row["label"]) for row in found["small-class"]] == [("", "emu")]
    assert all(0 <= float(row["severity"]) <= 1 for row in rows)
    order = [(KINDS.index(row["issue"]), -float(row["severity"])) for row in rows]
    assert order == sorted(order)
    assert "wrong-label" in result.text
    invoke("audit", faulty.top, "--features", table, "-o", tmp_path / "f.parquet")
    assert [str(row["path"] or "") for row in pq.read_table(tmp_path / "f.parquet").to_pylist()] == [
        row["path"] for row in rows
    ]


def test_assertions(invoke: Invoke, tmp_path: Path) -> None:
    data = Folders(tmp_path / "data")
    data.save("dog/tiny.png", "dog", picture(1000, (60, 50)))
    common = ("audit", data.top, "--features", data.features(tmp_path / "t.parquet"))
    result = invoke(*common, "--assert-clean", "blank,copy-in-class", "--html", tmp_path / "page.html")
    assert result.code == 0, result
    assert "page.html: " in result.err
    assert "dog/tiny.png" in (tmp_path / "page.html").read_text()
    assert invoke(*common, "--html", tmp_path / "page.html").code == 5
    result = invoke(*common, "--assert-clean", "blank,tiny")
    assert result.code == 6
    assert "--assert-clean: tiny has 1 findings" in result.err
    assert invoke(*common, "--assert-clean", "nonsense").code == 2
    assert invoke(*common, "--assert-clean", "tiny", "--no-pixels").code == 2


def test_a_table_with_labels_needs_neither_images_nor_tensorflow(invoke: Invoke, tmp_path: Path) -> None:
    data = Folders(tmp_path / "data")
    table = data.features(tmp_path / "t.npy", ("cat/03.png",))
    truth = tmp_path / "truth.csv"
    lines = [f"{data.top}/{path},{path.split('/')[0]}" for path in data.vectors if path != "dog/01.png"]
    truth.write_text("\n".join(["path,label", *lines, "elsewhere.png,cat"]))
    data.top.rename(tmp_path / "moved")
    line = code_and_imports(["audit", table, "--truth", str(truth), "--no-pixels", "--json"])
    assert line == "IMPORTED 0 []"
    result = invoke("audit", table, "--truth", truth, "--json")
    assert result.code == 0, result
    found = json.loads(result.text)
    assert found["images"] == 3 * COUNT
    assert found["kinds"]["unreadable"] == 1
    assert any("are not where the table says" in one["reason"] for one in found["unchecked"])
    assert "1 rows of the table have no label, and 1 labels have no row" in result.err
    result = invoke("audit", table, "--truth", truth, "--assert-clean", "blank")
    assert result.code == 6
    assert "blank is unknown" in result.err
    result = invoke("audit", table, "--truth", truth, "--assert-clean", "blank", "--images", tmp_path / "moved")
    assert result.code == 0, result


def test_manifests_with_paths_relative_to_a_directory(invoke: Invoke, tmp_path: Path) -> None:
    data = Folders(tmp_path / "data", count=6)
    image = Image.open(data.top / "cat/01.png").copy()
    data.save("dog/copy.png", "dog", image, data.vectors["cat/01.png"] + np.linspace(0, 0.1, 48))
    paths = sorted(data.vectors)
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(["path,label", *(f"{path},{path.split('/')[0]}" for path in paths)]))
    data.features(tmp_path / "t.parquet")
    result = invoke("audit", manifest, "--manifest-base", data.top, "--features", tmp_path / "t.parquet", "--json")
    assert result.code == 0, result
    assert json.loads(result.text)["kinds"]["copy-across-classes"] == 2


def test_features_are_computed_where_there_are_none(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcli.cli.commands.audit.load_model", lambda spec: colour_model(classifier=False))
    monkeypatch.setattr("xcli.cli.commands.audit.FeaturesTask", lambda: FeaturesTask(layer="colour"))
    data = Folders(tmp_path / "data", count=2)
    table = tmp_path / "t.parquet"
    result = invoke("audit", data.top, "--features", table, "--json", "-q")
    assert result.code == 0, result
    assert pq.read_table(table).column("path").to_pylist() == sorted(f"{data.top}/{path}" for path in data.vectors)
    assert json.loads(result.text)["kinds"]["small-class"] == 3
    assert invoke("audit", data.top, "-q").code == 0
    monkeypatch.undo()
    before = table.stat().st_mtime_ns
    assert invoke("audit", data.top, "--features", table, "-q").code == 0
    assert table.stat().st_mtime_ns == before


def test_what_does_not_go_together(invoke: Invoke, tmp_path: Path) -> None:
    data = Folders(tmp_path / "data", count=2)
    table = data.features(tmp_path / "t.parquet")
    result = invoke("audit", table)
    assert result.code == 2
    assert "--truth FILE names its labels" in result.err
    assert invoke("audit", table, "--truth", data.top, "--features", table).code == 2
    other = Folders(tmp_path / "other", count=2)
    result = invoke("audit", other.top, "--features", table)
    assert result.code == 2
    assert "paths have to be the same" in result.err
    assert "no row of" in invoke("audit", table, "--truth", other.top).err
    assert invoke("audit", data.top, "--features", table, "-o", tmp_path).code == 2
