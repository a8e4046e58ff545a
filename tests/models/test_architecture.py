"""The table of layers against the published numbers, and against Keras."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.networks import CLASSES
from xcli.models.architecture import FEATURE_WIDTH, IMAGE_SIZE, layers, output_sizes

PARAMETERS, TOP_PARAMETERS = 20_861_480, 2_049_000
AUTOMATIC = re.compile(r"(conv2d|batch_normalization|add|input_layer)(_\d+)?")


def test_the_table_has_the_published_number_of_parameters() -> None:
    assert sum(layer.parameters for layer in layers()) == PARAMETERS
    top = FEATURE_WIDTH * CLASSES + CLASSES
    assert top == TOP_PARAMETERS
    assert PARAMETERS + top == 22_910_480


def test_the_table_has_36_convolutions_in_14_blocks_and_four_shortcuts() -> None:
    trunk = [layer for layer in layers() if layer.kind in ("conv", "sepconv") and "residual" not in layer.name]
    assert len(trunk) == 36
    assert sum(layer.kind == "sepconv" for layer in trunk) == 34
    assert {layer.name.partition("_")[0] for layer in layers()} == {f"block{number}" for number in range(1, 15)}
    assert sum(layer.name.endswith("_residual_conv") for layer in layers()) == 4


def test_multiply_adds_of_one_image() -> None:
    sizes = output_sizes(IMAGE_SIZE)
    total = sum(layer.multiply_adds(sizes[layer.name], sizes[layer.name]) for layer in layers())
    # Counted by hand: the two convolutions of block 1, and the classifier that comes on top.
    assert layers()[0].multiply_adds(149, 149) == 149 * 149 * 3 * 3 * 3 * 32
    assert sizes["block1_conv2"] == 147
    assert total + FEATURE_WIDTH * CLASSES == pytest.approx(8.36e9, rel=1e-3)


@pytest.mark.parametrize("size", [71, 96, 150, 299])
def test_output_sizes_are_those_of_keras(theirs: Any, size: int) -> None:
    sizes = output_sizes(size)
    for layer, name in [(layer, layer.name) for layer in layers() if not AUTOMATIC.fullmatch(layer.name)]:
        if "residual" in name or layer.kind == "add":
            continue
        shape = theirs.get_layer(name).compute_output_shape((1, sizes[layer.inputs[0]], sizes[layer.inputs[0]], 3))
        assert shape[1:3] == (sizes[name], sizes[name]), name
