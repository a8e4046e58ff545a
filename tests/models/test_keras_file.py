"""What a `.keras` file may hold: everything else is refused before Keras sees it, and by name."""

from __future__ import annotations

import copy
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from tests.networks import SIZE, config_of, layer_of, write_archive
from xcli.core.errors import ExitCode, ModelError
from xcli.models import keras_file as archive
from xcli.models import keras_network as foreign
from xcli.models.keras_file import open_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def original(nested_file: str) -> Any:
    return config_of(nested_file)


@pytest.fixture
def config(original: Any) -> Any:
    """The configuration of a harmless model, to be spoiled."""
    return copy.deepcopy(original)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """What the payloads below would make."""
    return tmp_path / "canary"


@pytest.fixture(autouse=True)
def no_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these files may reach Keras."""

    def reached(folder: str, path: str) -> Any:
        raise AssertionError(f"Keras was asked to load {path}")

    monkeypatch.setattr(foreign, "_load", reached)


def refused(path: str, match: str) -> str:
    with pytest.raises(ModelError, match=match) as caught:
        foreign.KerasNetwork(path).load()
    text = str(caught.value)
    assert path in text
    assert "\n" not in text
    assert caught.value.exit_code is ExitCode.MODEL
    return text


def test_finds_the_xception_and_what_is_around_it(nested_file: str) -> None:
    graph = open_archive(nested_file).graph
    assert [node.name for node in graph.nodes] == ["photo", "xception", "pooled", "dropped", "kinds"]
    assert graph.inputs == (("photo", 0, 0),)
    assert graph.outputs == (("kinds", 0, 0),)
    inner = graph.nodes[1].graph
    assert inner is not None
    assert graph.backbone == {}
    assert inner.backbone["block7_sepconv2_bn"] == "block7_sepconv2_bn"
    assert len(inner.backbone) == 131


def test_a_harmless_file_does_reach_keras(nested_file: str) -> None:
    with pytest.raises(AssertionError, match=r"Keras was asked to load .*nested\.keras"):
        foreign.KerasNetwork(nested_file).load()


# Objects that are not among the harmless ones


def serialised(module: str | None, name: str, config: Any, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None, **more}


def function(module: str | None, name: Any, **more: Any) -> dict[str, Any]:
    return serialised(module, "function", name, **more)


LAMBDA_CONFIG = {"name": "lambda", "function": {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}}}

OBJECTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "a Lambda layer": (lambda _: serialised("keras.layers", "Lambda", LAMBDA_CONFIG), "keras.layers.Lambda"),
    "a Lambda by its real module": (
        lambda _: serialised("keras.src.layers.core.lambda_layer", "Lambda", LAMBDA_CONFIG),
        "keras.src.layers.core.lambda_layer.Lambda",
    ),
    "a Lambda without module": (lambda _: {"class_name": "Lambda", "config": LAMBDA_CONFIG}, "Lambda"),
    "a Lambda without anything": (lambda _: {"class_name": "Lambda"}, "Lambda"),
    "a lambda": (
        lambda _: {"class_name": "__lambda__", "config": {"value": ["4wEA", None, None]}},
        "__lambda__",
    ),
    "a lambda in two": (lambda _: [{"deep": {"er": {"class_name": "__lambda__", "config": {}}}}], "__lambda__"),
    "a SavedModel layer": (
        lambda canary: serialised("keras.layers", "TFSMLayer", {"filepath": canary}),
        "keras.layers.TFSMLayer",
    ),
    "a PyTorch layer": (
        lambda _: serialised("keras.layers", "TorchModuleWrapper", {"module": "gASV"}),
        "keras.layers.TorchModuleWrapper",
    ),
    "a JAX layer": (lambda _: serialised("keras.layers", "JaxLayer", {}), "keras.layers.JaxLayer"),
    "a layer that reads files": (
        lambda canary: serialised("keras.layers", "StringLookup", {"vocabulary": canary}),
        "keras.layers.StringLookup",
    ),
    "a layer that reads files, for numbers": (
        lambda canary: serialised("keras.layers", "IntegerLookup", {"vocabulary": canary}),
        "keras.layers.IntegerLookup",
    ),
    "a layer that reads files, for texts": (
        lambda canary: serialised("keras.layers", "TextVectorization", {"vocabulary": f"file://{canary}"}),
        "keras.layers.TextVectorization",
    ),
    "the unpacker": (
        lambda canary: serialised("keras.src.utils.file_utils", "extract_archive", {"file_path": canary}),
        "keras.src.utils.file_utils.extract_archive",
    ),
    "the importer": (
        lambda _: function("keras.src.saving.serialization_lib", "_retrieve_class_or_fn"),
        "'_retrieve_class_or_fn'",
    ),
    "the interpreter": (
        lambda canary: serialised("subprocess", "run", {"args": ["touch", canary]}),
        "subprocess.run",
    ),
    "a wrapper": (lambda _: serialised("keras.layers", "TimeDistributed", {}), "keras.layers.TimeDistributed"),
    "a custom layer": (
        lambda _: serialised(None, "Evil", {}, registered_name="Package>Evil"),
        "'Evil'",
    ),
    "a custom layer that poses as another": (
        lambda _: serialised("keras.layers", "Dense", {"units": 1}, registered_name="Package>Dense"),
        "keras.layers.Dense",
    ),
    "a registered name that is no text": (
        lambda _: serialised("keras.layers", "Dense", {"units": 1}, registered_name=["Dense"]),
        "keras.layers.Dense",
    ),
    "a custom function that poses as another": (
        lambda _: function("builtins", "relu", registered_name="Package>relu"),
        "builtins.function' 'relu'",
    ),
    "the shell": (lambda canary: serialised("os", "system", f"touch {canary}"), "os.system"),
    "the shell as a function": (lambda _: function("os", "system"), "os.function' 'system'"),
    "the shell as posix": (lambda _: function("posix", "system"), "posix.function"),
    "eval": (lambda canary: serialised("builtins", "eval", f"open({canary!r}, 'w')"), "builtins.eval"),
    "eval as a function": (lambda _: function("builtins", "eval"), "builtins.function' 'eval'"),
    "exec without a module": (lambda _: function(None, "exec"), "function' 'exec'"),
    "a harmless name without a module": (lambda _: function(None, "relu"), "function' 'relu'"),
    "a harmless name in another module": (lambda _: function("os", "relu"), "os.function' 'relu'"),
    "the loader": (lambda canary: function("keras.models", "load_model"), "keras.models.function' 'load_model'"),
    "the loader as a class": (
        lambda canary: serialised("keras.models", "load_model", {"filepath": canary}),
        "keras.models.load_model",
    ),
    "the downloader": (
        lambda canary: function("keras.utils", "get_file"),
        "keras.utils.function' 'get_file'",
    ),
    "the downloader as a class": (
        lambda canary: serialised("keras.utils", "get_file", {"fname": canary, "origin": "file:///etc/passwd"}),
        "keras.utils.get_file",
    ),
    "a function among the initializers": (
        lambda _: serialised("keras.initializers", "deserialize", {}),
        "keras.initializers.deserialize",
    ),
    "a function among the policies": (lambda _: serialised("keras", "dtype_policies", {}), "keras.dtype_policies"),
    "a switch": (lambda _: function("keras.config", "enable_unsafe_deserialization"), "enable_unsafe_deserialization"),
    "a type specification": (
        lambda _: {
            "class_name": "__typespec__",
            "spec_name": "system",
            "module": "os",
            "config": [],
            "registered_name": None,
        },
        "os.__typespec__",
    ),
    "an operation with a body": (lambda _: serialised("keras.src.ops.core", "Map", {}), "keras.src.ops.core.Map"),
    "an optimizer": (lambda _: serialised("keras.optimizers", "Adam", {}), "keras.optimizers.Adam"),
    "a model that is none": (lambda _: serialised("os", "Functional", {}), "os.Functional"),
    "a model by a near name": (lambda _: serialised("keras.models.os", "Functional", {}), "keras.models.os.Functional"),
    "an array of objects": (
        lambda _: {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}},
        "__numpy__",
    ),
    "a class name in a list": (lambda _: serialised("keras.layers", ["Dense"], {}), "Dense"),  # type: ignore[arg-type]
    "a module in a list": (lambda _: serialised(["keras.layers"], "Dense", {}), "Dense"),  # type: ignore[arg-type]
    "an object inside a harmless one": (
        lambda _: serialised("keras.layers", "Activation", {"activation": function("os", "system")}),
        "os.function' 'system'",
    ),
    "an object inside a model inside": (
        lambda _: serialised("keras", "Sequential", {"name": "s", "layers": [function("os", "system")]}),
        "os.function' 'system'",
    ),
}


def _as_activation(config: Any, item: Any) -> None:
    layer_of(config, "kinds")["config"]["activation"] = item


def _as_initializer_of_the_backbone(config: Any, item: Any) -> None:
    layer_of(config, "block3_sepconv1")["config"]["depthwise_initializer"] = item


def _as_layer(config: Any, item: Any) -> None:
    config["config"]["layers"].insert(2, item)


def _as_argument(config: Any, item: Any) -> None:
    layer_of(config, "pooled")["inbound_nodes"][0]["args"].append(item)


def _as_named_argument(config: Any, item: Any) -> None:
    layer_of(config, "pooled")["inbound_nodes"][0]["kwargs"]["mask"] = item


def _in_the_build_config(config: Any, item: Any) -> None:
    config["build_config"] = {"input_shape": item}


def _in_a_layers_build_config(config: Any, item: Any) -> None:
    layer_of(config, "kinds")["build_config"] = {"input_shape": [item]}


def _beside_the_configuration(config: Any, item: Any) -> None:
    config["extra"] = {"deep": [item]}


def _as_dtype(config: Any, item: Any) -> None:
    layer_of(config, "kinds")["config"]["dtype"] = item


PLACES = [
    _as_activation,
    _as_initializer_of_the_backbone,
    _as_layer,
    _as_argument,
    _as_named_argument,
    _in_the_build_config,
    _in_a_layers_build_config,
    _beside_the_configuration,
    _as_dtype,
]


@pytest.mark.parametrize("name", OBJECTS)
def test_refuses_every_object_that_is_not_known(name: str, config: Any, canary: Path, tmp_path: Path) -> None:
    make, match = OBJECTS[name]
    for number, place in enumerate(PLACES):
        spoiled = copy.deepcopy(config)
        place(spoiled, make(str(canary)))
        path = write_archive(str(tmp_path / f"{number}.keras"), spoiled)
        text = refused(path, "not among the layers that may be loaded; nothing of the file was executed")
        assert match in text, place.__name__
    assert not canary.exists()


@pytest.mark.parametrize("name", OBJECTS)
def test_refuses_it_as_the_model_itself(name: str, canary: Path, tmp_path: Path) -> None:
    item = OBJECTS[name][0](str(canary))
    refused(
        write_archive(str(tmp_path / "x.keras"), item), "holds|contains|has a configuration that Keras does not write"
    )
    assert not canary.exists()


def test_names_in_a_file_cannot_write_to_the_terminal(config: Any, tmp_path: Path) -> None:
    _as_activation(config, serialised("os\n\x1b[2Jerror: all is well", "x" * 1000, {}))
    text = refused(write_archive(str(tmp_path / "x.keras"), config), "contains 'os")
    assert "\x1b" not in text
    assert len(text) < 600
    layer_of(config, "kinds")["config"]["activation"] = "softmax"
    config["config"]["layers"] = config["config"]["layers"][:1]
    config["config"]["name"] = "x\r\x1b[2Jy"
    assert "\x1b" not in refused(write_archive(str(tmp_path / "x.keras"), config), "not an Xception")


def test_what_is_for_training_is_dropped_unseen(original: Any, tmp_path: Path, canary: Path, nested_file: str) -> None:
    """Optimizers and losses may be anything; Keras does not get to see them, nor those of nested models."""
    config = copy.deepcopy(original)
    evil = {
        "loss": function("os", "system"),
        "optimizer": serialised("builtins", "eval", f"open({str(canary)!r}, 'w')"),
    }
    config["compile_config"] = evil
    layer_of(config, "xception")["compile_config"] = evil
    path = str(tmp_path / "x.keras")
    with zipfile.ZipFile(nested_file) as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", json.dumps(config))
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
        target.writestr("assets/evil.py", b"raise SystemExit")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    open_archive(path).unpack(str(folder))
    assert sorted(os.listdir(folder)) == ["config.json", "model.weights.h5"]
    assert "compile_config" not in (folder / "config.json").read_text()
    layer_of(original, "xception").pop("compile_config", None)
    assert json.loads((folder / "config.json").read_text())["config"] == original["config"]
    assert not canary.exists()
    (folder / "model.weights.h5").unlink()


@pytest.mark.parametrize(
    "module", ["keras", "keras.models", "keras.src.models.functional", "keras.src.engine.functional"]
)
def test_models_are_known_by_all_their_modules(module: str, config: Any, tmp_path: Path) -> None:
    config["module"] = module
    opened = open_archive(write_archive(str(tmp_path / "x.keras"), config))
    assert opened._config["module"] == "keras.src.models.functional"


# Files that are no models, or damaged ones


def test_refuses_what_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    for content in (b"", b"PK\x03\x04", b"a text", bytes(4096)):
        path.write_bytes(content)
        refused(str(path), r"is not a .keras model \(a zip of config.json and model.weights.h5\)")


def test_refuses_a_zip_of_something_else(tmp_path: Path) -> None:
    path = str(tmp_path / "model.keras")
    for names in (["readme.txt"], ["config.json"], ["model.weights.h5"]):
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"{}")
        refused(path, "is not a .keras model")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_refuses_a_zip_that_ends_early(part: float, config: Any, tmp_path: Path) -> None:
    path = write_archive(str(tmp_path / "model.keras"), config)
    os.truncate(path, int(os.path.getsize(path) * part))
    refused(path, "is not a .keras model")


def test_refuses_a_configuration_whose_bytes_were_changed(config: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    write_archive(str(path), config)
    data = bytearray(path.read_bytes())
    data[data.index(b'"Functional"') + 1] ^= 0xFF
    path.write_bytes(data)
    refused(str(path), "is not a .keras model.*CRC")


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["empty", "text", "not UTF-8", "deep lists", "deep objects", "long number"],
)
def test_refuses_what_is_not_json(content: bytes, tmp_path: Path) -> None:
    refused(write_archive(str(tmp_path / "model.keras"), content), "is not a .keras model")


def _deep(levels: int) -> bytes:
    inner = '{"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": ['
    return (inner * levels + "]}}" * levels).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"class_name": "Functional", "module": "keras", "config": null}',
        b'{"class_name": "Functional", "module": "keras", "config": {"name": "x", "layers": []}}',
        b'{"class_name": "Sequential", "module": "keras", "config": {"name": "x", "layers": []}}',
        b'{"class_name": "Sequential", "module": "keras", "config": {"name": "x", "layers": [1, 2]}}',
        b'{"class_name": "Sequential", "module": "keras", "config": {"name": "x", "layers": {"a": {}}}}',
        b'{"class_name": "Model", "module": "keras", "config": {"name": "x", "layers": []}}',
        _deep(150),
    ],
)
def test_refuses_json_that_keras_does_not_write(content: bytes, tmp_path: Path) -> None:
    path = write_archive(str(tmp_path / "model.keras"), content)
    refused(
        path,
        "configuration that Keras does not write|neither a functional nor a sequential model|is not a .keras model",
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: layer_of(config, "pooled").pop("inbound_nodes"),
        lambda config: layer_of(config, "pooled")["inbound_nodes"][0].pop("args"),
        lambda config: layer_of(config, "pooled")["inbound_nodes"][0]["args"][0]["config"].update(keras_history=[1]),
        lambda config: layer_of(config, "pooled")["config"].pop("name"),
        lambda config: layer_of(config, "pooled")["config"].update(name="kinds"),
        lambda config: layer_of(config, "pooled").update(name="another"),
        lambda config: config["config"].update(output_layers=[["kinds"]]),
        lambda config: config["config"].update(output_layers=7),
        lambda config: layer_of(config, "block2_sepconv1")["config"].pop("filters"),
        lambda config: layer_of(config, "block2_sepconv1_bn")["config"].update(epsilon="small"),
    ],
)
def test_refuses_a_model_that_does_not_hang_together(spoil: Callable[[Any], None], config: Any, tmp_path: Path) -> None:
    spoil(config)
    refused(write_archive(str(tmp_path / "x.keras"), config), "has a configuration that Keras does not write")


STRANGE = [
    None,
    True,
    0,
    -1,
    float("inf"),
    10**30,
    "",
    "x",
    [],
    {},
    [[]],
    [None] * 3,
    [0, 1, 2],
    {"class_name": "Dense"},
]


def test_strange_values_anywhere_are_refused_or_do_not_matter(original: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)

    def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            yield (*path, key)
            yield from places(value[key], (*path, key))

    every = list(places(original))
    outer = [place for place in every if len(place) <= 5]
    outcomes = []
    for number in range(150):
        config = copy.deepcopy(original)
        of = outer if number % 2 else every
        place = of[random.integers(len(of))]
        item = config
        for key in place[:-1]:
            item = item[key]
        item[place[-1]] = copy.deepcopy(STRANGE[random.integers(len(STRANGE))])
        monkeypatch.setattr(archive, "_read_config", lambda _, config=config: config)
        try:
            open_archive("strange.keras")
            outcomes.append("taken")
        except ModelError:
            outcomes.append("refused")
    assert 30 < outcomes.count("refused") < 140


def test_refuses_other_kinds_of_files(keras: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "whole.h5")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(path)
    refused(path, r"is HDF5.*--weights .*can carry code.*load_model\(FILE\).save\('model.keras'\)")
    other = str(tmp_path / "renamed.keras")
    os.rename(path, other)
    refused(other, "is HDF5")
    os.mkfifo(tmp_path / "pipe")
    refused(str(tmp_path / "pipe"), "not a regular file")
    refused(str(tmp_path), "cannot read the model .*: Is a directory")
    refused(str(tmp_path / "missing.keras"), "no such model: ")


def test_names_the_reason_when_a_file_may_not_be_read(nested_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archive, "require_file", denied)
    refused(nested_file, "cannot read the model .*: Permission denied")


# Sizes


def declare(path: str, member: str, size: int) -> None:
    """Has a zip's table of contents say that a member is of another size."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    entry = data.rindex(member.encode())  # the last mention is the table's: the header is 46 bytes before it
    assert data[entry - 46 : entry - 42] == b"PK\x01\x02"
    struct.pack_into("<I", data, entry - 46 + 24, size)
    with open(path, "wb") as file:
        file.write(data)


def test_refuses_sizes_that_only_a_bomb_declares(config: Any, tmp_path: Path) -> None:
    path = write_archive(str(tmp_path / "model.keras"), config)
    declare(path, "model.weights.h5", 1 << 31)
    refused(path, "'model.weights.h5' would unpack to far more than a model")
    path = write_archive(str(tmp_path / "model.keras"), config)
    declare(path, "config.json", 1 << 31)
    refused(path, "'config.json' would unpack to far more")


def test_refuses_a_real_bomb_unopened(config: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", bytes(40 << 20))
    assert os.path.getsize(path) < 1 << 20
    refused(path, "'model.weights.h5' would unpack to far more")


def test_refuses_members_that_overlap(config: Any, tmp_path: Path) -> None:
    path = write_archive(str(tmp_path / "model.keras"), config)
    with zipfile.ZipFile(path) as file:
        (_, first), (name, _), *_ = sorted((one.filename, one.header_offset) for one in file.infolist())[::-1]
    data = bytearray(Path(path).read_bytes())
    entry = data.rindex(name.encode())
    struct.pack_into("<I", data, entry - 46 + 42, first + 1)
    Path(path).write_bytes(data)
    refused(path, "members whose data overlap")


def test_refuses_more_than_a_machine_should_unpack(
    nested_file: str, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MODEL_BYTES", 64 << 20)
    refused(nested_file, "would unpack to more than 0 GiB")
    monkeypatch.undo()
    monkeypatch.setattr(foreign, "_load", None)
    monkeypatch.setattr(archive, "MAX_CONFIG_BYTES", 1 << 10)
    refused(write_archive(str(tmp_path / "x.keras"), config), "configuration above 0 MiB")


def test_refuses_other_compressions(config: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", b"")
    refused(path, "'config.json' is compressed in a way that Keras does not use")


# Weights that reach out of their file


def _external_link(file: Any) -> None:
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/other.h5", "/x")


def _external_data(file: Any) -> None:
    file.create_dataset("layers/dense/vars/0", shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)])


def _shape(file: Any) -> None:
    file.create_dataset("layers/dense/vars/0", shape=(1 << 40,), dtype="f4")


@pytest.mark.parametrize(
    ("fill", "match"),
    [
        (_external_link, "'0' is a link"),
        (_external_data, "another file"),
        (_shape, "'0' declares"),
        (None, "not an HDF5"),
    ],
)
def test_refuses_weights_that_are_not_plain_arrays(
    fill: Callable[[Any], None] | None, match: str, config: Any, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.h5"
    if fill is None:
        weights.write_bytes(b"nothing")
    else:
        with h5py.File(weights, "w") as file:
            fill(file)
    path = str(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.write(weights, "model.weights.h5")
    refused(path, f"the weights in .* are refused: .*{match}")


def test_refuses_weights_whose_bytes_were_changed(config: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", np.arange(999.0).tobytes())
    with open(path, "r+b") as changed:
        data = changed.read()
        changed.seek(data.index(np.float64(500).tobytes()))
        changed.write(b"\x01")
    refused(path, "is damaged: .*CRC")


# Networks that are not one Xception


def test_refuses_other_networks_by_name(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    small = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(32, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)],
        name="tiny",
    )
    backbone = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), alpha=0.35)
    mobile = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), backbone, layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )
    for model, match in ((small, r"'tiny' \(4 layers\)"), (mobile, r"'mobilenetv2_0.35_96' \(1\d\d layers\)")):
        path = write_archive(str(tmp_path / "x.keras"), json.loads(model.to_json()))
        refused(path, match + ", which is not an Xception")
