"""Exporting, with a network of a few numbers in place of an Xception: each format in each precision, and failures."""

from __future__ import annotations

import logging
import os
import resource
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.core.errors import CheckError, MachineError, ModelError, OutputError
from xcli.core.levels import DETAIL
from xcli.core.tensorflow import load_tensorflow
from xcli.images.preprocessing import Preprocessing
from xcli.inference.export import ExportOptions, compare, export_model
from xcli.inference.export_samples import made_pixels
from xcli.models.export.formats import FORMATS
from xcli.models.labels import Labels
from xcli.models.network import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

# They are not imported here: tf2onnx would import TensorFlow as the program never does, and ONNX Runtime would report.
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxruntime", "tf2onnx", "openvino", "ai_edge_litert"))),
    reason="the extras [onnx], [openvino] and [litert] are not installed",
)

SIZE = 8
LABELS = Labels(("a", "b", "c"))
ALL = [(one.name, precision) for one in FORMATS.values() for precision in one.tolerances]


class Small:
    """A convolution and a classifier.

    Args:
        last: what comes after them.
        scale: of the weights.
    """

    def __init__(self, last: Any = lambda x: x, scale: float = 1.0) -> None:
        random = np.random.default_rng(3)
        self.kernel = random.normal(0, scale / 3, (3, 3, 3, 64)).astype(np.float32)
        self.head = random.normal(0, scale, (64, 3)).astype(np.float32)
        self.last, self.dtype = last, "float32"

    def prepare(self, precision: str) -> None:
        self.dtype = precision

    def __call__(self, x: Any, taps: Collection[str]) -> dict[str, Any]:
        tf = load_tensorflow()
        x = tf.nn.conv2d(tf.cast(x, self.dtype), tf.constant(self.kernel, self.dtype), 2, "SAME")
        x = tf.cast(tf.reduce_mean(tf.nn.relu(x), (1, 2)), tf.float32)
        return {"out": self.last(tf.linalg.matmul(x, tf.constant(self.head)))}


def model_of(network: Small) -> LoadedModel:
    return LoadedModel("small", None, "random-0", network, SIZE, "xception", LABELS, "out", "linear", ("out",))


def export(folder: Path, network: Small, name: str, precision: str = "float32", **more: Any) -> dict[str, Any]:
    options = ExportOptions(name, precision, **more)
    return export_model(model_of(network), str(folder / "out"), options, Preprocessing(size=SIZE))


@pytest.mark.parametrize(("name", "precision"), ALL)
def test_every_format_in_every_precision(tmp_path: Path, name: str, precision: str) -> None:
    card = export(tmp_path, Small(), name, precision)
    assert card["comparison"]["greatest_difference"] <= card["comparison"]["tolerance"]
    assert (card["comparison"]["greatest_difference"] > 1e-6) == (precision != "float32")
    assert os.listdir(tmp_path) == ["out"]
    assert logging.getLevelName(DETAIL) == "DETAIL"
    run = FORMATS[name].load(str(tmp_path / "out" / FORMATS[name].file), "scores")
    pixels = made_pixels(SIZE, 16).pixels
    whole = run(pixels)
    for batch in (3, 1, 16):
        found = run(pixels[:batch])
        assert found.dtype == np.float32
        assert np.abs(found - whole[:batch]).max() < 1e-5
        assert np.abs(found.sum(1) - 1).max() < 1e-5


@pytest.mark.parametrize("name", FORMATS)
def test_a_head_of_one_unit_gives_the_scores_of_two_classes(tmp_path: Path, name: str) -> None:
    model = replace(model_of(Small(lambda x: x[:, :1])), labels=Labels(("no", "yes")))
    card = export_model(model, str(tmp_path / "out"), ExportOptions(name), Preprocessing(size=SIZE))
    assert card["output"]["shape"] == ["batch", 2]
    assert card["comparison"]["greatest_difference"] < 1e-5


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_does_not_have_is_named(tmp_path: Path, name: str) -> None:
    network = Small(load_tensorflow().math.bessel_i0e)
    if name == "savedmodel":
        export(tmp_path, network, name)
        return
    with pytest.raises(ModelError, match=r"small cannot be exported as .*BesselI0e"):
        export(tmp_path, network, name)
    assert os.listdir(tmp_path) == []


def test_what_is_converted_but_does_not_run_is_said(tmp_path: Path) -> None:
    said = r"small cannot be exported as litert: ai-edge-litert does not run what it was converted to \(.*SUB.*\); use"
    with pytest.raises(ModelError, match=said):
        export(tmp_path, Small(load_tensorflow().math.lgamma), "litert")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_what_cannot_be_written_is_an_error_of_the_output(tmp_path: Path, name: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            export(tmp_path, Small(), name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_runtime_that_runs_out_of_memory_ends_with_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any) -> Any:
        raise load_tensorflow().errors.ResourceExhaustedError(None, None, "OOM when allocating\nat once")

    monkeypatch.setitem(FORMATS, name, replace(FORMATS[name], load=load))
    with pytest.raises(ModelError, match=r"\(OOM when allocating\)"):
        export(tmp_path, Small(), name)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(FORMATS, "openvino", replace(FORMATS["openvino"], load=load))
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, Small(), "openvino")
    assert os.listdir(tmp_path) == []


def test_too_little_memory_is_said_before_a_converter_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xcli.models.export.traced.has_memory", lambda size: False)
    model = replace(model_of(Small()), parameters=1_920)
    with pytest.raises(MachineError, match="not enough memory to convert the model"):
        export_model(model, str(tmp_path / "out"), ExportOptions("litert"), Preprocessing(size=SIZE))
    assert os.listdir(tmp_path) == []


def test_weights_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="too large for --precision float16"):
        export(tmp_path, Small(scale=1e6), "onnx", "float16")


def test_numbers_that_are_none_are_no_agreement(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="greatest difference nan"):
        export(tmp_path, Small(lambda x: x * np.nan), "openvino")
    assert os.listdir(tmp_path) == []


def test_features_are_compared_by_their_size() -> None:
    ours = np.array([[3e-5, 4e-5], [0, 1e-4]], np.float32)
    found = compare(ours, ours * np.float32(1.01), "features")
    assert found["greatest_relative_difference"] == pytest.approx(0.01, rel=1e-3)
    assert found["lowest_cosine"] == pytest.approx(1)
    found = compare(ours, ours[::-1], "features")
    assert found["lowest_cosine"] == pytest.approx(0.8)
    with pytest.raises(CheckError, match=r"the shape \[2\] instead of \[2, 2\]"):
        compare(ours, ours[:, 0], "features")


def test_scores_are_compared_as_they_are() -> None:
    ours = np.array([[0.6, 0.4], [0.3, 0.7]], np.float32)
    found = compare(ours, np.array([[0.4, 0.6], [0.3, 0.7]], np.float32), "scores")
    assert found == {"greatest_difference": pytest.approx(0.2), "same_best_class": "1 of 2"}
