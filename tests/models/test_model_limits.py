"""Small model files that would take much memory or time: each is refused by name, within its budget."""

from __future__ import annotations

import copy
import json
import os
import struct
import time
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from tests.budget import check_cost
from tests.networks import SIZE, config_of, layer_of, write_archive, write_legacy
from tests.thorough import thorough
from xcli.core.errors import ModelError
from xcli.inference.engines.tensorflow import Engine
from xcli.models import keras_network
from xcli.models.hdf5_weights import random_weights
from xcli.models.keras_file import open_archive
from xcli.models.keras_graph import MAX_CALLS, MAX_LAYERS, Graph, effort_problem, read_graph
from xcli.models.keras_network import KerasNetwork
from xcli.models.loader import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ = """
import sys
from xcli.core.errors import ModelError
from xcli.models.hdf5_checks import check_tree
from xcli.models.hdf5_weights import read_weights
try:
    check_tree(sys.argv[1])
    read_weights(sys.argv[1], include_top=False)
except ModelError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("honest") / "honest.h5")
    write_legacy(path, random_weights(include_top=False, classes=1, seed=0), top=False)
    return path


# HDF5: names, paths, chunks


def repeat_first_text(path: str, count: int) -> None:
    """Makes each of `count` texts of an attribute a reference to the first, which has a million letters."""
    long, short = struct.pack("<I", 1_000_000), struct.pack("<I", 1)
    with open(path, "r+b") as file:
        data = file.read()
        first = data.index(long)
        while data[first + 16 : first + 20] != short:
            first = data.index(long, first + 1)
        file.seek(first)
        file.write(data[first : first + 16] * count)


def texts(count: int) -> Any:
    return np.array(["x" * 1_000_000, *["y"] * (count - 1)], h5py.string_dtype())


def one_text_for_all_names(path: str) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.create("layer_names", texts(50_000))
    repeat_first_text(path, 50_000)


def one_group_for_all_layers(path: str) -> None:
    """Each of 10,000 layers is the same group, whose list of weights has 10,000 names."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = np.full(10_000, b"a")
        file.create_group("a").attrs["weight_names"] = np.full(10_000, b"a/kernel:0")


def groups_in_circles(path: str) -> None:
    """Two links lead back to their group: any number of paths, with names of 60,000 letters."""
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("layers")
        for letter in "ab":
            group[letter * 60_000] = group


def compressed_zeros(blocks: int) -> bytes:
    """What zlib would make of so many blocks of 16 MiB."""
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = block.compress(bytes(16 << 20)) + block.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    checksum = (((blocks << 24) % 65521) << 16 | 1).to_bytes(4, "big")
    return b"\x78\x01" + zeros * blocks + end + checksum


def a_chunk_that_inflates(path: str) -> None:
    """A chunk of 16 MiB inflates to 4 GiB; HDF5 has no limit to that."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("vars/0", (4 << 20,), "f4", chunks=(4 << 20,), compression="gzip")
        data.id.write_direct_chunk((0,), compressed_zeros(256))


def a_chunk_beyond_the_shape(path: str) -> None:
    """16 numbers are in a chunk of 2 GiB."""
    sides = (1 << 14, 1 << 15)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("vars/0", (4, 4), "f4", chunks=sides, maxshape=(None, None), compression="gzip")
        data.id.write_direct_chunk((0, 0), compressed_zeros(128))


def a_chunk_for_each_number(path: str) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("vars/0", (2_000, 2_000), "f4", chunks=(1, 1))


def one_text_for_all_types(path: str) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file["vars/0"] = np.zeros(4, np.float32)
        file["vars/0"].attrs.create("dtype", texts(20_000))
    repeat_first_text(path, 20_000)


HDF5: list[tuple[Callable[[str], None], str]] = [
    (one_text_for_all_names, "other lists of names could take more than"),
    (one_group_for_all_layers, "other lists of names could take more than"),
    (groups_in_circles, "names of more than 2,048 characters"),
    (a_chunk_that_inflates, "chunks that inflate to more than their shape"),
    (a_chunk_beyond_the_shape, "declares 2,147,483,648 bytes, of which the file holds only"),
    (a_chunk_for_each_number, "is in 4,000,000 chunks, far more than its size needs"),
    (one_text_for_all_types, "attribute 'dtype' that is not the name of a type"),
]


@pytest.mark.parametrize(("make", "match"), HDF5, ids=[make.__name__ for make, _ in HDF5])
def test_hdf5_is_refused_within_the_budget(
    make: Callable[[str], None], match: str, honest: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "small.h5")
    make(path)
    assert os.path.getsize(path) < 6 << 20
    cost = check_cost(READ, [path], [honest])
    assert cost.code == 1
    assert match in cost.text


# Configurations, without Keras


def tensor(name: str) -> dict[str, Any]:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None], "dtype": "float32", "keras_history": [name, 0, 0]},
    }


def layer(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    call = {"args": [tensor(one) for one in inputs], "kwargs": {}}
    found = {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": [call] if inputs else []}
    return {**found, "name": name, "module": "keras.layers"}


def functional(layers: list[Any], calls: int = 0, name: str = "model") -> dict[str, Any]:
    inner = {"name": name, "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [["out", 0, 0]]}
    node = {"args": [tensor("in")], "kwargs": {}}
    return {"class_name": "Functional", "module": "keras", "config": inner, "inbound_nodes": [node] * calls}


def chain(count: int) -> list[Any]:
    names = ["in", *(f"x{index}" for index in range(count)), "out"]
    pairs = zip(names[1:], names, strict=False)
    return [layer("InputLayer", "in"), *(layer("ReLU", name, before) for name, before in pairs)]


def nested(levels: int) -> dict[str, Any]:
    """A model that calls a model twice, which calls a model twice, and so on."""
    model = functional(chain(1), 2, "m0")
    for level in range(1, levels):
        model = functional([layer("InputLayer", "in"), model, layer("ReLU", "out", f"m{level - 1}")], 2, f"m{level}")
    return model


CONFIGS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: functional([layer("InputLayer", f"in{index}") for index in range(40_000)]),
        f"has 40,000 layers; at most {MAX_LAYERS:,}",
    ),
    (lambda: nested(15), f"calls [0-9,]+ layers for an image; at most {MAX_CALLS:,}"),
    (lambda: functional(chain(200)[::-1]), "does not list its layers in the order of their calls"),
    (
        lambda: functional([layer("InputLayer", "in"), layer("Concatenate", "out", *["in"] * 30_000)]),
        "calls [0-9,]+ layers",
    ),
    (lambda: functional([layer("InputLayer", "n" * 2_000)]), "a name of more than 512 characters"),
    (lambda: nested(40), "that Keras does not write .more than 100 levels"),
    (lambda: functional([[[]] * 600_000]), "of more than 1,048,576 values"),
    (lambda: functional([layer("InputLayer", "in", seed="9" * (9 << 20))]), "a configuration above 8 MiB"),
]


@pytest.mark.parametrize(("config", "match"), CONFIGS, ids=[match[:20] for _, match in CONFIGS])
def test_a_configuration_is_refused_in_a_moment(config: Callable[[], Any], match: str, tmp_path: Path) -> None:
    path = write_archive(str(tmp_path / "model.keras"), config())
    begin = time.process_time()
    with pytest.raises(ModelError, match=match):
        open_archive(path)
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("large", [False, True])
def test_a_long_table_of_contents_is_not_read(tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a million members; in a file of more than 4 GiB the size stands elsewhere."""
    path, size = tmp_path / "model.keras", 46 * 1_000_000
    count, short = (0xFFFF, 0xFFFFFFFF) if large else (16_960, size)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1_000_000, 1_000_000, size, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, size, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, short, 0, 0)
    path.write_bytes(bytes(1_000) + (record + locator if large else b"") + end)
    with open(path, "r+b") as file:
        content = file.read()
        file.truncate(size)
        file.seek(size)
        file.write(content[1_000:])
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ModelError, match="a table of contents above 1 MiB"):
        open_archive(str(path))


def head_of(**counts: int) -> Graph:
    """A model of so many layers of each kind, one behind the other."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    names = ["in", *(f"x{index}" for index in range(len(kinds) - 1)), "out"]
    inner = [layer(kind, name, before) for kind, name, before in zip(kinds, names[1:], names, strict=False)]
    return read_graph(functional([layer("InputLayer", "in"), *inner]))


def test_the_largest_networks_of_keras_fit_beside_an_xception() -> None:
    xception = {"BatchNormalization": 40, "SeparableConv2D": 34, "Conv2D": 6, "Activation": 54}
    nasnet = {"BatchNormalization": 264, "SeparableConv2D": 220, "Conv2D": 48, "Activation": 509}
    assert effort_problem(head_of(**{kind: count + nasnet[kind] for kind, count in xception.items()})) is None
    transformer = {"MultiHeadAttention": 48, "LayerNormalization": 96, "Dense": 96, "Add": 96}
    assert effort_problem(head_of(**xception, **transformer)) is None
    for kind, count in {"MultiHeadAttention": 151, "BatchNormalization": 751, "Dense": 1_001}.items():
        assert "calls" in str(effort_problem(head_of(**{kind: count}))), kind


@thorough  # Keras builds and saves them
@pytest.mark.parametrize("kind", ["a large kernel", "attention"])
def test_an_honest_large_model_is_loaded(keras: Any, theirs: Any, scratch: Path, kind: str) -> None:
    """Fifty million weights in a Dense layer; a transformer of thirty layers."""
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    x = theirs(start, training=False)
    if kind == "a large kernel":
        x = layers.Dense(2_700, activation="relu")(layers.Flatten()(x))
    else:
        x = layers.Reshape((-1, 256))(layers.Conv2D(256, 1)(x))
        for _ in range(30):
            normal = layers.LayerNormalization()(x)
            x = layers.Add()([x, layers.MultiHeadAttention(8, 32)(normal, normal)])
            x = layers.Add()([x, layers.Dense(256)(layers.Dense(1_024, "gelu")(layers.LayerNormalization()(x)))])
        x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(start, layers.Dense(5, activation="softmax")(x))
    model.save(scratch / "large.keras")
    loaded = load_model(model=str(scratch / "large.keras"))
    loaded.network.prepare("float32")
    pixels = np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE, 3), np.uint8)
    (scores,) = Engine(loaded.scores(), size=SIZE, batch_size=2)(pixels)
    assert scores.shape == (2, 5)
    assert np.allclose(scores.sum(1), 1, atol=1e-3)


# What a configuration declares, beside what its file holds


def altered(source: str, path: Path, change: Callable[[Any], None]) -> str:
    """A copy of a `.keras` file with another configuration."""
    config = copy.deepcopy(config_of(source))
    change(config)
    with zipfile.ZipFile(source) as file, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", json.dumps(config))
        target.writestr("model.weights.h5", file.read("model.weights.h5"))
    return str(path)


def many_units(config: Any) -> None:
    layer_of(config, "kinds")["config"]["units"] = 400_000


def inserted(config: Any, kind: str, before: str = "pooled", name: str = "new", **settings: Any) -> None:
    """Puts a layer before another one."""
    reader = layer_of(config, before)
    history = reader["inbound_nodes"][0]["args"][0]["config"]["keras_history"]
    new = layer(kind, name, history[0], dtype="float32", trainable=True, **settings)
    new["registered_name"] = None
    config["config"]["layers"].append(new)
    history[0] = name


def many_pixels_for_a_kernel(config: Any) -> None:
    inserted(config, "UpSampling2D", size=[200, 200], data_format="channels_last", interpolation="nearest")
    pooled = layer_of(config, "pooled")
    pooled.update(class_name="Flatten", config={"name": "pooled", "data_format": "channels_last"})
    del layer_of(config, "kinds")["build_config"]


def a_mean_for_each_pixel(config: Any) -> None:
    upsampled = {"size": [100, 100], "data_format": "channels_last", "interpolation": "nearest"}
    inserted(config, "UpSampling2D", name="larger", **upsampled)
    inserted(config, "Normalization", axis=[1, 2, 3], mean=0.5, variance=1.0, invert=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (many_units, r"declares layers with 840,[0-9,]+ weights, but holds only 20,[0-9,]+; not loaded"),
        (many_pixels_for_a_kernel, r"declares layers with [0-9,]{13,} weights"),
        (a_mean_for_each_pixel, "layers that make far larger arrays than it holds"),
    ],
)
def test_more_than_the_file_holds_is_refused_before_it_is_built(
    change: Callable[[Any], None], match: str, nested_file: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_network, "_load", lambda *_: pytest.fail("it was built"))
    with pytest.raises(ModelError, match=match):
        KerasNetwork(altered(nested_file, scratch / "x.keras", change)).load()


@pytest.mark.parametrize("sides", [{"height": 1, "width": 3}, {"height": 96, "width": 0}, {"height": "96"}])
def test_images_are_not_padded_without_end(sides: dict[str, Any], nested_file: str, scratch: Path) -> None:
    def change(config: Any) -> None:
        inserted(config, "Resizing", "xception", pad_to_aspect_ratio=True, **sides)

    with pytest.raises(ModelError, match=r"pads images to .*; one side may be 2 times the other at most"):
        open_archive(altered(nested_file, scratch / "x.keras", change))


def test_more_classes_than_there_can_be_names_for(nested_file: str, scratch: Path) -> None:
    def change(config: Any) -> None:
        repeated = layer("RepeatVector", "repeated", "kinds", n=1_000_000, dtype="float32", trainable=True)
        flat = layer("Flatten", "flat", "repeated", data_format="channels_last", dtype="float32", trainable=True)
        config["config"]["layers"] += [{**one, "registered_name": None} for one in (repeated, flat)]
        config["config"]["output_layers"] = ["flat", 0, 0]

    with pytest.raises(ModelError, match="has 5,000,000 classes; at most 1,000,000"):
        KerasNetwork(altered(nested_file, scratch / "x.keras", change)).load()


# What one image and one batch take


RUN = """
import sys
import numpy as np
from xcli.core.errors import ModelError
from xcli.inference.engines.tensorflow import Engine
from xcli.models.loader import load_model
try:
    model = load_model(model=sys.argv[1])
    model.network.prepare("float32")
    Engine(model.scores(), size=model.size, batch_size=2)(np.zeros((2, model.size, model.size, 3), np.uint8))
except ModelError as error:
    sys.exit(f"refused: {error}")
"""


def larger_maps(config: Any) -> None:
    inserted(config, "UpSampling2D", size=[200, 200], data_format="channels_last", interpolation="nearest")


def larger_edges(config: Any) -> None:
    inserted(config, "ZeroPadding2D", padding=[[300, 300], [300, 300]], data_format="channels_last")


def many_copies(config: Any) -> None:
    for name, count in (("once", 1_000), ("again", 100)):
        inserted(config, "Concatenate", name=name, axis=1)
        call = layer_of(config, name)["inbound_nodes"][0]
        call["args"] = [call["args"] * count]


def a_larger_image(config: Any) -> None:
    inserted(config, "Resizing", "xception", height=9_000, width=9_000, interpolation="nearest")


@thorough  # each child starts TensorFlow
@pytest.mark.parametrize(
    "change", [many_units, many_pixels_for_a_kernel, larger_maps, larger_edges, many_copies, a_larger_image]
)
def test_a_model_is_refused_within_the_budget(change: Callable[[Any], None], nested_file: str, scratch: Path) -> None:
    cost = check_cost(RUN, [altered(nested_file, scratch / "x.keras", change)], [nested_file])
    assert cost.code == 1
    assert "declares layers with" in cost.text or "GiB for one image of 96 pixels" in cost.text
