"""The package from Python: what it exports, and the two functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xcli
from tests.cli.conftest import save_photos


def test_every_public_name_is_there_and_lazy() -> None:
    code = (
        "import sys, xcli\n"
        "assert not {'numpy', 'tensorflow', 'click'} & set(sys.modules)\n"
        "print(all(getattr(xcli, name) is not None for name in xcli.__all__))\n"
        "print(sorted({'tensorflow', 'keras', 'numpy', 'pyarrow', 'PIL', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n[]\n"
    assert set(xcli.__all__) <= set(dir(xcli))
    with pytest.raises(AttributeError, match="nonsense"):
        xcli.nonsense  # noqa: B018


@pytest.fixture(scope="module")
def model() -> xcli.LoadedModel:
    return xcli.load_model(weights="none", include_top=False, image_size=71)


def test_extract_features(model: xcli.LoadedModel, tmp_path: Path) -> None:
    save_photos(tmp_path / "in", ["a.jpg", "b.jpg"])
    table = xcli.extract_features(str(tmp_path / "in"), model=model)
    assert isinstance(table, pa.Table)
    assert table.schema.field("features").type == pa.list_(pa.float32(), 2048)
    target = tmp_path / "x.parquet"
    report = xcli.extract_features([str(tmp_path / "in")], model=model, output=str(target))
    assert (report.listed, report.ok) == (2, 2)
    read = pq.read_table(target)
    assert read.to_pylist() == table.to_pylist()
    assert json.loads(read.schema.metadata[b"xception"])["model"]["sha256"] == "random-0"
    assert json.loads((tmp_path / "x.parquet.meta.json").read_text())["images"]["ok"] == 2
    with pytest.raises(xcli.XcliError, match="no sources"):
        xcli.extract_features([], model=model)
    with pytest.raises(xcli.XcliError, match="median"):
        xcli.extract_features(tmp_path / "in", model=model, pooling="median")
    with pytest.raises(xcli.XcliError, match="71 pixels"):
        xcli.extract_features(tmp_path / "in", model=model, preprocessing=xcli.Preprocessing(size=99))
    with pytest.raises(xcli.XcliError, match="exists"):
        xcli.extract_features([str(tmp_path / "in")], model=model, output=str(target))


def test_classify(tmp_path: Path) -> None:
    save_photos(tmp_path, ["a.jpg"])
    labels = tmp_path / "labels.json"
    labels.write_text('["cat", "dog"]')
    model = xcli.load_model(weights="none", labels=str(labels))
    table = xcli.classify([str(tmp_path / "a.jpg"), str(tmp_path / "gone.jpg")], model=model, top=1)
    assert table.schema.names == ["path", "status", "error", "label_1", "index_1", "score_1"]
    assert table["label_1"].to_pylist()[0] in ("cat", "dog")
    assert table["status"].to_pylist() == ["ok", "error"]
    with pytest.raises(xcli.XcliError, match="no classifier"):
        xcli.classify(str(tmp_path), model=xcli.load_model(weights="none", include_top=False))
