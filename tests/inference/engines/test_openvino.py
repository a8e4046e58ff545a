"""The OpenVINO engine: what TensorFlow computes, kept in compiled form."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.networks import CLASSES, SIZE
from xcli.core.errors import ModelError, UsageError
from xcli.core.openvino import load_openvino
from xcli.core.process import has_bfloat16
from xcli.core.tensorflow import load_tensorflow
from xcli.inference.engines import openvino as module
from xcli.inference.engines.compiled_cache import CompiledCache
from xcli.inference.engines.openvino import OpenVinoEngines
from xcli.inference.engines.openvino_graph import settings
from xcli.inference.engines.tensorflow import Engine
from xcli.inference.options import RunOptions
from xcli.inference.predictor import Predictor
from xcli.inference.tasks import FeaturesTask
from xcli.models.labels import fit_labels
from xcli.models.loader import load_model, preprocessing_for
from xcli.models.network import AVG_POOL, LAST_MAP, ForwardPass, LoadedModel, PlainNetwork

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xcli.core.tensorflow import Precision
    from xcli.models.hdf5_weights import Weights

pytest.importorskip("openvino", reason="the extra [openvino] is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> CompiledCache:
    return CompiledCache(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def model(weights: Weights) -> LoadedModel:
    """Xception with its top, for small images."""
    return LoadedModel(
        name="Xception of the tests",
        path=None,
        digest="calibrated",
        network=PlainNetwork(weights),
        size=SIZE,
        input_range="xception",
        labels=fit_labels(None, CLASSES),
        output_name="predictions",
        activation="softmax",
        layer_names=("block4_sepconv1", "add_of_nothing", LAST_MAP, AVG_POOL),
    )


def engines(
    model: LoadedModel,
    forward: ForwardPass,
    cache: CompiledCache,
    batch_size: int = 8,
    precision: Precision = "float32",
) -> OpenVinoEngines:
    return OpenVinoEngines(model, forward, precision=precision, batch_size=batch_size, cache=cache)


def by_tensorflow(
    model: LoadedModel, forward: ForwardPass, pixels: NDArray[np.uint8], precision: Precision = "float32"
) -> tuple[NDArray[np.float32], ...]:
    model.network.prepare(precision)
    return Engine(forward, size=model.size, batch_size=len(pixels))(pixels)


def test_float32_is_what_keras_computes(
    model: LoadedModel, theirs: Any, keras: Any, pixels: NDArray[np.uint8], cache: CompiledCache
) -> None:
    found = engines(model, model.features("avg"), cache)
    maps = np.asarray(theirs(keras.applications.xception.preprocess_input(pixels.astype(np.float32))))
    (features,) = found.streams[0](pixels)
    assert found.output_shapes == ((2048,),)
    assert features.dtype == np.float32
    assert np.abs(features - maps.mean((1, 2))).max() < 1e-5
    assert features.std() > 0.05


def test_an_images_result_depends_neither_on_its_place_nor_on_others(
    model: LoadedModel, pixels: NDArray[np.uint8], cache: CompiledCache
) -> None:
    first, second = engines(model, model.features("avg"), cache).streams
    (whole,) = first(pixels)
    for part in (pixels[::-1], pixels[3:4], pixels[:5]):
        numbers = [int(np.flatnonzero((pixels == one).all((1, 2, 3)))[0]) for one in part]
        np.testing.assert_array_equal(second(part)[0], whole[numbers])
    with pytest.raises(UsageError, match="the engine takes up to 8 images"):
        first(np.concatenate([pixels, pixels]))


def test_scores_features_and_other_layers(model: LoadedModel, pixels: NDArray[np.uint8], cache: CompiledCache) -> None:
    for forward in (model.scores(with_features=True), model.features("max", "block4_sepconv1")):
        expected = by_tensorflow(model, forward, pixels)
        found = engines(model, forward, cache).streams[1](pixels)
        assert [one.shape for one in found] == [one.shape for one in expected]
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other).max() < 1e-4


@pytest.mark.slow
@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16 instructions")
def test_bfloat16_loses_no_more_than_tensorflow(
    model: LoadedModel, pixels: NDArray[np.uint8], cache: CompiledCache
) -> None:
    forward = model.features("avg")
    (exact,) = by_tensorflow(model, forward, pixels)
    (theirs,) = by_tensorflow(model, forward, pixels, "bfloat16")
    (ours,) = engines(model, forward, cache, precision="bfloat16").streams[0](pixels)
    assert not np.array_equal(ours, exact)
    assert np.abs(ours - exact).mean() < 1.5 * np.abs(theirs - exact).mean()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one unit", "rescaled"])
def test_models_of_others(
    kind: str, keras: Any, theirs: Any, pixels: NDArray[np.uint8], scratch: Path, cache: CompiledCache
) -> None:
    layers = keras.layers
    start = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(start) if kind == "rescaled" else start
    x = layers.Dropout(0.5)(layers.GlobalMaxPooling2D()(theirs(x, training=False)))
    if kind == "one unit":
        x = layers.Dense(1, activation="sigmoid")(layers.Dense(7, activation="gelu")(layers.LayerNormalization()(x)))
    else:
        x = layers.Dense(5)(layers.BatchNormalization()(x))
    keras.Model(start, x).save(scratch / "theirs.keras")
    loaded = load_model(model=str(scratch / "theirs.keras"))
    (expected,) = by_tensorflow(loaded, loaded.scores(), pixels)
    (found,) = engines(loaded, loaded.scores(), cache).streams[0](pixels)
    assert np.abs(found - expected).max() < 1e-5
    assert expected.std() > 1e-3


def test_nan_stays_nan(model: LoadedModel, pixels: NDArray[np.uint8], cache: CompiledCache) -> None:
    def forward(batch: Any) -> list[Any]:
        tf = load_tensorflow()
        (features,) = model.features("avg").function(batch)
        return [tf.where(features[:, :1] > 0, features, np.nan)]

    made = ForwardPass(forward, {"test": "nan"})
    expected = by_tensorflow(model, made, pixels)[0]
    found = engines(model, made, cache).streams[0](pixels)[0]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


def test_what_openvino_does_not_know_is_refused_by_name(model: LoadedModel, cache: CompiledCache) -> None:
    def forward(batch: Any) -> list[Any]:
        tf = load_tensorflow()
        return [tf.raw_ops.Lgamma(x=tf.cast(batch[:, 0, 0, :], tf.float32))]

    with pytest.raises(ModelError, match=r"cannot take Xception of the tests: it does not know .*Lgamma.*tensorflow"):
        engines(model, ForwardPass(forward, {"test": "unknown"}), cache)


def test_the_same_model_is_found_and_another_is_not(model: LoadedModel, cache: CompiledCache) -> None:
    def key(
        forward: ForwardPass, batch_size: int = 8, precision: Precision = "float32", quantization: Any = None
    ) -> str:
        made = object.__new__(OpenVinoEngines)
        made._model, made._forward, made._precision, made.batch_size = model, forward, precision, batch_size
        made._quantization = quantization
        return made.key

    passes = [model.features(None), model.features("avg"), model.features("avg", AVG_POOL)]
    passes += [model.scores(), model.scores(raw=True), model.scores(with_features=True)]
    keys = [key(one) for one in passes]
    keys += [key(passes[0], batch_size=1), key(passes[0], precision="bfloat16")]
    keys += [key(passes[0], precision="int8", quantization=SimpleNamespace(digest=one)) for one in ("1", "2")]
    assert len(set(keys)) == len(keys)
    assert key(model.features("avg")) == keys[1]


def test_a_kept_model_is_not_built_again_and_a_broken_one_is(
    model: LoadedModel, pixels: NDArray[np.uint8], cache: CompiledCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xcli")
    forward = model.features("avg")
    first = engines(model, forward, cache)
    (expected,) = first.streams[0](pixels)
    caplog.clear()
    assert engines(model, forward, cache).key == first.key
    assert "compiles" not in caplog.text
    broken = CompiledCache(Path(str(cache._folder)))
    broken.remove(first.key)
    built = module.CompiledModel(b"sound, but no model", {"outputs": ["Identity:0"], "batch_size": 8})
    broken.get(first.key, module._FACTS, lambda: built)
    (found,) = engines(model, forward, cache).streams[0](pixels)
    np.testing.assert_array_equal(found, expected)
    assert "OpenVINO does not read the compiled model" in caplog.text


# Options


def test_a_missing_extra_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
    monkeypatch.setattr("xcli.core.openvino.find_spec", lambda name: None)
    predictor = Predictor(model, FeaturesTask(), preprocessing_for(model), RunOptions(engine="openvino"))
    for act in (predictor.choose, lambda: predictor.foresee(4)):
        with pytest.raises(UsageError, match=r"needs OpenVINO; install it with: pip install 'xception-cli\[o"):
            act()


def test_a_gpu_is_refused(model: LoadedModel) -> None:
    options = RunOptions(engine="openvino", device="gpu")
    with pytest.raises(UsageError, match="--engine openvino computes on the CPU; received --device gpu"):
        Predictor(model, FeaturesTask(), preprocessing_for(model), options).choose()


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="--engine takes one of auto, tensorflow, openvino; received 'onnx'"):
        RunOptions(engine="onnx")


def test_the_number_of_threads_changes_no_bit(
    model: LoadedModel, pixels: NDArray[np.uint8], cache: CompiledCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = model.features("avg")
    (expected,) = engines(model, forward, cache).streams[0](pixels)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    assert settings("float32", streams=2)["INFERENCE_NUM_THREADS"] == 1
    np.testing.assert_array_equal(engines(model, forward, cache).streams[0](pixels)[0], expected)


def test_nothing_reports_its_use() -> None:
    """OpenVINO's converter sends a message to its maker when it is imported; it must not be."""
    code = (
        "import sys\nfrom xcli.core.openvino import load_openvino\nload_openvino().Core()\n"
        "print(sorted(name for name in sys.modules if 'telemetry' in name or 'tools.ovc' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert load_openvino() is load_openvino()
