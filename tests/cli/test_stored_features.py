"""`--from-features` of `classify` and `finetune`, from the command line, against the whole road over the pixels."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Invoke, Result, code_and_imports, save_photos
from tests.networks import SIZE
from xcli.images.preprocessing import Preprocessing
from xcli.models.bundle import build_model, write_bundle
from xcli.models.hdf5_weights import BIAS, KERNEL, Weights

NAMES = ("cat", "dog", "bird")


@pytest.fixture(scope="module")
def bundle(weights: Weights, large_files: Path) -> str:
    folder = large_files / "scored"
    folder.mkdir()
    trained = {**weights, KERNEL: weights[KERNEL][:, :3], BIAS: weights[BIAS][:3]}
    model = build_model(trained, 3, SIZE, (1 / 127.5, -1.0), 0.3)
    write_bundle(folder, model, NAMES, Preprocessing(size=SIZE), {"settings": {"precision": "float32"}})
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    save_photos(folder, [f"{number}.jpg" for number in range(9)])
    (folder / "4.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def tables(large_files: Path) -> dict[str, Any]:
    """What the first test has computed: tables of the whole road."""
    return {"folder": large_files / "tables"}


@pytest.fixture
def made(invoke: Invoke, bundle: str, pictures: Path, tables: dict[str, Any]) -> Path:
    """A directory with `whole.parquet`, all scores of the whole road, and tables of features by one network."""
    folder: Path = tables["folder"]
    if not folder.is_dir():
        folder.mkdir()
        both = ["--features-out", folder / "f32.parquet", "-o", folder / "whole.parquet", "--top", "3"]
        results = [invoke("classify", pictures, "--model", bundle, *both)]
        for name in ("f32.npy", "f16.parquet"):
            kind = "float16" if name.startswith("f16") else "float32"
            results.append(invoke("features", pictures, "--model", bundle, "--dtype", kind, "-o", folder / name))
        assert [one.code for one in results] == [4, 4, 4], results
    return folder


def scored(invoke: Invoke, bundle: str, *args: str | Path) -> Result:
    tables = [one for table in args[:1] for one in ("--from-features", table)]
    return invoke("classify", *tables, "--model", bundle, *args[1:])


def test_the_table_is_that_of_the_whole_road(invoke: Invoke, bundle: str, made: Path, tmp_path: Path) -> None:
    whole = pq.read_table(made / "whole.parquet")
    for name, most in (("f32.parquet", 1e-6), ("f32.npy", 1e-6), ("f16.parquet", 2e-3)):
        out = tmp_path / f"{name}.parquet"
        result = scored(invoke, bundle, made / name, "-o", out, "--top", "3")
        assert result.code == 4, result
        assert "9 images: 8 ok, 1 error" in result.err
        found = pq.read_table(out)
        assert found.schema.equals(whole.schema)
        for mine, theirs in zip(found.to_pylist(), whole.to_pylist(), strict=True):
            scores = [[row.pop(f"score_{k}") for k in (1, 2, 3)] for row in (mine, theirs)]
            assert mine == theirs
            if theirs["status"] == "ok":
                assert np.abs(np.subtract(*scores)).max() < most


def test_options_of_the_output_do_what_they_do_of_images(
    invoke: Invoke, bundle: str, made: Path, tmp_path: Path
) -> None:
    table = made / "f32.npy"
    out = tmp_path / "out.csv"
    options = ("--top", "1", "--min-score", "0.99", "--errors-out", tmp_path / "bad.txt", "--progress", "json")
    result = scored(invoke, bundle, table, "-o", out, "--json", *options)
    assert result.code == 4, result
    assert json.loads(result.text) == {"up_to_date": True, "rows": 9, "computed": 9, "errors": {"not-an-image": 1}}
    told = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    assert told[-1]["done"] == told[-1]["total"] == 9
    assert len(out.read_text().splitlines()) == 10
    assert "4.jpg" in (tmp_path / "bad.txt").read_text()
    again = scored(invoke, bundle, table, "-o", out, "--json", *options)
    assert "is finished and up to date" in again.err
    assert json.loads(again.text)["up_to_date"]
    other = scored(invoke, bundle, table, "-o", out, "--top", "2")
    assert other.code == 5, other
    lines = scored(invoke, bundle, table, "--format", "jsonl", "--limit", "2").text.splitlines()
    assert [json.loads(line)["predictions"][0]["label"] in NAMES for line in lines] == [True, True]
    parts = scored(invoke, bundle, table, "-o", f"{tmp_path}/parts/", "--shard", "1/2", "--part-rows", "3")
    assert parts.code in (0, 4), parts


def test_features_in_int8_are_scored_as_any_others(invoke: Invoke, bundle: str, made: Path, tmp_path: Path) -> None:
    table, plain, out = tmp_path / "int8.npy", tmp_path / "plain.csv", tmp_path / "int8.csv"
    for name in os.listdir(made):
        if name.startswith("f32."):
            shutil.copy(made / name, tmp_path / name.replace("f32", "int8"))
    meta = Path(f"{table}.meta.json")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"precision": "int8"}))
    refused = scored(invoke, bundle, table)
    assert (refused.code, "--engine openvino --precision int8" in refused.err) == (3, True)
    assert scored(invoke, bundle, made / "f32.npy", "-o", plain).code == 4
    result = scored(invoke, bundle, table, "--precision", "int8", "-o", out)
    assert result.code == 4, result
    assert out.read_bytes() == plain.read_bytes()


def test_another_name_for_a_class(invoke: Invoke, bundle: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Katze\nHund\nVogel\n")
    result = scored(invoke, bundle, made / "f32.npy", "--labels", tmp_path / "names.txt", "--top", "1")
    assert {line.split(",")[3] for line in result.text.splitlines()[1:]} <= {"Katze", "Hund", "Vogel", ""}


def test_neither_tensorflow_nor_keras_is_imported(bundle: str, made: Path, tmp_path: Path) -> None:
    args = ["classify", "--from-features", str(made / "f32.npy"), "--model", bundle, "-o", str(tmp_path / "out.csv")]
    assert code_and_imports(args) == "IMPORTED 4 []"
    assert code_and_imports(args) == "IMPORTED 4 []"  # which compares the finished table


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("photos",), "both --from-features and 'photos' were given: give tables, or images"),
        (("--weights", "imagenet"), "--weights is for images, and --from-features takes tables of features"),
        (("--resize", "pad"), "--resize is for images"),
        (("--features-out", "f.npy"), "--features-out is for images"),
        (("--update", "-o", "x.csv"), "--update is for images"),
        (("--runner", "ray"), "--runner is for images"),
        (("--include", "*.jpg"), "--include is for images"),
        (("--batch-size", "3"), "--batch-size is for images"),
    ],
)
def test_what_is_for_images_is_refused_by_name(invoke: Invoke, args: tuple[str, ...], message: str) -> None:
    result = scored(invoke, "RUN", "t.parquet", *args)
    assert result.code == 2, result
    assert message in result.err


def test_a_head_and_a_table_are_needed(invoke: Invoke, bundle: str, made: Path, tmp_path: Path) -> None:
    table = made / "f32.npy"
    assert "--from-features needs the head that scores them" in invoke("classify", "--from-features", table).err
    nowhere = scored(invoke, str(tmp_path / "nowhere"), table)
    assert (nowhere.code, "does not exist; --from-features takes a directory" in nowhere.err) == (3, True)
    missing = scored(invoke, bundle, tmp_path / "no.npy")
    assert missing.code == 2, missing
    linked = tmp_path / "link.npy"
    linked.symlink_to(table)
    same = scored(invoke, bundle, table, "-o", linked, "--overwrite")
    assert (same.code, "is the table of features and the output at once" in same.err) == (2, True)


@pytest.mark.slow
def test_features_of_another_network_are_refused(invoke: Invoke, bundle: str, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.npy"
    small = ("--weights", "none", "--image-size", str(SIZE))
    assert invoke("features", pictures, *small, "-o", other).code == 4
    result = scored(invoke, bundle, other)
    assert result.code == 3, result
    assert "was computed by" in result.err
    assert f"Compute the features with features --model {bundle}" in result.err
    squashed = tmp_path / "squashed.npy"
    assert invoke("features", pictures, "--model", bundle, "--resize", "squash", "-o", squashed).code == 4
    assert "prepared with --resize squash, those of the bundle with crop" in scored(invoke, bundle, squashed).err


def test_a_variable_for_images_is_set_aside(
    invoke: Invoke, bundle: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XCEPTION_CLASSIFY_RESIZE", "pad")
    monkeypatch.setenv("XCEPTION_CLASSIFY_BATCH_SIZE", "7")
    assert scored(invoke, bundle, made / "f32.npy").code == 4


@pytest.fixture
def truth(pictures: Path, tmp_path: Path) -> Path:
    lines = [f"{pictures}/{number}.jpg,{'odd' if number % 2 else 'even'}" for number in range(9)]
    file = tmp_path / "truth.csv"
    file.write_text("\n".join(["path,label", *lines]) + "\n")
    return file


def trained(invoke: Invoke, table: Path, truth: Path, run: Path, *more: str | Path) -> Result:
    return invoke("finetune", "--from-features", table, "--truth", truth, "-o", run, *more)


def test_a_head_that_was_trained_on_a_table_takes_pixels_too(
    invoke: Invoke, made: Path, pictures: Path, truth: Path, scratch: Path
) -> None:
    run = scratch / "RUN"
    result = trained(invoke, made / "f32.npy", truth, run, "--val-split", "0.3")
    assert result.code == 4, result  # one picture is none
    assert "left out: " in result.err
    assert {path.name for path in run.iterdir()} >= {
        *("model.keras", "labels.json", "run.json", "metrics.json", "per_class.csv", "confusion_matrix.csv"),
        *("confusion_matrix.png", "predictions.csv", "mistakes.png", "split.csv", "regularisation.csv"),
    }
    assert not run.with_name("RUN.partial").exists()
    record = json.loads((run / "run.json").read_text())
    assert record["images"]["validation"] in (2, 3)
    assert sum(record["images"].values()) == 9
    assert record["settings"]["precision"] == "float32"
    assert (record["unreadable"], record["preprocessing"]["size"]) == (1, SIZE)
    for name, more in (("whole", (pictures,)), ("stored", ("--from-features", made / "f32.npy"))):
        out = scratch / f"{name}.parquet"
        assert invoke("classify", *more, "--model", run, "-o", out).code == 4
    whole, stored = (pq.read_table(scratch / f"{name}.parquet") for name in ("whole", "stored"))
    assert whole.drop(["score_1", "score_2"]).equals(stored.drop(["score_1", "score_2"]))
    scores = [np.array(one["score_1"].drop_null()) for one in (whole, stored)]
    assert np.abs(np.subtract(*scores)).max() < 1e-6
    again = trained(invoke, made / "f32.npy", truth, run, "--val-split", "0.3")
    assert (again.code, "with the same data and settings; nothing to do" in again.err) == (0, True)
    other = trained(invoke, made / "f32.npy", truth, run, "--val-split", "0.2")
    assert (other.code, "pass --overwrite" in other.err) == (5, True)
    assert invoke("report", run, "-o", scratch / "page.html").code == 0


@pytest.mark.slow
def test_a_training_that_was_interrupted_begins_again(
    invoke: Invoke, made: Path, truth: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    run = scratch / "RUN"
    with monkeypatch.context() as patch:
        patch.setattr("xcli.training.run_result.write_bundle", stop)
        assert trained(invoke, made / "f32.npy", truth, run).code == 130
    assert (scratch / "RUN.partial").is_dir()
    other = trained(invoke, made / "f32.npy", truth, run, "--seed", "5")
    assert (other.code, "unfinished run with other settings" in other.err) == (2, True)
    assert trained(invoke, made / "f32.npy", truth, run).code == 4
    assert not (scratch / "RUN.partial").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--from-features", "t.npy"), "--from-features needs the classes: --truth FILE"),
        (("--from-features", "t.npy", "photos", "--truth", "t.csv"), "both --from-features and 'photos' were given"),
        (("--from-features", "t.npy", "--truth", "t.csv", "--unfreeze", "all"), "--unfreeze is for images"),
        (("--from-features", "t.npy", "--truth", "t.csv", "--epochs", "3"), "--epochs is for images"),
        (("--from-features", "t.npy", "--truth", "t.csv", "--resize", "pad"), "--resize is for images"),
        (
            ("--from-features", "t.npy", "--truth", "t.csv", "--exclude-kinds", "tiny"),
            "--exclude-kinds is for --exclude",
        ),
        (("photos", "--truth", "t.csv"), "--truth goes with --from-features"),
        ((), "give DATA, labelled images, or tables of features"),
    ],
)
def test_options_of_a_training_that_do_not_go_together(
    invoke: Invoke, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    result = invoke("finetune", *args, "-o", tmp_path / "RUN")
    assert result.code == 2, result
    assert message in result.err


def test_another_network_than_that_of_the_features_is_refused(
    invoke: Invoke, made: Path, truth: Path, legacy_weights_file: str, tmp_path: Path
) -> None:
    result = trained(invoke, made / "f32.npy", truth, tmp_path / "RUN", "--weights", legacy_weights_file)
    assert result.code == 3, result
    assert "were computed with" in result.err


def test_rows_of_findings_are_left_out(invoke: Invoke, bundle: str, made: Path, pictures: Path, tmp_path: Path) -> None:
    findings, out = tmp_path / "f.csv", tmp_path / "s.csv"
    findings.write_text(f"path\n{pictures}/2.jpg\n")
    result = scored(invoke, bundle, made / "f32.parquet", "-o", out, "--exclude-from", findings)
    assert result.code == 4, result
    assert "8 images: 7 ok, 1 error (1 not-an-image), 1 skipped (1 excluded by findings)" in result.err
    assert f"{pictures}/2.jpg" not in out.read_text()
