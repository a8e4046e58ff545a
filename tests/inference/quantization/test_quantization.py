"""A calibration as bytes, and as a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xcli.core.errors import ModelError, OutputError
from xcli.inference.quantization.depthwise import IntegerDepthwise
from xcli.inference.quantization.files import read_or_make, read_quantization
from xcli.inference.quantization.layers import IntegerLayer
from xcli.inference.quantization.quantization import Loss, Quantization, parse_quantization

LOSS = Loss(8, 0.999, 0.99, 0.98, 0.97, classes=True)


def made(value: float = 1.0) -> Quantization:
    vector = np.full(2, value, np.float32)
    weights, ones = np.array([[1, -127], [3, 4], [5, 6]], np.int8), np.ones(3, np.float32)
    depthwise = IntegerDepthwise(np.ones(2, np.float32), np.array([[1, 2, -3], [4, 5, 6]], np.int8), vector)
    layer = IntegerLayer(np.arange(2, dtype=np.int32), vector - 1, vector, weights, ones, ones, depthwise)
    layers = {"first": None, "second": layer}
    return Quantization({"weights": "random-0"}, {"size": 8}, 8, ("a.jpg", "b\x1b.jpg"), LOSS, layers)


def refuse(*_: Any) -> Quantization:
    raise AssertionError("it is there already")


def test_what_is_written_is_read() -> None:
    one = made()
    other = parse_quantization(one.content)
    assert (other.model, other.preprocessing, other.requested) == (one.model, one.preprocessing, one.requested)
    assert (other.images, other.loss) == (one.images, one.loss)
    assert other.layers.keys() == one.layers.keys()
    assert other.layers["first"] is None
    found, expected = other.layers["second"], one.layers["second"]
    assert found is not None
    assert expected is not None
    assert found.depthwise is not None
    assert expected.depthwise is not None
    for got, same, names in (
        (found, expected, ("source", "low", "step", "weights", "scale", "offset")),
        (found.depthwise, expected.depthwise, ("step", "weights", "scale")),
    ):
        for name in names:
            assert getattr(got, name).dtype == getattr(same, name).dtype
            assert np.array_equal(getattr(got, name), getattr(same, name))
    assert other.digest == one.digest
    assert made(2.0).digest != one.digest


def test_the_record_says_what_was_taken_and_what_it_loses() -> None:
    record = made().record()
    assert record["images"] == ["a.jpg", "b\x1b.jpg"]
    assert (record["integer_layers"], record["float_layers"]) == (1, 1)
    assert record["loss"]["agreement"] == 0.97
    assert json.loads(json.dumps(record)) == record


def test_every_truncation_is_noticed() -> None:
    content = made().content
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"."):
            parse_quantization(content[:length])
    with pytest.raises(ValueError, match="longer"):
        parse_quantization(content + b"\0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layers", [{"name": "a", "shape": [1 << 19, 1 << 19, 1 << 19]}]),
        ("layers", [{"name": "a", "shape": [-1, 4, 4]}]),
        ("layers", [{"name": "a", "shape": [3, 2, 2], "depthwise": [1 << 19, 1 << 19]}]),
        ("layers", "all"),
        ("loss", {}),
        ("loss", {"agreement": "much"}),
        ("images", [1]),
        ("requested", None),
    ],
)
def test_a_head_that_no_calibration_has_is_refused(name: str, value: Any) -> None:
    head, _, rest = made().content.partition(b"\n")
    changed = json.dumps({**json.loads(head), name: value}).encode() + b"\n" + rest
    with pytest.raises(ValueError, match=r"."):
        parse_quantization(changed)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_numbers_that_no_calibration_has_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="numbers"):
        parse_quantization(made(value).content)


def test_channels_that_no_calibration_has_are_refused() -> None:
    one = made()
    layer = one.layers["second"]
    assert layer is not None
    for changed in (
        replace(layer, source=np.array([0, -1], np.int32)),
        replace(layer, weights=np.ones((3, 3), np.int8)),
    ):
        with pytest.raises(ValueError, match="channels"):
            parse_quantization(replace(one, layers={"second": changed}).content)


def test_a_file_is_made_once(tmp_path: Path) -> None:
    name = str(tmp_path / "photos.int8")
    assert read_quantization(name) is None
    one = made()
    assert read_or_make(name, lambda: one) is one
    assert read_or_make(name, refuse).digest == one.digest
    assert [file.name for file in tmp_path.iterdir()] == ["photos.int8"]


def test_of_two_that_make_a_file_the_first_is_taken(tmp_path: Path) -> None:
    name = str(tmp_path / "photos.int8")
    first = made(2.0)

    def make() -> Quantization:
        read_or_make(name, lambda: first)
        return made()

    assert read_or_make(name, make).digest == first.digest
    assert [file.name for file in tmp_path.iterdir()] == ["photos.int8"]


@pytest.mark.parametrize("damage", ["truncated", "changed", "foreign", "empty", "directory"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "photos.int8"
    read_or_make(str(file), made)
    content = file.read_bytes()
    if damage == "directory":
        file.unlink()
        file.mkdir()
    else:
        changed = content[:-1] + bytes([content[-1] ^ 1])
        file.write_bytes({"truncated": content[:-9], "changed": changed, "foreign": b"GIF89a", "empty": b""}[damage])
    with pytest.raises(ModelError, match=r"photos\.int8.*remove it"):
        read_or_make(str(file), refuse)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        read_or_make(str(tmp_path / "missing" / "photos.int8"), made)
