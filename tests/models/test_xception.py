"""The Keras model against that of Keras, and the rules for its arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE, ordered, set_weights, write_legacy
from xcli.core.errors import UsageError, WeightsError
from xcli.models.architecture import check_pooling, weighted_layers
from xcli.models.hdf5_weights import random_weights
from xcli.models.xception import Xception, check_input_shape

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights


PARAMETERS, TOP_PARAMETERS = 20_861_480, 2_049_000


AUTOMATIC = re.compile(r"(conv2d|batch_normalization|add|input_layer)(_\d+)?")


@pytest.fixture(scope="module")
def image(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (pixels[:3] / np.float32(127.5) - np.float32(1)).astype(np.float32)


@pytest.fixture(scope="module")
def ours_with_top(weights: Weights) -> Any:
    model = Xception(weights=None)
    set_weights(model, weights)
    return model


@pytest.fixture(scope="module")
def large_image() -> NDArray[np.float32]:
    return np.random.default_rng(3).uniform(-1, 1, (1, 299, 299, 3)).astype(np.float32)


def test_counts_parameters_like_keras(ours: Any, theirs: Any, ours_with_top: Any, theirs_with_top: Any) -> None:
    assert ours.count_params() == theirs.count_params() == PARAMETERS
    assert ours_with_top.count_params() == theirs_with_top.count_params() == PARAMETERS + TOP_PARAMETERS
    assert ours_with_top.input_shape == (None, 299, 299, 3)
    assert ours_with_top.output_shape == (None, 1000)
    assert [layer.name for layer in ours_with_top.layers[-2:]] == ["avg_pool", "predictions"]
    shapes = [tuple(variable.shape) for variable in theirs_with_top.weights]
    assert [tuple(variable.shape) for variable in ours_with_top.weights] == shapes


def test_has_the_layers_of_keras_in_their_order_and_with_their_names(ours: Any, theirs: Any) -> None:
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in theirs.layers]
    pairs = [(a.name, b.name) for a, b in zip(ours.layers, theirs.layers, strict=True)]
    named = [(a, b) for a, b in pairs if not AUTOMATIC.fullmatch(b)]
    assert len(named) == len(pairs) - 21  # the input, four shortcuts of two layers, twelve additions
    assert all(a == b for a, b in named)
    ours_alone = [a for a, b in pairs[1:] if AUTOMATIC.fullmatch(b)]
    assert not any(AUTOMATIC.fullmatch(name) for name in ours_alone), "a name that depends on what was built before"


def test_has_the_variables_of_keras_in_their_order(ours: Any, theirs: Any) -> None:
    assert [(v.name, tuple(v.shape)) for v in ours.weights] == [(v.name, tuple(v.shape)) for v in theirs.weights]
    expected = [(name, shape) for layer in weighted_layers() for name, shape in layer.weights]
    assert [(v.name, tuple(v.shape)) for v in ours.weights] == expected


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_gives_the_outputs_of_keras_without_top(
    keras: Any, theirs: Any, weights: Weights, image: NDArray[np.float32], pooling: str | None
) -> None:
    model = Xception(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), pooling=pooling)
    set_weights(model, weights)
    expected = theirs(image)
    if pooling == "avg":
        expected = keras.layers.GlobalAveragePooling2D()(expected)
        assert model.layers[-1].name == "avg_pool"
    elif pooling == "max":
        expected = keras.layers.GlobalMaxPooling2D()(expected)
        assert model.layers[-1].name == "max_pool"
    assert np.abs(np.asarray(model(image)) - np.asarray(expected)).max() < 1e-5
    assert np.abs(np.asarray(expected)).max() > 0.5


def test_gives_the_outputs_of_keras_with_top(
    ours_with_top: Any, theirs_with_top: Any, large_image: NDArray[np.float32]
) -> None:
    found, expected = np.asarray(ours_with_top(large_image)), np.asarray(theirs_with_top(large_image))
    assert np.abs(found - expected).max() < 1e-5
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found.max() > 0.005, "the comparison must not be one of uniform scores"


def test_gives_logits_without_classifier_activation(
    ours_with_top: Any, weights: Weights, large_image: NDArray[np.float32]
) -> None:
    logits = Xception(weights=None, classifier_activation=None)
    set_weights(logits, weights)
    raw = np.asarray(logits(large_image), np.float64)
    assert raw.min() < 0
    softmax = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
    assert np.abs(softmax - np.asarray(ours_with_top(large_image))).max() < 1e-6


def test_keeps_its_names_when_built_again_under_another_one(ours: Any) -> None:
    again = Xception(weights=None, include_top=False, name="mine")
    assert (ours.name, again.name) == ("xception", "mine")
    assert [layer.name for layer in again.layers[1:]] == [layer.name for layer in ours.layers[1:]]


def test_other_numbers_of_classes_need_no_pretrained_weights() -> None:
    assert Xception(weights=None, classes=np.int64(7), classifier_activation="sigmoid").output_shape == (None, 7)


@pytest.mark.filterwarnings("error::UserWarning")
def test_builds_on_an_input_tensor_with_layers_before_it(
    keras: Any, ours: Any, weights: Weights, pixels: NDArray[np.uint8], image: NDArray[np.float32]
) -> None:
    start = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(start)
    model = Xception(weights=None, include_top=False, input_tensor=scaled)
    assert model.inputs[0] is start
    model.set_weights(ordered(weights, top=False))
    found = np.asarray(model(pixels[:3].astype(np.float32)))
    assert np.abs(found - np.asarray(ours(image))).max() < 1e-5


def test_an_input_shape_beside_an_input_tensor_must_agree_with_it(keras: Any) -> None:
    tensor = keras.Input((SIZE, SIZE, 3))
    Xception(weights=None, include_top=False, input_tensor=tensor, input_shape=(None, SIZE, 3))
    with pytest.raises(UsageError, match=r"input_shape=\(80, 96, 3\) contradicts input_tensor.*\(96, 96, 3\)"):
        Xception(weights=None, include_top=False, input_tensor=tensor, input_shape=(80, SIZE, 3))


def test_channels_stay_last_whatever_keras_is_set_to(keras: Any, ours: Any, image: NDArray[np.float32]) -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        model = Xception(weights=None, include_top=False, pooling="avg")
    finally:
        keras.config.set_image_data_format("channels_last")
    model.set_weights(ours.get_weights())
    expected = np.asarray(ours(image)).mean((1, 2))
    assert np.abs(np.asarray(model(image)) - expected).max() < 1e-5


def test_loads_what_keras_saves(ours: Any, keras_weights_file: str, image: NDArray[np.float32]) -> None:
    model = Xception(include_top=False, weights=keras_weights_file)
    assert np.array_equal(np.asarray(model(image)), np.asarray(ours(image)))
    other = Xception(include_top=False, weights=None)
    other.load_weights(keras_weights_file)
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), ours.get_weights(), strict=True))


def test_keras_loads_what_is_saved_here(keras: Any, ours: Any, scratch: Path) -> None:
    path = scratch / "ours.weights.h5"
    ours.save_weights(path)
    model = keras.applications.Xception(weights=None, include_top=False)
    model.load_weights(path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), ours.get_weights(), strict=True))


def test_files_with_a_top_travel_both_ways(keras: Any, theirs_with_top: Any, scratch: Path) -> None:
    path = scratch / "theirs.weights.h5"
    theirs_with_top.save_weights(path)
    expected = theirs_with_top.get_weights()
    model = Xception(weights=path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected, strict=True))
    back = scratch / "ours.weights.h5"
    model.save_weights(back)
    keras_model = keras.applications.Xception(weights=None)
    keras_model.load_weights(back)
    assert all(np.array_equal(a, b) for a, b in zip(keras_model.get_weights(), expected, strict=True))


def test_a_file_brings_its_own_number_of_classes(scratch: Path) -> None:
    path = str(scratch / "five.h5")
    weights = random_weights(include_top=True, classes=5, seed=1)
    write_legacy(path, weights, top=True)
    model = Xception(weights=path, classes=5)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), ordered(weights, top=True), strict=True))
    with pytest.raises(WeightsError, match="has 5 classes, but 6 were asked for"):
        Xception(weights=path, classes=6)


@pytest.mark.parametrize("first", [1, 97])
def test_loads_the_older_layout_whatever_its_automatic_names(
    ours: Any, weights: Weights, scratch: Path, first: int
) -> None:
    path = str(scratch / "legacy.h5")
    write_legacy(path, weights, top=False, first=first)
    model = Xception(include_top=False, weights=path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), ours.get_weights(), strict=True))


def test_a_model_without_top_takes_a_file_with_one(ours: Any, legacy_weights_file: str) -> None:
    model = Xception(include_top=False, weights=legacy_weights_file)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), ours.get_weights(), strict=True))


def test_loads_the_real_weights_as_keras_does(keras: Any, real_weights: str, image: NDArray[np.float32]) -> None:
    reference = keras.applications.Xception(weights=None, include_top=False, pooling="avg")
    reference.load_weights(real_weights)
    model = Xception(include_top=False, weights=real_weights, pooling="avg")
    assert np.abs(np.asarray(model(image)) - np.asarray(reference(image))).max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (224, 224, 3)}, r"299x299x3; received input_shape=\(224, 224, 3\)"),
        ({"input_shape": (None, None, 3)}, r"299x299x3; received input_shape=\(None, None, 3\)"),
        ({"input_shape": (299, 299, 1)}, r"exactly 3 channels.*\(299, 299, 1\), so 1 channels"),
        ({"include_top": False, "input_shape": (299, 299, 4)}, r"exactly 3 channels.*\(299, 299, 4\)"),
        ({"include_top": False, "input_shape": (3, 299, 299)}, r"exactly 3 channels, last.*\(3, 299, 299\)"),
        ({"include_top": False, "input_shape": (299, 299, None)}, r"exactly 3 channels.*None channels"),
        ({"include_top": False, "input_shape": (70, 299, 3)}, r"at least 71x71; received input_shape=\(70, 299, 3\)"),
        ({"include_top": False, "input_shape": (299, 70, 3)}, r"at least 71x71; received input_shape=\(299, 70, 3\)"),
        ({"include_top": False, "input_shape": (-299, 299, 3)}, r"at least 71x71; received input_shape=\(-299"),
        ({"include_top": False, "input_shape": (299, 299)}, r"\(height, width, 3\); received \(299, 299\)"),
        ({"include_top": False, "input_shape": 299}, r"\(height, width, 3\); received 299"),
        ({"include_top": False, "input_shape": "299"}, r"whole numbers; received \('2', '9', '9'\)"),
        ({"include_top": False, "input_shape": (99.5, 99.5, 3)}, r"whole numbers; received \(99.5"),
        ({"include_top": False, "input_shape": (True, 99, 3)}, r"whole numbers; received \(True"),
        ({"include_top": False, "classes": 10}, r"classes=10 with include_top=False"),
        ({"weights": "imagenet", "classes": 10}, r"1000 classes; received classes=10"),
        ({"classes": 0}, r"positive integer; received 0"),
        ({"classes": -3}, r"positive integer; received -3"),
        ({"classes": 10.0}, r"positive integer; received 10.0"),
        ({"classes": "10"}, r"positive integer; received '10'"),
        ({"classes": True}, r"positive integer; received True"),
        ({"classes": None}, r"positive integer; received None"),
        ({"include_top": False, "pooling": "mean"}, r"None, 'avg' or 'max'; received 'mean'"),
        ({"include_top": False, "pooling": True}, r"None, 'avg' or 'max'; received True"),
        ({"pooling": "avg"}, r"only with include_top=False.*pooling='avg'"),
        ({"weights": "imagenet", "classifier_activation": "sigmoid"}, r"'linear' or 'softmax'; received 'sigmoid'"),
        ({"weights": "no/such/file.h5"}, r"path of a weights file; received 'no/such/file.h5', which does not exist"),
        ({"weights": 5}, r"path of a weights file; received 5"),
        ({"include_top": False, "input_tensor": np.zeros((1, 99, 99, 3))}, r"Keras tensor.*received ndarray"),
        ({"include_top": False, "input_tensor": "image"}, r"Keras tensor.*received str"),
    ],
)
def test_refuses_what_the_documentation_excludes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Xception(**{"weights": None, **arguments})
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "include_top", "message"),
    [
        ((96, 96, 1), False, "exactly 3 channels"),
        ((64, 64, 3), False, "at least 71x71"),
        ((96, 96, 3), True, "299x299x3"),
        ((96, 3), False, "height, width, 3"),
    ],
)
def test_refuses_input_tensors_by_the_same_rules(
    keras: Any, shape: tuple[int, ...], include_top: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Xception(weights=None, include_top=include_top, input_tensor=keras.Input(shape))


def test_refuses_other_activations_with_any_weights_that_are_loaded(keras: Any, keras_weights_file: str) -> None:
    with pytest.raises(ValueError, match="received 'sigmoid'"):
        Xception(weights=keras_weights_file, classifier_activation=keras.activations.sigmoid)


def test_takes_the_softmax_function_itself_with_weights(keras: Any, legacy_weights_file: str) -> None:
    model = Xception(weights=legacy_weights_file, classifier_activation=keras.activations.softmax)
    assert model.layers[-1].activation is keras.activations.softmax


def test_smallest_input_is_taken() -> None:
    assert check_input_shape((71, 71, 3), include_top=False) == (71, 71, 3)
    assert check_input_shape([np.int64(71), None, 3], include_top=False) == (71, None, 3)
    assert check_input_shape((299, 299, 3), include_top=True) == (299, 299, 3)
    model = Xception(weights=None, include_top=False, input_shape=(71, 71, 3))
    assert model.output_shape == (None, 3, 3, 2048)


def test_poolings() -> None:
    for pooling in (None, "avg", "max"):
        check_pooling(pooling)
    with pytest.raises(ValueError, match="received 'AVG'"):
        check_pooling("AVG")
