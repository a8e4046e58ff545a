"""The folded forward pass against Keras, and the static batch."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import SIZE
from tests.thorough import slow
from xcli.core.errors import ModelError, UsageError
from xcli.core.process import has_bfloat16
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.engines.tensorflow import Engine, _Traced
from xcli.models.architecture import layers
from xcli.models.folded import INPUT_RANGES, Backbone, pool, scale_pixels
from xcli.models.hdf5_weights import random_weights, read_weights
from xcli.models.network import LAST_MAP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xcli.models.folded import Forward
    from xcli.models.hdf5_weights import Weights


def forward_of(backbone: Backbone, taps: Sequence[str], pooling: str | None = None) -> Forward:
    def forward(pixels: Any) -> list[Any]:
        found = backbone(scale_pixels(pixels, "xception", load_tensorflow().float32), taps)
        return [pool(found[tap], pooling) for tap in taps]

    return forward


@pytest.fixture(scope="module")
def backbone(weights: Weights) -> Backbone:
    return Backbone(weights, "float32")


@pytest.fixture(scope="module")
def maps(theirs: Any, keras: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The last maps of `pixels` by Keras, preprocessing included."""
    return np.asarray(theirs(keras.applications.xception.preprocess_input(pixels.astype(np.float32))))


def relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference, for values of the order of one."""
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


# Folding


@pytest.mark.parametrize(("pooling", "tolerance"), [("avg", 1e-5), ("max", 1e-4), (None, 1e-4)])
def test_folding_changes_nothing(
    backbone: Backbone, maps: NDArray[np.float32], pixels: NDArray[np.uint8], pooling: str | None, tolerance: float
) -> None:
    engine = Engine(forward_of(backbone, [LAST_MAP], pooling), size=SIZE, batch_size=len(pixels))
    (found,) = engine(pixels)
    expected = {None: maps, "avg": maps.mean((1, 2)), "max": maps.max((1, 2))}[pooling]
    assert found.dtype == np.float32
    assert engine.output_shapes == (expected.shape[1:],)
    assert np.abs(found - expected).max() < tolerance
    assert expected.std() > 0.05


def test_every_layer_can_be_tapped_and_gives_what_keras_gives(
    keras: Any, theirs: Any, ours: Any, backbone: Backbone, pixels: NDArray[np.uint8]
) -> None:
    names = [layer.name for layer in ours.layers[1:]]
    assert sorted(names) == sorted(layer.name for layer in layers())
    reference = keras.Model(theirs.input, [layer.output for layer in theirs.layers[1:]])
    image = pixels[:1]
    expected = reference(keras.applications.xception.preprocess_input(image.astype(np.float32)))
    found = Engine(forward_of(backbone, names), size=SIZE, batch_size=1)(image)
    for name, ours_, theirs_ in zip(names, found, expected, strict=True):
        assert ours_.shape == theirs_.shape, name
        assert relative(ours_, np.asarray(theirs_)) < 2e-5, name


def test_folding_suits_the_real_weights(keras: Any, real_weights: str, pixels: NDArray[np.uint8]) -> None:
    reference = keras.applications.Xception(weights=None, include_top=False)
    reference.load_weights(real_weights)
    expected = np.asarray(reference(pixels / np.float32(127.5) - np.float32(1)))
    backbone = Backbone(read_weights(real_weights, include_top=False), "float32")
    (found,) = Engine(forward_of(backbone, [LAST_MAP]), size=SIZE, batch_size=len(pixels))(pixels)
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found.mean((1, 2)) - expected.mean((1, 2))).max() < 1e-5


def test_a_tapped_convolution_is_not_the_folded_one(backbone: Backbone, pixels: NDArray[np.uint8]) -> None:
    taps = ["block1_conv1", "block1_conv1_bn"]
    found = Engine(forward_of(backbone, taps), size=SIZE, batch_size=1)(pixels[:1])
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_nothing_is_computed_beyond_the_last_tap(backbone: Backbone) -> None:
    tf = load_tensorflow()
    image = tf.zeros((1, SIZE, SIZE, 3))
    traced = tf.function(lambda x: backbone(x, ["block2_sepconv1"])["block2_sepconv1"]).get_concrete_function(image)
    kinds = [operation.type for operation in traced.graph.get_operations()]
    assert kinds.count("DepthwiseConv2dNative") == 2  # folded, and unfolded for its tap
    assert kinds.count("Conv2D") == 5  # two of block 1, the shortcut, and the same two


def test_works_on_other_sizes(theirs: Any, backbone: Backbone) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 71, 71, 3), np.uint8)
    (found,) = Engine(forward_of(backbone, [LAST_MAP]), size=71, batch_size=1)(image)
    expected = np.asarray(theirs(image / np.float32(127.5) - np.float32(1)))
    assert found.shape == (1, 3, 3, 2048)
    assert np.abs(found - expected).max() < 1e-4


def test_unknown_layers_are_not_passed_over(backbone: Backbone) -> None:
    with pytest.raises(AssertionError, match="block99"):
        backbone(load_tensorflow().zeros((1, SIZE, SIZE, 3)), ["block99"])


# Precision


def test_bfloat16_gives_nearly_the_same_features(
    weights: Weights, maps: NDArray[np.float32], pixels: NDArray[np.uint8]
) -> None:
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16 instructions")
    (found,) = Engine(forward_of(Backbone(weights, "bfloat16"), [LAST_MAP], "avg"), size=SIZE, batch_size=len(pixels))(
        pixels
    )
    expected = maps.mean((1, 2))
    assert found.dtype == np.float32
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
    assert np.abs(found - expected).max() > 1e-5, "computed in float32 after all"


def test_weights_that_a_precision_cannot_hold_are_named() -> None:
    weights = random_weights(include_top=False, classes=1, seed=0)
    weights["block3_sepconv1_bn/gamma"] = np.full(256, 1e6, np.float32)
    backbone = Backbone(weights, "float16")
    with pytest.raises(ModelError, match="'block3_sepconv1' are too large for --precision float16"):
        Engine(forward_of(backbone, [LAST_MAP]), size=SIZE, batch_size=1)


# Pixels


@pytest.mark.parametrize(
    ("input_range", "expected"), [("xception", [-1, 0, 1]), ("unit", [0, 0.5, 1]), ("raw", [0, 127.5, 255])]
)
def test_input_ranges(input_range: str, expected: list[float]) -> None:
    assert input_range in INPUT_RANGES
    tf = load_tensorflow()
    found = scale_pixels(tf.constant([0, 127.5, 255]), input_range, tf.float32)
    assert np.abs(found.numpy() - np.array(expected)).max() < 1e-6


def test_scales_like_keras(keras: Any) -> None:
    tf = load_tensorflow()
    levels = np.arange(256, dtype=np.uint8)
    found = scale_pixels(tf.constant(levels), "xception", tf.float32).numpy()
    expected = keras.applications.xception.preprocess_input(levels.astype(np.float32))
    assert np.abs(found - expected).max() < 1e-6


def test_unknown_input_ranges_are_refused() -> None:
    with pytest.raises(UsageError, match="xception, unit, raw; received 'imagenet'"):
        scale_pixels(load_tensorflow().zeros(3), "imagenet", "float32")


# The static batch


@pytest.fixture(scope="module")
def small(backbone: Backbone) -> Any:
    """An engine a batch size, for the average and the map; made once each."""
    engines: dict[int, Engine] = {}

    def make(batch_size: int) -> Engine:
        if batch_size not in engines:

            def forward(pixels: Any) -> list[Any]:
                x = scale_pixels(pixels, "xception", load_tensorflow().float32)
                last = backbone(x, [LAST_MAP])[LAST_MAP]
                return [pool(last, "avg"), pool(last, None)]

            engines[batch_size] = Engine(forward, size=71, batch_size=batch_size)
        return engines[batch_size]

    return make


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_an_image_gets_the_same_bits_wherever_it_stands(small: Any, batch_size: int) -> None:
    engine = small(batch_size)
    random = np.random.default_rng(batch_size)
    image = random.integers(0, 256, (71, 71, 3), np.uint8)
    alone = engine(image[None])
    assert [output.shape for output in alone] == [(1, 2048), (1, 3, 3, 2048)]
    for position in sorted({0, batch_size // 3, batch_size // 2, batch_size - 1}):
        batch = random.integers(0, 256, (batch_size, 71, 71, 3), np.uint8)
        batch[position] = image
        for found, expected in zip(engine(batch), alone, strict=True):
            assert np.array_equal(found[position], expected[0]), position


def test_embedded_constants_give_the_same_bits(small: Any, backbone: Backbone) -> None:
    captured = small(7)
    embedded = Engine(captured._forward, size=71, batch_size=7, embedded=True)
    images = np.random.default_rng(5).integers(0, 256, (7, 71, 71, 3), np.uint8)
    assert all(np.array_equal(a, b) for a, b in zip(embedded(images), captured(images), strict=True))
    assert not embedded._traced.function.captured_inputs
    assert captured._traced.function.captured_inputs


def test_a_short_batch_is_padded_and_cut(small: Any) -> None:
    engine = small(7)
    images = np.random.default_rng(1).integers(0, 256, (7, 71, 71, 3), np.uint8)
    full = engine(images)
    for count in (3, 1, 0):
        found = engine(images[:count])
        assert [len(output) for output in found] == [count, count]
        assert all(np.array_equal(a, b[:count]) for a, b in zip(found, full, strict=True))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((8, 71, 71, 3), "uint8"), ((2, 71, 72, 3), "uint8"), ((2, 71, 71, 1), "uint8"), ((2, 71, 71, 3), "float32")],
)
def test_other_pixels_are_refused(small: Any, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(UsageError, match=r"up to 7 images of uint8\[71, 71, 3\]; received " + dtype):
        small(7)(np.zeros(shape, dtype))


def test_a_batch_holds_at_least_one_image(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="must be positive; received 0"):
        Engine(forward_of(backbone, [LAST_MAP]), size=SIZE, batch_size=0)


# Memory back-off


class Starved:
    """Stands in for the traced function of a device that has room for so many images at a time."""

    def __init__(self, engine: Engine, room: int, error: Any) -> None:
        self.engine, self.room, self.error = engine, room, error
        self.tried: list[int] = []
        self._trace = engine._trace

    def __call__(self, batch_size: int) -> Any:
        function = self._trace(batch_size)

        def call(pixels: Any) -> Any:
            self.tried.append(batch_size)
            if batch_size > self.room:
                raise self.error
            return function(pixels)

        call.output_shapes = function.output_shapes  # type: ignore[attr-defined]
        return call


def starve(engine: Engine, monkeypatch: pytest.MonkeyPatch, room: int, error: Any = None) -> Starved:
    errors = load_tensorflow().errors
    stand_in = Starved(engine, room, error or errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore"))
    monkeypatch.setattr(engine, "_trace", stand_in)
    monkeypatch.setattr(engine, "_traced", _Traced(stand_in(engine.batch_size), engine.batch_size))
    return stand_in


def test_a_gpu_is_cold_until_its_first_batch_and_after_a_back_off(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, pixels = small(7), np.zeros((7, 71, 71, 3), np.uint8)
    starve(engine, monkeypatch, room=7)
    assert not engine.is_cold  # a processor's is ready
    monkeypatch.setattr(engine, "device", "/GPU:0")  # without one, TensorFlow computes on the processor
    assert engine.is_cold
    engine(pixels)
    assert not engine.is_cold
    starve(engine, monkeypatch, room=3)
    assert engine.is_cold
    engine(pixels)
    assert (engine.is_cold, engine.computed_batch_size) == (False, 3)


@pytest.mark.parametrize("count", [7, 6, 1])
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    small: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    engine = small(7)
    images = np.random.default_rng(2).integers(0, 256, (count, 71, 71, 3), np.uint8)
    expected = engine(images)
    starved = starve(engine, monkeypatch, room=2)
    for _ in range(2):
        found = engine(images)
        assert [len(output) for output in found] == [count, count]
        # Another shape may take another order of summation.
        assert all(relative(a, b) < 1e-5 for a, b in zip(found, expected, strict=True))
    assert (engine.computed_batch_size, engine.batch_size) == (1, 7)
    # 7, then 3, then singly; and it is remembered: the second call does not try more again.
    assert starved.tried == [7, 3] + [1] * (2 * count)
    assert [record.message for record in caplog.records] == [
        "out of memory with 7 images at a time; continuing with 3",
        "out of memory with 3 images at a time; continuing with 1",
    ]


def test_threads_that_run_out_of_memory_together_halve_once(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = small(7)
    images = np.random.default_rng(3).integers(0, 256, (7, 71, 71, 3), np.uint8)
    expected = engine(images)[0]
    starve(engine, monkeypatch, room=3)
    with ThreadPoolExecutor(4) as pool_:
        for found in pool_.map(lambda _: engine(images)[0], range(8)):
            assert relative(found, expected) < 1e-5
    assert engine.computed_batch_size == 3


def test_not_even_one_image_fits(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = small(7)
    starve(engine, monkeypatch, room=0)
    with pytest.raises(
        UsageError, match=r"not enough memory on /CPU:0 for one image of 71 pixels \(OOM when allocating\)"
    ):
        engine(np.zeros((2, 71, 71, 3), np.uint8))


@pytest.mark.parametrize(
    "message", ["Out of memory while trying", "CUDNN_STATUS_ALLOC_FAILED", "RESOURCE_EXHAUSTED: x"]
)
def test_xla_and_cudnn_say_it_in_words(small: Any, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    engine = small(7)
    starve(engine, monkeypatch, room=3, error=load_tensorflow().errors.InternalError(None, None, message))
    engine(np.zeros((7, 71, 71, 3), np.uint8))
    assert engine.computed_batch_size == 3


def test_another_error_of_the_device_is_not_lack_of_memory(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = load_tensorflow().errors
    engine = small(7)
    starve(engine, monkeypatch, room=3, error=errors.InternalError(None, None, "the card fell off the bus"))
    with pytest.raises(errors.InternalError, match="fell off"):
        engine(np.zeros((7, 71, 71, 3), np.uint8))


# Fused operations


@slow
def test_tensorflow_fuses_sums_and_activations_into_the_convolutions() -> None:
    """Its pass gives up over the whole graph where a Relu stands behind a sum; oneDNN's log shows what it was given."""
    done = subprocess.run([sys.executable, "-c", FUSED], capture_output=True, text=True, check=True)
    convolutions = [line for line in done.stdout.splitlines() if ",convolution," in line]
    if not convolutions:
        pytest.skip("TensorFlow does not use oneDNN here")
    assert sum("post-ops:eltwise_relu" in line for line in convolutions) >= 20
    assert sum("post-ops:sum" in line for line in convolutions) >= 8


FUSED = """
import os
os.environ["ONEDNN_VERBOSE"] = "1"
import numpy as np
from xcli.inference.engines.tensorflow import Engine
from xcli.models.folded import Backbone, scale_pixels
from xcli.models.hdf5_weights import random_weights
from xcli.core.tensorflow import load_tensorflow
tf = load_tensorflow()
backbone = Backbone(random_weights(include_top=False, classes=1, seed=0), "float32")
last = "block14_sepconv2_act"
forward = lambda pixels: [backbone(scale_pixels(pixels, "xception", tf.float32), [last])[last]]
Engine(forward, size=71, batch_size=2)(np.zeros((2, 71, 71, 3), np.uint8))
"""


# Devices

DEVICES = """
import numpy as np
from xcli.core.tensorflow import load_tensorflow
tf = load_tensorflow()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from xcli.inference.engines.tensorflow import Engine
from xcli.models.folded import Backbone, constant
from xcli.models.hdf5_weights import random_weights, read_weights
backbone = Backbone(random_weights(include_top=False, classes=1, seed=0), "float32")
kernel = np.ones((2048, 3), np.float32)
def forward(pixels):
    last = backbone(tf.cast(pixels, tf.float32), ["block14_sepconv2_act"])["block14_sepconv2_act"]
    return [tf.reduce_mean(last, (1, 2)) @ constant(kernel, tf.float32)]
engine = Engine(forward, size=71, batch_size=1, device="/CPU:1")
captured = engine._traced.function.captured_inputs
print(len(captured), {tensor.device.rpartition("/")[2] for tensor in captured})
print(engine(np.zeros((1, 71, 71, 3), np.uint8))[0].shape)
"""


@slow
def test_the_constants_live_on_the_engines_device() -> None:
    """Else a run on another device than the first would copy all of them for every batch."""
    done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, check=True)
    folded = [layer for layer in layers() if layer.kind in ("conv", "sepconv")]
    constants = sum(3 if layer.kind == "sepconv" else 2 for layer in folded) + 1
    assert done.stdout.split("\n")[:2] == [f"{constants} {{'device:CPU:1'}}", "(1, 3)"]
