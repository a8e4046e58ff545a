"""Graphs of models: the Xception in them, whatever stands around it, and what their outputs are."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.networks import SIZE, config_of, layer_of, write_archive
from xcli.core.errors import ModelError
from xcli.models import keras_graph as graphs
from xcli.models.architecture import layers
from xcli.models.keras_file import open_archive
from xcli.models.keras_graph import Graph, final_activation, find_backbones, has_classifier, read_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def original(nested_file: str) -> Any:
    return config_of(nested_file)


@pytest.fixture
def backbone(original: Any) -> Any:
    """The configuration of an Xception without top, to be changed."""
    return copy.deepcopy(layer_of(original, "xception"))


def found(config: Any) -> list[dict[str, str]]:
    return find_backbones(read_graph(config))


def test_finds_keras_own(backbone: Any) -> None:
    (names,) = found(backbone)
    assert list(names) == [layer.name for layer in layers()]
    assert all(names[name] == name for name in names if "residual" not in name and not name.endswith("_add"))


def _set(name: str, **values: Any) -> Callable[[Any], None]:
    return lambda config: layer_of(config, name)["config"].update(values)


def _kind(name: str, kind: str) -> Callable[[Any], None]:
    return lambda config: layer_of(config, name).update(class_name=kind)


def _add_thrice(config: Any) -> None:
    node = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Add")["inbound_nodes"][0]
    node["args"][0].append(node["args"][0][0])


def _skip_a_block(config: Any) -> None:
    block7, block8 = (layer_of(config, f"block{number}_sepconv1_act")["inbound_nodes"] for number in (7, 8))
    block8[:] = copy.deepcopy(block7)


@pytest.mark.parametrize(
    "change",
    [
        _set("block6_sepconv2", filters=512),
        _set("block6_sepconv2", kernel_size=[5, 5]),
        _set("block6_sepconv2", strides=[2, 2]),
        _set("block6_sepconv2", dilation_rate=[2, 2]),
        _set("block6_sepconv2", depth_multiplier=2),
        _set("block6_sepconv2", padding="valid"),
        _set("block6_sepconv2", use_bias=True),
        _set("block6_sepconv2", activation="relu"),
        _set("block6_sepconv2", data_format="channels_first"),
        _set("block1_conv1", groups=3),
        _set("block1_conv1", strides=[1, 1]),
        _set("block6_sepconv2_bn", epsilon=1e-5),
        _set("block6_sepconv2_bn", scale=False),
        _set("block6_sepconv2_bn", center=False),
        _set("block6_sepconv2_bn", axis=1),
        _set("block6_sepconv2_bn", renorm=True),
        _set("block6_sepconv2_act", activation="relu6"),
        _set("block6_sepconv2_act", activation="swish"),
        _set("block3_pool", pool_size=[2, 2]),
        _set("block3_pool", strides=[1, 1]),
        _set("block3_pool", padding="valid"),
        _kind("block3_pool", "AveragePooling2D"),
        _kind("block6_sepconv2", "Conv2D"),
        _kind("block6_sepconv2_bn", "LayerNormalization"),
        _add_thrice,
        _skip_a_block,
    ],
)
def test_a_network_that_computes_something_else_is_no_xception(
    change: Callable[[Any], None], backbone: Any, tmp_path: Path
) -> None:
    change(backbone)
    assert found(backbone) == []
    path = write_archive(str(tmp_path / "x.keras"), backbone)
    with pytest.raises(ModelError, match=r"holds 'xception' \(132 layers\), which is not an Xception"):
        open_archive(path)


@pytest.mark.parametrize(
    "change",
    [
        _set("block6_sepconv2_bn", momentum=0.9),
        _set("block6_sepconv2_bn", axis=[3]),
        _set("block6_sepconv2", trainable=False),
        _set("block6_sepconv2", kernel_regularizer={"class_name": "L2"}),
        _set("block6_sepconv2", activation=None),
        _kind("block6_sepconv2_act", "Relu"),
        lambda config: layer_of(config, "block6_sepconv2_act").update(
            class_name="ReLU",
            config={"name": "block6_sepconv2_act", "max_value": None, "negative_slope": 0.0, "threshold": 0.0},
        ),
    ],
)
def test_what_does_not_change_the_computation_does_not_matter(change: Callable[[Any], None], backbone: Any) -> None:
    change(backbone)
    assert len(found(backbone)) == 1


@pytest.mark.parametrize("limit", [{"max_value": 6.0}, {"max_value": 0.0}, {"negative_slope": 0.1}, {"threshold": 0.5}])
def test_a_rectifier_with_a_twist_is_another_function(limit: dict[str, float], backbone: Any) -> None:
    plain = {"name": "block6_sepconv2_act", "max_value": None, "negative_slope": 0.0, "threshold": 0.0}
    layer_of(backbone, "block6_sepconv2_act").update(class_name="ReLU", config=plain | limit)
    assert found(backbone) == []


def test_the_order_of_the_layers_in_the_file_does_not_matter(backbone: Any) -> None:
    backbone["config"]["layers"].reverse()
    assert len(found(backbone)) == 1


def test_look_alikes_beside_it_do_not_hide_it(backbone: Any) -> None:
    """A head that rectifies, convolves or pools what the network does in just the same way."""
    more = []
    for layer in backbone["config"]["layers"]:
        if layer["class_name"] in ("Activation", "MaxPooling2D", "SeparableConv2D"):
            twin = copy.deepcopy(layer)
            twin["name"] = twin["config"]["name"] = f"{layer['name']}_twin"
            more.append(twin)
    backbone["config"]["layers"] = more + backbone["config"]["layers"]
    (names,) = found(backbone)
    assert not any(name.endswith("_twin") for ours, name in names.items() if ours != "block14_sepconv2_act")


def test_the_search_has_an_end(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_STEPS", 100)  # fewer than the network has layers
    with pytest.raises(ValueError, match="too many layers look like"):
        found(backbone)


def _model(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> Any:
    return {
        "module": "keras",
        "class_name": "Functional",
        "config": {"name": name, "layers": nodes, "input_layers": inputs, "output_layers": outputs},
    }


def _node(name: str, kind: str, *sources: str, config: Any = None, **more: Any) -> Any:
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {"shape": [None], "dtype": "float32", "keras_history": [one, 0, 0]},
        }
        for one in sources
    ]
    args = tensors if len(tensors) < 2 else [tensors]
    return {
        "module": "keras.layers",
        "class_name": kind,
        "name": name,
        "config": {"name": name, **(config or {})},
        "inbound_nodes": [{"args": args, "kwargs": {}}] if sources else [],
        **more,
    }


def _around(backbone: Any, nodes: list[Any], output: str, call: int = 0) -> Any:
    backbone = {**copy.deepcopy(backbone), "name": "xception"}
    backbone["inbound_nodes"] = _node("", "", "image")["inbound_nodes"]
    return _model("outer", [_node("image", "InputLayer"), backbone, *nodes], ["image", 0, 0], [output, call, 0])


def test_refuses_two_of_them(backbone: Any, tmp_path: Path) -> None:
    second = copy.deepcopy(backbone)
    second["config"]["name"] = second["name"] = "second"
    second["inbound_nodes"] = _node("", "", "image")["inbound_nodes"]
    config = _around(backbone, [second, _node("both", "Concatenate", "xception", "second")], "both")
    with pytest.raises(ModelError, match="holds 2 Xception networks; a model with exactly one is needed"):
        open_archive(write_archive(str(tmp_path / "x.keras"), config))


def test_refuses_two_of_them_in_one_graph(backbone: Any, tmp_path: Path) -> None:
    text = json.dumps(backbone["config"]["layers"][1:])
    for layer in backbone["config"]["layers"][1:]:
        text = text.replace(f'"{layer["name"]}"', f'"other_{layer["name"]}"')
    backbone["config"]["layers"] += json.loads(text)
    with pytest.raises(ModelError, match="holds 2 Xception networks"):
        open_archive(write_archive(str(tmp_path / "x.keras"), backbone))


def test_refuses_several_inputs_or_outputs(backbone: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "x.keras")
    config = _around(backbone, [_node("age", "InputLayer"), _node("pooled", "Flatten", "xception")], "pooled")
    config["config"]["input_layers"] = [["image", 0, 0], ["age", 0, 0]]
    with pytest.raises(ModelError, match="has 2 inputs and 1 outputs"):
        open_archive(write_archive(path, config))
    config["config"]["input_layers"] = {"image": ["image", 0, 0]}
    config["config"]["output_layers"] = {"b": ["pooled", 0, 0], "a": ["xception", 1, 0]}
    with pytest.raises(ModelError, match="has 1 inputs and 2 outputs"):
        open_archive(write_archive(path, config))
    assert read_graph(config).outputs == (("xception", 0, 0), ("pooled", 0, 0)), "Keras sorts dictionaries by key"


# What the output is


def output_of(backbone: Any, nodes: list[Any], output: str, call: int = 0) -> tuple[bool, str]:
    graph = read_graph(_around(backbone, nodes, output, call))
    for one in graph.walk():
        for names in find_backbones(one):
            one.backbone.update(names)
    return has_classifier(graph), final_activation(graph)


POOL = _node("pool", "GlobalAveragePooling2D", "xception")


def dense(activation: Any, source: str = "pool", name: str = "dense") -> Any:
    return _node(name, "Dense", source, config={"activation": activation})


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([POOL, dense("linear")], (True, "linear")),
        ([POOL, dense(None)], (True, "linear")),
        ([POOL, dense("softmax")], (True, "softmax")),
        ([POOL, dense({"class_name": "function", "config": "sigmoid"})], (True, "sigmoid")),
        ([POOL, dense({"class_name": "Softmax", "config": {}})], (True, "softmax")),
        ([POOL, dense("log_softmax")], (True, "log_softmax")),
        ([POOL, dense("tanh")], (True, "tanh")),
        ([POOL, dense("softmax"), _node("end", "Dropout", "dense")], (True, "softmax")),
        ([POOL, dense("linear"), _node("end", "Softmax", "dense")], (True, "softmax")),
        (
            [POOL, dense("linear"), _node("end", "Activation", "dense", config={"activation": "softmax"})],
            (True, "softmax"),
        ),
        (
            [POOL, dense("softmax"), _node("end", "Activation", "dense", config={"activation": "linear"})],
            (True, "softmax"),
        ),
        ([POOL, dense("linear"), _node("end", "Sigmoid", "dense")], (True, "sigmoid")),
        ([POOL, dense("linear"), _node("end", "TrueDivide", "dense")], (True, "linear")),
        ([POOL, dense("softmax"), _node("end", "Multiply", "dense")], (True, "mixed")),
        ([POOL, dense("sigmoid"), _node("end", "Subtract", "dense")], (True, "mixed")),
        ([POOL, dense("softmax"), dense("linear", "dense", "end")], (True, "linear")),
        ([POOL, dense("linear"), _node("end", "BatchNormalization", "dense")], (True, "linear")),
        (
            [POOL, dense("softmax"), dense("softmax", name="two"), _node("end", "Average", "dense", "two")],
            (True, "softmax"),
        ),
        (
            [POOL, dense("softmax"), dense("linear", name="two"), _node("end", "Average", "dense", "two")],
            (True, "mixed"),
        ),
        ([POOL], (False, "linear")),
        ([POOL, _node("end", "Dropout", "pool")], (False, "linear")),
        ([_node("end", "Flatten", "xception")], (False, "linear")),
        (
            [
                _node("maps", "DepthwiseConv2D", "xception", config={"activation": None}),
                _node("end", "GlobalMaxPooling2D", "maps"),
            ],
            (True, "linear"),
        ),
    ],
)
def test_tells_classifiers_and_their_activation(nodes: list[Any], expected: tuple[bool, str], backbone: Any) -> None:
    assert output_of(backbone, nodes, nodes[-1]["name"]) == expected


def test_layers_before_the_xception_make_no_classifier(backbone: Any) -> None:
    config = _around(backbone, [_node("colour", "Conv2D", "image"), POOL], "pool")
    layer_of(config, "xception")["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "colour"
    graph = read_graph(config)
    graph.nodes[1].graph.backbone.update(found(backbone)[0])  # type: ignore[union-attr]
    assert not has_classifier(graph)


def test_sees_through_models(backbone: Any) -> None:
    top = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "top", "layers": [dense("softmax"), _node("last", "Identity")]},
    }
    for layer in top["config"]["layers"]:  # type: ignore[index]
        del layer["inbound_nodes"]
    top |= {"name": "top", "inbound_nodes": _node("", "", "pool")["inbound_nodes"]}
    assert output_of(backbone, [POOL, top], "top") == (True, "softmax")
    functional = _model("end", [_node("in", "InputLayer"), _node("out", "Flatten", "in")], ["in", 0, 0], ["out", 0, 0])
    functional |= {"name": "end", "inbound_nodes": _node("", "", "dense")["inbound_nodes"]}
    # As outputs of a model, calls of functional models are counted from one.
    assert output_of(backbone, [POOL, dense("sigmoid"), functional], "end", 1) == (True, "sigmoid")


def test_circles_come_to_an_end(backbone: Any) -> None:
    round_ = [POOL, _node("a", "Flatten", "b"), _node("b", "Flatten", "a")]
    assert output_of(backbone, round_, "b") == (False, "mixed")
    functional = _model("loop", [_node("in", "InputLayer")], ["in", 0, 0], ["in", 0, 0])
    functional |= {"name": "loop", "inbound_nodes": _node("", "", "loop")["inbound_nodes"]}
    with pytest.raises(ValueError, match="nested models form a circle"):
        output_of(backbone, [functional], "loop", 1)
    long = [POOL, *(_node(f"n{i}", "Flatten", f"n{i - 1}" if i else "pool") for i in range(3000))]
    assert output_of(backbone, long, "n2999") == (False, "mixed")


def test_a_missing_layer_is_an_error() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        Graph("empty", (), (), ()).node("nowhere")


def test_sizes_in_tests_suit_the_network() -> None:
    assert SIZE >= 71
