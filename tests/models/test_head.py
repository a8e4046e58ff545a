"""The head of a bundle as arrays, and the digest that says which network it goes with."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE
from xcli.core.errors import ModelError
from xcli.images.preprocessing import Preprocessing
from xcli.inference.engines.tensorflow import Engine
from xcli.models.backbone import backbone_digest
from xcli.models.bundle import build_model, write_bundle
from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.models.head import Head, read_head
from xcli.models.loader import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

NAMES = ("cat", "dog", "bird")
PREPROCESSING = Preprocessing(size=SIZE, resize="pad", interpolation="bilinear")


@pytest.fixture(scope="module")
def bundle(weights: Weights, large_files: Path) -> Path:
    folder = large_files / "headed"
    folder.mkdir()
    trained = {**weights, KERNEL: weights[KERNEL][:, :3], BIAS: weights[BIAS][:3]}
    model = build_model(trained, 3, SIZE, (1 / 127.5, -1.0), 0.3)
    write_bundle(folder, model, NAMES, PREPROCESSING, {"settings": {"precision": "float32"}})
    return folder


@pytest.fixture(scope="module")
def head(bundle: Path) -> Head:
    return read_head(str(bundle))


def test_the_head_gives_the_scores_of_the_whole_network(bundle: Path, head: Head, pixels: NDArray[np.uint8]) -> None:
    model = load_model(model=str(bundle))
    model.network.prepare("float32")
    assert head.labels.names == NAMES
    assert (head.digest, head.labels) == (model.digest, model.labels)
    assert head.preprocessing["resize"] == "pad"
    assert head.settings == {"precision": "float32"}
    scores, features = Engine(model.scores(with_features=True), size=SIZE, batch_size=len(pixels))(pixels)
    assert np.abs(head.scores(features) - scores).max() < 1e-6
    assert scores.std() > 0.01  # they tell something


def test_scores_of_a_row_are_the_same_among_any_others(head: Head) -> None:
    features = np.random.default_rng(0).random((2100, 2048), np.float32)
    whole = head.scores(features)
    assert np.array_equal(head.scores(features[1500:1507]), whole[1500:1507])
    order = np.random.default_rng(1).permutation(len(features))
    assert np.array_equal(head.scores(features[order]), whole[order])
    features[3, 5] = np.inf
    assert np.isnan(head.scores(features[:5])).any(1).tolist() == [False, False, False, True, False]
    assert head.scores(features[:0]).shape == (0, 3)


@pytest.mark.slow
def test_one_backbone_in_several_files_has_one_digest(
    bundle: Path, head: Head, weights: Weights, legacy_weights_file: str, nested_file: str
) -> None:
    plain = load_model(weights=legacy_weights_file, include_top=False)
    assert plain.backbone == head.backbone == load_model(model=str(bundle)).backbone == backbone_digest(weights)
    without_top = {name: array for name, array in weights.items() if name not in (KERNEL, BIAS)}
    assert backbone_digest(without_top) == head.backbone
    foreign = load_model(model=nested_file)
    digests = {one: load_model(model=nested_file, input_range=one).backbone for one in ("xception", "unit", "raw")}
    assert len(set(digests.values())) == 3, "features depend on how pixels are scaled"
    assert foreign.backbone == digests[foreign.input_range]
    name = "block14_sepconv2/bias" if "block14_sepconv2/bias" in weights else next(iter(weights))
    changed = {**weights, name: np.nextafter(weights[name], np.float32(9))}
    assert backbone_digest(changed) != head.backbone


def test_pixels_that_are_changed_before_the_network_have_no_digest(keras: Any, theirs: Any, scratch: Path) -> None:
    start = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.RandomFlip()(keras.layers.Rescaling(1 / 127.5, -1)(start))
    path = str(scratch / "flipping.keras")
    keras.Model(start, keras.layers.GlobalAveragePooling2D()(theirs(x))).save(path)
    assert load_model(model=path, include_top=False).backbone is None


def test_what_finetune_did_not_write_is_refused(
    keras: Any, theirs: Any, bundle: Path, nested_file: str, scratch: Path
) -> None:
    def refused(path: Path | str) -> str:
        with pytest.raises(ModelError) as caught:
            read_head(str(path))
        return str(caught.value)

    assert "does not exist" in refused(scratch / "nowhere")
    assert "does not say how its images are prepared" in refused(nested_file)
    other = scratch / "other"
    shutil.copytree(bundle, other)
    (other / "run.json").unlink()
    assert "has no run.json" in refused(other)
    shutil.copy(bundle / "run.json", other)
    shutil.copy(nested_file, other / "model.keras")
    assert "inside of another layer" in refused(other)
    model = keras.models.load_model(bundle / "model.keras")
    x = keras.layers.Dense(4, activation="relu")(model.get_layer("avg_pool").output)
    keras.Model(model.input, keras.layers.Dense(3, activation="softmax")(x)).save(other / "model.keras")
    assert "has a head of" in refused(other)
    (other / "run.json").write_text(json.dumps({**json.loads((bundle / "run.json").read_text()), "settings": [1]}))
    shutil.copy(bundle / "model.keras", other)
    assert "run.json is damaged: ValueError: settings is not an object" in refused(other)


def test_a_file_of_labels_replaces_those_of_the_bundle(bundle: Path, scratch: Path) -> None:
    (scratch / "names.txt").write_text("a\nb\nc\n")
    assert read_head(str(bundle), str(scratch / "names.txt")).labels.names == ("a", "b", "c")
