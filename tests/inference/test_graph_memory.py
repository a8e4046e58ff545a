"""What a traced graph takes is computed before it runs, and bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xcli.core.errors import ModelError
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.engines.tensorflow import Engine
from xcli.inference.graph_memory import HEAD_BYTES, effort, fitting_batch, peak_bytes
from xcli.models.loader import load_model

MIB = 1 << 20


def graph_of(function: Any, *shape: int) -> Any:
    tf = load_tensorflow()
    return tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph


def test_tensors_count_as_long_as_they_are_read() -> None:
    tf = load_tensorflow()
    number = 256 * 256 * 4

    def chain(x: Any) -> Any:
        for _ in range(8):
            x = tf.nn.relu(x)
        return tf.reduce_sum(x)

    def fan(x: Any) -> Any:
        return tf.add_n([tf.nn.relu(x) for _ in range(8)])

    assert peak_bytes(graph_of(chain, 256, 256)) == 2 * number
    assert peak_bytes(graph_of(fan, 256, 256)) == pytest.approx(9 * number, rel=0.3)
    scores = graph_of(lambda x: tf.reduce_sum(tf.nn.softmax(tf.linalg.matmul(x, x, transpose_b=True))), 4096, 2)
    assert peak_bytes(scores) >= 2 * 4096 * 4096 * 4, "what is within a layer counts too"


def enlarge(factor: int) -> Any:
    tf = load_tensorflow()

    def forward(pixels: Any) -> tuple[Any]:
        larger = tf.image.resize(tf.cast(pixels, tf.float32), (factor * 71, factor * 71), "nearest")
        return (tf.reduce_mean(larger, (1, 2)),)

    return forward


def test_an_image_that_is_too_large_inside_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"would take [0-9.]+ GiB for one image of 71 pixels"):
        Engine(enlarge(200), size=71, batch_size=2)


def test_a_batch_that_is_too_large_is_computed_in_pieces() -> None:
    engine = Engine(enlarge(30), size=71, batch_size=64)
    assert 1 < engine.computed_batch_size < 64
    pixels = np.random.default_rng(0).integers(0, 255, (3, 71, 71, 3), np.uint8)
    assert np.allclose(engine(pixels)[0], pixels.mean((1, 2)), rtol=1e-2)


@pytest.mark.parametrize(("size", "batch"), [(299, 16), (1_024, 1)])
def test_a_plain_network_is_far_from_the_limit(size: int, batch: int) -> None:
    model = load_model(weights="none", include_top=False, image_size=size)
    model.network.prepare("float32")
    engine = Engine(model.features("avg"), size=size, batch_size=batch)
    needed = peak_bytes(engine._traced.function.graph)
    assert needed < HEAD_BYTES
    assert fitting_batch(needed + 400 * MIB, batch, size, "/CPU:0") == batch


def test_the_batch_that_fits() -> None:
    plain = 48 * MIB
    assert fitting_batch(16 * (plain + 32 * MIB), 16, 299, "/CPU:0") == 16
    assert fitting_batch(16 * (plain + 64 * MIB), 16, 299, "/CPU:0") == 8
    assert fitting_batch(16 * (plain + 64 * MIB), 16, 299, "/GPU:0") == 16
    assert fitting_batch(16 * (plain + 900 * MIB), 16, 299, "/CPU:0") == 1
    assert fitting_batch(plain + 900 * MIB, 1, 299, "/CPU:0") == 0


def test_work_is_counted_from_shapes() -> None:
    tf = load_tensorflow()
    kernel = np.zeros((3, 3, 4, 8), np.float32)

    def layers(x: Any) -> Any:
        x = tf.nn.conv2d(x, kernel, 1, "SAME")
        x = tf.nn.depthwise_conv2d(x, np.zeros((5, 5, 8, 1), np.float32), (1, 1, 1, 1), "SAME")
        return tf.einsum("bhwc,cd->bhwd", x, np.zeros((8, 6), np.float32))

    pixels = 100 * 100
    exact = pixels * (9 * 4 * 8 + 25 * 8 + 8 * 6)
    found = effort(graph_of(layers, 1, 100, 100, 4))
    assert exact <= found <= exact + 32 * pixels * 4 * (8 + 8 + 8 + 6)


@pytest.mark.parametrize(
    ("shape", "target", "padded"),
    [((1, 30, 30, 3), (50, 50), (30, 30)), ((1, 5, 60, 3), (99, 50), (118, 60)), ((2, 60, 5, 3), (50, 99), (60, 118))],
)
def test_what_a_layer_pads_counts_at_least(
    keras: Any, shape: tuple[int, ...], target: tuple[int, int], padded: tuple[int, int]
) -> None:
    layer = keras.layers.Resizing(*target, pad_to_aspect_ratio=True)
    graph = graph_of(lambda x: layer(x), *shape)
    assert any(not tensor.shape.is_fully_defined() for one in graph.get_operations() for tensor in one.outputs)
    bytes_padded = 4 * shape[0] * padded[0] * padded[1] * 3
    assert bytes_padded <= peak_bytes(graph) <= 40 * 4 * shape[0] * max(shape) ** 2 * 3
    assert effort(graph) >= 32 * bytes_padded / 4


def test_an_image_that_is_padded_is_computed(keras: Any) -> None:
    layer = keras.layers.Resizing(71, 71, pad_to_aspect_ratio=True)
    engine = Engine(lambda pixels: (layer(pixels[:, :40]),), size=71, batch_size=16)
    assert engine.computed_batch_size == 16
    assert engine(np.full((2, 71, 71, 3), 7, np.uint8))[0].max() == 7


def test_a_size_that_cannot_be_told_is_refused() -> None:
    tf = load_tensorflow()

    def some(pixels: Any) -> tuple[Any]:
        return (tf.boolean_mask(pixels, pixels > 0),)

    def hidden(pixels: Any) -> tuple[Any]:
        return (tf.map_fn(lambda x: tf.tile(x, (1, 1, 1_000))[..., :3], pixels),)

    for function in (some, hidden):
        with pytest.raises(ModelError, match=r"an operation '[A-Za-z]+' whose size cannot be told before it runs"):
            Engine(function, size=71, batch_size=1)


def test_a_model_that_takes_too_long_for_an_image_is_refused() -> None:
    tf = load_tensorflow()

    def forward(pixels: Any) -> tuple[Any]:
        x = tf.tile(tf.cast(pixels, tf.float32), [1, 1, 1, 22])[..., :64]
        kernel = tf.constant(np.zeros((31, 31, 64, 64), np.float32))
        for _ in range(32):
            x = tf.nn.conv2d(x, kernel, 1, "SAME")
        return (tf.reduce_mean(x, (1, 2)),)

    with pytest.raises(ModelError, match=r"would take 6[0-9][0-9] billion operations for one image of 71 pixels"):
        Engine(forward, size=71, batch_size=1)
