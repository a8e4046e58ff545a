"""The bundle: plain Keras and this program agree on it, and it can be started from again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE
from xcli.core.errors import ModelError
from xcli.images.preprocessing import Preprocessing
from xcli.inference.engine import Engine
from xcli.models.bundle import SCALINGS, build_model, read_base, write_bundle
from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.models.loader import LoadedModel, ModelSpec, load_model
from xcli.tables.encoders import write_table

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

NAMES = ("cat", "dog", "crème brûlée")
PREPROCESSING = Preprocessing(size=SIZE, resize="pad", interpolation="bilinear", crop_pct=0.8)


@pytest.fixture(scope="module")
def trained(weights: Weights) -> Weights:
    """`weights` with a head of three classes."""
    return {**weights, KERNEL: weights[KERNEL][:, :3], BIAS: weights[BIAS][:3]}


@pytest.fixture(scope="module")
def bundle(trained: Weights, large_files: Path) -> Path:
    folder = large_files / "bundle"
    folder.mkdir()
    model = build_model(trained, 3, SIZE, SCALINGS["xception"], 0.3)
    write_bundle(folder, model, NAMES, PREPROCESSING, {"note": "value"})
    return folder


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> LoadedModel:
    return load_model(model=str(bundle))


def test_plain_keras_and_this_program_agree(
    keras: Any, bundle: Path, loaded: LoadedModel, pixels: NDArray[np.uint8]
) -> None:
    expected = keras.models.load_model(bundle / "model.keras")(pixels.astype(np.float32)).numpy()
    loaded.network.prepare("float32")
    found = Engine(loaded.scores(), size=SIZE, batch_size=8)(pixels)[0]
    assert np.abs(found - expected).max() < 1e-4
    assert np.allclose(expected.sum(1), 1, atol=1e-5)
    assert expected.max() - expected.min() > 0.2


def test_it_carries_labels_and_preprocessing(bundle: Path, loaded: LoadedModel) -> None:
    assert loaded.labels is not None
    assert loaded.labels.names == NAMES
    assert (loaded.size, loaded.input_range, loaded.notes) == (SIZE, "raw", ())
    assert (loaded.resize, loaded.interpolation, loaded.crop_pct) == ("pad", "bilinear", 0.8)
    assert json.loads((bundle / "run.json").read_text())["note"] == "value"


def test_it_can_be_started_from_again(bundle: Path, loaded: LoadedModel, trained: Weights) -> None:
    base = read_base(loaded, ModelSpec(model=str(bundle), include_top=False))
    assert base.scaling == pytest.approx(SCALINGS["xception"])
    assert base.labels is not None
    assert base.labels.names == NAMES
    assert base.weights.keys() == {name for name in trained if not name.startswith("predictions/")}
    for name, array in base.weights.items():
        assert np.array_equal(array, trained[name]), name


def test_a_model_that_was_fed_scaled_pixels_keeps_its_scaling(nested_file: str) -> None:
    spec = ModelSpec(model=nested_file, include_top=False)
    foreign = load_model(spec)
    for name, scaling in SCALINGS.items():
        assert read_base(replace(foreign, input_range=name), spec).scaling == scaling


def test_the_plain_network_in_either_form(weights: Weights, legacy_weights_file: str) -> None:
    spec = ModelSpec(weights=legacy_weights_file, include_top=False)
    base = read_base(load_model(spec), spec)
    assert base.labels is None
    assert KERNEL not in base.weights
    assert np.array_equal(base.weights["block1_conv1/kernel"], weights["block1_conv1/kernel"])
    spec = ModelSpec(weights="none", include_top=False, seed=3)
    loaded = load_model(spec)
    loaded.network.prepare("float32")
    random = read_base(loaded, spec).weights
    other = read_base(loaded, ModelSpec(weights="none", include_top=False, seed=4)).weights
    assert not np.array_equal(random["block1_conv1/kernel"], other["block1_conv1/kernel"])
    x = np.random.default_rng(0).integers(0, 256, (1, 71, 71, 3), np.uint8)
    found = Engine(loaded.features(None, "block1_conv1"), size=71, batch_size=1)(x)[0]
    scaled = x[0, :3, :3].astype(np.float64) / 127.5 - 1
    expected = np.einsum("hwc,hwcf->f", scaled, random["block1_conv1/kernel"].astype(np.float64))
    assert np.abs(found[0, 0, 0] - expected).max() < 1e-4


def test_a_scaling_that_is_not_understood_is_refused(keras: Any, theirs: Any, scratch: Path) -> None:
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling([1 / 255, 1 / 127, 1 / 100], 0.0)(start)
    path = str(scratch / "odd.keras")
    keras.Model(start, layers.GlobalAveragePooling2D()(theirs(x))).save(path)
    spec = ModelSpec(model=path, include_top=False)
    with pytest.raises(ModelError, match="scales its pixels in a way that cannot be carried over"):
        read_base(load_model(spec), spec)


def test_tables_are_csv(tmp_path: Path) -> None:
    write_table(tmp_path, "x.csv", {"name": ["a,b", None], "value": [0.5, None], "count": [1, 2], "no": [None, None]})
    with open(tmp_path / "x.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "value", "count", "no"],
            ["a,b", "0.5", "1", ""],
            ["", "", "2", ""],
        ]
