"""How long one waits for the first row: a whole process for one image, beside the bare import of TensorFlow.

With OpenVINO, if it is installed, for weights and for a bundle; their compiled models are in the cache.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import children
from benchmarks.timing import DIFFERENCE, Data, Save, alternate, compare, group, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.settings import Settings

OURS, BARE = "ours, one image to CSV", "python -c 'import tensorflow'"
OPENVINO = ("ours, --engine openvino", "ours, --engine openvino, a bundle")


def measure(settings: Settings, save: Save) -> Data:
    """Seconds from the start of a process to its end, with the image's row written as CSV."""
    image = str(min(Path(settings.photographs).iterdir()))
    with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
        own = [sys.executable, "-m", "xcli", "features", image, "--device", "cpu", "--quiet"]
        weights = ["--weights", settings.weights]
        commands = {OURS: (2, own + weights), BARE: (0, [sys.executable, "-c", "import tensorflow"])}
        if find_spec("openvino"):
            bundle = str(Path(scratch, "bundle"))
            children.run("benchmarks.start:make_bundle", settings, save, arguments={"folder": bundle})
            for row, model in zip(OPENVINO, (weights, ["--model", bundle]), strict=True):
                commands[row] = (2, [*own, *model, "--engine", "openvino"])

        def run(lines: int, command: Sequence[str]) -> float:
            with tempfile.TemporaryFile(dir=scratch) as out:
                passed = seconds(lambda: children.execute(command, stdout=out, extra={"XDG_CACHE_HOME": scratch}))
                out.seek(0)
                if sum(1 for _ in out) != lines:
                    raise click.ClickException(f"{' '.join(command[:4])} ... wrote other than {lines} lines")
            return passed

        def result(samples: dict[str, list[float]]) -> Data:
            pairs = [
                compare(f"{row} - {BARE}", samples[row], samples[BARE], kind=DIFFERENCE, unit="s")
                for row in commands
                if row != BARE
            ]
            return {"groups": [group("Start of a process, files cached", "s", samples, pairs)]}

        samplers = {row: lambda row=row: run(*commands[row]) for row in commands}
        for sample in samplers.values():  # so that the system has the files in its cache, and we compiled models
            sample()
        return result(alternate(samplers, settings.repeats * 2, lambda samples: save(result(samples))))


def make_bundle(settings: Settings, save: Save, folder: str) -> Data:
    """Writes a bundle of two classes with the backbone of the weights, in a process of its own."""
    import numpy as np

    from xcli.images.preprocessing import Preprocessing
    from xcli.models.architecture import FEATURE_WIDTH
    from xcli.models.backbone import SCALINGS
    from xcli.models.bundle import build_model, write_bundle
    from xcli.models.hdf5_weights import BIAS, KERNEL, read_weights

    weights = read_weights(settings.weights, include_top=False)
    weights |= {KERNEL: np.zeros((FEATURE_WIDTH, 2), np.float32), BIAS: np.zeros(2, np.float32)}
    Path(folder).mkdir()
    pixels = Preprocessing()
    write_bundle(folder, build_model(weights, 2, pixels.size, SCALINGS["xception"], 0.2), ("no", "yes"), pixels, {})
    return {}
