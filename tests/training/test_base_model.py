"""What fine-tuning starts from: the backbone of a plain network, of a bundle and of another Keras file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE
from xcli.core.errors import ModelError
from xcli.images.preprocessing import Preprocessing
from xcli.inference.engines.tensorflow import Engine
from xcli.models.backbone import SCALINGS
from xcli.models.bundle import build_model, write_bundle
from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.models.loader import load_model
from xcli.models.spec import ModelSpec
from xcli.training.base_model import read_base_model

if TYPE_CHECKING:
    from pathlib import Path

    from xcli.models.hdf5_weights import Weights


NAMES = ("cat", "dog", "bird")


def test_training_starts_from_a_bundle(weights: Weights, large_files: Path) -> None:
    trained = {**weights, KERNEL: weights[KERNEL][:, :3], BIAS: weights[BIAS][:3]}
    bundle = large_files / "bundle"
    bundle.mkdir()
    model = build_model(trained, 3, SIZE, SCALINGS["xception"], 0.3)
    write_bundle(bundle, model, NAMES, Preprocessing(size=SIZE), {})
    spec = ModelSpec(model=str(bundle), include_top=False)
    base = read_base_model(load_model(spec), spec)
    assert base.scaling == pytest.approx(SCALINGS["xception"])
    assert base.labels is not None
    assert base.labels.names == NAMES
    assert base.weights.keys() == {name for name in trained if not name.startswith("predictions/")}
    for name, array in base.weights.items():
        assert np.array_equal(array, trained[name]), name


def test_the_scaling_follows_the_input_range(nested_file: str) -> None:
    spec = ModelSpec(model=nested_file, include_top=False)
    foreign = load_model(spec)
    for name, scaling in SCALINGS.items():
        assert read_base_model(replace(foreign, input_range=name), spec).scaling == scaling


def test_the_plain_network_in_either_form(weights: Weights, legacy_weights_file: str) -> None:
    spec = ModelSpec(weights=legacy_weights_file, include_top=False)
    base = read_base_model(load_model(spec), spec)
    assert base.labels is None
    assert KERNEL not in base.weights
    assert np.array_equal(base.weights["block1_conv1/kernel"], weights["block1_conv1/kernel"])
    spec = ModelSpec(weights="none", include_top=False, seed=3)
    loaded = load_model(spec)
    loaded.network.prepare("float32")
    random = read_base_model(loaded, spec).weights
    other = read_base_model(loaded, ModelSpec(weights="none", include_top=False, seed=4)).weights
    assert not np.array_equal(random["block1_conv1/kernel"], other["block1_conv1/kernel"])
    x = np.random.default_rng(0).integers(0, 256, (1, 71, 71, 3), np.uint8)
    found = Engine(loaded.features(None, "block1_conv1"), size=71, batch_size=1)(x)[0]
    scaled = x[0, :3, :3].astype(np.float64) / 127.5 - 1
    expected = np.einsum("hwc,hwcf->f", scaled, random["block1_conv1/kernel"].astype(np.float64))
    assert np.abs(found[0, 0, 0] - expected).max() < 1e-4


@pytest.mark.slow
def test_another_scaling_is_refused(keras: Any, theirs: Any, scratch: Path) -> None:
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling([1 / 255, 1 / 127, 1 / 100], 0.0)(start)
    path = str(scratch / "odd.keras")
    keras.Model(start, layers.GlobalAveragePooling2D()(theirs(x))).save(path)
    spec = ModelSpec(model=path, include_top=False)
    with pytest.raises(ModelError, match="scales its pixels in a way that cannot be carried over"):
        read_base_model(load_model(spec), spec)
