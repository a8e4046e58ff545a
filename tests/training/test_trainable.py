"""The trainable layers above a cut compute what Keras computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from xcli.models.hdf5_weights import BIAS, KERNEL
from xcli.training.freezing import PIXELS, cut_below
from xcli.training.trainable import TrainableLayers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

FACTOR, OFFSET = 1 / 127.5, -1.0


@pytest.fixture(scope="module")
def keras_taps(keras: Any, theirs: Any, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Keras' activations of the first two images at some cuts, and its pooled features."""
    names = ("block13_add", "block12_add", "block1_conv2_act", "block14_sepconv2_act")
    model = keras.Model(theirs.input, [_layer(theirs, name).output for name in names])
    x = pixels[:2].astype(np.float32) * FACTOR + OFFSET
    found = dict(zip(names, map(np.asarray, model(x)), strict=True))
    return found | {PIXELS: pixels[:2], "pooled": found.pop("block14_sepconv2_act").mean((1, 2))}


def _layer(model: Any, name: str) -> Any:
    if name.endswith("_add"):  # numbered in Keras: the sums of blocks 2 to 13, in order
        sums = [layer for layer in model.layers if type(layer).__name__ == "Add"]
        return sums[int(name.removeprefix("block").removesuffix("_add")) - 2]
    return model.get_layer(name)


@pytest.mark.parametrize("unfreeze", ["block14", "block13", "block2", "all"])
def test_the_layers_above_a_cut_are_those_of_keras(
    weights: Weights, keras_taps: dict[str, NDArray[Any]], unfreeze: str
) -> None:
    cut = cut_below(unfreeze)
    assert cut.tap is not None
    tail = TrainableLayers(cut, weights, 3)
    found = tail.pooled(keras_taps[cut.tap]).numpy()
    assert np.abs(found - keras_taps["pooled"]).max() < 1e-4


def test_bfloat16_is_near(weights: Weights, keras_taps: dict[str, NDArray[Any]]) -> None:
    cut = cut_below("block13")
    found = (
        TrainableLayers(cut, weights, 3, dtype="bfloat16").pooled(keras_taps["block12_add"].astype(np.float16)).numpy()
    )
    expected = keras_taps["pooled"]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert found.dtype == np.float32


def test_the_variables_are_those_above_the_cut_without_moving_statistics(weights: Weights) -> None:
    names = set(TrainableLayers(cut_below("block14"), weights, 3).variables)
    expected = {f"block14_sepconv{n}/{kind}_kernel" for n in (1, 2) for kind in ("depthwise", "pointwise")}
    expected |= {f"block14_sepconv{n}_bn/{kind}" for n in (1, 2) for kind in ("gamma", "beta")}
    assert names == expected | {KERNEL, BIAS}


def test_the_head_alone(weights: Weights) -> None:
    features = np.random.default_rng(0).normal(size=(4, 2048)).astype(np.float32)
    tail = TrainableLayers(cut_below("none"), weights, 1000)
    assert set(tail.variables) == {KERNEL, BIAS}
    expected = features @ weights[KERNEL] + weights[BIAS]
    assert np.abs(tail.logits(tail.pooled(features)).numpy() - expected).max() < 1e-3


def test_a_new_head_follows_from_the_seed() -> None:
    first, again, other = (TrainableLayers(cut_below("none"), {}, 5, seed=seed).weights() for seed in (1, 1, 2))
    assert np.array_equal(first[KERNEL], again[KERNEL])
    assert not np.array_equal(first[KERNEL], other[KERNEL])
    assert first[KERNEL].shape == (2048, 5)
    assert not first[BIAS].any()


def test_weights_go_in_and_come_out(weights: Weights) -> None:
    tail, other = (TrainableLayers(cut_below("block14"), weights, 5, seed=seed) for seed in (1, 2))
    other.assign(tail.weights())
    for name, array in other.weights().items():
        assert np.array_equal(array, tail.weights()[name]), name
