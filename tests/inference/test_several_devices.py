"""Several devices at once, of which a processor can be divided into as many as one likes: inference and training."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import save_photos
from tests.thorough import slow

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import json, sys
import numpy as np
from xcli.inference import predictor
from xcli.inference.predictor import Predictor
from xcli.training.freezing import cut_below
from xcli.models.hdf5_weights import KERNEL, random_weights
from xcli.inference.options import RunOptions
from xcli.inference.run import Run
from xcli.models.loader import load_model, preprocessing_for
from xcli.training.optimizer import StepOptions, TrainStep
from xcli.training.optimizer import Replicas
from xcli.core.tensorflow import load_tensorflow
from xcli.sources.listing import list_images
from xcli.sources.options import SourceOptions
from xcli.training.trainable import TrainableLayers
from xcli.inference.tasks import FeaturesTask
from xcli.training.trainer import Validator
from xcli.training.batches import RowSubset, ValidationSet

tf = load_tensorflow()
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
model = load_model(weights="none", include_top=False, image_size=71)
busy = set()


def run(devices):
    predictor.choose_devices = lambda request: devices
    listing = list_images(SourceOptions(sources=(sys.argv[1],)))
    run = Run(listing, model, FeaturesTask(), preprocessing_for(model), RunOptions(batch_size=2))
    run.start()
    compute = Predictor._compute

    def seen(self, engine, profile, batch):
        busy.add(engine.device)
        return compute(self, engine, profile, batch)

    Predictor._compute = seen
    rows = [row for _, rows in run.batches() for row in rows.to_pylist()]
    return rows, run


one, alone = run(("/CPU:0",))
busy.clear()
three, several = run(("/CPU:0", "/CPU:1", "/CPU:2"))

weights = random_weights(include_top=False, classes=1, seed=0)
rng = np.random.default_rng(0)
cut = cut_below("block14")
x = rng.normal(size=(4, 5, 2, 2, 1024)).astype(np.float16)
targets = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (4, 5))]
importance = np.array([1, 1, 2, 1, 0], np.float32)


def train(devices):
    replicas = Replicas(devices)
    with replicas.scope():
        tail = TrainableLayers(cut, weights, 3)
    options = StepOptions(label_smoothing=0.1, dropout=0.3, weight_decay=0.01, average=0.9)
    stepper = TrainStep(tail, options, 0, replicas)
    told = [stepper.step(x[step], targets[step], importance, 1e-3) for step in range(4)]
    state = stepper.state()
    again = TrainStep(tail, options, 0, replicas)
    again.restore(state)
    data = ValidationSet(RowSubset(x[0], np.arange(5)), np.zeros(5, int))
    scores = Validator(TrainableLayers(cut, weights, 3), data, 4).scores(again.averaged())
    return told, state, scores, {name: again.state()[name] for name in state}


told, state, scores, restored = train(["/CPU:0"])
told3, state3, scores3, restored3 = train(["/CPU:0", "/CPU:1", "/CPU:2"])
print(json.dumps({
    "paths": [row["path"] for row in one],
    "same rows": one == three,
    "busy": sorted(busy),
    "streams": len(several.predictor._engines.streams),
    "same provenance": alone.provenance("features") == several.provenance("features"),
    "loss": [[float(a), float(b)] for (a, _), (b, _) in zip(told, told3)],
    "right": [[int(a), int(b)] for (_, a), (_, b) in zip(told, told3)],
    "weights": max(float(np.abs(state[name] - state3[name]).max()) for name in state if not name.startswith("second")),
    "moved": float(np.abs(state3[f"weight:{KERNEL}"] - TrainableLayers(cut, weights, 3).weights()[KERNEL]).max()),
    "scores": float(np.abs(scores - scores3).max()),
    "restored": all(np.array_equal(state3[name], restored3[name]) for name in state3),
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("photos")
    save_photos(folder, [f"{number:02}.jpg" for number in range(25)])
    (folder / "07x.jpg").write_bytes(b"")
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@slow
def test_every_device_takes_part_and_the_rows_are_those_of_one(found: dict[str, Any]) -> None:
    assert found["busy"] == ["/CPU:0", "/CPU:1", "/CPU:2"]
    assert found["streams"] == 6
    assert len(found["paths"]) == 26
    assert found["paths"] == sorted(found["paths"])
    assert found["same rows"]
    assert found["same provenance"], "a run may go on with another number of devices"


@slow
def test_training_on_several_devices_is_that_on_one(found: dict[str, Any]) -> None:
    """Five examples on three devices: the sixth is padding."""
    for one, three in found["loss"]:
        assert three == pytest.approx(one, rel=1e-4)
    assert [one for one, _ in found["right"]] == [three for _, three in found["right"]]
    assert found["moved"] > 1e-4
    assert found["weights"] < 2e-5
    assert found["scores"] < 1e-4
    assert found["restored"]
