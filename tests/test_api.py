"""The package from Python: what it exports, and the two functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

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


def test_images_in_memory_are_treated_as_files_are(model: xcli.LoadedModel, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 90, 120, 3), np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    options = xcli.RunOptions(batch_size=3, device="cpu")
    vectors = xcli.features(images, model=model, options=options)
    assert (vectors.shape, vectors.dtype) == ((3, 2048), np.float32)
    table = xcli.features(tmp_path, model=model, options=options)
    assert np.array_equal(np.stack(table["features"].to_pylist()).astype(np.float32), vectors)
    assert np.array_equal(xcli.features(list(images), model=model, options=options), vectors)
    maps = xcli.features(images[:1], model=model, pooling=None, dtype="float16")
    assert (maps.shape, maps.dtype) == ((1, 3, 3, 2048), np.float16)
    assert xcli.features(images[:0], model=model).shape == (0, 2048)
    for wrong in (images.astype(float), images[0], [images[0][..., :2]]):
        with pytest.raises(ValueError, match=r"an image in memory is an array of uint8\[height, width, 3\]; received"):
            xcli.features(wrong, model=model)


def test_classes_of_images_in_memory() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 120, 3), np.uint8)
    table = xcli.classify(images, weights="none", top=2)
    assert table.column_names == ["label_1", "index_1", "score_1", "label_2", "index_2", "score_2"]
    assert table.num_rows == 2


def test_errors_have_the_types_and_words_of_python(model: xcli.LoadedModel, tmp_path: Path) -> None:
    save_photos(tmp_path, ["a.jpg"])
    with pytest.raises(FileNotFoundError, match=r"no such file or directory: .*none") as missing:
        xcli.features(tmp_path / "none", model=model)
    assert isinstance(missing.value, xcli.XcliError)
    target = tmp_path / "x.parquet"
    xcli.features(tmp_path / "a.jpg", model=model, output=target)
    with pytest.raises(FileExistsError, match="pass overwrite=True to replace it"):
        xcli.features(tmp_path / "a.jpg", model=model, output=target)
    with pytest.raises(ValueError, match="use pooling avg"):
        xcli.features(tmp_path / "a.jpg", model=model, pooling=None, normalize=True)
    with pytest.raises(ValueError, match="the model is loaded already"):
        xcli.features(tmp_path / "a.jpg", model=model, weights="none")


def test_nothing_but_results_appears(tmp_path: Path) -> None:
    save_photos(tmp_path, ["a.jpg"])
    code = (
        "import sys, xcli\n"
        "model = xcli.load_model(weights='none', include_top=False, image_size=71)\n"
        f"print(xcli.features({str(tmp_path)!r}, model=model).num_rows)\n"
        "print('mine', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "mine\n")


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


def test_export(model: xcli.LoadedModel, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra [openvino] is not installed")
    out = tmp_path / "out"
    card = xcli.export(out, format="openvino", model=model, include_top=False, samples=3)
    assert card["comparison"]["lowest_cosine"] > 0.999999
    assert set(card["files"]) == {"model.xml", "model.bin"}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        xcli.export(out, format="openvino", model=model)
    with pytest.raises(ValueError, match="precision takes one of float32, float16 for format openvino"):
        xcli.export(tmp_path / "other", format="openvino", precision="bfloat16", model=model)
    with pytest.raises(ValueError, match="received preprocessing of 99"):
        xcli.export(tmp_path / "other", format="openvino", model=model, preprocessing=xcli.Preprocessing(size=99))


def test_images_of_findings_are_left_out(model: xcli.LoadedModel, tmp_path: Path) -> None:
    save_photos(tmp_path / "in", ["a.jpg", "b.jpg"])
    findings = tmp_path / "f.csv"
    findings.write_text(f"path,issue\n{tmp_path}/in/a.jpg,tiny\n")
    left = xcli.features(tmp_path / "in", model=model, exclude_from=findings, exclude_kinds=["tiny"])
    assert left["path"].to_pylist() == [f"{tmp_path}/in/b.jpg"]  # type: ignore[index, union-attr]
    assert xcli.features(tmp_path / "in", model=model, exclude_from=findings, exclude_kinds=["dark"]).num_rows == 2  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="images in memory have no paths"):
        xcli.features(np.zeros((1, 80, 80, 3), np.uint8), model=model, exclude_from=findings)
