"""The network alone: pixels in memory to pooled features, beside Keras, OpenVINO and the machine's matrix products."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import installed
from benchmarks.timing import Data, Sampler, Save, alternate, compare, compare_all, fastest, group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.settings import Settings

IMAGES = 64
"""Images in a sample, at least."""

SQUARE = 2048
"""Side of the square matrices whose product stands for what the machine can do."""

_MATMUL_SECONDS = 0.4
_HINTS = ("LATENCY", "THROUGHPUT")
_OPENVINO_NAMES = {"float32": "f32", "bfloat16": "bf16"}


def multiply_adds(size: int = 299) -> int:
    """Multiply-accumulate operations that the network needs for one image of `size` x `size` pixels."""
    from xcli.models.architecture import layers, output_sizes

    sizes = output_sizes(size)
    return sum(layer.multiply_adds(sizes[layer.name], sizes[layer.name]) for layer in layers())


def main_shape(batch: int) -> tuple[int, int, int]:
    """Rows, inner side and columns of the product that the network spends most of its time in.

    It is the pointwise convolution of the middle blocks, for a batch of that many images.
    """
    from xcli.models.architecture import layers, output_sizes

    layer = next(layer for layer in layers() if layer.name == "block5_sepconv1")
    return batch * output_sizes(299)[layer.name] ** 2, layer.channels, layer.filters


def measure(settings: Settings, save: Save) -> Data:
    """Measures each batch size in turn; for a child process."""
    import numpy as np

    random = np.random.default_rng(0)
    groups: list[Data] = []
    for batch in settings.batch_sizes:
        pixels = random.integers(0, 256, (batch, 299, 299, 3), dtype=np.uint8)
        samplers, missing = _contestants(settings, batch, pixels)

        def data(samples: dict[str, list[float]], batch: int = batch, missing: dict[str, str] = missing) -> Data:
            title = f"Network alone, batches of {batch}"
            return group(title, "images/s", samples, comparisons(samples, settings.precisions, batch), missing=missing)

        def after(samples: dict[str, list[float]], data: Callable[..., Data] = data) -> None:
            save({"groups": [*groups, data(samples)]})

        groups.append(data(alternate(samplers, settings.repeats, after)))
    return {"groups": groups, "multiply_adds_per_image": multiply_adds()}


def ours(precision: str, streams: int) -> str:
    """Name of a contestant of ours."""
    return f"ours, {precision}, {streams} at a time"


def openvino(precision: str, hint: str) -> str:
    """Name of OpenVINO as a contestant."""
    return f"OpenVINO, {precision}, {hint.lower()}"


def product(precision: str, shape: Sequence[int]) -> str:
    """Name of a matrix product as a contestant."""
    return f"matrix product, {precision}, {dimensions(shape)}"


def dimensions(shape: Sequence[int]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape))


KERAS = "Keras predict, float32"


def comparisons(samples: dict[str, list[float]], precisions: Sequence[str], batch: int) -> list[Data]:
    """Our speed as the tool runs (several batches at a time) over everybody else's."""
    from xcli.inference.batch_size import STREAMS

    found = []
    for precision in precisions:
        tool = ours(precision, STREAMS)
        rival = fastest(samples, [openvino(precision, hint) for hint in _HINTS])
        if rival is not None:
            found += compare_all(samples, [(tool, rival)])
        found += compare_all(samples, [(tool, KERAS)])
        shapes = (("machine's rate", (SQUARE, SQUARE, SQUARE)), ("rate at the main shape", main_shape(batch)))
        for title, shape in shapes:
            name = product(precision, shape)
            if samples.get(tool) and samples.get(name):
                found.append(compare(f"{tool} / {title} ({dimensions(shape)})", samples[tool], samples[name]))
        found += compare_all(samples, [(tool, ours(precision, 1))])
    return found


def _contestants(settings: Settings, batch: int, pixels: Any) -> tuple[dict[str, Sampler], dict[str, str]]:
    """Samplers of images/s by name, and who is missing."""
    from xcli.core.tensorflow import load_keras
    from xcli.inference.batch_size import STREAMS

    keras = load_keras()
    samplers: dict[str, Sampler] = {}
    for precision in settings.precisions:
        engine = _engine(settings.weights, precision, batch)
        for streams in (1, STREAMS):
            samplers[ours(precision, streams)] = threaded(lambda engine=engine: engine(pixels), batch, streams)
    theirs = keras.applications.Xception(
        include_top=False, weights=settings.weights, pooling="avg", input_shape=(299, 299, 3)
    )
    scaled = keras.applications.xception.preprocess_input(pixels.astype("float32"))
    samplers[KERAS] = _keras(theirs, scaled, batch)
    missing = {} if "bfloat16" in settings.precisions else {"bfloat16": "this processor has no instructions for it"}
    if installed("openvino"):
        samplers |= _openvino(settings, theirs, scaled)
    else:
        missing["OpenVINO"] = "not installed"
    for precision in settings.precisions:
        for shape in ((SQUARE, SQUARE, SQUARE), main_shape(batch)):
            samplers[product(precision, shape)] = _matmul(precision, shape)
    return samplers, missing


def _engine(weights: str, precision: str, batch: int) -> Any:
    from xcli import load_model
    from xcli.inference.engines.tensorflow import Engine

    model = load_model(weights=weights, include_top=False)
    model.network.prepare(precision)  # type: ignore[arg-type]
    return Engine(model.features("avg"), size=299, batch_size=batch, embedded=True)  # as in a long run


def threaded(call: Callable[[], Any], batch: int, streams: int) -> Sampler:
    """Samples the images/s of a call that computes one batch, made from so many threads at a time."""
    calls = math.ceil(IMAGES / batch / streams)

    def work() -> None:
        for _ in range(calls):
            call()

    def sample() -> float:
        call()  # the caches are still the last contestant's
        with ThreadPoolExecutor(streams) as pool:
            begin = time.perf_counter()
            for done in [pool.submit(work) for _ in range(streams)]:
                done.result()
            return streams * calls * batch / (time.perf_counter() - begin)

    return sample


def _keras(model: Any, scaled: Any, batch: int) -> Sampler:
    import numpy as np

    images = np.concatenate([scaled] * math.ceil(IMAGES / batch))

    def sample() -> float:
        model.predict(scaled, batch_size=batch, verbose=0)
        begin = time.perf_counter()
        model.predict(images, batch_size=batch, verbose=0)
        return len(images) / (time.perf_counter() - begin)

    return sample


def _openvino(settings: Settings, keras_model: Any, scaled: Any) -> dict[str, Sampler]:
    """OpenVINO in each precision and with each hint, from the same model by way of a SavedModel."""
    import openvino as ov

    folder = str(Path(settings.scratch, "saved_model"))
    if not Path(folder).exists():
        keras_model.export(folder, format="tf_saved_model", verbose=False)
    core = ov.Core()
    model = core.read_model(folder)
    model.reshape(list(scaled.shape))
    samplers = {}
    for precision in settings.precisions:
        for hint in _HINTS:
            options = {"INFERENCE_PRECISION_HINT": _OPENVINO_NAMES[precision], "PERFORMANCE_HINT": hint}
            samplers[openvino(precision, hint)] = _queue(ov, core.compile_model(model, "CPU", options), scaled)
    return samplers


def _queue(ov: Any, compiled: Any, scaled: Any) -> Sampler:
    """Samples images/s with as many requests under way as OpenVINO itself finds best."""
    requests = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    queue = ov.AsyncInferQueue(compiled, requests)
    # Every request gets as many, or some would stand idle at the end.
    calls = requests * math.ceil(IMAGES / len(scaled) / requests)

    def compute(count: int) -> None:
        for _ in range(count):
            queue.start_async({0: scaled})
        queue.wait_all()

    def sample() -> float:
        compute(requests)
        begin = time.perf_counter()
        compute(calls)
        return calls * len(scaled) / (time.perf_counter() - begin)

    return sample


def _matmul(precision: str, shape: tuple[int, int, int]) -> Sampler:
    """Samples how many images/s the network would reach if all of it ran at the speed of one matrix product."""
    from xcli.core.tensorflow import load_tensorflow

    tf = load_tensorflow()
    rows, inner, columns = shape
    left = tf.cast(tf.random.stateless_normal((rows, inner), (1, 2)), precision)
    right = tf.cast(tf.random.stateless_normal((inner, columns), (3, 4)), precision)
    multiply = tf.function(lambda a, b: tf.matmul(a, b), autograph=False)

    def sample() -> float:
        multiply(left, right)
        calls, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < _MATMUL_SECONDS:
            multiply(left, right)
            calls += 1
        return calls * rows * inner * columns / multiply_adds() / passed

    return sample
