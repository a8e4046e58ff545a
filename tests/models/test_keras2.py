"""Configurations of Keras 2, in the words of Keras 3. (`test_foreign` loads a whole one.)"""

from __future__ import annotations

import copy
from typing import Any

from tests.networks import config_of
from xcli.models.keras2 import upgrade_keras2_config


def _functional(layers: list[Any], outputs: Any) -> Any:
    return {
        "class_name": "Functional",
        "config": {"name": "m", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": outputs},
    }


def _layer(kind: str, name: str, *sources: list[Any], **config: Any) -> Any:
    return {
        "class_name": kind,
        "config": {"name": name, **config},
        "name": name,
        "inbound_nodes": [[[*source, {}] for source in sources]] if sources else [],
    }


def _sequential(name: str, *sources: list[Any]) -> Any:
    layer = _layer("Sequential", name, *sources, layers=[_layer("BatchNormalization", "bn", axis=[3])])
    del layer["config"]["layers"][0]["inbound_nodes"]
    return layer


def test_calls_of_nested_models_count_from_zero() -> None:
    model = _functional(
        [
            _layer("InputLayer", "in"),
            _sequential("body", ["in", 0, 0]),
            _layer("Dense", "head", ["body", 1, 0]),
            _layer("Add", "sum", ["head", 0, 0], ["body", 1, 0]),
        ],
        [["sum", 0, 0]],
    )
    upgrade_keras2_config(model)
    _, body, head, both = model["config"]["layers"]
    assert body["inbound_nodes"] == [[["in", 0, 0, {}]]]
    assert head["inbound_nodes"] == [[["body", 0, 0, {}]]]
    assert both["inbound_nodes"] == [[["head", 0, 0, {}], ["body", 0, 0, {}]]]
    assert body["config"]["layers"][0]["config"]["axis"] == 3
    assert model["config"]["output_layers"] == ["sum", 0, 0]
    assert model["config"]["input_layers"] == ["in", 0, 0]


def test_outputs_are_counted_as_keras_3_counts_them() -> None:
    """It takes one off for functional models, and leaves sequential ones alone."""
    sequential = _functional([_layer("InputLayer", "in"), _sequential("top", ["in", 0, 0])], [["top", 1, 0]])
    upgrade_keras2_config(sequential)
    assert sequential["config"]["output_layers"] == ["top", 0, 0]
    inner = _functional([_layer("InputLayer", "in"), _layer("Dense", "d", ["in", 0, 0])], [["d", 0, 0]])
    inner |= {"name": "m2", "inbound_nodes": [[["in", 0, 0, {}]]]}
    inner["config"]["name"] = "m2"
    functional = _functional([_layer("InputLayer", "in"), inner], [["m2", 1, 0]])
    upgrade_keras2_config(functional)
    assert functional["config"]["output_layers"] == ["m2", 1, 0]


def test_several_outputs_stay_several() -> None:
    layers = [_layer("InputLayer", "in"), _sequential("top", ["in", 0, 0]), _layer("Dense", "d", ["in", 0, 0])]
    listed = _functional(copy.deepcopy(layers), [["top", 1, 0], ["d", 0, 0]])
    upgrade_keras2_config(listed)
    assert listed["config"]["output_layers"] == [["top", 0, 0], ["d", 0, 0]]
    named = _functional(layers, {"a": ["top", 1, 0], "b": ["d", 0, 0]})
    upgrade_keras2_config(named)
    assert named["config"]["output_layers"] == {"a": ["top", 0, 0], "b": ["d", 0, 0]}


def test_separable_convolutions_lose_what_keras_3_does_not_know() -> None:
    layer = _layer("SeparableConv2D", "c", ["in", 0, 0], filters=3, groups=1, kernel_initializer={}, depth_multiplier=1)
    model = _functional([_layer("InputLayer", "in"), layer], [["c", 0, 0]])
    upgrade_keras2_config(model)
    assert layer["config"] == {"name": "c", "filters": 3, "depth_multiplier": 1}


def test_files_of_keras_3_stay_as_they_are(nested_file: str) -> None:
    config = config_of(nested_file)
    before = copy.deepcopy(config)
    upgrade_keras2_config(config)
    assert config == before
