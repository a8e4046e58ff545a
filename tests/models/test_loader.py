"""The shared loader: what the user asks for, and the model that comes of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import CLASSES, SIZE, write_legacy
from xcli.core.errors import LabelsError, ModelError, UsageError, WeightsError
from xcli.core.tensorflow import load_tensorflow
from xcli.images.preprocessing import DEFAULT_CROP_PCT
from xcli.inference.engines.tensorflow import Engine
from xcli.models import keras_network as foreign
from xcli.models import loader as loader
from xcli.models.architecture import layers
from xcli.models.hdf5_weights import random_weights
from xcli.models.labels import imagenet_labels
from xcli.models.loader import load_model, preprocessing_for, sha256_of
from xcli.models.network import LAST_MAP, LoadedModel
from xcli.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from xcli.models.folded import Forward


def run(loaded: LoadedModel, pixels: NDArray[np.uint8], forward: Forward) -> NDArray[np.float32]:
    loaded.network.prepare("float32")
    return Engine(forward, size=loaded.size, batch_size=len(pixels))(pixels)[0]


@pytest.fixture(scope="module", autouse=True)
def networks() -> Iterator[None]:
    """Every `.keras` file is loaded once, however often a test asks for it with other options."""
    load = cache(foreign.KerasNetwork)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "KerasNetwork", lambda path: load(os.path.realpath(path)))
        yield


# The plain network


def test_random_weights_come_of_the_seed(pixels: NDArray[np.uint8]) -> None:
    first, again, other = (
        load_model(weights="none", include_top=False, image_size=SIZE, seed=seed) for seed in (1, 1, 2)
    )
    assert (first.path, first.digest, first.name) == (None, "random-1", "Xception (random weights, seed 1)")
    assert other.digest == "random-2"
    a, b, c = (run(one, pixels[:1], one.features("avg", "block4_add")) for one in (first, again, other))
    assert np.array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_random_weights_have_the_classes_of_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("one\ntwo\nthree\n")
    loaded = load_model(weights="none", labels=str(path))
    assert loaded.labels is not None
    assert loaded.labels.names == ("one", "two", "three")
    assert loaded.parameters == 20_861_480 + 3 * 2049
    with pytest.raises(LabelsError, match="has 3 labels, but the model has 4 classes"):
        load_model(weights="none", labels=str(path), classes=4)


def test_without_the_top_there_is_no_classifier() -> None:
    loaded = load_model(weights="none", include_top=False)
    assert (loaded.labels, loaded.output_name, loaded.size, loaded.input_range) == (None, None, 299, "xception")
    assert (loaded.resize, loaded.interpolation, loaded.crop_pct, loaded.notes) == ("crop", "bicubic", None, ())
    assert loaded.layer_names == (*(layer.name for layer in layers()), "avg_pool")
    assert loaded.parameters == 20_861_480
    with pytest.raises(ModelError, match="has no classifier on top; use `xception features`"):
        loaded.scores()
    with pytest.raises(UsageError, match="no layer 'predictions'; it was loaded without its top"):
        loaded.features(None, "predictions")


@pytest.fixture(scope="module")
def plain(legacy_weights_file: str) -> LoadedModel:
    loaded = load_model(weights=legacy_weights_file)
    loaded.network.prepare("float32")
    return loaded


def test_a_weights_file_with_its_top(plain: LoadedModel, legacy_weights_file: str) -> None:
    with open(legacy_weights_file, "rb") as file:
        assert plain.digest == sha256_of(legacy_weights_file) == hashlib.sha256(file.read()).hexdigest()
    assert plain.path == legacy_weights_file
    assert plain.name == f"Xception ({legacy_weights_file})"
    assert plain.labels is imagenet_labels()
    assert (plain.output_name, plain.activation, plain.size) == ("predictions", "softmax", 299)
    assert plain.layer_names[-2:] == ("avg_pool", "predictions")
    assert plain.notes == ()
    assert plain.parameters == 22_910_480


def test_scores_and_taps_are_those_of_keras(keras: Any, plain: LoadedModel, theirs_with_top: Any) -> None:
    tf = load_tensorflow()
    image = np.random.default_rng(2).integers(0, 256, (1, 299, 299, 3), np.uint8)
    outputs = [theirs_with_top.get_layer("avg_pool").output, theirs_with_top.output]
    pooled, scores = keras.Model(theirs_with_top.input, outputs)(image / np.float32(127.5) - np.float32(1))
    forwards = [
        plain.scores(),
        plain.scores(raw=True),
        plain.features(None, "predictions"),
        plain.features("avg"),
        plain.features("max", "avg_pool"),
        plain.features(None, "avg_pool"),
    ]

    def all_of_them(pixels: Any) -> list[Any]:
        return [tensor for forward in forwards for tensor in forward(pixels)]

    found = Engine(all_of_them, size=299, batch_size=1)(image)
    for one in found[:3]:
        assert np.abs(one - np.asarray(scores)).max() < 1e-6
    for one in found[3:]:
        assert np.abs(one - np.asarray(pooled)).max() < 1e-5
    assert np.asarray(scores).max() > 0.005
    assert tf.executing_eagerly()


def test_features_are_pooled_as_asked(theirs: Any, weights: Any, pixels: NDArray[np.uint8]) -> None:
    network = loader.PlainNetwork({name: array for name, array in weights.items() if "predictions" not in name})
    assert network.classes is None
    base = load_model(weights="none", include_top=False, image_size=SIZE)
    loaded = LoadedModel(**{name: getattr(base, name) for name in base.__slots__} | {"network": network})
    last = np.asarray(theirs(pixels[:2] / np.float32(127.5) - np.float32(1)))
    for pooling, expected in ((None, last), ("avg", last.mean((1, 2))), ("max", last.max((1, 2)))):
        assert np.abs(run(loaded, pixels[:2], loaded.features(pooling)) - expected).max() < 1e-4
        assert np.abs(run(loaded, pixels[:2], loaded.features(pooling, LAST_MAP)) - expected).max() < 1e-4


def test_a_weights_file_has_its_own_number_of_classes(tmp_path: Path, scratch: Path) -> None:
    path = str(scratch / "five.h5")
    write_legacy(path, random_weights(include_top=True, classes=5, seed=0), top=True)
    loaded = load_model(weights=path)
    assert loaded.labels is not None
    assert loaded.labels.names == ("0", "1", "2", "3", "4")
    assert load_model(weights=path, classes=5).labels == loaded.labels
    with pytest.raises(WeightsError, match="has 5 classes, but 6 were asked for"):
        load_model(weights=path, classes=6)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    with pytest.raises(LabelsError, match="has 2 labels, but the model has 5 classes"):
        load_model(weights=path, labels=str(labels))
    labels.write_text("a\nb\nc\nd\ne\n")
    found = load_model(weights=path, labels=str(labels)).labels
    assert found is not None
    assert found.names == ("a", "b", "c", "d", "e")


def test_a_weights_file_without_a_top(keras_weights_file: str) -> None:
    with pytest.raises(WeightsError, match="no classifier on top"):
        load_model(weights=keras_weights_file)
    assert load_model(weights=keras_weights_file, include_top=False).output_name is None


def test_the_imagenet_weights_are_located_with_the_users_options(
    keras_weights_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import xcli.models.imagenet_weights

    calls = []

    def locate(*args: Any, **options: Any) -> str:
        calls.append((args, options))
        return keras_weights_file

    monkeypatch.setattr(xcli.models.imagenet_weights, "locate_imagenet", locate)
    loaded = load_model(include_top=False, weights_dir="somewhere", offline=True)
    assert calls == [((False,), {"weights_dir": "somewhere", "offline": True, "progress": False})]
    assert loaded.name == "Xception (imagenet)"
    assert loaded.digest == sha256_of(keras_weights_file)


@pytest.mark.parametrize("name", ["model.keras", "folder"])
def test_models_are_not_weights(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"")
    with pytest.raises(WeightsError, match=f"is a model, not a weights file; give it with --model .*{name}"):
        load_model(weights=str(path))


def test_whole_models_in_the_old_format_are_refused_on_both_roads(keras: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "whole.h5")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ModelError, match=r"can carry code.*load_model\(FILE\).save\('model.keras'\)"):
        load_model(weights=path)
    with pytest.raises(ModelError, match=r"can carry code.*load_model\(FILE\).save\('model.keras'\)"):
        load_model(model=path)


# Models from files


def test_a_file_without_metadata_says_what_is_assumed(nested_file: str) -> None:
    loaded = load_model(model=nested_file)
    assert loaded.notes == (
        f"{nested_file} records no preprocessing; using --input-range xception, and --resize squash --interpolation "
        "nearest where you give no others. Override them if predictions look wrong",
    )
    assert (loaded.resize, loaded.interpolation, loaded.crop_pct) == ("squash", "nearest", None)
    assert (loaded.size, loaded.input_range, loaded.activation, loaded.output_name) == (
        96,
        "xception",
        "softmax",
        "kinds",
    )
    assert loaded.name == loaded.path == nested_file
    assert loaded.digest == sha256_of(nested_file)
    assert loaded.labels is not None
    assert loaded.labels.names == ("0", "1", "2", "3", "4")


def test_options_must_fit_the_file(nested_file: str, tmp_path: Path) -> None:
    fitting = load_model(model=nested_file, image_size=SIZE, classes=5, input_range="unit")
    assert fitting.input_range == "unit"
    assert "using --input-range unit, and" in fitting.notes[0]
    with pytest.raises(UsageError, match="takes images of 96 pixels; received --image-size 128"):
        load_model(model=nested_file, image_size=128)
    with pytest.raises(ModelError, match="has 5 classes, but --classes 6 were asked for"):
        load_model(model=nested_file, classes=6)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    with pytest.raises(LabelsError, match="has 2 labels, but the model has 5 classes"):
        load_model(model=nested_file, labels=str(labels))


@pytest.fixture(scope="module")
def heads(keras: Any, theirs: Any, large_files: Path) -> Callable[[str], str]:
    """Files with different ends, made once each: activation, or what stands for it, and units."""
    made: dict[str, str] = {}

    def make(kind: str) -> str:
        if kind not in made:
            start = keras.Input((SIZE, SIZE, 3))
            x = keras.layers.GlobalAveragePooling2D()(theirs(start))
            if kind != "pooled":
                activation, units = kind.split()
                x = keras.layers.Dense(int(units), activation=activation)(x)
            made[kind] = str(large_files / f"{kind.replace(' ', '-')}.keras")
            keras.Model(start, x).save(made[kind])
        return made[kind]

    return make


@pytest.fixture(scope="module")
def headed(heads: Callable[[str], str]) -> Callable[[str], LoadedModel]:
    """The same, loaded without further options, once each."""
    return cache(lambda kind: load_model(model=heads(kind)))


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        ("linear 5", r"outputs logits; applying softmax \(--raw-scores keeps the logits\)"),
        ("linear 1", r"outputs logits; applying sigmoid \(--raw-scores keeps the logits\)"),
        ("sigmoid 1", None),
        ("pooled", None),
    ],
)
def test_says_what_it_makes_of_the_head(kind: str, note: str | None, headed: Callable[[str], LoadedModel]) -> None:
    loaded = headed(kind)
    assert len(loaded.notes) == (2 if note else 1)
    if note:
        assert re.fullmatch(f"{re.escape(loaded.name)} {note}", loaded.notes[1])


def test_says_which_scores_are_left_as_they_are() -> None:
    assert loader._head_notes("m", 5, "tanh") == ["m ends in the activation 'tanh': its scores are not changed"]
    assert loader._head_notes("m", 5, "log_softmax") == loader._head_notes("m", 5, "linear")
    assert loader._head_notes("m", 5, "softmax") == loader._head_notes("m", None, "linear") == []


def test_the_size_of_a_model_that_leaves_it_open() -> None:
    def size(asked: int | None, fixed: int | None, recipe: dict[str, Any]) -> int:
        return loader._input_size(ModelSpec(model="m", image_size=asked), fixed, recipe, "m")

    assert size(None, None, {}) == 299
    assert size(150, None, {}) == 150
    assert size(None, None, {"size": 200}) == 200
    assert size(150, None, {"size": 200}) == 150
    assert size(None, 64, {}) == size(64, 64, {"size": 64}) == 64
    with pytest.raises(UsageError, match="at least 71; received 70"):
        size(70, None, {})


def test_pooled_features_are_no_scores(heads: Callable[[str], str], headed: Callable[[str], LoadedModel]) -> None:
    loaded = headed("pooled")
    assert (loaded.labels, loaded.output_name) == (None, None)
    with pytest.raises(ModelError, match="has no classifier on top"):
        loaded.scores()
    with pytest.raises(ModelError, match="has no classifier, but --classes 5 were asked for"):
        load_model(model=heads("pooled"), classes=5)


@pytest.mark.parametrize("kind", ["linear 1", "sigmoid 1"])
def test_one_unit_with_two_labels(
    kind: str, keras: Any, heads: Callable[[str], str], headed: Callable[[str], LoadedModel], pixels: NDArray[np.uint8]
) -> None:
    loaded = headed(kind)
    assert loaded.labels == loader.fit_labels(None, 2)
    unit = np.asarray(
        keras.models.load_model(heads(kind), compile=False)(pixels[:3] / np.float32(127.5) - np.float32(1))
    )
    forwards = loaded.scores(raw=True), loaded.scores()
    loaded.network.prepare("float32")
    engine = Engine(lambda x: [one for forward in forwards for one in forward(x)], size=SIZE, batch_size=3)
    raw, found = engine(pixels[:3])
    assert raw.shape == (3, 1)
    assert np.abs(raw - unit).max() < 1e-4
    second = 1 / (1 + np.exp(-unit)) if kind.startswith("linear") else unit
    assert np.abs(found - np.concatenate([1 - second, second], 1)).max() < 1e-5
    assert np.abs(found.sum(1) - 1).max() < 1e-6


def test_one_unit_with_one_label_or_three(
    heads: Callable[[str], str], pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("defect\n")
    loaded = load_model(model=heads("sigmoid 1"), labels=str(labels))
    found = run(loaded, pixels[:3], loaded.scores())
    assert found.shape == (3, 1)
    assert np.array_equal(found, run(loaded, pixels[:3], loaded.scores(raw=True)))
    labels.write_text("cat\ndog\n")
    both = load_model(model=heads("sigmoid 1"), labels=str(labels)).labels
    assert both is not None
    assert both.names == ("cat", "dog")
    labels.write_text("a\nb\nc\n")
    with pytest.raises(LabelsError, match=r"has 3 labels, but .* has one output, which distinguishes two classes"):
        load_model(model=heads("sigmoid 1"), labels=str(labels))


def test_raw_scores_are_the_heads(
    heads: Callable[[str], str], headed: Callable[[str], LoadedModel], pixels: NDArray[np.uint8], keras: Any
) -> None:
    loaded = headed("linear 5")
    reference = keras.models.load_model(heads("linear 5"), compile=False)
    expected = np.asarray(reference(pixels[:2] / np.float32(127.5) - np.float32(1)))
    assert np.abs(run(loaded, pixels[:2], loaded.scores(raw=True)) - expected).max() < 1e-4
    assert np.abs(expected.sum(1) - 1).min() > 1e-3
    assert np.abs(run(loaded, pixels[:2], loaded.scores()).sum(1) - 1).max() < 1e-5


# Bundles

RECIPE = {"size": SIZE, "resize": "pad", "interpolation": "bilinear", "crop_pct": 0.9, "input_range": "xception"}


@pytest.fixture
def bundle(nested_file: str, scratch: Path) -> Path:
    folder = scratch / "run"
    folder.mkdir()
    os.symlink(nested_file, folder / "model.keras")
    (folder / "labels.json").write_text(json.dumps(["a", "b", "c", "d", "e"]))
    (folder / "run.json").write_text(json.dumps({"preprocessing": RECIPE, "seed": 1}))
    return folder


def test_a_bundle_brings_its_labels_and_preprocessing(bundle: Path, tmp_path: Path) -> None:
    loaded = load_model(model=str(bundle))
    assert loaded.notes == ()
    assert loaded.labels is not None
    assert loaded.labels.names == ("a", "b", "c", "d", "e")
    assert (loaded.size, loaded.resize, loaded.interpolation) == (SIZE, "pad", "bilinear")
    assert (loaded.crop_pct, loaded.input_range) == (0.9, "xception")
    assert loaded.name == str(bundle)
    assert loaded.path == str(bundle / "model.keras")
    assert loaded.digest == sha256_of(bundle / "model.keras")
    labels = tmp_path / "mine.txt"
    labels.write_text("1\n2\n3\n4\n5\n")
    given = load_model(model=str(bundle), labels=str(labels), input_range="raw")
    assert given.labels is not None
    assert given.labels.names == ("1", "2", "3", "4", "5")
    assert given.input_range == "raw"


def test_a_bundle_need_not_crop(bundle: Path) -> None:
    (bundle / "run.json").write_text(json.dumps({"preprocessing": RECIPE | {"crop_pct": None, "resize": "squash"}}))
    assert load_model(model=str(bundle)).crop_pct is None


def test_a_directory_with_a_model_alone_is_taken_with_the_usual_assumptions(bundle: Path) -> None:
    (bundle / "labels.json").unlink()
    (bundle / "run.json").unlink()
    loaded = load_model(model=str(bundle))
    assert len(loaded.notes) == 1
    assert (loaded.resize, loaded.interpolation) == ("squash", "nearest")
    assert loaded.labels is not None
    assert loaded.labels.names[0] == "0"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("{}", "is damaged: KeyError: 'preprocessing'"),
        ('{"preprocessing": null}', "is damaged"),
        ('{"preprocessing": []}', "is damaged"),
        *(
            (json.dumps({"preprocessing": {name: value for name, value in RECIPE.items() if name != missing}}), missing)
            for missing in RECIPE
        ),
        *(
            (json.dumps({"preprocessing": RECIPE | change}), match)
            for change, match in [
                ({"size": "96"}, "size must be a number of pixels; received '96'"),
                ({"size": True}, "size must be a number"),
                ({"size": 0}, "size must be a number"),
                ({"size": 299}, "takes images of 96 pixels, but its run.json says 299"),
                ({"resize": "stretch"}, "resize must be one of .* received 'stretch'"),
                ({"resize": ["pad"]}, "resize must be one of"),
                ({"interpolation": None}, "interpolation must be one of"),
                ({"crop_pct": 1.5}, "crop_pct must be above 0 and at most 1"),
                ({"crop_pct": "all"}, "crop_pct must be a number or null"),
                ({"crop_pct": float("nan")}, "crop_pct"),
                ({"input_range": "tf"}, "input_range must be one of xception, unit, raw; received 'tf'"),
            ]
        ),
    ],
)
def test_a_damaged_recipe_is_refused(content: str, match: str, bundle: Path) -> None:
    (bundle / "run.json").write_text(content)
    with pytest.raises(ModelError, match=match) as caught:
        load_model(model=str(bundle))
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_label_file_of_a_bundle_is_refused(bundle: Path) -> None:
    (bundle / "labels.json").write_text("[1]")
    with pytest.raises(LabelsError, match=r"labels\.json is not a label file"):
        load_model(model=str(bundle))


def test_a_recipe_that_is_not_text_is_refused(bundle: Path) -> None:
    (bundle / "run.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"run.json is damaged"):
        load_model(model=str(bundle))


def test_other_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a model directory: it has no model\.keras"):
        load_model(model=str(tmp_path))
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ModelError, match="SavedModel format, which carries code and is not loaded; convert it"):
        load_model(model=str(tmp_path))
    with pytest.raises(ModelError, match=r"no such model: .*missing"):
        load_model(model=str(tmp_path / "missing"))


def test_the_default_crop_is_that_of_the_pixels() -> None:
    """A bundle without one leaves it open, which stands for this."""
    assert load_model(weights="none", classes=2).crop_pct is None
    assert 0 < DEFAULT_CROP_PCT < 1
    assert CLASSES == 1000


# Imports

IMPORTS = """
import sys
import xcli, xcli.models.loader, xcli.models.architecture, xcli.models.keras_file, xcli.models.keras_network
import xcli.inference.engines.tensorflow, xcli.models.keras_graph, xcli.models.keras2
import xcli.models.hdf5_weights, xcli.models.labels, xcli.core.tensorflow
xcli.models.spec.ModelSpec(include_top=False, pooling="avg")
xcli.models.architecture.output_sizes(299)
xcli.models.labels.imagenet_labels()
heavy = {"tensorflow", "keras", "numpy", "h5py", "PIL", "pyarrow"} & {name.partition(".")[0] for name in sys.modules}
print(sorted(heavy))
"""


def test_importing_the_loader_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_preprocessing_of_the_user_goes_before_that_of_the_model() -> None:
    model = load_model(weights="none", include_top=False, image_size=71)
    assert preprocessing_for(model, resampler="pillow").as_dict() == {
        "size": 71,
        "resize": "crop",
        "interpolation": "bicubic",
        "crop_pct": 0.897,
        "jpeg_shrink": True,
        "max_pixels": 178_000_000,
    }
    chosen = preprocessing_for(model, resize="pad", interpolation="box", crop_pct=1.0, jpeg_shrink=False, max_pixels=9)
    assert (chosen.resize, chosen.interpolation, chosen.crop_pct) == ("pad", "box", 1.0)
    assert (chosen.jpeg_shrink, chosen.max_pixels) == (False, 9)
