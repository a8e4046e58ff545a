"""What `python -m benchmarks.gpu` measures, a section a process: `python -m benchmarks.gpu_sections NAME GIVEN`.

Each result goes to standard output as one line of JSON as soon as it is known.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_advice import MEMORY_COSINE
from benchmarks.gpu_commands import commands, repeat
from benchmarks.gpu_given import LOWER, Given, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


def precision(given: Given) -> None:
    """Compares each lower precision with float32: cosine of the features, and the best class."""
    import numpy as np

    pixels = _pixels(given, min(128, max(given.batches)))
    expected = _outputs(given, "float32", pixels)
    tell("processor's float32: largest difference", _difference(given, pixels, expected[0]), "of the largest value")
    # A processor has no more than this one; the same in another order of the batch then stands for it.
    for name in LOWER if given.device == "gpu" else ("float32",):
        found = _outputs(given, name, pixels[::-1])
        pairs = [(a, b[::-1]) for a, b in zip(expected, found, strict=True)]
        cosines = _cosines(*pairs[0])
        tell(f"{name}: lowest cosine", float(cosines.min()), "")
        tell(f"{name}: median cosine", float(np.median(cosines)), "")
        same = float((pairs[-1][0].argmax(1) == pairs[-1][1].argmax(1)).mean())
        tell(f"{name}: same best class", 100 * same, "%", real=given.classifier is not None)


def _outputs(given: Given, name: str, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features and scores in one precision.

    Without a classifier the scores are 1,000 random directions of the features.
    """
    import numpy as np

    if given.classifier is not None:
        scores, features = _engine(given, name, len(pixels), classify=True)(pixels)
        return features, scores
    (features,) = _engine(given, name, len(pixels))(pixels)
    head = np.random.default_rng(0).standard_normal((features.shape[1], 1000), np.float32)
    return features, (features - features.mean(0)) @ head


def _difference(given: Given, pixels: NDArray[np.uint8], expected: NDArray[np.float32]) -> float:
    """Largest difference of the device's float32 to the processor's over a few images; 1 is the largest value."""
    import numpy as np

    few = pixels[:8]
    (found,) = _engine(given, "float32", len(few), device="/CPU:0")(few)
    return float(np.abs(found - expected[: len(few)]).max() / np.abs(expected).max())


def _cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    import numpy as np

    a, b = first.astype(np.float64), second.astype(np.float64)
    cosines: NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines


def speed(given: Given) -> None:
    """Images a second of the network: pixels on the device; from host memory and back; with two batches at a time."""
    import tensorflow as tf

    from xcli.core.process import reuse_freed_memory

    reuse_freed_memory(one_pool=given.device == "cpu")  # as the command line does
    for batch in given.batches:
        pixels = _noise(given, batch)
        begin = time.perf_counter()
        engine = _engine(given, given.precision, batch)
        engine(pixels)
        tell(f"start, batches of {batch}", time.perf_counter() - begin, "s")
        with tf.device(given.tf_device):
            resident = tf.constant(pixels)
            rate = _rate(given, partial(engine._traced.function, resident), lambda found: found[0].numpy(), batch)
        tell(f"network alone, batches of {batch}", rate, "images/s")
        for streams in (1, 2, 3):
            rate = _threads_rate(given, partial(engine, pixels), streams) * batch
            tell(f"from memory and back, batches of {batch}, {streams} at a time", rate, "images/s")


def keras_predict(given: Given) -> None:
    """Images a second of `keras predict`, in float16 with float32 variables and as Keras comes."""
    import numpy as np

    from xcli.core.tensorflow import load_keras

    keras = load_keras()
    shape = (given.size, given.size, 3)
    policies = ("mixed_float16", "float32") if given.device == "gpu" else ("float32",)
    for batch, policy in product(given.batches, policies):
        keras.mixed_precision.set_dtype_policy(policy)
        model = keras.applications.Xception(include_top=False, weights=None, pooling="avg", input_shape=shape)
        few = max(2, 1024 // batch) if given.device == "gpu" else 2
        scaled = np.zeros((few * batch, *shape), np.float16 if policy == "mixed_float16" else np.float32)
        scaled[:] = np.random.default_rng(0).random(shape, np.float32) * 2 - 1
        predict = partial(model.predict, scaled, batch_size=batch, verbose=0)
        predict()
        begin = time.perf_counter()
        predict()
        tell(f"{policy}, batches of {batch}", len(scaled) / (time.perf_counter() - begin), "images/s")


def timm(given: Given) -> None:
    """Images a second of timm's `legacy_xception` with the pixels on the device: channels-last, as is and compiled."""
    import torch

    from benchmarks.peers.torchvision_shim import import_timm

    on_gpu = given.device == "gpu"
    device, dtype = (torch.device("cuda"), torch.float16) if on_gpu else (torch.device("cpu"), torch.float32)
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.automatic_dynamic_shapes = False
    model = import_timm().create_model("legacy_xception", num_classes=0).eval()
    model = model.to(device, dtype=dtype, memory_format=torch.channels_last)
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for batch in sorted(given.batches, reverse=True):
        images = torch.randn((batch, 3, given.size, given.size), device=device, dtype=dtype)
        images = images.contiguous(memory_format=torch.channels_last)
        for name, called in {"as is": model, **({"compiled": torch.compile(model)} if on_gpu else {})}.items():
            with torch.inference_mode():
                begin = time.perf_counter()
                called(images)
                wait()
                start = time.perf_counter() - begin
                rate = _rate(given, partial(called, images), lambda _: wait(), batch)
            tell(f"{name}, batches of {batch}", rate, "images/s", start=start)


def end_to_end(given: Given) -> None:
    """Images a second from files to Parquet, and of the same with next to no network: the host's share."""
    from xcli.core.process import processor_count, reuse_freed_memory
    from xcli.models.loader import load_model

    reuse_freed_memory(one_pool=given.device == "cpu")  # as the command line does
    model = load_model(weights=given.weights, include_top=False, image_size=given.size)
    for name, layer in (("host alone", "block1_conv1"), ("whole run", None)):
        tell(name, _run(given, model, layer), "images/s", cores=processor_count())


def _run(given: Given, model: Any, layer: str | None) -> float:
    """One run over the photographs; images a second from the first batch on."""
    from xcli.inference.options import RunOptions
    from xcli.inference.run import Run
    from xcli.inference.tasks import FeaturesTask
    from xcli.models.loader import preprocessing_for
    from xcli.outputs.options import Output
    from xcli.outputs.save import save
    from xcli.outputs.target import File
    from xcli.sources.listing import list_images
    from xcli.sources.options import SourceOptions

    times: list[tuple[float, int]] = []

    def on_batch(batch: Any) -> None:
        times.append((time.perf_counter(), len(batch.refs)))

    with list_images(SourceOptions(sources=(given.photographs,))) as listing:
        options = RunOptions(device=given.device, precision=given.precision, batch_size=min(given.batches))
        run = Run(listing, model, FeaturesTask(layer=layer), preprocessing_for(model), options)
        target = File(str(Path(given.scratch, "features.parquet")))
        save(run, Output("features", target, "parquet", overwrite=True), on_batch=on_batch)
    # The first batches were decoded while the network was compiled.
    skipped = min(8, len(times) // 4)
    images = sum(count for _, count in times[skipped + 1 :])
    return images / (times[-1][0] - times[skipped][0])


def memory(given: Given) -> None:
    """Fills the memory of the GPU, so that a batch no longer fits, and compares what comes out with the processor's."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    if given.device == "cpu":
        tell("back-off", None, note="only the memory of a GPU can be filled")
        return
    batch = min(given.batches)
    pixels = _noise(given, batch)
    (expected,) = _engine(given, "float32", 4, device="/CPU:0")(pixels[:4])
    limit = next(one.memory_limit for one in device_lib.list_local_devices() if one.name.endswith("GPU:0"))
    room = batch * _ROOM
    with tf.device(given.tf_device):
        used = tf.config.experimental.get_memory_info("GPU:0")["current"]
        ballast = [tf.zeros((1 << 26,), tf.float32) for _ in range((limit - used - room) // (1 << 28))]
    tell("memory filled", len(ballast) / 4, "GiB", left=room)
    # What is compiled anew for half a batch takes as long as the first time, so each step is told.
    logging.getLogger("xcli").addHandler(_Told())
    begin = time.perf_counter()
    engine = _engine(given, given.precision, batch)
    (found,) = engine(pixels)
    tell("first batch, all attempts together", time.perf_counter() - begin, "s")
    tell(f"images at a time, of {batch}", engine.computed_batch_size)
    tell(MEMORY_COSINE, float(_cosines(expected, found[:4]).min()))
    tell("finite", float(np.isfinite(found).all()))


class _Told(logging.Handler):
    """Tells each back-off of an engine."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(record.getMessage(), 1.0)


_ROOM = 4 << 20
"""Bytes of free memory for each image of a batch, which is less than it takes in float16."""


def finetune(given: Given) -> None:
    """Seconds and accuracy of `xception finetune` on the photographs and their mirror of colours."""
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        command = [sys.executable, "-m", "xcli", "finetune", given.training, "-o", f"{folder}/run"]
        command += ["--weights", given.weights, "--device", given.device, "--image-size", str(given.size)]
        command += ["--epochs", str(given.epochs), "--cache-dir", f"{folder}/cache"]
        on_cpu = given.device == "cpu"
        command += ["--unfreeze", "none"] if on_cpu else ["--unfreeze", "block13", "--head-epochs", str(given.epochs)]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"finetune ended with {done.returncode}:\n{done.stderr[-2000:]}")
        tell("whole command", time.perf_counter() - begin, "s")
        with open(Path(folder, "run", "history.csv"), encoding="utf-8", newline="") as file:
            best = max(float(row["val_accuracy"]) for row in csv.DictReader(file))
    tell("best accuracy on the validation part", 100 * best, "%")


def _engine(given: Given, name: str, batch: int, *, classify: bool = False, device: str | None = None) -> Any:
    from xcli.core.tensorflow import apply_precision
    from xcli.inference.engines.tensorflow import Engine
    from xcli.models.loader import load_model

    apply_precision(name)  # type: ignore[arg-type]
    weights = given.classifier if classify and given.classifier is not None else given.weights
    model = load_model(weights=weights, include_top=classify, image_size=given.size)
    model.network.prepare(name)  # type: ignore[arg-type]
    forward = model.scores(with_features=True) if classify else model.features("avg")
    return Engine(forward, size=given.size, batch_size=batch, device=device or given.tf_device)


def _pixels(given: Given, count: int) -> NDArray[np.uint8]:
    """Photographs, decoded."""
    import numpy as np
    from PIL import Image

    files = sorted(Path(given.photographs).iterdir())[:count]
    images = [Image.open(file).convert("RGB").resize((given.size, given.size)) for file in files]
    return np.stack([np.asarray(image) for image in images])


def _noise(given: Given, batch: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (batch, given.size, given.size, 3), np.uint8)


def _rate(given: Given, call: Callable[[], Any], wait: Callable[[Any], Any], batch: int) -> float:
    """Images a second of calls that may return before their work is done, which `wait` waits for."""
    for _ in range(3):
        wait(call())
    begin = time.perf_counter()
    wait(call())
    calls = max(2, round(given.seconds / 3 / (time.perf_counter() - begin)))

    def sample() -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            last = call()
        wait(last)
        return calls * batch / (time.perf_counter() - begin)

    return statistics.median([sample() for _ in range(3)])


def _threads_rate(given: Given, call: Callable[[], Any], streams: int) -> float:
    """Calls a second from so many threads at a time."""
    end = time.perf_counter() + given.seconds

    def work() -> int:
        count = 0
        while time.perf_counter() < end:
            call()
            count += 1
        return count

    begin = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        counts = [one.result() for one in [pool.submit(work) for _ in range(streams)]]
    return sum(counts) / (time.perf_counter() - begin)


SECTIONS: dict[str, Callable[[Given], None]] = {
    "precision": precision,
    "speed": speed,
    "timm": timm,
    "end-to-end": end_to_end,
    "commands": commands,
    "repeat": repeat,
    "finetune": finetune,
    "memory": memory,
    "keras": keras_predict,
}
"""Most valuable first."""


def main(name: str, given: str) -> None:
    """Runs one section."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    values = json.loads(given)
    SECTIONS[name](Given(**{**values, "batches": tuple(values["batches"])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
