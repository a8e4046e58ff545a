"""`xception info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from xcli.models.architecture import layers


def report(invoke: Invoke, *args: str | Path, code: int = 0) -> dict:
    result = invoke("info", "--json", *args)
    assert result.code == code, result
    return json.loads(result.text)


def test_the_network(invoke: Invoke) -> None:
    model = report(invoke)["model"]
    assert model["parameters"] == 22_910_480
    assert model["input_shape"] == [299, 299, 3]
    assert model["output_shape"] == [1000]
    assert 8.3e9 < model["multiply_adds"] < 8.4e9


@pytest.mark.parametrize(
    ("args", "parameters", "shape"),
    [
        (["--no-include-top"], 20_861_480, [10, 10, 2048]),
        (["--no-include-top", "--pooling", "max", "--image-size", "150"], 20_861_480, [2048]),
        (["--no-include-top", "--image-size", "71"], 20_861_480, [3, 3, 2048]),
        (["--weights", "none", "--classes", "10"], 20_861_480 + 20_490, [10]),
    ],
    ids=str,
)
def test_the_network_as_asked_for(invoke: Invoke, args: list[str], parameters: int, shape: list[int]) -> None:
    model = report(invoke, *args)["model"]
    assert (model["parameters"], model["output_shape"]) == (parameters, shape)
    if "--image-size" in args:
        side = int(args[args.index("--image-size") + 1])
        assert model["input_shape"] == [side, side, 3]


@pytest.mark.parametrize(
    "args", [["--pooling", "avg"], ["--no-include-top", "--classes", "5"], ["--image-size", "300"], ["--classes", "5"]]
)
def test_what_the_documentation_forbids(invoke: Invoke, args: list[str]) -> None:
    assert invoke("info", *args).code == 2


def test_layers_are_those_that_features_takes(invoke: Invoke) -> None:
    listed = [layer["name"] for layer in report(invoke)["model"]["layers"]]
    assert listed == [layer.name for layer in layers()] + ["avg_pool", "predictions"]
    text = invoke("info", "--layers").text
    for name in listed:
        assert f"\n{name} " in text


def test_weights_and_where_they_are(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    weights = report(invoke)["weights"]
    assert {place["state"] for place in weights["places"]} == {"absent"}
    assert "not here yet" in invoke("info").text
    name = "xception_weights_tf_dim_ordering_tf_kernels.h5"
    (tmp_path / name).write_bytes(b"not weights")
    weights = report(invoke, "--weights-dir", tmp_path)["weights"]
    assert [place["state"] for place in weights["places"] if place["path"] == str(tmp_path / name)] == ["wrong digest"]
    assert "wrong digest" in invoke("info", "--weights-dir", tmp_path).text
    assert invoke("info", "--weights", tmp_path / name).code == 3


def test_the_labels_decide_the_classes(invoke: Invoke, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nbird\n")
    assert report(invoke, "--weights", "none", "--labels", labels)["model"]["output_shape"] == [3]
    assert invoke("info", "--weights", "none", "--labels", tmp_path / "no-such.txt").code == 3


def test_names_are_not_markup(invoke: Invoke, tmp_path: Path) -> None:
    bad = tmp_path / "[red]bad[ x].jpg"
    bad.touch()
    result = invoke("info", "--weights", "none", bad)
    assert result.code == 4
    assert f"{bad}: " in result.text


def test_preflight(invoke: Invoke, photos: Path, tmp_path: Path) -> None:
    sources = report(invoke, photos)["sources"]
    assert (sources["listed"], sources["failed"], sources["formats"]) == (5, 0, {"JPEG": 5})
    assert sources["widths"] == [96, 96, 96]
    assert sources["skipped"] == {"hidden": 1, "not an image": 1}
    bad = tmp_path / "bad\x1b[31m.png"
    bad.write_bytes(b"text")
    sources = report(invoke, photos, bad, code=4)["sources"]
    assert sources["errors"] == {"not-an-image": 1}
    result = invoke("info", photos, bad)
    assert result.code == 4
    lines = result.text.splitlines()
    assert lines[0].startswith(f"sources    {photos}, ")
    assert lines[1].startswith("images     6 images, ")
    assert "unreadable 1 (1 not-an-image)" in lines
    assert "\x1b" not in result.text, "a file name must not drive the terminal"


def test_the_directory_comes_first_even_if_there_is_no_model(invoke: Invoke, photos: Path) -> None:
    result = invoke("info", photos, "--weights", photos / "no-such.h5")
    assert result.code == 3
    assert result.text.startswith(f"sources {photos}\nimages  5 images, ")
