"""`xception evaluate`, from the command line to the files."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, clean_environment, save_photos
from tests.colournet import colour_model, save_folders
from xcli.evaluation.report import REPORT_FILES
from xcli.models.spec import ModelSpec

MODULE = importlib.import_module("xcli.cli.commands.evaluate")  # the attribute of the package is the command


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> list[ModelSpec]:
    """Has the command load the model of colours, whatever it is asked for; returns what it was asked for."""
    asked: list[ModelSpec] = []

    def load(spec: ModelSpec) -> object:
        asked.append(spec)
        return colour_model()

    monkeypatch.setattr(MODULE, "load_model", load)
    return asked


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with twelve images, of which the model knows eleven."""
    return save_folders(tmp_path_factory.mktemp("colours") / "data")


def test_the_terminal(invoke: Invoke, data: Path, colours: list[ModelSpec]) -> None:
    result = invoke("evaluate", data, "--model", "RUN")
    assert result.code == 0, result
    assert colours == [ModelSpec(model="RUN")]
    lines = [" ".join(line.split()) for line in result.text.splitlines()]
    assert "images 12" in lines
    assert "top-1 0.9167" in lines
    assert "macro average precision 0.9333, recall 0.9167, F1 0.9153" in lines
    assert "green 1.000 0.750 0.857 4" in lines
    assert "12 images: 12 ok in " in result.err
    assert "images/s" in result.err


def test_json(invoke: Invoke, data: Path, colours: list[ModelSpec]) -> None:
    result = invoke("evaluate", data, "--model", "RUN", "--json", "--batch-size", "5")
    numbers = json.loads(result.out)
    assert set(numbers) == {"top1", "top5", "n", "errors", "macro", "weighted", "ece", "per_class"}
    assert (numbers["top1"], numbers["n"], numbers["errors"]) == (pytest.approx(11 / 12), 12, 0)
    assert [one["label"] for one in numbers["per_class"]] == ["blue", "green", "red"]
    assert [one["index"] for one in numbers["per_class"]] == [0, 1, 2]


def test_the_report(invoke: Invoke, data: Path, colours: list[ModelSpec], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    first = invoke("evaluate", data, "--model", "RUN", "-o", folder, "--json")
    assert first.code == 0, first
    assert sorted(os.listdir(folder)) == sorted(REPORT_FILES)
    numbers = json.loads((folder / "metrics.json").read_text())
    assert {key: numbers[key] for key in json.loads(first.out)} == json.loads(first.out)
    assert numbers["split"] == "all"
    assert numbers["provenance"]["tool"]["command"] == "evaluate"
    refused = invoke("evaluate", data, "--model", "RUN", "-o", folder)
    assert refused.code == 5
    assert "not empty" in refused.err
    assert len(colours) == 1, "found out before the model was loaded"
    before = (folder / "predictions.csv").read_bytes()
    assert invoke("evaluate", data, "--model", "RUN", "-o", folder, "--overwrite").code == 0
    assert (folder / "predictions.csv").read_bytes() == before


def test_a_report_among_the_data_is_refused(invoke: Invoke, data: Path, colours: list[ModelSpec]) -> None:
    result = invoke("evaluate", data, "--model", "RUN", "-o", data / "report")
    assert result.code == 2
    assert "would be a class next time" in result.err
    assert not (data / "report").exists()


@pytest.mark.parametrize(("wanted", "code"), [("0.9", 0), ("0.92", 6), ("1", 6), ("0", 0)])
def test_assert_top1(invoke: Invoke, data: Path, colours: list[ModelSpec], wanted: str, code: int) -> None:
    result = invoke("evaluate", data, "--model", "RUN", "--assert-top1", wanted, "-q")
    assert result.code == code
    errors = result.err.splitlines()
    assert errors == (
        [] if code == 0 else [f"xception: error: the top-1 accuracy is 0.916667, below --assert-top1 {wanted}"]
    )


def test_broken_images(invoke: Invoke, colours: list[ModelSpec], tmp_path: Path) -> None:
    top = save_folders(tmp_path / "data", count=2)
    (top / "red" / "broken.png").write_bytes(b"x")
    result = invoke("evaluate", top, "--model", "RUN", "--json", "-o", tmp_path / "report")
    assert result.code == 4
    assert (json.loads(result.out)["n"], json.loads(result.out)["errors"]) == (6, 1)
    assert "7 images: 6 ok, 1 error (1 not-an-image)" in result.err
    assert len((tmp_path / "report" / "predictions.csv").read_text().splitlines()) == 8
    assert invoke("evaluate", top, "--model", "RUN", "--assert-top1", "0.99").code == 6


def test_nothing_but_broken_images(invoke: Invoke, colours: list[ModelSpec], tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "x.png").touch()
    result = invoke("evaluate", tmp_path, "--model", "RUN")
    assert result.code == 4
    assert "top-1 none" in " ".join(result.text.split())
    result = invoke("evaluate", tmp_path, "--model", "RUN", "--assert-top1", "0")
    assert result.code == 6
    assert "there is no top-1 accuracy" in result.err


def test_splits(invoke: Invoke, colours: list[ModelSpec], tmp_path: Path) -> None:
    save_folders(tmp_path / "train", count=3)
    save_folders(tmp_path / "val", count=2)
    counts = {}
    for split in (None, "train", "validation", "all"):
        chosen = () if split is None else ("--split", split)
        result = invoke("evaluate", tmp_path, "--model", "RUN", "--json", *chosen)
        counts[split] = json.loads(result.out)["n"]
        assert ("taking the validation split" in result.err) == (split is None)
    assert counts == {None: 6, "train": 9, "validation": 6, "all": 15}
    result = invoke("evaluate", tmp_path, "--model", "RUN", "--split", "test")
    assert result.code == 2
    assert "no such split (they have train, validation)" in result.err


def test_a_manifest(invoke: Invoke, data: Path, colours: list[ModelSpec], tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"file,kind\n{data}/red/0.png,Red\n{data}/blue/0.png,Red\n{data}/gone.png,green\n")
    options = ("--path-column", "file", "--label-column", "kind", "--json")
    result = invoke("evaluate", manifest, "--model", "RUN", *options)
    assert result.code == 4
    numbers = json.loads(result.out)
    assert (numbers["top1"], numbers["n"], numbers["errors"]) == (0.5, 2, 1)
    assert numbers["per_class"][2]["support"] == 2
    result = invoke("evaluate", manifest, "--model", "RUN")
    assert result.code == 2
    assert "--path-column" in result.err


def test_unknown_folders_are_all_listed(invoke: Invoke, colours: list[ModelSpec], tmp_path: Path) -> None:
    for name in ("pink", "red", "mauve"):
        save_photos(tmp_path / name, ["x.jpg"])
    result = invoke("evaluate", tmp_path, "--model", "RUN")
    assert result.code == 2
    assert "mauve, pink are 2 names that are no classes of the model" in result.err
    assert "blue, green, red" in result.err
    assert result.out == b""


def test_wrong_data_are_found_before_the_model_is_loaded(
    invoke: Invoke, colours: list[ModelSpec], tmp_path: Path
) -> None:
    save_photos(tmp_path, ["x.jpg"])
    for source in (tmp_path, tmp_path / "x.jpg", tmp_path / "nothing"):
        result = invoke("evaluate", source, "--model", "RUN")
        assert result.code == 2, result
    assert colours == []


def test_many_classes_show_the_worst(
    invoke: Invoke, data: Path, colours: list[ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "MAX_CLASSES", 2)
    monkeypatch.setattr(MODULE, "WORST", 1)
    lines = [" ".join(line.split()) for line in invoke("evaluate", data, "--model", "RUN").text.splitlines()]
    assert "green 1.000 0.750 0.857 4" in lines
    assert not any(line.startswith(("red ", "blue ")) for line in lines)
    assert "The 1 worst of 3 classes by F1; -o DIR and --json have them all." in lines


def test_profile(invoke: Invoke, data: Path, colours: list[ModelSpec]) -> None:
    result = invoke("evaluate", data, "--model", "RUN", "--profile")
    assert "where the time went" in result.err


def test_the_network_itself_by_wnid_and_name(invoke: Invoke, tmp_path: Path) -> None:
    for name in ("n01440764", "goldfish"):
        save_photos(tmp_path / name, ["x.jpg"])
    result = invoke("evaluate", tmp_path, "--weights", "none", "--json")
    assert result.code == 0, result
    numbers = json.loads(result.out)
    assert [one["support"] for one in numbers["per_class"][:3]] == [1, 1, 0]
    assert len(numbers["per_class"]) == 1000
    save_photos(tmp_path / "crane", ["x.jpg"])
    result = invoke("evaluate", tmp_path, "--weights", "none", "--json")
    assert result.code == 2
    assert "use the wnid instead: n02012849" in result.err


def test_usage_errors_and_help_need_no_libraries() -> None:
    heavy = "tensorflow", "keras", "numpy", "pyarrow", "PIL", "matplotlib"
    program = (
        "import sys\nfrom xcli.cli.main import run_command\nfrom xcli.cli.verbosity import Messages\n"
        f"code = run_command(Messages())\nfound = [name for name in {heavy!r} if name in sys.modules]\n"
        "print(code, found, file=sys.stderr)"
    )
    for args, code in ((["--help"], 0), ([], 2), (["x", "--split", "dev"], 2), (["/nowhere/at/all"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", program, "evaluate", *args], capture_output=True, env=clean_environment(), check=True
        )
        assert done.stderr.decode().splitlines()[-1] == f"{code} []", done


def test_images_of_findings_are_left_out(invoke: Invoke, data: Path, colours: list[ModelSpec], tmp_path: Path) -> None:
    findings = tmp_path / "f.csv"
    excluded = sorted((data / "red").iterdir())
    findings.write_text("path,keep\n" + "".join(f"{one},false\n" for one in excluded))
    result = invoke("evaluate", data, "--model", "RUN", "--json", "--exclude-from", findings)
    assert json.loads(result.out)["n"] == 12 - len(excluded), result
    assert f"{len(excluded)} skipped ({len(excluded)} excluded by findings)" in result.err
    findings.write_text("path\nred/1.png\n")
    result = invoke("evaluate", data, "--model", "RUN", "--exclude-from", findings)
    assert (result.code, "paths have to be the same" in result.err) == (2, True), result
