"""`xception finetune`, from the command line to the bundle."""

from __future__ import annotations

import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Invoke, Result, clean_environment
from tests.thorough import slow
from xcli.cli.training_progress import TrainingDisplay
from xcli.core.errors import UsageError
from xcli.images.preprocessing import Preprocessing, load_image
from xcli.sources.labelled import LabelledImages
from xcli.storage.local import LocalFile
from xcli.storage.locks import FileLock
from xcli.training.finetune import FineTuning

MODULE = importlib.import_module("xcli.cli.commands.finetune")  # the attribute of the package is the command
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
TRAINED = (
    "--views",
    "2",
    "--head-epochs",
    "3",
    "--epochs",
    "2",
    "--head-learning-rate",
    "0.01",
    "--precision",
    "float32",
)


def save_colours(root: Path, count: int, first: int = 0) -> Path:
    """Class folders of noisy colours; one in four is a PNG."""
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            random = np.random.default_rng([number, *colour])
            pixels = np.clip(random.normal(colour, 25, (8, 9, 3)), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).resize((90, 80), Image.Resampling.BICUBIC)
            image.save(root / label / f"{number}.{'png' if number % 4 == 3 else 'jpg'}")
    return root


@pytest.fixture(autouse=True)
def without_lasting_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Determinism of operations cannot be switched off again, and other tests of the process want none."""
    monkeypatch.setattr(MODULE, "_be_repeatable", lambda: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with a test part, a grey image, one that is none, and one that ends early."""
    root = tmp_path_factory.mktemp("data") / "photographs"
    train = save_colours(root / "train", 7)
    save_colours(root / "test", 2, first=50)
    Image.new("L", (80, 80), 200).save(train / "red" / "grey.png")
    (train / "green" / "notes.jpg").write_bytes(b"no image at all")
    whole = (train / "blue" / "0.jpg").read_bytes()
    (train / "blue" / "early.jpg").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def options(legacy_weights_file: str, large_files: Path) -> tuple[str, ...]:
    cache = str(large_files / "cache")
    return ("--weights", legacy_weights_file, "--image-size", "71", "--cache-dir", cache)


@pytest.fixture(scope="module")
def finished() -> dict[str, Any]:
    """The run that most tests look at; made by the first of them."""
    return {}


@pytest.fixture
def run(
    invoke: Invoke, data: Path, options: tuple[str, ...], large_files: Path, finished: dict[str, Any]
) -> tuple[Path, Result]:
    if not finished:
        folder = large_files / "RUN"
        finished["result"] = invoke("finetune", data, "-o", folder, *options, *TRAINED, "--val-split", "0.25")
        finished["folder"] = folder
    return finished["folder"], finished["result"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_bundle_and_a_report(run: tuple[Path, Result]) -> None:
    folder, result = run
    assert result.code == 4, result  # two images are none
    assert {path.name for path in folder.iterdir()} >= {
        *("model.keras", "labels.json", "run.json", "metrics.json", "history.csv", "history.png"),
        *("confusion_matrix.png", "predictions.csv", "mistakes.png", "split.csv"),
    }
    assert not folder.with_name("RUN.partial").exists()
    assert json.loads((folder / "labels.json").read_text()) == {"labels": ["blue", "green", "red"]}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "validation"
    assert metrics["n"] == 6
    assert metrics["top1"] > 0.5
    assert metrics["test"]["n"] == 6
    history = rows_of(folder / "history.csv")
    assert [(row["phase"], row["epoch"]) for row in history] == [
        *(("head", str(number)) for number in (1, 2, 3)),
        *(("blocks", str(number)) for number in (1, 2)),
    ]
    assert float(history[-1]["loss"]) < float(history[0]["loss"])


def test_every_image_is_accounted_for(run: tuple[Path, Result], data: Path) -> None:
    folder, result = run
    split = rows_of(folder / "split.csv")
    files = sorted(str(path) for path in data.rglob("*.*"))
    assert sorted(row["path"] for row in split) == files
    assert {row["label"] for row in split} == set(COLOURS)
    by_path = {row["path"]: row["split"] for row in split}
    assert all((by_path[name] == "test") == ("/test/" in name) for name in files)
    bad = {
        row["path"].rsplit("/", 1)[1]: row for row in rows_of(folder / "predictions.csv") if row["status"] == "error"
    }
    assert bad["notes.jpg"]["error"].startswith("not-an-image: ")
    assert bad["early.jpg"]["error"].startswith("truncated: ")
    assert len(bad) == 2
    assert "notes.jpg: not-an-image" in result.err
    assert json.loads((folder / "run.json").read_text())["unreadable"] == 2


def test_what_a_person_sees_on_a_pipe(run: tuple[Path, Result]) -> None:
    _, result = run
    assert "computing the activations of" in result.err
    assert "head 3/3" in result.err
    assert "blocks 2/2" in result.err
    assert "left at most" in result.err
    assert "2 left out" in result.err
    assert "the cache holds 0.00 GB in " in result.err
    lines = [" ".join(line.split()) for line in result.text.splitlines()]
    assert any(line.startswith("top-1 ") for line in lines)
    assert any(line.startswith("red ") for line in lines)


def test_classify_and_plain_keras_agree(run: tuple[Path, Result], invoke: Invoke, data: Path, keras: Any) -> None:
    folder, _ = run
    result = invoke("classify", data / "test", "--model", folder, "--top", "3")
    assert result.code == 0, result
    assert "assuming" not in result.err
    model = keras.models.load_model(folder / "model.keras")
    rows = list(csv.DictReader(result.text.splitlines()))
    images = np.stack([load_image(LocalFile(row["path"]), Preprocessing(size=71)) for row in rows])
    expected = model(images.astype(np.float32)).numpy()
    for row, scores in zip(rows, expected, strict=True):
        for place in (1, 2, 3):
            assert float(row[f"score_{place}"]) == pytest.approx(scores[int(row[f"index_{place}"])], abs=1e-4)


def test_the_kept_epoch_the_metrics_and_evaluate_agree(run: tuple[Path, Result], invoke: Invoke, scratch: Path) -> None:
    folder, result = run
    kept = json.loads((folder / "run.json").read_text())["kept"]
    history = rows_of(folder / "history.csv")
    (row,) = [row for row in history if (row["phase"], int(row["epoch"])) == (kept["phase"], kept["epoch"])]
    assert float(row["val_accuracy"]) == max(float(row["val_accuracy"]) for row in history)
    assert f"the model is that of epoch '{row['phase']} {row['epoch']}'" in result.err
    assert "not calibrated, which takes 50 validation images (there are 6)" in result.err
    metrics = json.loads((folder / "metrics.json").read_text())
    lines = [f"{one['path']},{one['label']}" for one in rows_of(folder / "split.csv") if one["split"] == "validation"]
    (scratch / "validation.csv").write_text("\n".join(["path,label", *lines]))
    again = invoke("evaluate", scratch / "validation.csv", "--model", folder, "--precision", "float32", "--json")
    assert again.code == 0, again
    found = json.loads(again.text)
    assert found["top1"] == metrics["top1"] == pytest.approx(float(row["val_accuracy"]), abs=1e-6)
    assert (found["n"], found["per_class"]) == (metrics["n"], metrics["per_class"])


def test_the_same_command_again_has_nothing_to_do(
    run: tuple[Path, Result], invoke: Invoke, data: Path, options: tuple[str, ...]
) -> None:
    folder, _ = run
    before = (folder / "model.keras").stat().st_mtime_ns
    partial = folder.with_name("RUN.partial")
    partial.mkdir()
    (partial / "finished.json").touch()  # left by a process that was killed when it had made RUN
    again = invoke("finetune", data, "-o", folder, *options, *TRAINED, "--val-split", "0.25")
    assert again.code == 0, again
    assert "nothing to do" in again.err
    assert not partial.exists()
    other = invoke("finetune", data, "-o", folder, *options, *TRAINED, "--val-split", "0.25", "--dropout", "0.4")
    assert other.code == 5, other
    assert "other settings or data; pass --overwrite" in other.err
    assert (folder / "model.keras").stat().st_mtime_ns == before


@slow
def test_interrupted_and_continued_it_ends_in_the_same_model(
    run: tuple[Path, Result],
    invoke: Invoke,
    data: Path,
    options: tuple[str, ...],
    scratch: Path,
    keras: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("finetune", data, "-o", scratch / "RUN", *options, *TRAINED, "--val-split", "0.25")

    def interrupt(self: TrainingDisplay, metrics: Any, phase: Any) -> None:
        if (metrics.phase, metrics.epoch) == ("blocks", 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "on_epoch_end", interrupt)
        stopped = invoke(*command)
    assert stopped.code == 130, stopped
    assert "continues from the last epoch" in stopped.err
    assert "2 of 2 sets of views were cached" in stopped.err
    assert not (scratch / "RUN").exists()
    other = invoke(*command, "--mixup", "0")
    assert other.code == 2, other
    assert "recipe.mixup" in other.err
    result = invoke(*command)
    assert result.code == 4, result
    assert "continuing: 1 epochs of the phase 'blocks'" in result.err
    models = [keras.models.load_model(folder / "model.keras") for folder in (run[0], scratch / "RUN")]
    for one, two in zip(*(model.get_weights() for model in models), strict=True):
        assert np.abs(one - two).max() < 1e-5


@slow
def test_from_a_bundle_with_other_classes_and_without_validation(
    run: tuple[Path, Result], invoke: Invoke, scratch: Path, tmp_path: Path
) -> None:
    data = save_colours(tmp_path / "data", 1)
    (data / "red").rename(data / "rouge")
    command = ("finetune", data, "-o", scratch / "RUN", "--model", run[0], "--unfreeze", "none", "--epochs", "1")
    refused = invoke(*command, "--cache-dir", tmp_path / "cache")
    assert refused.code == 2, refused
    assert "--val-split 0" in refused.err
    board = tmp_path / "board"
    rest = ("--cache-dir", tmp_path / "cache", "--val-split", "0", "--views", "1", "--tensorboard", board)
    result = invoke(*command, *rest)
    assert result.code == 0, result
    assert "it gets a new head" in result.err
    assert "these figures are of the training images" in result.err
    metrics = json.loads((scratch / "RUN" / "metrics.json").read_text())
    assert (metrics["split"], metrics["n"]) == ("train", 3)
    assert json.loads((scratch / "RUN" / "labels.json").read_text())["labels"] == ["blue", "green", "rouge"]
    (events,) = board.iterdir()
    assert b"head/loss" in events.read_bytes()
    assert re.search(r"\.[0-9a-f]{16}\.v2$", events.name), "in a shared directory nobody can plant a link of its name"


FAST = ("--weights", "none", "--image-size", "71")


@pytest.mark.parametrize(
    ("prepare", "args", "code", "match"),
    [
        (lambda root: (root / "a").mkdir(), (), 2, "empty class folders|no images of the class"),
        (lambda root: save_one(root / "a", 3), (), 2, "all images are of the one class 'a'"),
        (lambda root: save_colours(root, 2), ("--epochs", "0"), 2, "epochs"),
        (lambda root: save_colours(root, 2), ("--unfreeze", "block15"), 2, "block15"),
        (lambda root: save_colours(root, 2), ("--unfreeze", "none", "--head-epochs", "3"), 2, "give --epochs"),
        (lambda root: save_colours(root, 2), ("--cache-size", "0.00001"), 2, "--cache-size allows"),
        (lambda root: save_colours(root, 2), ("--device", "gpu:9"), 2, "GPU"),
        (lambda root: spoil(save_colours(root, 2) / "red"), ("--cache-size", "1"), 2, "no class|no training image of"),
    ],
)
def test_errors_come_before_any_training(
    invoke: Invoke, tmp_path: Path, prepare: Any, args: tuple[str, ...], code: int, match: str
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    prepare(root)
    result = invoke("finetune", root, "-o", tmp_path / "RUN", "--cache-dir", tmp_path / "cache", *FAST, *args)
    assert result.code == code, result
    assert any(one in result.err for one in match.split("|")), result
    assert "head 1/" not in result.err
    assert not (tmp_path / "RUN").exists()


def save_one(folder: Path, count: int) -> None:
    save_colours(folder.parent, count)
    (folder.parent / "red").rename(folder)
    for label in ("blue", "green"):
        for path in (folder.parent / label).iterdir():
            path.unlink()
        (folder.parent / label).rmdir()


def spoil(folder: Path) -> None:
    """Makes every image of a class one that cannot be decoded."""
    for path in folder.iterdir():
        path.write_bytes(b"not an image: " + path.name.encode())


@pytest.mark.parametrize(
    ("name", "match"), [("data/RUN", "is within the data"), ("no/RUN", "create it first"), ("file", "not a directory")]
)
def test_refuses_places_that_cannot_be_meant(invoke: Invoke, tmp_path: Path, name: str, match: str) -> None:
    save_colours(tmp_path / "data", 2)
    (tmp_path / "file").write_text("")
    result = invoke("finetune", tmp_path / "data", "-o", tmp_path / name, *FAST)
    assert result.code in (2, 5), result
    assert match in result.err


def test_two_processes_do_not_make_one_run(invoke: Invoke, tmp_path: Path) -> None:
    save_colours(tmp_path / "data", 2)
    (tmp_path / "RUN.partial").mkdir()
    with FileLock(tmp_path / "RUN.partial" / ".lock"):
        result = invoke("finetune", tmp_path / "data", "-o", tmp_path / "RUN", *FAST, "--cache-dir", tmp_path / "c")
    assert result.code == 5, result
    assert "is being written by process " in result.err


def test_a_directory_of_somebody_else_is_left_alone(invoke: Invoke, tmp_path: Path) -> None:
    save_colours(tmp_path / "data", 2)
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to("RUN")
    for name in ("RUN", "RUN/", "link", "RUN/letter.txt"):
        for more in ((), ("--overwrite",)):
            result = invoke("finetune", tmp_path / "data", "-o", f"{tmp_path}/{name}", *FAST, *more)
            assert result.code == 5, result
            assert "was not made by finetune" in result.err or "is not a directory" in result.err
    assert (tmp_path / "RUN" / "letter.txt").read_text() == "dear"


def test_help_and_usage_errors_import_no_heavy_library() -> None:
    script = (
        "import sys, runpy\n"
        "sys.argv = ['xception', 'finetune', '--help']\n"
        "import os\n"
        "leave = os._exit\n"
        "def look(code):\n"
        "    heavy = {'tensorflow', 'keras', 'numpy', 'pyarrow', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "    leave(99 if heavy else code)\n"
        "os._exit = look\n"
        "runpy.run_module('xcli', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=clean_environment(), check=False, timeout=60
    )
    assert done.returncode == 0, done
    assert b"--unfreeze" in done.stdout
    assert b"Seed of the split" in done.stdout


def test_images_of_findings_are_left_out(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save_colours(tmp_path / "data", 2)
    first = next(iter(sorted((data / "red").iterdir())))
    findings = tmp_path / "f.csv"
    findings.write_text(f"path,issue\n{first},tiny\n{data}/blue/{first.name},dark\n")
    seen: list[set[str]] = []

    def stop(images: LabelledImages, *_: object) -> None:
        seen.append({one.ref.path for one in images.samples})
        raise UsageError("far enough")

    monkeypatch.setattr(MODULE, "split_images", stop)
    common = ("finetune", data, "-o", tmp_path / "run")
    for options in ((), ("--exclude", findings), ("--exclude", findings, "--exclude-kinds", "tiny,blank")):
        assert "far enough" in invoke(*common, *options).err
    assert seen[0] - seen[1] == {str(first), f"{data}/blue/{first.name}"}
    assert seen[0] - seen[2] == {str(first)}
    assert "--exclude-kinds is for --exclude" in invoke(*common, "--exclude-kinds", "tiny").err


@pytest.mark.slow
def test_a_run_that_an_earlier_version_began_keeps_its_split(
    invoke: Invoke, tmp_path: Path, options: tuple[str, ...], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = save_colours(tmp_path / "photos", 6)
    half = Image.open(photos / "red" / "0.jpg")
    half.resize((60, 54)).save(photos / "red" / "half.jpg", quality=95)
    command = (
        "finetune",
        photos,
        "-o",
        scratch / "RUN",
        *options,
        "--unfreeze",
        "none",
        "--views",
        "1",
        "--epochs",
        "2",
    )

    def interrupt(self: TrainingDisplay, metrics: Any, phase: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "on_epoch_end", interrupt)
        patch.setattr(MODULE, "FineTuning", lambda *given: FineTuning(*given[:-1]))
        assert invoke(*command).code == 130
    result = invoke(*command)
    assert result.code == 0, result
    assert "are copies of others" not in result.err
    assert "copies" not in json.loads((scratch / "RUN" / "run.json").read_text())["settings"]
    assert "nothing to do" in invoke(*command).err
    anew = invoke(*command, "--overwrite")
    assert anew.code == 0, anew
    assert "of 19 images are copies of others" in anew.err
    assert "copies" in json.loads((scratch / "RUN" / "run.json").read_text())["settings"]
    assert "nothing to do" in invoke(*command).err
