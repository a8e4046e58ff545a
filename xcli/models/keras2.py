"""Upgrades the configuration of `.keras` files that Keras 2 wrote (TensorFlow 2.12 to 2.15), for Keras 3."""

from __future__ import annotations

from typing import Any

from xcli.models.keras_graph import MODELS

_PLAIN_CONVOLUTION_KEYS = ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")


def upgrade_keras2_config(model: dict[str, Any]) -> None:
    """Rewrites the configuration of a model and of its nested models in place; that of Keras 3 stays unchanged.

    Raises:
        KeyError, TypeError, AttributeError, IndexError: it is not a configuration that Keras writes.
    """
    config = model["config"]
    layers = config["layers"]
    nested = {layer["config"]["name"]: layer for layer in layers if layer["class_name"] in MODELS}
    old = any(isinstance(node, list) for layer in layers for node in layer.get("inbound_nodes", ()))
    for layer in layers:
        own = layer["config"]
        if layer["class_name"] in MODELS:
            upgrade_keras2_config(layer)
        elif layer["class_name"] == "BatchNormalization" and isinstance(own["axis"], list):
            (own["axis"],) = own["axis"]
        elif layer["class_name"] in ("SeparableConv1D", "SeparableConv2D"):
            for name in _PLAIN_CONVOLUTION_KEYS:
                own.pop(name, None)
        for node in layer.get("inbound_nodes", ()):
            # Keras 2 counts the construction of a model as its first call.
            for entry in node if isinstance(node, list) else ():
                if entry[0] in nested:
                    entry[1] -= 1
    if old:
        for key in ("input_layers", "output_layers"):
            # Keras 3 reads a list with one entry as several tensors.
            if len(config[key]) == 1:
                (config[key],) = config[key]
        for entry in _entries(config["output_layers"]):
            # Here Keras 3 counts in the same way, except for sequential models.
            if entry[0] in nested and nested[entry[0]]["class_name"] == "Sequential":
                entry[1] -= 1


def _entries(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [entry for item in value.values() for entry in _entries(item)]
    if len(value) == 3 and isinstance(value[0], str):
        return [value]
    return [entry for item in value for entry in _entries(item)]
