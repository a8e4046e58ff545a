"""`--engine openvino`: the rows of TensorFlow, without importing it where the compiled model is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import code_and_imports, save_photos
from tests.thorough import slow
from xcli.core.errors import ExitCode
from xcli.images.preprocessing import Preprocessing
from xcli.models.bundle import build_model, write_bundle
from xcli.models.hdf5_weights import random_weights

if TYPE_CHECKING:
    from tests.cli.conftest import Invoke

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")

MODEL = ("--weights", "none", "--image-size", "71", "--batch-size", "2")
OPENVINO = ("--engine", "openvino")


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def _own_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))


def vectors(file: Path) -> np.ndarray:
    column = pq.read_table(file)["features"].combine_chunks()
    return column.values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def test_the_rows_are_those_of_tensorflow(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "openvino.parquet", tmp_path / "tensorflow.parquet"
    for file, engine in ((ours, "openvino"), (theirs, "auto")):
        result = invoke("features", photos, *MODEL, "--engine", engine, "-o", file)
        assert result.code == ExitCode.OK, result.err
    found, expected = pq.read_table(ours), pq.read_table(theirs)
    assert found.schema == expected.schema
    assert found["path"] == expected["path"]
    assert np.abs(vectors(ours) - vectors(theirs)).max() < 1e-5
    assert not np.array_equal(vectors(ours), vectors(theirs))
    meta, other = (json.loads(Path(f"{file}.meta.json").read_text()) for file in (ours, theirs))
    assert meta["engine"] == "openvino"
    assert meta["versions"]["openvino"]
    assert "engine" not in other
    assert "openvino" not in other["versions"]
    assert invoke("verify", ours, photos).code == ExitCode.OK


def test_with_a_kept_model_tensorflow_is_not_imported(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    command = ("features", str(photos), *MODEL, *OPENVINO, "-o")
    first = invoke(*command, tmp_path / "first.csv")
    assert first.code == ExitCode.OK, first.err
    assert code_and_imports([*command, str(tmp_path / "second.csv")]) == "IMPORTED 0 []"
    assert (tmp_path / "second.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()


@slow
@pytest.mark.parametrize("kind", ["bundle", "file"])
def test_nor_for_models_of_keras(kind: str, invoke: Invoke, photos: Path, tmp_path: Path, nested_file: str) -> None:
    model = nested_file
    if kind == "bundle":
        model = str(tmp_path / "run")
        network = build_model(random_weights(include_top=True, classes=2, seed=1), 2, 71, (1 / 127.5, -1.0), 0.2)
        Path(model).mkdir()
        write_bundle(model, network, ("cat", "dog"), Preprocessing(size=71), {})
    command = ("classify", str(photos), "--model", model, "--batch-size", "2", *OPENVINO, "-o")
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    ran = invoke(*command, first)
    assert ran.code == ExitCode.OK, ran.err
    assert code_and_imports([*command, str(second)]) == "IMPORTED 0 []"
    assert second.read_bytes() == first.read_bytes()
    assert code_and_imports([*command, str(first)]) == "IMPORTED 0 []"  # it is up to date


def test_a_run_is_not_continued_with_another_engine(invoke: Invoke, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out.csv"
    save_photos(photos, [f"{number}.jpg" for number in range(6)])
    whole = tmp_path / "whole.csv"
    assert invoke("features", photos, *MODEL, *OPENVINO, "-o", whole).code == ExitCode.OK
    good = (photos / "4.jpg").read_bytes()
    (photos / "4.jpg").write_bytes(b"no image")
    command = ("features", photos, *MODEL, "--part-rows", "2", "-o", out)
    stopped = invoke(*command, *OPENVINO, "--max-errors", "0")
    assert stopped.code == ExitCode.ROW_ERRORS
    (photos / "4.jpg").write_bytes(good)
    refused = invoke(*command)
    assert refused.code == ExitCode.OUTPUT
    assert "--engine openvino" in refused.err
    assert "but this run has no --engine" in refused.err
    assert invoke(*command, *OPENVINO).code == ExitCode.OK
    assert out.read_bytes() == whole.read_bytes()


def test_a_finished_output_is_up_to_date_only_with_its_engine(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    command = ("features", photos, *MODEL, "-o", tmp_path / "out.csv")
    assert invoke(*command, *OPENVINO).code == ExitCode.OK
    assert "is finished and up to date" in invoke(*command, *OPENVINO).err
    assert invoke(*command).code == ExitCode.OUTPUT


def test_shards_of_two_engines_are_not_merged(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    shards = []
    for number, engine in ((1, "openvino"), (2, "tensorflow")):
        shards.append(tmp_path / f"{number}.csv")
        command = ("features", photos, *MODEL, "--engine", engine, "--shard", f"{number}/2", "-o", shards[-1])
        assert invoke(*command).code == ExitCode.OK
    result = invoke("merge", *shards, "-o", tmp_path / "all.csv")
    assert result.code == ExitCode.CHECK
    assert "engine is" in result.err


def test_classify_and_evaluate(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    for name, image in (("cat", "a.jpg"), ("dog", "d.jpg")):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(photos / image, tmp_path / "data" / name)
    model = ("--weights", "none", "--classes", "2", "--labels", labels, "--batch-size", "2")
    tables, figures = [], []
    for engine in ("openvino", "tensorflow"):
        result = invoke("classify", photos / "a.jpg", photos / "d.jpg", *model, "--engine", engine, "--format", "jsonl")
        assert result.code == ExitCode.OK, result.err
        tables.append([json.loads(line)["predictions"] for line in result.text.splitlines()])
        result = invoke("evaluate", tmp_path / "data", *model, "--engine", engine, "--json")
        assert result.code == ExitCode.OK, result.err
        figures.append(json.loads(result.text))
    for one, other in zip(*tables, strict=True):
        assert [guess["label"] for guess in one] == [guess["label"] for guess in other]
        assert one[0]["score"] == pytest.approx(other[0]["score"], abs=1e-5)
    assert figures[0]["top1"] == figures[1]["top1"]


@slow
def test_search_embeds_images_with_it(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    table, other = tmp_path / "table.parquet", tmp_path / "other.jpg"
    assert invoke("features", photos, *MODEL, *OPENVINO, "-o", table).code == ExitCode.OK
    shutil.copy(photos / "a.jpg", other)
    command = ["search", str(table), str(other), *OPENVINO, "--format", "csv", "-o", str(tmp_path / "answers.csv")]
    assert invoke(*command).code == ExitCode.OK
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert answers[1].endswith("a.jpg,1")
    assert code_and_imports([*command, "--overwrite"]) == "IMPORTED 0 []"


@slow
def test_finetune_computes_the_frozen_part_with_it(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save_photos(tmp_path / "data" / name, [f"{number}.jpg" for number in range(6)])
    command = ("finetune", tmp_path / "data", "-o", tmp_path / "run", "--unfreeze", "none", "--epochs", "1")
    command += ("--weights", "none", "--image-size", "71", "--cache-dir", tmp_path / "cache", "--precision", "float32")
    refused = invoke(*command, *OPENVINO, "--device", "gpu")
    assert refused.code == ExitCode.USAGE
    assert "--engine openvino computes on the CPU; received --device gpu" in refused.err
    result = invoke(*command, *OPENVINO)
    assert result.code == ExitCode.OK, result.err
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["engine"], "openvino" in settings["versions"]) == ("openvino", True)
    assert "nothing to do" in invoke(*command, *OPENVINO).err
    assert invoke(*command).code == ExitCode.OUTPUT


def test_what_it_cannot_do_is_refused(invoke: Invoke, photos: Path) -> None:
    result = invoke("features", photos, *MODEL, *OPENVINO, "--device", "gpu")
    assert result.code == ExitCode.USAGE
    assert "--engine openvino computes on the CPU; received --device gpu" in result.err
    result = invoke("features", photos, *MODEL, *OPENVINO, "--precision", "float16")
    assert result.code == ExitCode.USAGE
    assert "--precision float16 is for GPUs" in result.err
