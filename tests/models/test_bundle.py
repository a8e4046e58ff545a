"""The bundle: plain Keras and this program agree on it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE, config_of
from tests.thorough import slow
from xcli.images.preprocessing import Preprocessing
from xcli.inference.engines.tensorflow import Engine
from xcli.models.bundle import build_model, read_bundle, write_bundle
from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.models.keras_network import KerasNetwork
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.network import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    folder = large_files / "written"
    folder.mkdir()
    model = build_model(trained, 3, SIZE, (1 / 127.5, -1.0), 0.3)
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


@pytest.fixture
def odd_settings(keras: Any) -> Iterator[None]:
    """Settings as they may be in keras.json, or made by the program that imports this one."""
    config = keras.config
    names = {
        "floatx": "float16",
        "epsilon": 0.1,
        "image_data_format": "channels_first",
        "dtype_policy": "mixed_float16",
    }
    before = {name: getattr(config, name)() for name in names}
    for name, value in names.items():
        getattr(config, f"set_{name}")(value)
    yield
    for name, value in before.items():
        getattr(config, f"set_{name}")(value)


@slow
def test_the_settings_of_keras_change_no_bundle(
    odd_settings: None, trained: Weights, bundle: Path, scratch: Path
) -> None:
    write_bundle(scratch, build_model(trained, 3, SIZE, (1 / 127.5, -1.0), 0.3), NAMES, PREPROCESSING, {})
    both = [KerasNetwork(str(one / "model.keras"))._loaded.model.variables for one in (scratch, bundle)]
    for found, expected in zip(*both, strict=True):
        assert found.dtype == expected.dtype
        assert found.dtype == "int64" or np.array_equal(found.numpy(), expected.numpy()), "all but a dropout's seed"
    texts = [json.dumps(config_of(str(one / "model.keras"))) for one in (scratch, bundle)]
    here, there = (re.sub(r'"shared_object_id": \d+', "", text) for text in texts)
    assert here == there


@slow
def test_the_settings_of_keras_change_no_score(
    odd_settings: None, loaded: LoadedModel, bundle: Path, pixels: NDArray[np.uint8]
) -> None:
    again = load_model(model=str(bundle))
    found = []
    for model in (again, loaded):
        model.network.prepare("float32")
        found.append(model.scores()(pixels[:2])[0].numpy())
    assert np.isfinite(found[0]).all()
    np.testing.assert_array_equal(*found)


def test_it_carries_labels_and_preprocessing(bundle: Path, loaded: LoadedModel) -> None:
    assert loaded.labels is not None
    assert loaded.labels.names == NAMES
    assert (loaded.size, loaded.input_range, loaded.notes) == (SIZE, "raw", ())
    assert (loaded.resize, loaded.interpolation, loaded.crop_pct) == ("pad", "bilinear", 0.8)
    assert json.loads((bundle / "run.json").read_text())["note"] == "value"


def test_the_bit_depth_goes_with_the_model(bundle: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    assert "bit_depth" not in json.loads((bundle / "run.json").read_text())["preprocessing"]
    assert preprocessing_for(loaded) == PREPROCESSING
    twelve = replace(PREPROCESSING, bit_depth=12, strict=True)
    write_bundle(tmp_path, SimpleNamespace(save=lambda path: path.write_bytes(b"")), NAMES, twelve, {})
    recipe, _ = read_bundle(str(tmp_path), None)
    assert recipe["bit_depth"] == 12
    assert "strict" not in recipe
    model = replace(loaded, bit_depth=recipe["bit_depth"])
    assert preprocessing_for(model) == replace(PREPROCESSING, bit_depth=12)
    assert preprocessing_for(model, bit_depth=16).bit_depth == 16
