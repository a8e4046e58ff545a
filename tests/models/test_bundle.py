"""The bundle: plain Keras and this program agree on it."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE
from xcli.images.preprocessing import Preprocessing
from xcli.inference.engine import Engine
from xcli.models.bundle import build_model, read_bundle, write_bundle
from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.network import LoadedModel

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
