"""`xception export`: what it writes runs in the runtime of its format, without TensorFlow, and computes the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import clean_environment, code_and_imports
from tests.networks import SIZE
from tests.thorough import slow
from xcli.core.errors import ExitCode
from xcli.images.preprocessing import Preprocessing
from xcli.inference.engines.tensorflow import Engine
from xcli.inference.export_samples import made_pixels
from xcli.models.bundle import build_model, write_bundle
from xcli.models.export.formats import FORMATS
from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.models.labels import read_labels
from xcli.models.loader import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.cli.conftest import Invoke
    from xcli.models.hdf5_weights import Weights

# They are not imported here: tf2onnx would import TensorFlow as the program never does, and ONNX Runtime would report.
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxruntime", "tf2onnx", "openvino", "ai_edge_litert"))),
    reason="the extras [onnx], [openvino] and [litert] are not installed",
)

NAMES = ("cat", "dog", "crème brûlée")
PLAIN = ("--weights", "none", "--no-include-top", "--image-size", "71", "--samples", "4")
"""The model that is loaded and converted fastest."""

CHECK = """\
import json, re, sys
import numpy as np
name, folder, output = sys.argv[1:]
code = re.search(r"```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), re.DOTALL)[1]
there = {}
exec(code, there)
from xcli.models.export.formats import FORMATS
run = FORMATS[name].load(FORMATS[name].file, output)
pixels = np.load("../pixels.npy")
for batch in (1, 3, 16):
    np.save(f"../{name}-{batch}.npy", run(pixels[:batch]))
np.save(f"../{name}-example.npy", there[output])
print(sorted({"tensorflow", "keras"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def bundle(weights: Weights, large_files: Path) -> Path:
    """What `finetune` writes: three classes, images of `SIZE` pixels."""
    folder = large_files / "exported-bundle"
    folder.mkdir()
    trained = {**weights, KERNEL: weights[KERNEL][:, :3], BIAS: weights[BIAS][:3]}
    preprocessing = Preprocessing(size=SIZE, resize="squash", interpolation="nearest")
    write_bundle(folder, build_model(trained, 3, SIZE, (1 / 127.5, -1.0), 0.3), NAMES, preprocessing, {})
    return folder


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return made_pixels(SIZE, 16).pixels


def scores_of(model: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    loaded = load_model(model=str(model))
    loaded.network.prepare("float32")
    return Engine(loaded.scores(), size=loaded.size, batch_size=16)(images)[0]


def run_elsewhere(name: str, out: Path, output: str, images: NDArray[Any]) -> str:
    """Runs the code of the README of an export, and batches of three sizes, in a process of its own."""
    np.save(out.parent / "pixels.npy", images)
    Image.fromarray(images[0]).save(out / "photo.jpg", "PNG")
    done = subprocess.run(
        [sys.executable, "-c", CHECK, name, str(out), output],
        cwd=out,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "openvino" else slow) for name in FORMATS])
def test_a_bundle_runs_elsewhere(
    invoke: Invoke, bundle: Path, scratch: Path, images: NDArray[np.uint8], name: str
) -> None:
    out = scratch / name
    result = invoke("export", "--model", bundle, "--format", name, "-o", out, "--samples", "5", "--json")
    assert result.code == ExitCode.OK, result.err
    card = json.loads(result.text)
    assert card == json.loads((out / "model_card.json").read_text())
    assert card["comparison"]["greatest_difference"] < 1e-5
    assert card["comparison"]["same_best_class"] == "5 of 5"
    assert card["output"] == {
        "name": "scores",
        "dtype": "float32",
        "shape": ["batch", 3],
        "range": [0, 1],
        "labels": "labels.json",
    }
    assert card["model"]["licence_of_weights"].startswith("unknown")
    assert read_labels(str(out / "labels.json")).names == NAMES
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {*card["files"], "model_card.json", "README.md"}
    assert not (scratch / f"{name}.partial").exists()

    expected = scores_of(bundle, images)
    said, imported = run_elsewhere(name, out, "scores", images).splitlines()
    assert imported == ("['keras', 'tensorflow']" if name == "savedmodel" else "[]")
    assert said.startswith(NAMES[expected[0].argmax()])
    for batch in (1, 3, 16):
        found = np.load(scratch / f"{name}-{batch}.npy")
        assert found.shape == (batch, 3)
        assert np.abs(found - expected[:batch]).max() < 1e-5
        assert (found.argmax(1) == expected[:batch].argmax(1)).all()
    assert np.abs(np.load(scratch / f"{name}-example.npy") - expected[:1]).max() < 1e-5


HALVES = [(one.name, precision) for one in FORMATS.values() for precision in one.tolerances if precision != "float32"]


@slow
@pytest.mark.parametrize(("name", "precision"), HALVES)
def test_half_the_precision_is_half_the_size(
    invoke: Invoke, bundle: Path, scratch: Path, name: str, precision: str
) -> None:
    out = scratch / "out"
    result = invoke("export", "--model", bundle, "--format", name, "--precision", precision, "-o", out, "--json")
    assert result.code == ExitCode.OK, result.err
    card = json.loads(result.text)
    assert 1e-6 < card["comparison"]["greatest_difference"] < card["comparison"]["tolerance"]
    assert sum(file["bytes"] for file in card["files"].values()) < 43e6


@slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_somebody_else(invoke: Invoke, nested_file: str, scratch: Path, name: str) -> None:
    out = scratch / name
    result = invoke("export", "--model", nested_file, "--format", name, "-o", out, "--samples", "16")
    assert result.code == ExitCode.OK, result.err
    assert "records no preprocessing" in result.err
    images = made_pixels(SIZE, 16).pixels
    expected = scores_of(Path(nested_file), images)
    run_elsewhere(name, out, "scores", images)
    found = np.load(scratch / f"{name}-16.npy")
    assert np.abs(found - expected).max() < 1e-5
    assert (found.argmax(1) == expected.argmax(1)).all()


@slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("options", [("--pooling", "max"), ("--layer", "block4_sepconv2_bn", "--pooling", "none")])
def test_features(invoke: Invoke, bundle: Path, scratch: Path, name: str, options: tuple[str, ...]) -> None:
    out = scratch / name
    command = ("export", "--model", bundle, "--format", name, "-o", out, *options, "--json", "--samples", "4")
    result = invoke(*command)
    assert result.code == ExitCode.OK, result.err
    card = json.loads(result.text)
    assert card["comparison"]["lowest_cosine"] > 0.999999
    assert not (out / "labels.json").exists()
    assert card["output"]["name"] == "features"


def test_features_of_the_plain_network(invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("export", *PLAIN, "--format", "openvino", "-o", out)
    assert result.code == ExitCode.OK, result.err
    assert "features: float32[batch, 2048]" in result.text
    assert "the weights are random numbers" in result.text
    assert not (out / "labels.json").exists()
    refused = invoke("export", *PLAIN, "--format", "openvino", "-o", out)
    assert refused.code == ExitCode.OUTPUT
    assert "exists; pass --overwrite to replace it" in refused.err
    (out / "model.bin").write_bytes(b"")
    assert invoke("export", *PLAIN, "--format", "openvino", "-o", out, "--overwrite").code == ExitCode.OK
    assert (out / "model.bin").stat().st_size > 80e6
    assert os.listdir(tmp_path) == ["out"]


def test_a_directory_of_the_user_is_never_replaced(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"dear")
    result = invoke("export", *PLAIN, "--format", "savedmodel", "-o", tmp_path, "--overwrite")
    assert result.code == ExitCode.OUTPUT
    assert "has no model_card.json" in result.err
    assert (tmp_path / "photo.jpg").read_bytes() == b"dear"


def test_beyond_the_tolerance_nothing_is_written(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FORMATS["openvino"]

    def load(path: str, output: str) -> Any:
        run = honest.load(path, output)
        return lambda pixels: run(pixels) * np.float32(1.001)

    monkeypatch.setitem(FORMATS, "openvino", replace(honest, load=load))
    result = invoke("export", *PLAIN, "--format", "openvino", "-o", tmp_path / "out")
    assert result.code == ExitCode.CHECK
    assert "greatest relative difference 0.001, beyond the 0.0001 of openvino in float32" in result.err
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_converted_is_refused_by_name(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: Any) -> None:
        raise ValueError("operation Foo is not known\nand a trace")

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=write))
    result = invoke("export", *PLAIN, "--format", "onnx", "-o", tmp_path / "out")
    assert result.code == ExitCode.MODEL
    assert "cannot be exported as onnx: operation Foo is not known\n" in result.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--format", "onnx", "--precision", "bfloat16"),
            "one of float32, float16 for --format onnx",
        ),
        (("--format", "onnx", "--precision", "int8"), "'int8' is not one of"),
        (("--format", "onnx", "--include-top", "--pooling", "avg"), "--include-top exports scores"),
        (("--format", "onnx", "--pooling", "avg", "--labels", "names.txt"), "--labels names the classes of scores"),
        (("--format", "pickle"), "'pickle' is not one of"),
        ((), "Missing option '--format'"),
    ],
)
def test_usage_errors(invoke: Invoke, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    result = invoke("export", "--weights", "none", *options, "-o", tmp_path / "out")
    assert result.code == ExitCode.USAGE
    assert said in result.err


def test_a_missing_package_is_named(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xcli.models.export.formats.find_spec", lambda name: None)
    result = invoke("export", "--weights", "none", "--format", "litert", "-o", tmp_path / "out")
    assert result.code == ExitCode.USAGE
    assert "install it with: pip install 'xception-cli[litert]'" in result.err


def test_usage_errors_do_not_import_tensorflow(tmp_path: Path) -> None:
    command = ["export", "--format", "onnx", "-o", str(tmp_path / "no" / "out")]
    assert code_and_imports(command) == "IMPORTED 5 []"


def test_photographs_of_the_user(invoke: Invoke, bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    command = ("export", "--model", bundle, "--format", "openvino", "-o", tmp_path / "out", "--images", photos)
    result = invoke(*command, "--images", tmp_path / "broken.jpg", "--resize", "crop")
    assert result.code == ExitCode.OK, result.err
    assert "1 sample image cannot be read" in result.err
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["comparison"]["images"] == "5 photographs of the user"
    assert card["preprocessing"]["resize"] == "crop"
    none = invoke(*command[:-2], "--images", tmp_path / "broken.jpg", "--overwrite")
    assert none.code == ExitCode.USAGE
    assert "no image can be read" in none.err


def test_the_examples_of_the_documentation_are_those_of_the_readme(bundle: Path) -> None:
    from tests.conftest import ROOT
    from xcli.models.export.card import example

    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    pixels = Preprocessing().as_dict()
    for one in FORMATS.values():
        card = {"preprocessing": pixels, "output": {"name": "scores"}}
        assert f"```python\n{example(card, one, f'clothes-{one.name}', 'photos/001.jpg')}```" in text
        assert re.search(rf"^\| `{one.name}` \| .*{re.escape(one.file)}", text, re.MULTILINE)
